"""Where are the balls? Colour segmentation against the background, with sub-pixel centres, without any truth.

Balls of the toybox are saturated and backgrounds muted, so a ball is found in the chroma plane (colour without
brightness), where shading, vignettes, outlines and highlights change the length of a colour's vector but hardly its
direction. Blurred and dim balls of a young generator are found too: thresholds are relative to the ball itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sora2.metrics.illumination import under_white_light
from sora2.toybox.vocabulary import COLORS

Array = NDArray[np.float64]
Picture = NDArray[np.float32]

MUTED = 40.0  # chroma (of 0-255 RGB) up to which a pixel may be background
SMALLEST_CHROMA = 14.0  # a ball departs from its background by at least this
GRAIN = 5.0  # and by at least this many standard deviations of the picture's own grain
SOFTENING = 0.7  # pixels: of the picture in which regions are found; centres are taken from the sharp one
SMALLEST_AREA = 0.0022  # of the squared shorter side: 9 pixels of 64 x 64
LARGEST_RADIUS = 0.25  # of the shorter side: a larger patch of colour is scenery
MINIMUM_PRESENCE = 0.25  # share of frames in which a colour must be seen to be a ball
RELATIVE_CHROMA = 0.3  # of a palette colour, in full light: less is a tint, not a ball
_PLANE = np.array([[1, -1, 0], [1, 1, -2]], np.float32) / np.sqrt([[2.0], [6.0]]).astype(np.float32)


@dataclass(frozen=True)
class Track:
    """One ball through the clip."""

    color: str  # name in the toybox's table of colours
    xy: Array  # (T, 2) centre in pixels (x right, y down; integers are pixel centres), NaN where not seen
    radius: float  # pixels, from the area
    chroma: float  # length of its colour in the chroma plane, 0-160
    radii: Array  # (T,) pixels, of each frame alone, NaN where not seen

    @property
    def seen(self) -> NDArray[np.bool_]:
        return np.isfinite(self.xy).all(axis=1)

    @property
    def presence(self) -> float:
        """Share of frames in which the ball was found."""
        return float(self.seen.mean())

    def travel(self) -> float:
        """Pixels between the extremes of its path, on the longer axis."""
        xy = self.xy[self.seen]
        return float(np.ptp(xy, axis=0).max()) if len(xy) else 0.0


def palette_directions() -> tuple[tuple[str, ...], Picture]:
    """Names of the toybox's colours and their (K, 2) unit vectors in the chroma plane."""
    names = tuple(COLORS)
    vectors = np.array([COLORS[n] for n in names], np.float32) @ _PLANE.T
    return names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def find_balls(video: NDArray[np.uint8]) -> list[Track]:
    """Tracks of all balls, most saturated first. video (T, H, W, 3) RGB."""
    chroma = chroma_over_background(under_white_light(video))  # (T, H, W, 2)
    names, directions = palette_directions()
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), SOFTENING) for frame in chroma])  # (T, H, W, 2)
    strength = np.sqrt(soft[..., 0] ** 2 + soft[..., 1] ** 2)  # (T, H, W)
    strong = strength > max(SMALLEST_CHROMA, GRAIN * grain_of(soft))
    where = np.nonzero(strong)
    nearest = np.full(strength.shape, -1, np.int8)
    nearest[where] = (soft[where] @ directions.T).argmax(axis=1)
    smallest = SMALLEST_AREA * min(video.shape[1:3]) ** 2
    tracks = []
    for k, name in enumerate(names):
        own = nearest == k
        if own.sum() < smallest * MINIMUM_PRESENCE * len(video):
            continue
        scale = float(np.quantile(strength[own], 0.9))
        weight = np.where(
            strong & ~own, 0, chroma @ directions[k]
        )  # what other balls cover is not this one's
        for xy, radius in _follow(own & (strength > 0.4 * scale), smallest):
            if radius > LARGEST_RADIUS * min(video.shape[1:3]):
                continue
            xy, radius, radii = _centre(weight, xy, radius, scale)
            tracks.append(Track(name, xy, radius, scale, radii))
    return _without_fringes(sorted(tracks, key=lambda t: -t.chroma))


def chroma_over_background(video: NDArray[np.uint8] | Picture) -> Picture:
    """(T, H, W, 3) RGB 0-255 -> (T, H, W, 2): chroma of each pixel beyond that of the still background behind it.

    The background of a pixel is its mean over the frames that show it muted. A pixel never seen muted (a ball that
    lies still) takes the mean of its row, for backgrounds change mostly with height. Shadows and dark outlines show
    the background's chroma at their own, smaller, brightness.
    """
    chroma, luma = np.empty((*video.shape[:3], 2), np.float32), video.astype(np.float32)
    np.matmul(luma, _PLANE.T, out=chroma)
    luma = luma.mean(axis=-1)  # (T, H, W)
    muted = (chroma[..., 0] ** 2 + chroma[..., 1] ** 2 < MUTED**2).astype(np.float32)
    count = muted.sum(axis=0)  # (H, W)
    known = count >= max(1.0, 0.15 * len(video))
    values = np.concatenate([chroma, luma[..., None]], axis=-1)
    mean = np.einsum("thw,thwc->hwc", muted, values) / np.maximum(count, 1)[..., None]  # (H, W, 3)
    row_count = known.sum(axis=1)
    row_mean = (mean * known[..., None]).sum(axis=1) / np.maximum(row_count, 1)[:, None]  # (H, 3)
    if (row_count == 0).any():
        row_mean[row_count == 0] = mean[known].mean(axis=0) if known.any() else 0.0
    behind = np.where(known[..., None], mean, row_mean[:, None])
    share = np.minimum(luma / np.maximum(behind[..., 2], 1.0), 1.0)  # (T, H, W)
    return chroma - share[..., None] * behind[..., :2]


