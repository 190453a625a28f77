"""From tracks to physics: free flights, contacts with sub-frame times, gravity.

Each axis of a track is cut into pieces by dynamic programming. Vertically a piece is a free flight (a
parabola whose curvature, gravity, all flights of all balls share) or support (no vertical motion);
horizontally a piece is uniform motion. Gravity is the value under which all tracks are explained by the
fewest, best fitting pieces, refined by least squares. A contact is the moment at which two neighbouring
pieces intersect, so its time does not depend on the frame rate's grid, and the frame after a bounce never
bends the parabola before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PIECE_COST = 14.0  # chi-square that one more piece must save
LONE_FRAME_COST = 6.0  # extra for a piece of one frame inside a clip
SUPPORT_COST = -3.0  # a piece without vertical motion has no speed to fit, and is the simpler story
SIGMA_RANGE = (0.08, 0.8)  # pixels: noise of a centroid, sharp to blurred
MINIMUM_FLIGHT_FRAMES = 4
LEAST_SPREAD = 0.5  # variance of height, squared pixels, of frames that can tell anything of gravity
LONGEST_SECONDS = 2.5  # of one piece; a longer flight is two, which costs no accuracy


@dataclass(frozen=True)
class Piece:
    """Frames start..stop (inclusive) of one axis: position = a + b t + g t^2 / 2, t in seconds."""

    start: int
    stop: int
    a: float  # pixels at t = 0
    b: float  # pixels per second
    g: float  # pixels per second^2; 0 on the horizontal axis and for support
    frames: int  # frames in which the ball was seen
    support: bool = False

    def at(self, t: float) -> float:
        return self.a + self.b * t + 0.5 * self.g * t * t

    def velocity(self, t: float) -> float:
        return self.b + self.g * t


@dataclass(frozen=True)
class Contact:
    """A sudden change of one ball's velocity."""

    ball: int  # index of the track
    seconds: float
    axis: str  # "x", "y" or "xy"
    position: tuple[float, float]  # pixels (x, y) of the centre
    before: tuple[float, float]  # pixels per second (vx, vy); NaN on an axis that did not change
    after: tuple[float, float]
    strength: float  # pixels per second: size of the change of velocity
    frames: int  # in the shorter of the pieces before and after


@dataclass(frozen=True)
class Motion:
    """All that the tracks of one clip say about physics."""

    gravity: float  # pixels per second^2, downwards positive; NaN without free flight
    gravity_error: float  # its standard error
    flight_frames: int  # frames in free flight, over all balls
    contacts: tuple[Contact, ...]  # in order of time
    pieces: tuple[tuple[tuple[Piece, ...], tuple[Piece, ...]], ...]  # per track: (x pieces, y pieces)


class _Moments:
    """Residual sums of squares of every span of frames of one axis, under any gravity, in closed form.

    Arrays are (T, L): entry [j, l] is about the frames j - l .. j, for spans of up to `LONGEST_SECONDS`; a span that
    would begin before the clip has no frames.
    """

    def __init__(self, position: Array, seen: NDArray[np.bool_], fps: float) -> None:
        n = len(position)
        longest = min(n, max(40, round(LONGEST_SECONDS * fps)))
        self.time = np.arange(n) / fps
        start = np.arange(n)[:, None] - np.arange(longest)  # (T, L) first frame of each span
        self.legal = start >= 0
        first, last = np.maximum(start, 0), np.arange(n)[:, None]
        centred = self.time - self.time.mean()
        w = seen.astype(np.float64)
        y = np.where(seen, position, 0.0)
        y = np.where(seen, y - (y[seen].mean() if seen.any() else 0.0), 0.0)
        q = 0.5 * centred**2

        def span(values: Array) -> Array:
            total = np.concatenate([[0.0], np.cumsum(values)])
            return np.where(self.legal, total[last + 1] - total[first], 0.0)

        self.count = span(w)
        s1, st, stt = self.count, span(w * centred), span(w * centred**2)
        determinant = s1 * stt - st**2
        safe = np.where(determinant > 1e-12, determinant, 1.0)
        sums = {"y": (span(y), span(y * centred)), "q": (span(w * q), span(w * q * centred))}

        def residual(one: str, other: str, product: Array) -> Array:
            (a0, a1), (b0, b1) = sums[one], sums[other]
            fitted = (stt * a0 * b0 - st * (a0 * b1 + a1 * b0) + s1 * a1 * b1) / safe
            return np.where(determinant > 1e-12, product - fitted, 0.0)

        syy = span(y**2)
        self.yy = np.maximum(residual("y", "y", syy), 0)
        self.yq = residual("y", "q", span(y * q))
        self.qq = np.maximum(residual("q", "q", span(w * q**2)), 0)
        self.constant = np.maximum(syy - sums["y"][0] ** 2 / np.where(s1 > 0, s1, 1.0), 0)

    def flight(self, gravity: Array) -> Array:
        """(G, T, L) residual sums of squares for each gravity (G,)."""
        g = gravity[:, None, None]
        return np.maximum(self.yy - 2 * g * self.yq + g**2 * self.qq, 0)


