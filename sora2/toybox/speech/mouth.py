"""From phonemes to the mouth: how far it opens and how wide it is, at any instant, exactly.

Every IPA letter has a target; a target holds while its phoneme sounds and passes smoothly into the next, which is
the idea of dominance functions (Cohen and Massaro 1993) in its simplest form: the piecewise constant targets
convolved with a Gaussian. The curve is therefore known in closed form. Lips that must meet (b, m, p) or nearly
meet (f, v) close on top of that, so that a short phoneme between two open vowels still shuts the mouth.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import erf

from sora2.toybox.speech.backend import Span, SpeechError

#: IPA letter -> (opening 0 shut to 1 wide open, width 0 rounded to 1 spread).
TARGETS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        **dict.fromkeys("aɑɐ", (1.0, 0.55)),
        "æ": (0.95, 0.8),
        "ʌ": (0.75, 0.5),
        "ɒ": (0.85, 0.25),
        "ɔ": (0.8, 0.2),
        **dict.fromkeys("eɛ", (0.65, 0.8)),
        "ə": (0.45, 0.5),
        **dict.fromkeys("ɚɜɝ", (0.45, 0.3)),
        **dict.fromkeys("ɪᵻ", (0.42, 0.8)),
        "i": (0.36, 1.0),
        "o": (0.6, 0.08),
        "ʊ": (0.36, 0.1),
        "u": (0.3, 0.0),
        **dict.fromkeys("bmp", (0.0, 0.5)),
        **dict.fromkeys("fv", (0.12, 0.6)),
        **dict.fromkeys("θð", (0.22, 0.55)),
        **dict.fromkeys("tdnlɾɫ", (0.24, 0.6)),
        **dict.fromkeys("sz", (0.16, 0.8)),
        **dict.fromkeys("ʃʒ", (0.22, 0.15)),
        **dict.fromkeys("kɡgŋ", (0.3, 0.5)),
        **dict.fromkeys("hʔ", (0.45, 0.5)),
        **dict.fromkeys("ɹr", (0.28, 0.2)),
        "j": (0.3, 0.85),
        "w": (0.12, 0.0),
    }
)
#: Share of the opening that is left while these sound.
CLOSURES: Mapping[str, float] = MappingProxyType({**dict.fromkeys("bmp", 0.0), **dict.fromkeys("fv", 0.2)})
#: Between utterances: shut, neither rounded nor spread.
REST = (0.0, 0.5)
#: Standard deviations of the passage between targets, and of the lips' closing, in seconds.
OPENING_SECONDS, WIDTH_SECONDS, CLOSING_SECONDS = 0.026, 0.040, 0.010
#: The lips meet this much before a closed phoneme sounds and part this much after it, in seconds.
CLOSING_MARGIN = 0.012
_UNHEARD = "ˈˌːˑ.‿ʲʰ"


@dataclass(frozen=True)
class Mouth:
    """The mouth over time. Arrays are (K,): targets and when they hold; and those of the closures."""

    starts: np.ndarray
    ends: np.ndarray
    openings: np.ndarray
    widths: np.ndarray
    shut_starts: np.ndarray
    shut_ends: np.ndarray
    shut: np.ndarray  # share of the opening that is taken away

    def opening(self, seconds: np.ndarray) -> np.ndarray:
        """(T,) in [0, 1] at `seconds` (T,)."""
        held = _held(seconds, self.starts, self.ends, OPENING_SECONDS)  # (T, K)
        wide = REST[0] + held @ (self.openings - REST[0])
        taken = self.shut * _held(seconds, self.shut_starts, self.shut_ends, CLOSING_SECONDS)
        return np.clip(wide * np.prod(1 - taken, axis=1), 0.0, 1.0)

    def width(self, seconds: np.ndarray) -> np.ndarray:
        """(T,) in [0, 1], 0 rounded, 0.5 at rest, 1 spread, at `seconds` (T,)."""
        held = _held(seconds, self.starts, self.ends, WIDTH_SECONDS)
        return np.clip(REST[1] + held @ (self.widths - REST[1]), 0.0, 1.0)


def mouth_of(phonemes: Iterable[Span]) -> Mouth:
    """The mouth that speaks `phonemes`. Raises `SpeechError` for a sound that has no mouth shape."""
    letters = [letter for phoneme in phonemes for letter in _letters(phoneme)]
    closed = [letter for letter in letters if letter.name in CLOSURES]
    return Mouth(
        np.array([letter.start for letter in letters]),
        np.array([letter.end for letter in letters]),
        np.array([TARGETS[letter.name][0] for letter in letters]),
        np.array([TARGETS[letter.name][1] for letter in letters]),
        np.array([letter.start - CLOSING_MARGIN for letter in closed]),
        np.array([letter.end + CLOSING_MARGIN for letter in closed]),
        np.array([1 - CLOSURES[letter.name] for letter in closed]),
    )


def _letters(phoneme: Span) -> list[Span]:
    """A phoneme of several letters (diphthong, affricate) passes through them in equal times."""
    names = [
        letter
        for letter in unicodedata.normalize("NFC", phoneme.name)
        if letter not in _UNHEARD and not unicodedata.combining(letter)
    ]
    for name in names:
        if name not in TARGETS:
            raise SpeechError(f"no mouth shape for {name!r} of phoneme {phoneme.name!r}: add it to TARGETS")
    edges = np.linspace(phoneme.start, phoneme.end, len(names) + 1)
    return [Span(name, float(a), float(b)) for name, a, b in zip(names, edges[:-1], edges[1:], strict=True)]


def _held(seconds: np.ndarray, starts: np.ndarray, ends: np.ndarray, spread: float) -> np.ndarray:
    """(T, K) shares: boxes from `starts` to `ends` (K,) convolved with a Gaussian of deviation `spread`."""
    scale = 1 / (spread * np.sqrt(2))
    t = np.asarray(seconds, float)[:, None]
    return 0.5 * (erf((t - starts) * scale) - erf((t - ends) * scale))
