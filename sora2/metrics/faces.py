"""Where is the face? Two finders, asked in this order: one for the drawn faces of the toybox, one for photographs.

The first is a linear classifier on histograms of oriented gradients (Dalal and Triggs 2005), fitted on the toybox's
train split and stored beside this file; `python -m sora2.metrics.faces` fits it anew. The second is the cascade of
frontal faces that ships with OpenCV, whose faces must be seen in most of the frames that it looks at.
"""

from __future__ import annotations

import base64
import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sora2.metrics.values import Unmeasurable

Array = NDArray[np.float64]
Frames = NDArray[np.uint8]

_FILE = Path(__file__).with_name("drawn_faces.json")

#: Side of the window that is classified, pixels, and what of the head's height it shows.
WINDOW, OF_HEAD = 40, 1.0
#: Heights of a head, of the picture's shorter side, that are looked for.
HEADS = tuple(np.geomspace(0.40, 0.95, 9).round(3).tolist())
#: Frames of a shot that are looked at.
LOOKS = 3
#: Share of those in which a photographed face must be seen.
SEEN = 0.6


@dataclass(frozen=True)
class Face:
    """A face that stays where it is but for nods and sways: its middle and its height, pixels of the picture."""

    x: float
    y: float
    height: float  # chin to crown
    finder: str  # "drawn" or "photographed"

    def crop(self, frame: Frames, size: int, margin: float = 1.15) -> Frames:
        """(size, size, 3): the square of `margin` heights about the face, the picture's edge repeated."""
        half = 0.5 * margin * self.height
        scale = size / (2 * half)
        matrix = np.array([[scale, 0, -scale * (self.x - half)], [0, scale, -scale * (self.y - half)]])
        way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        return cv2.warpAffine(frame, matrix, (size, size), flags=way, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class DrawnFaces:
    """A linear classifier of windows, and how it was fitted."""

    weights: str  # base64 of (D + 1,) float32: weights, then the offset
    threshold: float  # of the mean score of a shot
    clips: int
    source: str

    @functools.cached_property
    def vector(self) -> NDArray[np.float32]:
        return np.frombuffer(base64.b64decode(self.weights), np.float32)


@functools.cache
def load_drawn_faces() -> DrawnFaces:
    """The stored classifier."""
    return DrawnFaces(**json.loads(_FILE.read_text()))


def find_face(video: Frames) -> Face:
    """The face of one shot (T, H, W, 3) uint8.

    Raises:
        Unmeasurable: neither finder sees one.
    """
    chosen = video[np.unique(np.linspace(0, len(video) - 1, LOOKS).round().astype(int))]
    grey = [_grey(frame) for frame in chosen]
    drawn = load_drawn_faces()
    score, face = best_window(grey, drawn.vector)
    if score >= drawn.threshold:
        return face
    photographed = find_photographed(grey)
    if photographed is None:
        raise Unmeasurable("no face is seen")
    return photographed


@functools.cache
def hog() -> cv2.HOGDescriptor:
    return cv2.HOGDescriptor((WINDOW, WINDOW), (16, 16), (8, 8), (8, 8), 9)


def best_window(grey: list[Frames], vector: NDArray[np.float32]) -> tuple[float, Face]:
    """The window with the highest mean score over frames (H, W), and that score."""
    best, found = -np.inf, Face(0, 0, 0, "drawn")
    shorter = min(grey[0].shape)
    for head in HEADS:
        scale = WINDOW * OF_HEAD / (head * shorter)
        size = (round(grey[0].shape[1] * scale), round(grey[0].shape[0] * scale))
        if min(size) < WINDOW:
            continue
        scores, places = scan(grey, size, vector)
        k = int(np.argmax(scores))
        if scores[k] > best:
            best = float(scores[k])
            x, y = (places[k] + (WINDOW - 1) / 2) / scale
            found = Face(float(x), float(y), head * shorter, "drawn")
    return best, found


def scan(
    grey: list[Frames], size: tuple[int, int], vector: NDArray[np.float32], step: int = 2
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Mean score (K,) over frames of all windows of pictures scaled to `size` (width, height); their corners (K, 2)."""
    way = cv2.INTER_CUBIC if size[0] > grey[0].shape[1] else cv2.INTER_AREA
    total = np.zeros(0, np.float32)
    for frame in grey:
        described = np.asarray(
            hog().compute(cv2.resize(frame, size, interpolation=way), (step, step), (0, 0))
        )
        scores = described.reshape(-1, len(vector) - 1) @ vector[:-1] + vector[-1]
        total = scores if not len(total) else total + scores
    columns = (size[0] - WINDOW) // step + 1
    index = np.arange(len(total))
    places = np.stack([step * (index % columns), step * (index // columns)], axis=1)
    return total / len(grey), places


def find_photographed(grey: list[Frames]) -> Face | None:
    """The largest face of OpenCV's cascade, median over the frames; None when too few show one."""
    folder = Path(cv2.__file__).parent / "data"
    cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
    boxes = []
    for frame in grey:
        scale = max(1.0, 240 / min(frame.shape))
        large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        least = round(0.12 * min(large.shape))
        seen = cascade.detectMultiScale(large, 1.1, 5, minSize=(least, least))
        if len(seen):
            boxes.append(np.array(max(seen, key=lambda b: b[2]), np.float64) / scale)
    if len(boxes) < SEEN * len(grey):
        return None
    x, y, wide, tall = np.median(boxes, axis=0)
    # the cascade's box reaches from the brows to below the lips
    return Face(float(x + wide / 2), float(y + 0.5 * tall), float(1.15 * tall), "photographed")


def fit_drawn_faces(clips: int = 360, seed: int = 0) -> DrawnFaces:
    """Fit on the train split: windows on the heads of `talk` against all others, and against other scenes."""
    from sora2.toybox import Toybox
    from sora2.toybox.config import whole_world

    rng = np.random.default_rng(seed)
    people = Toybox(whole_world(seed=seed, split="train", scenes=("talk",)))
    others = ("bounce", "occlude", "cradle", "pendulum", "strike", "weather", "street")
    places = Toybox(whole_world(seed=seed, split="train", scenes=others))
    faces: list[tuple[Frames, Face]] = []
    empty: list[Frames] = []
    for index in range(clips):
        clip = people.clip(index)
        k = int(rng.integers(len(clip.video)))
        faces.append((_grey(clip.video[k].numpy()), true_face(clip.meta["truth"], k)))
    for index in range(clips // 2):
        clip = places.clip(index)
        empty.append(_grey(clip.video[len(clip.video) // 2].numpy()))
    positive = [window(g, f, rng, jitter=j) for g, f in faces for j in (0.0, 0.02, 0.02)]
    negative = [window(g, f, rng, jitter=0.3) for g, f in faces for _ in range(2)]
    negative += [window(g, Face(32, 32, 40, ""), rng, jitter=0.4) for g in empty for _ in range(2)]
    vector = np.zeros(0, np.float32)
    for _ in range(3):  # each round adds the places that the last one took for faces
        x = np.concatenate([positive, negative])
        vector = ridge(x, np.r_[np.ones(len(positive)), -np.ones(len(negative))])
        for g, f in faces:
            score, found = best_window([g], vector)
            if not same_place(found, f) and score > -0.5:
                negative.append(window(g, found, rng, jitter=0.0))
        negative += [window(g, best_window([g], vector)[1], rng, jitter=0.0) for g in empty]
    held_out = [people.clip(clips + i) for i in range(60)]
    real = [best_window(_looks(c), vector)[0] for c in held_out]
    false = [best_window(_looks(places.clip(clips // 2 + i)), vector)[0] for i in range(60)]
    threshold = 0.5 * (float(np.quantile(real, 0.02)) + float(np.quantile(false, 0.98)))
    source = f"toybox train split, seed {seed}, whole world; faces of talk against {', '.join(others)}"
    packed = base64.b64encode(vector.astype(np.float32).tobytes()).decode()
    return DrawnFaces(packed, round(threshold, 4), clips, source)


def true_face(truth: dict, frame: int) -> Face:
    """The head of a `talk` clip in one frame."""
    camera, head = truth["camera"], truth["head"]
    scale = camera["zoom"][frame] * min(truth["height"], truth["width"])
    x = (head["x"][frame] - camera["x"][frame]) * scale + (truth["width"] - 1) / 2
    y = (head["y"][frame] - camera["y"][frame]) * scale + (truth["height"] - 1) / 2
    return Face(x, y, 2 * head["half_height"] * scale, "truth")


def same_place(a: Face, b: Face) -> bool:
    """Whether two boxes differ by less than a fifth of their height in place, and a third in size."""
    near = np.hypot(a.x - b.x, a.y - b.y) < 0.2 * b.height
    return bool(near and 0.75 < a.height / b.height < 1.33)


def window(grey: Frames, face: Face, rng: np.random.Generator, jitter: float) -> NDArray[np.float32]:
    """(D,) description of the window on a face, or beside it by `jitter` heights or more when that is above 0.1."""
    shift, size = rng.uniform(-jitter, jitter, 2), float(rng.uniform(-jitter, jitter))
    if jitter > 0.1 and np.hypot(*shift) < 0.25:
        size = float(rng.choice((-0.4, 0.6)))
    moved = Face(
        face.x + shift[0] * face.height,
        face.y + shift[1] * face.height,
        face.height * (1 + size),
        face.finder,
    )
    return np.asarray(hog().compute(moved.crop(grey, WINDOW, 1 / OF_HEAD))).ravel()


def ridge(x: NDArray[np.float32], y: Array, weight: float = 3.0) -> NDArray[np.float32]:
    """(D + 1,) weights and offset of the least-squares classifier, both classes counting alike."""
    share = np.where(y > 0, 0.5 / (y > 0).mean(), 0.5 / (y < 0).mean())
    full = np.c_[x, np.ones(len(x))].astype(np.float64)
    normal = (full * share[:, None]).T @ full + weight * np.eye(full.shape[1])
    return np.linalg.solve(normal, full.T @ (share * y)).astype(np.float32)


def _looks(clip) -> list[Frames]:
    video = clip.video.numpy()
    return [_grey(frame) for frame in video[:: max(1, len(video) // LOOKS)]]


def _grey(frame: Frames) -> Frames:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


if __name__ == "__main__":
    _FILE.write_text(json.dumps(asdict(fit_drawn_faces()), indent=2) + "\n")
    print(f"{load_drawn_faces().threshold=} {load_drawn_faces().source}")
