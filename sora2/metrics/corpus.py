"""A measured set of clips, as corpus metrics see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sora2.metrics.values import MetricValue, Unmeasurable


@dataclass(frozen=True)
class Outcome:
    """All values of one clip."""

    key: str
    prompt: str
    seed: int | None
    path: str
    values: dict[str, MetricValue]  # a metric that the truth does not ask for is absent
    gates: dict[str, str] = field(default_factory=dict)  # failed gate -> reason
    features: dict[str, Any] = field(default_factory=dict)  # named descriptions, None where there is none
    fps: float = 0.0
    size: tuple[int, int] = (0, 0)  # height, width; 0 without video


@dataclass(frozen=True)
class Corpus:
    """One row of clips, and the real clips it may be compared with."""

    outcomes: Sequence[Outcome]
    reference: Sequence[Outcome] = ()

    def described(self, name: str, *, of_reference: bool = False) -> list[Outcome]:
        """The clips that have such a description."""
        outcomes = self.reference if of_reference else self.outcomes
        return [o for o in outcomes if o.features.get(name) is not None]

    def features(self, name: str, *, of_reference: bool = False) -> NDArray[np.float64]:
        """(N, D) descriptions of the clips that have one."""
        rows = [o.features[name] for o in self.described(name, of_reference=of_reference)]
        return np.array(rows, np.float64) if rows else np.zeros((0, 0))

    def prompts(self, name: str, *, of_reference: bool = False) -> list[str]:
        """Of the same clips: those of one prompt are not independent."""
        return [o.prompt for o in self.described(name, of_reference=of_reference)]

    def details(self, name: str) -> list[dict[str, Any]]:
        """Details of a clip metric where it was measured.

        Raises:
            Unmeasurable: it was measured on no clip.
        """
        found = [
            o.values[name].details for o in self.outcomes if name in o.values and o.values[name].measured
        ]
        if not found:
            raise Unmeasurable(f"{name} was measured on none of {len(self.outcomes)} clips")
        return found
