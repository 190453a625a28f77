"""Artifacts of the picture. All are of the luma, in levels of 255 where not stated otherwise.

Most depend on the content as well, so each has a twin NAME_excess, the difference from the clip's reference.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sora2.metrics.damage import BROKEN_LAW, LOST_PICTURE, SHAKEN_PICTURE
from sora2.metrics.evidence import Evidence
from sora2.metrics.gates import changed_frames
from sora2.metrics.registry import metric
from sora2.metrics.values import Unmeasurable

Picture = NDArray[np.float32]

#: Cells per shorter side in which brightness is averaged, so that grain is no flicker.
CELLS = 8
#: Side of a compression block, pixels.
BLOCK = 8
#: A pixel belongs to something that moves when it is this far from the clip's still background.
FOREGROUND = 25.0
#: A place that keeps more than this of its contrast has not been left.
STILL_THERE = 0.85
#: Steps between two flat stretches that are bands of a gradient, not edges of things.
BAND_STEPS = (2.0, 12.0)


#: All that changes what moves in the picture, and how.
WORLD = (*LOST_PICTURE, *SHAKEN_PICTURE, *BROKEN_LAW, "teleport", "size drift", "object added", "picture seam",
         "flicker", "picture noise", "blur")  # fmt: skip


def _video(
    name: str, tolerance: float, answers_to: tuple[str, ...], also: tuple[str, ...] = (), **options: Any
) -> Any:
    """A metric of the picture alone, less is better, with a paired twin."""
    return metric(
        name,
        unit=options.pop("unit", "levels"),
        direction="lower",
        needs=("video",),
        tolerance=tolerance,
        answers_to=answers_to,
        also=also,
        paired=True,
        **options,
    )


@_video("flicker", 1.0, ("flicker",), ("picture noise", "picture seam", "black"))
def flicker(evidence: Evidence) -> float:
    """Change of brightness back and forth from frame to frame: second difference of the mean luma of 8 x 8 cells, the
    median over cells, so that what moves through the picture does not count, root mean square over frames."""
    cells = _cells(_at_least(evidence, 3))
    second = np.median(np.abs(cells[2:] - 2 * cells[1:-1] + cells[:-2]), axis=1)
    return float(np.sqrt((second**2).mean() / 6))


@_video("picture_noise", 2.0, ("picture noise",), ("flicker",))
def picture_noise(evidence: Evidence) -> float:
    """Standard deviation of grain that is new in every frame, from second differences in time, median over pixels."""
    luma = _at_least(evidence, 3)
    second = np.abs(luma[2:] - 2 * luma[1:-1] + luma[:-2])
    return 1.4826 * float(np.median(second)) / np.sqrt(6)


@_video("warp_error", 4.0, ("picture noise", "flicker"), WORLD, claimed="twin")
def warp_error(evidence: Evidence) -> float:
    """Difference of each frame from the one before carried along by the optical flow, mean over pixels. A still clip
    has none."""
    luma = _at_least(evidence, 2)
    height, width = luma.shape[1:]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    total = 0.0
    for before, after, flow in zip(luma[:-1], luma[1:], evidence.flow, strict=True):
        carried = cv2.remap(
            after, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        total += float(np.abs(carried - before).mean())
    return total / (len(luma) - 1)


@_video("blur", 0.85, ("blur",), WORLD, unit="", claimed="twin")
def blur(evidence: Evidence) -> float:
    """Blur of Crete et al. (2007), "The blur effect": how little the variation between neighbouring pixels falls when
    the frame is blurred on purpose; 0 sharp, 1 blurred. The larger of both axes, mean over 8 frames."""
    frames = _some(evidence.luma, 8)
    values = []
    for frame in frames:
        each = []
        for axis, size in ((0, (1, 9)), (1, (9, 1))):
            again = cv2.blur(frame, size)
            sharp = np.abs(np.diff(frame, axis=axis))
            lost = np.maximum(0, sharp - np.abs(np.diff(again, axis=axis)))
            total = float(sharp.sum())
            each.append((total - float(lost.sum())) / total if total > 0 else 1.0)
        values.append(max(each))
    return float(np.mean(values))


@_video("blocking", 1.0, ("compression",))
def blocking(evidence: Evidence) -> float:
    """Steps at the borders of 8 x 8 blocks beyond those just inside the blocks, mean absolute difference, at least 0.
    A picture scaled since it was coded has lost its blocks."""
    frames = _some(evidence.luma, 8)
    values = []
    for axis in (1, 2):
        step = np.abs(np.diff(frames, axis=axis)).mean(axis=(0, 3 - axis))  # per column or row
        borders = np.arange(BLOCK - 1, len(step) - 1, BLOCK)
        if len(borders):
            values.append(step[borders].mean() - 0.5 * (step[borders - 1] + step[borders + 1]).mean())
    if not values:
        raise Unmeasurable("the picture is smaller than two blocks")
    return max(0.0, float(np.mean(values)))


@_video("banding", 5.0, ("banding",), ("picture noise", "compression"), unit="%")
def banding(evidence: Evidence) -> float:
    """Pixels at a step of 2 to 12 levels between two flat stretches, as a share of all pixels of smooth places."""
    frames = _some(evidence.luma, 8).round()
    edges = smooth = 0
    for axis in (1, 2):
        step = np.abs(np.diff(frames, axis=axis))
        step = np.moveaxis(step, axis, 0)
        here, left, right = step[1:-1], step[:-2], step[2:]
        flat = (left == 0) & (right == 0)
        edges += int((flat & (here >= BAND_STEPS[0]) & (here <= BAND_STEPS[1])).sum())
        smooth += int(((left <= 2) & (right <= 2) & (here <= BAND_STEPS[1])).sum())
    if not smooth:
        raise Unmeasurable("the picture has no smooth place")
    return 100 * edges / smooth


@_video(
    "ghosting",
    0.3,
    ("ghosting",),
    ("blur", "compression", "flicker", "black", "picture seam", "frames frozen", "picture noise"),
    unit="",
)
def ghosting(evidence: Evidence) -> float:
    """What remains, one frame later, at places that a moving thing has left, as a share of its contrast there: the
    upper quartile over such pixels. Against the still background of the clip; a moving camera leaves nothing to
    measure."""
    luma = _at_least(evidence, 3)
    rest = luma - np.median(luma, axis=0)  # (T, H, W) departure from the background
    shares = []
    kernel = np.ones((3, 3), np.uint8)
    for before, after in pairwise(rest):
        thing = np.abs(before) > FOREGROUND
        share = np.where(thing, after / np.where(thing, before, 1.0), 0.0)
        still_there = (np.abs(after) > 0.6 * FOREGROUND) & (~thing | (share > STILL_THERE))
        left = thing & (cv2.dilate(still_there.astype(np.uint8), kernel) == 0)
        shares.append(share[left])
    found = np.concatenate(shares)
    if len(found) < 20:
        raise Unmeasurable("nothing moves away from a still background")
    return max(0.0, float(np.quantile(found, 0.75)))


@_video(
    "frozen_frames",
    5.0,
    ("frames dropped", "frames frozen"),
    ("black", "object removed", "object added"),
    unit="%",
)
def frozen_frames(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Frames that are the same as the one before."""
    _at_least(evidence, 2)
    same = ~changed_frames(evidence)
    return 100 * float(same.mean()), {"frozen": int(same.sum())}