def analyse_motion(tracks: Sequence[Array], fps: float) -> Motion:
    """Flights, contacts and gravity of a clip.

    tracks: one (T, 2) array of (x, y) pixels per ball, y downwards, NaN where the ball was not seen.
    """
    if not tracks:
        return Motion(np.nan, np.nan, 0, (), ())
    moments = [
        [_Moments(track[:, axis], np.isfinite(track).all(axis=1), fps) for axis in (0, 1)] for track in tracks
    ]
    sigma = [[noise_of(track[:, axis]) for axis in (0, 1)] for track in tracks]
    vertical = [m[1] for m in moments]
    noise = [s[1] for s in sigma]
    gravity, cuts = _explain(vertical, noise)
    _, qq, frames = _flight_sums(vertical, cuts)
    error = float(np.median(noise)) / np.sqrt(qq) if qq > 0 else np.nan
    pieces, contacts = [], []
    for ball, track in enumerate(tracks):
        x_cut = _cut(moments[ball][0], sigma[ball][0], np.zeros(1), vertical=False)[1]
        x = _fit_pieces(track[:, 0], x_cut, 0.0, fps)
        y = _fit_pieces(track[:, 1], cuts[ball], gravity, fps)
        pieces.append((x, y))
        contacts += _contacts(ball, x, y, fps)
    return Motion(
        gravity if qq > 0 else np.nan,
        error,
        frames,
        tuple(sorted(contacts, key=lambda c: c.seconds)),
        tuple(pieces),
    )


def noise_of(position: Array) -> float:
    """Noise of a centroid in pixels, from third differences, which a parabola does not have."""
    third = np.diff(position, n=3)
    third = third[np.isfinite(third)]
    if len(third) < 4:
        return SIGMA_RANGE[1]
    return float(np.clip(1.4826 * np.quantile(np.abs(third), 0.4) / np.sqrt(20.0), *SIGMA_RANGE))


Cut = list[tuple[int, int, bool]]  # (start, stop, support) of pieces


