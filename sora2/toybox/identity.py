"""Who is in the picture: faces and voices, and which of them training never sees."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from sora2.toybox.config import ToyboxConfig
from sora2.toybox.randomness import pick, stream

#: attribute -> its values. An appearance is one value of each.
APPEARANCE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "skin": ("porcelain", "light", "tan", "brown", "dark"),
        "hair": ("short", "long", "curly", "bun", "bald"),
        "hair_color": ("black", "brown", "blond", "red", "grey"),
        "glasses": ("none", "round", "square"),
        "hat": ("none", "cap", "beanie", "brim"),
        "face": ("round", "oval", "square"),
    }
)
#: Voices that the synthesiser offers; a voice is one of them with a pitch and a rate.
VOICES = 8
#: One appearance in so many belongs to `cameo` alone.
HELD_OUT_SHARE = 8
#: Clips of one identity in `cameo`: the first are for enrolment, the last is the target.
CLIPS_PER_CAMEO = 4


@dataclass(frozen=True)
class Identity:
    """A face and a voice. Appearance words are from APPEARANCE; the numbers vary finely within them."""

    skin: str
    hair: str
    hair_color: str
    glasses: str
    hat: str
    face: str
    width: float  # of the face, relative, 0.92 to 1.08
    eyes: float  # distance of the eyes, relative, 0.9 to 1.1
    voice: int  # 0 ... VOICES - 1
    pitch: float  # -1 low to 1 high
    rate: float  # -1 slow to 1 fast

    @property
    def held_out(self) -> bool:
        """Whether only `cameo` may show this appearance. Voices and fine shape do not matter to the rule."""
        words = ",".join(getattr(self, name) for name in APPEARANCE)
        return zlib.crc32(words.encode()) % HELD_OUT_SHARE == 0

    def truth(self) -> dict[str, Any]:
        return asdict(self) | {"held_out": self.held_out}


def draw_identity(rng: np.random.Generator, *, held_out: bool) -> Identity:
    """A random identity of the training world, or of the held-out one."""
    while True:
        words = {name: pick(rng, values) for name, values in APPEARANCE.items()}
        found = Identity(
            **words,
            width=float(rng.uniform(0.92, 1.08)),
            eyes=float(rng.uniform(0.9, 1.1)),
            voice=int(rng.integers(VOICES)),
            pitch=float(rng.uniform(-1, 1)),
            rate=float(rng.uniform(-1, 1)),
        )
        if found.held_out == held_out:
            return found


def identity_of(config: ToyboxConfig, index: int) -> tuple[Identity, dict[str, Any]]:
    """The identity of clip `index`, and what truth says of it.

    In `cameo` clips 4i to 4i + 3 show the held-out identity i: three enrolment takes, then the target. In the
    other splits every clip draws its own, or every `takes` of them.
    """
    cameo = config.split == "cameo"
    number = index // (CLIPS_PER_CAMEO if cameo else config.takes)
    identity = draw_identity(
        stream(config.seed, config.split, "identity", number, "identity"), held_out=cameo
    )
    truth = identity.truth() | {"number": number}
    if cameo or config.takes > 1:
        truth["person"] = f"{config.seed}-{config.split}-{number}"
    if cameo:
        take = index % CLIPS_PER_CAMEO
        truth |= {"take": take, "role": "target" if take == CLIPS_PER_CAMEO - 1 else "enrolment"}
    return identity, truth
