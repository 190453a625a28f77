"""Training from latents needs no codecs of films: a GPU machine may have none."""

import subprocess
import sys

ABSENT = ("av", "decord", "soundfile", "wandb", "xformers", "pyloudnorm")


def test_training_imports_none_of_the_packages_that_read_films():
    program = f"""
import sys
for name in {ABSENT}:
    sys.modules[name] = None
import sora2.commands.train, sora2.train.run, sora2.train.step, sora2.data.loader
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
