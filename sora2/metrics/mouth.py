"""How far a talking mouth is open, from pixels: where the truth says the mouth is, or where a face is found."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sora2.metrics.faces import find_face
from sora2.metrics.shots import shots_of
from sora2.metrics.values import Unmeasurable
from sora2.types import Clip

Array = NDArray[np.float64]
Frames = NDArray[np.uint8]

#: Luma of RGB (Rec. 601).
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
#: Half height of the looked-at strip, world units: the widest mouth with its lips fits, the chin does not.
REACH = 0.125
#: The same in heights of a face that was found, and how far below its middle the mouth lies.
FACE_REACH, BELOW = 0.2, 0.28
#: Half width of the strip over its half height: less than any mouth, so that its width hardly counts.
SLENDER = 0.24
#: Luma of skin and lips, and of the inside of a mouth, as quantiles over the strip and all frames.
LIGHT, DARK = 0.7, 0.001
#: Share of that contrast that is taken for texture and shading.
MARGIN = 0.25
#: Points looked at along the height of the strip and across.
ROWS, COLUMNS = 41, 5
#: Standard deviation of the opening below which a mouth counts as shut throughout.
STILL = 0.01
#: A mouth that is found and darkens by less than so many levels does not move.
LEAST_LEVELS = 1.0
#: Shots with fewer frames are left out.
SHORTEST_SHOT = 5


def opening_at(video: Frames, x: Array, y: Array, reach: Array) -> Array:
    """(T,) how far a mouth looks open in every frame of (T, H, W, 3), in levels of luma: compare by correlation.

    The inside of a mouth is darker than skin and lips, whatever the style. In a strip of fixed height across the
    mouth, its darkness summed over the height grows by the opening. `x`, `y` (T,) are the middle of the mouth and
    `reach` (T,) half the height of the strip, in pixels.
    """
    down, across = np.linspace(-1, 1, ROWS)[:, None], np.linspace(-SLENDER, SLENDER, COLUMNS)[None]
    strip = np.stack(
        [
            cv2.remap(
                frame @ LUMA,
                np.broadcast_to(column + half * across, (ROWS, COLUMNS)).astype(np.float32),
                np.broadcast_to(row + half * down, (ROWS, COLUMNS)).astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            ).mean(axis=1)
            for frame, column, row, half in zip(video, x, y, reach, strict=True)
        ]
    )  # (T, ROWS)
    light, dark = np.quantile(strip, (LIGHT, DARK))
    shade = MARGIN * max(float(light - dark), 1.0)
    return np.clip(light - shade - strip, 0, None).mean(axis=1).astype(np.float64)


def mouth_opening(video: Frames) -> Array:
    """(T,) how open the mouth of the face that is seen is, 0 to 1 in each shot; NaN in shots without a face.

    Raises:
        Unmeasurable: no shot shows a face, or no mouth moves.
    """
    opening = np.full(len(video), np.nan)
    for shot in shots_of(video):
        frames = shot.stop - shot.start
        if frames < SHORTEST_SHOT:
            continue
        try:
            face = find_face(video[shot])
        except Unmeasurable:
            continue
        x, y, reach = (
            np.full(frames, v) for v in (face.x, face.y + BELOW * face.height, FACE_REACH * face.height)
        )
        levels = opening_at(video[shot], x, y, reach)
        span = float(np.ptp(levels))
        opening[shot] = (levels - levels.min()) / span if span > LEAST_LEVELS else np.nan
    if np.isfinite(opening).sum() < SHORTEST_SHOT:
        raise Unmeasurable("no face is seen whose mouth moves")
    return opening


def seen_opening(clip: Clip, truth: dict[str, Any]) -> Array:
    """(T,) levels, see `opening_at`, where the truth says mouth and camera are; its opening is not read.

    Raises:
        Unmeasurable: a clip without video.
    """
    video = clip.video.numpy() if clip.video is not None else None
    if video is None:
        raise Unmeasurable("the clip has no video")
    frames, height, width, _ = video.shape
    mouth, camera = truth["mouth"], truth["camera"]
    scale = np.asarray(camera["zoom"])[:frames] * min(height, width)  # pixels of a world unit
    x = (np.asarray(mouth["x"]) - np.asarray(camera["x"]))[:frames] * scale + (width - 1) / 2
    y = (np.asarray(mouth["y"]) - np.asarray(camera["y"]))[:frames] * scale + (height - 1) / 2
    return opening_at(video, x, y, REACH * scale)


def opening_correlation(clip: Clip, truth: dict[str, Any]) -> float:
    """Pearson correlation over frames of the seen opening with the true one; NaN for a mouth that stays shut."""
    seen = seen_opening(clip, truth)
    true = np.asarray(truth["mouth"]["opening"])[: len(seen)]
    if true.std() < STILL:
        return float("nan")
    return float(np.corrcoef(seen, true)[0, 1]) if seen.std() > 0 else 0.0
