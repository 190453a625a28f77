"""The one constant of the synchrony metrics: how late the ear's detector is against the eye's, on true clips.

Any pair of detectors has a bias (an attack takes time to rise, a flash of contact falls between frames). Here it is
measured on the toybox's train split, stored beside this file with how it was measured, and subtracted. It is never
fitted on clips that are evaluated. `python -m sora2.metrics.detector_lag` measures it anew.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

_FILE = Path(__file__).with_name("detector_lag.json")


@dataclass(frozen=True)
class DetectorLag:
    """What was measured, on what."""

    lag_seconds: float  # onset heard - contact seen, of matched pairs, median
    jitter_seconds: float  # 1.48 median absolute deviation
    pairs: int
    clips: int
    source: str


@functools.cache
def load_detector_lag() -> DetectorLag:
    """The stored measurement."""
    return DetectorLag(**json.loads(_FILE.read_text()))


def measure_detector_lag(clips: int = 400, seed: int = 0) -> DetectorLag:
    """Median lag between the two detectors on `clips` train clips, pairs within 40 ms."""
    from sora2.metrics.evidence import Evidence
    from sora2.metrics.matching import match
    from sora2.toybox import Toybox, ToyboxConfig

    config = ToyboxConfig(seed=seed, split="train")
    box = Toybox(config)
    lags: list[float] = []
    for index in range(clips):
        evidence = Evidence(box.clip(index))
        seen = np.array([c.seconds for c in evidence.motion.contacts])
        rows, columns = match(seen, evidence.onsets.seconds, 0.040)
        lags += list(evidence.onsets.seconds[columns] - seen[rows])
    centre = float(np.median(lags))
    jitter = 1.4826 * float(np.median(np.abs(np.array(lags) - centre)))
    source = f"toybox train split, seed {seed}, scenes {', '.join(config.scenes)}, {config.fps:g} fps"
    return DetectorLag(round(centre, 6), round(jitter, 6), len(lags), clips, source)


if __name__ == "__main__":
    measured = measure_detector_lag()
    _FILE.write_text(json.dumps(asdict(measured), indent=2) + "\n")
    print(_FILE.read_text(), end="")