def _explain(vertical: list[_Moments], noise: list[float]) -> tuple[float, list[Cut]]:
    """Gravity and cuts that explain all tracks most cheaply: the best of many candidates, refined while it
    pays."""
    candidates = _candidates(vertical)
    batch = max(1, int(4e6) // max(m.count.size for m in vertical))  # of candidates: bounds the memory
    costs = np.concatenate(
        [
            sum(_cut(m, s, some, vertical=True)[0] for m, s in zip(vertical, noise, strict=True))
            for some in np.array_split(candidates, -(-len(candidates) // batch))
        ]
    )
    gravity = float(candidates[int(np.argmin(costs))])
    best_cost, best_gravity, best_cuts = np.inf, gravity, []
    for _ in range(4):
        cut = [_cut(m, s, np.array([gravity]), vertical=True) for m, s in zip(vertical, noise, strict=True)]
        cost = float(sum(c[0] for c, _ in cut))
        if cost > best_cost - 1e-6:
            break
        best_cost, best_gravity, best_cuts = cost, gravity, [c for _, c in cut]
        yq, qq, _ = _flight_sums(vertical, best_cuts)
        if qq <= 0:
            break
        gravity = yq / qq
    yq, qq, _ = _flight_sums(vertical, best_cuts)
    return (yq / qq if qq > 0 else best_gravity), best_cuts


def _candidates(vertical: list[_Moments]) -> Array:
    """Curvatures of parabolas through windows of 5 to 14 frames, at most 72 of them."""
    found: list[Array] = []
    for m in vertical:
        for length in (5, 6, 8, 10, 14):
            if length <= m.count.shape[1]:
                count, yq, qq, spread = (a[:, length - 1] for a in (m.count, m.yq, m.qq, m.constant))
                whole = (count >= length - 1) & (qq > 0) & (spread > LEAST_SPREAD * count)
                found.append(yq[whole] / qq[whole])
    if not found:
        return np.zeros(1)
    values = np.concatenate(found)
    if not len(values):
        return np.zeros(1)
    return np.unique(np.quantile(values, np.linspace(0, 1, min(72, len(values)))))


def _cut(m: _Moments, sigma: float, gravity: Array, *, vertical: bool) -> tuple[Array, Cut]:
    """Best cut into pieces: cost (G,) per gravity, and (start, stop, support) of the pieces of the first
    one."""
    n, longest = m.count.shape
    cost = m.flight(gravity) / sigma**2 + PIECE_COST  # (G, T, L)
    supported = np.zeros(cost.shape, np.bool_)
    if vertical:
        support = m.constant / sigma**2 + PIECE_COST + SUPPORT_COST + np.where(m.count < 3, np.inf, 0.0)
        supported = support < cost
        cost = np.minimum(cost, support)
    lone = np.where(m.count <= 1, LONE_FRAME_COST, 0.0)
    lone[-1] = 0.0
    lone[np.arange(min(n, longest)), np.arange(min(n, longest))] = 0.0  # spans that begin with the clip
    cost = cost + np.where(m.legal, lone, np.inf)
    best = np.zeros((len(gravity), n + 1))
    length = np.zeros((len(gravity), n + 1), np.intp)
    for j in range(n):
        reach = min(j + 1, longest)
        total = best[:, j + 1 - reach : j + 1][:, ::-1] + cost[:, j, :reach]  # (G, reach)
        choice = np.argmin(total, axis=1)
        length[:, j + 1] = choice + 1
        best[:, j + 1] = np.take_along_axis(total, choice[:, None], axis=1)[:, 0]
    pieces = []
    stop = n
    while stop > 0:
        start = stop - int(length[0, stop])
        pieces.append((start, stop - 1, bool(supported[0, stop - 1, stop - 1 - start])))
        stop = start
    return best[:, n], pieces[::-1]


def _flight_sums(vertical: list[_Moments], cuts: list[Cut]) -> tuple[float, float, int]:
    yq = qq = 0.0
    frames = 0
    for m, cut in zip(vertical, cuts, strict=True):
        for start, stop, support in cut:
            count, spread = m.count[stop, stop - start], m.constant[stop, stop - start]
            if not support and count >= MINIMUM_FLIGHT_FRAMES and spread > LEAST_SPREAD * count:
                yq += float(m.yq[stop, stop - start])
                qq += float(m.qq[stop, stop - start])
                frames += int(m.count[stop, stop - start])
    return yq, qq, frames


def _fit_pieces(position: Array, cut: Cut, gravity: float, fps: float) -> tuple[Piece, ...]:
    """Least-squares line through each piece once gravity is taken out. Pieces of a single frame are
    dropped."""
    pieces = []
    for start, stop, support in cut:
        frames = np.arange(start, stop + 1)
        frames = frames[np.isfinite(position[start : stop + 1])]
        if len(frames) < 2:
            continue
        t, p = frames / fps, position[frames]
        g = 0.0 if support else gravity
        if support:
            a, b = float(p.mean()), 0.0
        else:
            b, a = np.polyfit(t, p - 0.5 * g * t**2, 1)
        pieces.append(Piece(start, stop, float(a), float(b), g, len(frames), support))
    return tuple(pieces)


def _contacts(ball: int, x: tuple[Piece, ...], y: tuple[Piece, ...], fps: float) -> list[Contact]:
    """Breaks of both axes; breaks at one moment are one contact (another ball, or a corner)."""
    breaks = [("x", *_break(p, q, fps)) for p, q in pairwise(x)]
    breaks += [("y", *_break(p, q, fps)) for p, q in pairwise(y)]
    breaks.sort(key=lambda item: item[1])
    contacts: list[Contact] = []
    i = 0
    while i < len(breaks):
        group = [breaks[i]]
        if (
            i + 1 < len(breaks)
            and breaks[i + 1][0] != breaks[i][0]
            and breaks[i + 1][1] - breaks[i][1] < 0.75 / fps
        ):
            group.append(breaks[i + 1])
        i += len(group)
        change = np.array([after - before for _, _, before, after, _ in group])
        seconds = float(np.average([g[1] for g in group], weights=change**2 + 1e-9))
        before, after = [np.nan, np.nan], [np.nan, np.nan]
        for axis, _, v0, v1, _ in group:
            before["xy".index(axis)], after["xy".index(axis)] = v0, v1
        contacts.append(
            Contact(
                ball,
                seconds,
                "".join(sorted(g[0] for g in group)),
                (_position(x, seconds, fps), _position(y, seconds, fps)),
                (before[0], before[1]),
                (after[0], after[1]),
                float(np.linalg.norm(change)),
                min(g[4] for g in group),
            )
        )
    return contacts


def _break(first: Piece, second: Piece, fps: float) -> tuple[float, float, float, int]:
    """(seconds, velocity before, velocity after, frames of the shorter) where two pieces meet, by Newton's
    method from the gap's middle."""
    early, late = (first.stop - 0.25) / fps, (second.start + 0.25) / fps
    t = 0.5 * (early + late)
    for _ in range(4):
        slope = first.velocity(t) - second.velocity(t)
        if abs(slope) < 1e-6:
            break
        t = float(np.clip(t - (first.at(t) - second.at(t)) / slope, early, late))
    return t, first.velocity(t), second.velocity(t), min(first.frames, second.frames)


def _position(pieces: tuple[Piece, ...], t: float, fps: float) -> float:
    if not pieces:
        return np.nan
    distance = [max(p.start / fps - t, t - p.stop / fps, 0.0) for p in pieces]
    return pieces[int(np.argmin(distance))].at(t)
