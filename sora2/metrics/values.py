"""The outcome of a metric: a value with a unit, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from sora2.errors import UserError


class MetricError(UserError):
    """An evaluation that cannot be done: nothing to evaluate, an unknown metric, a file that cannot be read."""


class Unmeasurable(Exception):
    """Raised inside a metric when the clip does not hold what it measures; the message is the reason shown."""


class NotAsked(Exception):
    """Raised inside a metric when the truth asks for nothing that it measures: a collision where there is one ball.

    Only what was commanded may decide this, never what the clip shows; such a clip is left out, and is no failure.
    """


@dataclass(frozen=True)
class MetricValue:
    """The outcome of one metric on one clip, or of a corpus metric on a set."""

    value: float  # in `unit`; NaN exactly when status is "unmeasurable"
    status: Literal["measured", "unmeasurable"]
    reason: str = ""  # why it is unmeasurable
    unit: str = ""
    details: dict[str, Any] = field(default_factory=dict)  # intermediate quantities, JSON-able

    @property
    def measured(self) -> bool:
        return self.status == "measured"

    @classmethod
    def missing(cls, reason: str, unit: str = "") -> MetricValue:
        """No value, for `reason`."""
        return cls(math.nan, "unmeasurable", reason, unit)
