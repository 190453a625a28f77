"""Published metrics of published networks, whose weights are given by path; none is claimed to be calibrated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly

from sora2.metrics.evidence import Evidence
from sora2.metrics.networks import published
from sora2.metrics.networks.front_ends import imagebind_mel
from sora2.metrics.networks.sound import SAMPLE_RATE, mono
from sora2.metrics.registry import metric
from sora2.metrics.values import NotAsked, Unmeasurable

#: Mean and deviation of CLIP's pictures.
CLIP_MEAN, CLIP_SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: Frames and samples that Synchformer looks at (4.8 s), and the seconds of its 21 classes.
SYNC_FRAMES, SYNC_SAMPLES, SYNC_SECONDS = 120, 76800, np.linspace(-2, 2, 21)
FRAMES_OF_CLIP = 8


def _caption(evidence: Evidence) -> str:
    if not evidence.clip.caption:
        raise NotAsked
    return evidence.clip.caption


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(...,) of (..., D) and (D,)."""
    return (a @ b) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b), 1e-12)


def _spread(evidence: Evidence) -> NDArray[np.uint8]:
    """At most `FRAMES_OF_CLIP` frames, spread over the clip."""
    video = evidence.clip.video.numpy()
    return video[np.unique(np.linspace(0, len(video) - 1, FRAMES_OF_CLIP).round().astype(int))]


@metric(
    "published_clip_score",
    unit="",
    direction="higher",
    needs=("video",),
    tolerance=0.25,
    weights=("clip-b32",),
)
def published_clip_score(evidence: Evidence) -> float:
    """Mean cosine of CLIP ViT-B/32 between the caption, cut to 77 tokens, and eight frames (Hessel et al. 2021, without
    its factor 2.5)."""
    text = published.text_embedding("clip-b32", _caption(evidence))
    return float(_cosine(published.picture_embeddings("clip-b32", _spread(evidence)), text).mean())


@metric(
    "published_clap_score", unit="", direction="higher", needs=("audio",), tolerance=0.3, weights=("clap",)
)
def published_clap_score(evidence: Evidence) -> float:
    """Cosine of CLAP between the caption and the sound. Values of different checkpoints are not comparable."""
    caption = _caption(evidence)
    sound = mono(evidence.sound, evidence.clip.sample_rate)
    rate = published.clap_rate()
    if rate != SAMPLE_RATE:
        sound = resample_poly(sound, rate, SAMPLE_RATE).astype(np.float32)
    return float(_cosine(published.sound_embedding(sound), published.text_embedding("clap", caption)))


@metric(
    "published_imagebind_av",
    unit="",
    direction="higher",
    needs=("video", "audio"),
    tolerance=0.2,
    weights=("imagebind",),
)
def published_imagebind_av(evidence: Evidence) -> float:
    """Mean cosine of ImageBind between eight frames and the sound: what is seen and heard, not when."""
    pictures = np.stack([cv2.resize(f, (224, 224), interpolation=cv2.INTER_AREA) for f in _spread(evidence)])
    x = (torch.from_numpy(pictures).float() / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_SPREAD)
    mel = imagebind_mel(mono(evidence.sound, evidence.clip.sample_rate))
    seen, heard = published.run_script("imagebind", x.permute(0, 3, 1, 2), mel)
    return float(_cosine(seen.double().numpy(), heard.double().mean(dim=0).numpy()).mean())


@metric(
    "published_desync",
    unit="s",
    direction="lower",
    needs=("video", "audio"),
    tolerance=0.2,
    weights=("synchformer",),
)
def published_desync(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """DeSync: size of the most likely offset of Synchformer (Iashin et al. 2024) in steps of 0.2 s, on the first 4.8 s.
    Shorter clips are unmeasurable; others repeat them."""
    clip = evidence.clip
    if clip.video_seconds < 4.8 - 0.5 / clip.fps or clip.audio_seconds < 4.79:
        raise Unmeasurable("Synchformer needs 4.8 s of picture and sound")
    at = np.minimum((np.arange(SYNC_FRAMES) / 25 * clip.fps).astype(int), len(clip.video) - 1)
    frames = np.stack(
        [cv2.resize(clip.video[k].numpy(), (224, 224), interpolation=cv2.INTER_AREA) for k in at]
    )
    sound = mono(evidence.sound, clip.sample_rate)[:SYNC_SAMPLES]
    sound = np.pad(sound, (0, SYNC_SAMPLES - len(sound)))
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    logits = published.run_script("synchformer", pictures, torch.from_numpy(sound)).flatten()
    offset = float(SYNC_SECONDS[int(logits.argmax())])
    return abs(offset), {"offset": offset, "probability": float(logits.softmax(0).max())}


@metric(
    "vbench_dynamic_degree", unit="", direction="higher", needs=("video",), tolerance=1.0, weights=("raft",)
)
def vbench_dynamic_degree(evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Dynamic degree of VBench with RAFT: 1 when the fastest twentieth of pixels moves by more than 6 / 256 of the
    shorter side in at least a quarter of the frame pairs, at about 8 fps."""
    video = evidence.clip.video[:: max(1, round(evidence.clip.fps / 8))].permute(0, 3, 1, 2).float()
    if len(video) < 2:
        raise Unmeasurable("one frame")
    moving = 0
    for first, second in pairwise(video):
        flow = published.run_script("raft", first[None], second[None])[0]  # (2, H, W)
        speed = flow.norm(dim=0).flatten().sort().values
        top = speed[-max(1, len(speed) // 20) :].mean()
        moving += int(top > 6 * evidence.pixels_per_unit / 256)
    pairs = len(video) - 1
    return float(moving >= max(1, round(pairs / 4))), {"moving": moving, "pairs": pairs}


@metric(
    "vbench_imaging_quality", unit="", direction="higher", needs=("video",), tolerance=0.6, weights=("musiq",)
)
def vbench_imaging_quality(evidence: Evidence) -> float:
    """Imaging quality of VBench: mean MUSIQ score of eight frames, over 100, the longer side scaled down to 512."""
    scores = []
    for frame in _spread(evidence):
        scale = min(1.0, 512 / max(frame.shape[:2]))
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        picture = frame if scale == 1 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        scores.append(float(published.run_script("musiq", x)) / 100)
    return float(np.mean(scores))
