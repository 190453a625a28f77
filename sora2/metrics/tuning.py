"""How well struck notes are in tune with a known score, in cents."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.types import Clip

#: Of a note: from just after its strike to its end, or the next strike.
SKIP_SECONDS, LONGEST_SECONDS, SHORTEST_SECONDS = 0.005, 0.25, 0.09
#: How far off the peak is looked for; a semitone is 100 cents, and the next bar may be one away.
REACH_CENTS = 60.0
#: A note whose peak is less than this over the median of the spectrum around is not heard: 12 dB.
PROMINENCE = 4.0


def note_errors(clip: Clip, truth: dict[str, Any]) -> list[float]:
    """Cents by which each note of a `strike` truth sounds too high (positive) or too low.

    The note's fundamental is the highest peak within `REACH_CENTS` of its frequency in the spectrum from the strike to
    the next one, refined by the parabola through the logarithm of the bins around it. NaN: notes followed by another
    within `SHORTEST_SECONDS`, which is too short to tell a semitone, and notes whose pitch is not heard.
    """
    notes = [event for event in truth["events"] if event["kind"] == "note"]
    sound = clip.audio.numpy().astype(np.float64)
    errors = []
    for note, following in zip(notes, [*notes[1:], None], strict=True):
        start = note["onset_seconds"]
        end = sound.shape[1] / clip.sample_rate if following is None else following["onset_seconds"]
        first = round((start + SKIP_SECONDS) * clip.sample_rate)
        last = round(min(end, start + LONGEST_SECONDS) * clip.sample_rate)
        long_enough = last - first >= SHORTEST_SECONDS * clip.sample_rate
        errors.append(
            _cents(sound[:, first:last], clip.sample_rate, note["hz"]) if long_enough else float("nan")
        )
    return errors


def _cents(sound: NDArray[np.float64], sample_rate: int, hertz: float) -> float:
    """Cents of the peak near `hertz` in (channels, S); NaN where it does not stand out."""
    size = 1 << (4 * sound.shape[1] - 1).bit_length()  # zero-padded to a finer grid
    window = np.hanning(sound.shape[1])
    power = (np.abs(np.fft.rfft(sound * window, size, axis=1)) ** 2).sum(axis=0)
    bins = hertz * size / sample_rate
    low, high = (round(bins * 2 ** (side * REACH_CENTS / 1200)) for side in (-1, 1))
    peak = low + int(power[low : high + 1].argmax())
    around = power[max(1, int(bins / 1.5)) : int(bins * 1.5)]
    if peak in (low, high) or power[peak] < PROMINENCE**2 * np.median(around):
        return float("nan")
    a, b, c = np.log(power[peak - 1 : peak + 2] + 1e-30)
    place = peak + 0.5 * (a - c) / (a - 2 * b + c)
    return float(1200 * np.log2(place / bins))
