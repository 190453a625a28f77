"""Who else shows the same person: the clip that is laid beside a sample, so that a model learns whose face and voice
a reference is.

What is taken of it is its first picture and its sound (`collate_latents`). Which one it is depends on the seed and the
place in the training, and on nothing else.
"""

from __future__ import annotations

import numpy as np

from sora2.data.errors import DataError
from sora2.data.index import ShardIndex
from sora2.data.order import uniform


class References:
    """The companions of one dataset's clips: others of the same person and of the same size."""

    def __init__(self, index: ShardIndex, clips: int, share: float, seed: int) -> None:
        """`share` of the first `clips` are given a companion, where they have one.

        Raises:
            DataError: the share is no probability, or nobody is in two clips.
        """
        if not 0 <= share <= 1:
            raise DataError(f"data.datasets: references={share} of {index.folder} must be in [0, 1]")
        self.share, self.seed = share, seed
        groups: dict[tuple[str, int], list[int]] = {}
        for row, (person, bucket) in enumerate(
            zip(index.persons[:clips], index.bucket[:clips], strict=False)
        ):
            if person:
                groups.setdefault((person, int(bucket)), []).append(row)
        self.together = {
            row: rows for rows in map(np.array, groups.values()) if len(rows) > 1 for row in rows.tolist()
        }
        if share > 0 and not self.together:
            raise DataError(
                f"data.datasets: references={share} of {index.folder}, but nobody is in two clips of it: clips of one "
                'person need the same "person" in NAME.json beside the film (`sora2 ingest`), or '
                "`sora2 toybox --takes 4`"
            )

    def choose(self, rows: list[int], start: int) -> list[int | None]:
        """A companion for each sample of the stretch from place `start` of the training on; None: without."""
        shown = uniform(self.seed, "reference", start, len(rows)) < self.share
        which = uniform(self.seed, "companion", start, len(rows))
        found: list[int | None] = []
        for row, yes, draw in zip(rows, shown, which, strict=True):
            others = self.together.get(row)
            if others is None or not yes:
                found.append(None)
                continue
            others = others[others != row]
            found.append(int(others[int(draw * len(others))]))
        return found
