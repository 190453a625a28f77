"""Distances between the clips of a row and the real ones, on named features.

Numbers of different features, sample sizes or reference sets are not comparable with each other, and none of them is
comparable with a published FVD or FAD, whose features are others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.corpus import Corpus
from sora2.metrics.registry import corpus_metric
from sora2.metrics.statistics import members, resample
from sora2.metrics.values import MetricValue, Unmeasurable

Array = NDArray[np.float64]
Distance = Callable[[Array, Array], float]

#: Features on which sets are compared, and the weights that those of networks need.
FEATURES: dict[str, tuple[str, ...]] = {
    "motion": (),
    "flow_histogram": (),
    "colour_layout": (),
    "log_mel": (),
    "whisper_encoder": ("whisper-tiny-en",),
    "efficientnet_lite0": ("efficientnet-lite0",),
    "videomae": ("videomae",),
    "i3d": ("i3d",),
    "vggish": ("vggish",),
}
#: Fewer clips on either side give no estimate of a distance between distributions.
FEWEST_MMD = 8
#: A covariance needs more clips than it has dimensions, this many times.
FRECHET_CLIPS_PER_DIMENSION = 2
BOOTSTRAPS = 200


def mmd_squared(x: Array, y: Array, bandwidth: float) -> float:
    """Unbiased squared maximum mean discrepancy of samples (N, D) and (M, D), Gaussian kernel.

    Gretton et al., "A kernel two-sample test", JMLR 2012, lemma 6. It may be below zero: it is so half of the time
    for two samples of one distribution.
    """
    n, m = len(x), len(y)
    kxx, kyy, kxy = (
        np.exp(-squared_distances(a, b) / (2 * bandwidth**2)) for a, b in ((x, x), (y, y), (x, y))
    )
    within = (kxx.sum() - np.trace(kxx)) / (n * (n - 1)) + (kyy.sum() - np.trace(kyy)) / (m * (m - 1))
    return float(within - 2 * kxy.mean())


def median_distance(reference: Array) -> float:
    """Median distance between the samples of the reference: the bandwidth, which then does not depend on what is
    evaluated."""
    upper = np.triu_indices(len(reference), 1)
    distance = np.sqrt(squared_distances(reference, reference)[upper])
    return max(float(np.median(distance)), 1e-6)


def squared_distances(x: Array, y: Array) -> Array:
    """(N, M)"""
    return np.maximum((x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T, 0)


def frechet(x: Array, y: Array) -> float:
    """Frechet distance of the Gaussians fitted to (N, D) and (M, D): |a - b|^2 + tr(A + B - 2 (A B)^1/2).

    The root's trace is that of (A^1/2 B A^1/2)^1/2, symmetric, so its eigenvalues are real.
    """
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    return float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross)


def size_bias(
    x: Array, y: Array, distance: Callable[[Array, Array], float], seed: int = 0
) -> dict[str, float]:
    """The distance at a quarter and a half of the samples, mean of 8 draws: how much of it is sample size."""
    rng = np.random.default_rng(seed)
    found = {}
    n = min(len(x), len(y))
    for part in (4, 2):
        size = n // part
        if size > x.shape[1] + 1:
            draws = [
                distance(x[rng.permutation(len(x))[:size]], y[rng.permutation(len(y))[:size]])
                for _ in range(8)
            ]
            found[str(size)] = float(np.mean(draws))
    return {**found, str(n): distance(x, y)}


def extrapolated(by_size: dict[str, float]) -> float:
    """The distance at infinitely many samples, from a line in 1 / n (Chong and Forsyth, CVPR 2020)."""
    if len(by_size) < 2:
        return float("nan")
    inverse = np.array([1 / float(n) for n in by_size])
    return float(np.polyfit(inverse, np.array(list(by_size.values())), 1)[1])


def _both(corpus: Corpus, name: str, fewest: int) -> tuple[Array, Array]:
    """Features of the row and of the reference, in units of the reference's spread.

    Raises:
        Unmeasurable: too few clips have them.
    """
    x, y = corpus.features(name), corpus.features(name, of_reference=True)
    for which, found, all_ in (("clips", x, corpus.outcomes), ("reference clips", y, corpus.reference)):
        if len(found) < fewest:
            raise Unmeasurable(
                f"{len(found)} of {len(all_)} {which} have {name} features; {fewest} are needed"
            )
    centre, spread = y.mean(axis=0), y.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    return (x - centre) / spread, (y - centre) / spread


def _interval(x: Array, y: Array, corpus: Corpus, name: str, distance: Distance) -> list[float]:
    """95 % interval, percentile bootstrap over the captions of both sets.

    A drawn clip that occurs twice is at distance 0 from itself, which biases every distance upwards; the interval is
    moved back by that bias.
    """
    rng = np.random.default_rng(0)
    of_x, of_y = members(corpus.prompts(name)), members(corpus.prompts(name, of_reference=True))
    draws = [distance(x[resample(of_x, rng)], y[resample(of_y, rng)]) for _ in range(BOOTSTRAPS)]
    centre = distance(x, y)
    low, high = np.quantile(draws, (0.025, 0.975)) - (np.mean(draws) - centre)
    return [float(low), float(high)]


def _mmd_metric(name: str) -> Callable[[Corpus], MetricValue]:
    def measure(corpus: Corpus) -> MetricValue:
        x, y = _both(corpus, name, FEWEST_MMD)
        bandwidth = median_distance(y)

        def distance(a: Array, b: Array) -> float:
            return mmd_squared(a, b, bandwidth)

        details: dict[str, Any] = {
            "interval": _interval(x, y, corpus, name, distance),
            "clips": len(x),
            "reference_clips": len(y),
            "bandwidth": bandwidth,
        }
        return MetricValue(distance(x, y), "measured", details=details)

    measure.__module__ = __name__
    return measure


def _frechet_metric(name: str) -> Callable[[Corpus], MetricValue]:
    def measure(corpus: Corpus) -> MetricValue:
        dimensions = max(corpus.features(name).shape[-1], 1)
        x, y = _both(corpus, name, max(FEWEST_MMD, FRECHET_CLIPS_PER_DIMENSION * dimensions))
        by_size = size_bias(x, y, frechet)
        details: dict[str, Any] = {
            "interval": _interval(x, y, corpus, name, frechet),
            "clips": len(x),
            "reference_clips": len(y),
            "by_sample_size": by_size,
            "extrapolated": extrapolated(by_size),
        }
        return MetricValue(frechet(x, y), "measured", details=details)

    measure.__module__ = __name__
    return measure


for _name, _weights in FEATURES.items():
    corpus_metric(
        f"mmd_{_name}",
        unit="",
        direction="lower",
        features=(_name,),
        compares=True,
        weights=_weights,
        description=f"Unbiased squared MMD of the {_name} features, Gaussian kernel, bandwidth of the reference; "
        "around 0, either sign, for equal distributions.",
    )(_mmd_metric(_name))
    corpus_metric(
        f"frechet_{_name}",
        unit="",
        direction="lower",
        features=(_name,),
        compares=True,
        weights=_weights,
        description=f"Frechet distance of the {_name} features; grows as the sample shrinks, see by_sample_size.",
    )(_frechet_metric(_name))