def grain_of(chroma: Picture) -> float:
    """Standard deviation of chroma from frame to frame where nothing happens, (T, H, W, 2)."""
    if len(chroma) < 2:
        return 0.0
    change = np.abs(chroma[1:, ::2, ::2] - chroma[:-1, ::2, ::2])
    return 1.4826 * float(np.median(change))


def _follow(core: NDArray[np.bool_], smallest: float) -> list[tuple[Array, float]]:
    """Rough (T, 2) paths and radii of the balls of one colour: as many as most frames that show any show apart."""
    blobs = [_components(frame, smallest) for frame in core]
    counts = np.array([len(b) for b in blobs])
    if (counts > 0).mean() < MINIMUM_PRESENCE:
        return []
    balls = max(1, int(np.median(counts[counts > 0])))
    xy = np.full((balls, len(core), 2), np.nan)
    areas: list[list[float]] = [[] for _ in range(balls)]
    last: list[Array | None] = [None] * balls
    for t, found in enumerate(blobs):
        for ball, blob in _assign(last, found):
            xy[ball, t] = last[ball] = np.array(blob[:2])
            areas[ball].append(blob[2])
    return [
        (xy[i], float(np.sqrt(np.median(areas[i]) / np.pi)))
        for i in range(balls)
        if len(areas[i]) >= MINIMUM_PRESENCE * len(core)
    ]


Blob = tuple[float, float, float]  # x, y, area


def _components(mask: NDArray[np.bool_], smallest: float) -> list[Blob]:
    """Connected regions of a frame, largest first. Regions under a third of the largest are fragments."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA]) + 1
    regions = [(*centres[i].tolist(), float(stats[i, cv2.CC_STAT_AREA])) for i in order]
    if not regions or regions[0][2] < smallest:
        return []
    return [r for r in regions if r[2] >= max(smallest, regions[0][2] / 3)]


def _assign(last: list[Array | None], found: list[Blob]) -> list[tuple[int, Blob]]:
    """Give each ball of one colour the nearest region to where it was; new balls take the largest left."""
    pairs = []
    free = list(found)
    for ball in sorted(range(len(last)), key=lambda i: last[i] is None):
        if not free:
            break
        previous = last[ball]
        if previous is None:
            choice = free[0]
        else:
            choice = min(free, key=lambda r: float(np.hypot(r[0] - previous[0], r[1] - previous[1])))
        free.remove(choice)
        pairs.append((ball, choice))
    return pairs


def _centre(
    weight: Picture, xy: Array, radius: float, scale: float, rounds: int = 3
) -> tuple[Array, float, Array]:
    """Sub-pixel centres (T, 2): centroid of `weight` (T, H, W) in a disc around the last centre, for all frames at
    once; the radius by its mass at full colour; and the radius of each frame (T,).

    A frame's area is (sum w)^2 / sum w^2, which is exact for an even disc however bright it is: light and shade along
    the path do not change it.
    """
    reach = 1.35 * radius + 1.5
    half = int(np.ceil(reach)) + 1
    padded = np.pad(weight, ((0, 0), (half, half), (half, half)))
    offsets = np.arange(-half, half + 1)
    frames = np.flatnonzero(np.isfinite(xy).all(axis=1))
    centre = xy[frames]  # (F, 2)
    mass = np.ones(len(frames))
    for _ in range(rounds):
        nearest = np.clip(np.rint(centre).astype(int), 0, np.array(weight.shape[:0:-1]) - 1)  # (F, 2) x, y
        columns, rows = nearest[:, :1] + offsets, nearest[:, 1:] + offsets  # (F, K) around the centre
        patch = padded[frames[:, None, None], rows[:, :, None] + half, columns[:, None, :] + half]
        dx, dy = columns - centre[:, :1], rows - centre[:, 1:]  # (F, K)
        distance = np.sqrt(dy[:, :, None] ** 2 + dx[:, None, :] ** 2)  # (F, K, K)
        patch = patch * np.clip(reach + 0.5 - distance, 0, 1)
        mass = np.maximum(patch.sum(axis=(1, 2)), 1e-6)
        step = np.stack([(patch.sum(axis=1) * dx).sum(axis=1), (patch.sum(axis=2) * dy).sum(axis=1)], axis=1)
        centre = centre + np.clip(step / mass[:, None], -radius, radius)
    result = xy.copy()
    result[frames] = centre
    radii = np.full(len(xy), np.nan)
    radii[frames] = mass / np.sqrt(np.pi * np.maximum((patch**2).sum(axis=(1, 2)), 1e-6))
    return result, float(np.sqrt(np.median(mass) / scale / np.pi)), radii


def _without_fringes(tracks: list[Track]) -> list[Track]:
    """Drop tints that are too weak for a ball, and colours that only ever appear on a more saturated ball."""
    names, _ = palette_directions()
    full = {n: float(np.linalg.norm(_PLANE @ np.array(COLORS[n], np.float32))) for n in names}
    kept: list[Track] = []
    for track in tracks:
        if track.chroma < RELATIVE_CHROMA * full[track.color]:
            continue
        both = [(other, track.seen & other.seen) for other in kept]
        if not any(
            seen.any()
            and np.median(np.linalg.norm(track.xy[seen] - other.xy[seen], axis=1)) < 1.2 * other.radius
            for other, seen in both
        ):
            kept.append(track)
    return kept