@_video("frame_jerk", 60.0, ("frames swapped", "frames dropped"), WORLD, unit="%", claimed="twin")
def frame_jerk(evidence: Evidence) -> float:
    """How unevenly the picture changes: mean absolute difference of the amounts of change of neighbouring steps, as a
    share of the mean change. Dropped, doubled and swapped frames make it large."""
    change = np.abs(np.diff(_at_least(evidence, 4), axis=0)).mean(axis=(1, 2))
    if change.mean() < 1e-3:
        raise Unmeasurable("nothing moves")
    return 100 * float(np.abs(np.diff(change)).mean() / change.mean())


@_video("picture_seam", 3.0, ("picture seam",), ("picture noise", "flicker", "black"))
def picture_seam(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Largest lasting jump of the picture between two frames, as where chunks of a long video meet: change of the
    mean over the 3 frames after from the 3 before, in 8 x 8 cells, median over cells."""
    cells = _cells(_at_least(evidence, 6))
    total = np.concatenate([np.zeros((1, cells.shape[1])), np.cumsum(cells, axis=0)])
    three = (total[3:] - total[:-3]) / 3  # (T - 2, cells) mean of frames k .. k + 2
    jump = np.median(np.abs(three[3:] - three[:-3]), axis=1)
    slow = np.median(np.abs(cells[1:] - cells[:-1]), axis=1)[
        2:-2
    ]  # the step itself, between frames k + 2 and k + 3
    value = np.minimum(jump, slow)
    return float(value.max()), {"seconds": float((np.argmax(value) + 3) / evidence.clip.fps)}


def _at_least(evidence: Evidence, frames: int) -> Picture:
    if len(evidence.luma) < frames:
        raise Unmeasurable(f"{len(evidence.luma)} frames, {frames} are needed")
    return evidence.luma


def _some(luma: Picture, count: int) -> Picture:
    """`count` frames evenly through the clip."""
    return luma[np.unique(np.linspace(0, len(luma) - 1, count).round().astype(int))]


def _cells(luma: Picture) -> Picture:
    """(T, H, W) -> (T, cells): mean luma of square cells, `CELLS` along the shorter side."""
    side = max(1, min(luma.shape[1:]) // CELLS)
    rows, columns = luma.shape[1] // side, luma.shape[2] // side
    cut = luma[:, : rows * side, : columns * side]
    return cut.reshape(len(luma), rows, side, columns, side).mean(axis=(2, 4)).reshape(len(luma), -1)
