"""What a trained video codec keeps of held-out clips: over all, per scene and per style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sora2.codecs import load_codecs
from sora2.codecs.robustness import measure_latent
from sora2.data.datasets import RawDataset


def reconstruction(folder: Path, shards: Path, clips: int) -> dict[str, float]:
    """Means of `measure_latent` over clips: "all/psnr_db", "scene/talk/psnr_db", "style/pencil/psnr_db" and so on,
    beside the codec's parameters and pixel values per latent number.

    Raises:
        CodecError: a codec folder that is damaged. DataError: the same of the shards.
    """
    video = load_codecs(folder, None, text=None).video
    dataset = RawDataset(shards)
    rows: dict[str, list[float]] = {}
    for i in range(min(clips, len(dataset))):
        clip = dataset[i]
        truth: dict[str, Any] = clip.meta["truth"]
        for name, value in measure_latent(video, clip, seed=i).items():
            for group in ("all", f"scene/{truth['scene']}", f"style/{truth['style']}"):
                rows.setdefault(f"{group}/{name}", []).append(value)
    dataset.close()
    strides = video.config.temporal_stride * video.config.spatial_stride**2
    return {
        **{name: sum(values) / len(values) for name, values in rows.items()},
        "parameters": float(sum(p.numel() for p in video.parameters())),
        "pixels_per_latent_number": 3 * strides / video.config.latent_channels,
    }
