"""The `sora2` command: one name, one module per subcommand, errors for people.

`sora2 train` takes Hydra overrides; every other command takes ordinary flags (`sora2 COMMAND --help`).
"""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from sora2.errors import UserError
from sora2.processes import keep_freed_memory

#: command -> (module, what it does). Modules are imported only when their command runs.
COMMANDS = {
    "toybox": ("sora2.commands.toybox", "generate shards of the procedural audio-video world"),
    "ingest": ("sora2.commands.ingest", "cut a folder of videos into shards of clips"),
    "encode": ("sora2.commands.encode", "precompute codec latents and text embeddings of shards"),
    "inspect": ("sora2.commands.inspect", "decode a shard back to mp4s and contact sheets"),
    "train": (
        "sora2.commands.train",
        "train a transformer, a codec or the attribute readers (Hydra overrides)",
    ),
    "export": ("sora2.commands.export", "weights for inference from any checkpoint of a run"),
    "sample": ("sora2.commands.sample", "generate clips from a checkpoint"),
    "evaluate": ("sora2.commands.evaluate", "measure generated or real clips"),
    "calibrate": ("sora2.commands.calibrate", "test the metrics by controlled corruption"),
    "compare": ("sora2.commands.compare", "compare two evaluations, clip by clip"),
    "study": ("sora2.commands.study", "train and measure the cells of an ablation"),
    "evaluate-codec": ("sora2.commands.evaluate_codec", "measure the reconstruction of the codecs"),
    "evaluate-readers": (
        "sora2.commands.evaluate_readers",
        "measure the attribute readers of the prompt metrics",
    ),
    "doctor": ("sora2.commands.doctor", "print the environment and the attention backends"),
}

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def usage() -> str:
    lines = [f"  {name:<18}{what}" for name, (_, what) in COMMANDS.items()]
    return "usage: sora2 COMMAND [options]\n\ncommands:\n" + "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit code; a `UserError` is printed without traceback and gives 2."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else EXIT_ERROR
    name, *rest = argv
    if name not in COMMANDS:
        print(f"sora2: unknown command {name!r}\n\n{usage()}", file=sys.stderr)
        return EXIT_ERROR
    keep_freed_memory()
    try:
        return importlib.import_module(COMMANDS[name][0]).main(rest)
    except UserError as error:
        print(f"sora2 {name}: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(f"\nsora2 {name}: interrupted; finished shards and checkpoints are kept", file=sys.stderr)
        return EXIT_INTERRUPTED


class CommandError(UserError):
    """A command that ran in a process of its own failed; what it said is on the screen."""


def run_apart(*words: object, folder: Path | None = None) -> None:
    """`sora2 WORDS` in a process of its own, in `folder`, with its output on the screen line by line.

    Raises:
        CommandError: it did not exit with 0.
    """
    command = [str(w) for w in words]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-m", "sora2.cli", *command], env=environment, cwd=folder)
    if done.returncode:
        raise CommandError(f"`sora2 {shlex.join(command)}` failed with exit code {done.returncode}")


if __name__ == "__main__":
    raise SystemExit(main())
