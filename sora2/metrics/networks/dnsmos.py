"""DNSMOS P.835 (Reddy et al. 2022): opinion scores of speech, its background and both, of a network on 9.01 s."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.weights import find_weights

#: Samples at 16 kHz that the network takes.
LENGTH = 144160
#: Raw outputs (signal, background, overall) to opinion scores: the polynomials published with the network.
CURVES = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


def opinion_scores(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """(3,) scores 1 to 5 of signal, background and overall of (S,) at 16 kHz.

    As published: a shorter sound is repeated to 9.01 s; of a longer one the mean over windows a second apart.
    """
    looped = np.resize(sound, LENGTH) if len(sound) < LENGTH else sound
    starts = range(0, len(looped) - LENGTH + 1, 16000)
    raw = np.concatenate(
        [
            _session(find_weights("dnsmos")).run(None, {"input_1": looped[None, s : s + LENGTH]})[0]
            for s in starts
        ]
    )
    return np.array([np.polyval(c, raw[:, k]).mean() for k, c in enumerate(CURVES)])


@functools.lru_cache(maxsize=1)
def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # clips are spread over processes
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
