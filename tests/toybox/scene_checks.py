"""What every scene promises, as checks that the tests of scenes share."""

import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from sora2.toybox import Toybox, attributes, mentions, whole_world
from sora2.toybox.scene import get_scene, met_combinations

_SCENES, _INDEX = ("bounce", "cradle", "occlude", "pendulum", "story", "strike", "street", "weather"), 3
_DIGESTS = (
    "import sys; sys.path.insert(0, sys.argv[1]); from scene_checks import _SCENES, digest;"
    "print(*(digest(scene) for scene in _SCENES))"
)


def digest(scene):
    """Of everything in one clip."""
    clip = Toybox(whole_world(scenes=(scene,))).clip(_INDEX)
    parts = clip.video.numpy().tobytes() + clip.audio.numpy().tobytes() + json.dumps(clip.meta).encode()
    return hashlib.sha256(parts).hexdigest()


@functools.cache
def _digests_elsewhere():
    env = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", _DIGESTS, str(Path(__file__).parent)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return dict(zip(_SCENES, run.stdout.split(), strict=True))


def check_reproducible(scene):
    """The same bytes after other clips and in another process with other threads; other clips differ."""
    box = Toybox(whole_world(scenes=(scene,)))
    first, other = box.clip(_INDEX), box.clip(_INDEX + 1)
    assert digest(scene) == _digests_elsewhere()[scene]
    assert not torch.equal(first.video, other.video) and not torch.equal(first.audio, other.audio)


def check_truth(scene, count=12):
    """Plain JSON, events in order within the clip, sound that never clips."""
    for clip in Toybox(whole_world(scenes=(scene,), height=16, width=16)).clips(range(count)):
        truth = clip.meta["truth"]
        assert json.loads(json.dumps(truth)) == truth
        onsets = [event["onset_seconds"] for event in truth["events"]]
        assert onsets == sorted(onsets) and all(0 <= t < truth["seconds"] for t in onsets)
        assert clip.audio.isfinite().all() and clip.audio.abs().max() < 0.95


def check_captions(scene, count=40):
    """All three lengths say every attribute."""
    for clip in Toybox(whole_world(scenes=(scene,), frames=1, height=16, width=16)).clips(range(count)):
        truth = clip.meta["truth"]
        for kind, text in truth["captions"].items():
            for name, value in attributes(truth).items():
                assert mentions(text, name, value), (kind, text, name, value)
            if "own_ambience" in truth:
                assert not mentions(text, "ambience", "silence"), text


def check_splits(scene, carriers, count=40):
    """Held-out combinations are in `test_compositional` alone; `carriers(parameters)` have the attributes."""
    for split in ("train", "test", "test_compositional"):
        config = whole_world(scenes=(scene,), split=split)
        for index in range(count):
            drawn = get_scene(scene).sample(config, index, {})
            met = met_combinations(carriers(drawn), get_scene(scene).held_out)
            assert bool(met) == (split == "test_compositional")


def check_shapes(scene):
    """Any size, rate and length."""
    config = whole_world(
        scenes=(scene,), frames=50, height=40, width=72, fps=10.0, sample_rate=22050, channels=1
    )
    clip = Toybox(config).clip(1)
    assert clip.video.shape == (50, 40, 72, 3) and clip.audio.shape == (1, 5 * 22050)
    low = Toybox(whole_world(scenes=(scene,))).clip(2).meta["truth"]
    high = (
        Toybox(whole_world(scenes=(scene,), height=128, width=128, fps=32, frames=66)).clip(2).meta["truth"]
    )
    assert low["events"] == high["events"]
    assert Toybox(whole_world(scenes=(scene,), frames=1)).clip(0).video.shape[0] == 1


def seen_at(truth, frame, x, y):
    """(column, row) of a world point in the picture, by the truth's camera."""
    camera = truth["camera"]
    side = min(truth["height"], truth["width"])
    scale = camera["zoom"][frame] * side
    return (
        (x - camera["x"][frame]) * scale + (truth["width"] - 1) / 2,
        (y - camera["y"][frame]) * scale + (truth["height"] - 1) / 2,
    )
