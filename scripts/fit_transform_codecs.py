"""Fixed transforms as codecs: an orthonormal DCT of video cells and an MDCT of sound, with the statistics of training
clips, saved as folders that `sora2 encode`, `codecs.video=` and `codecs.audio=` take.

    python scripts/fit_transform_codecs.py --shards data/shards/toybox/train --out runs/transform
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from sora2.codecs.transform import AudioMDCT, AudioMDCTConfig, VideoDCT, VideoDCTConfig, fit_statistics
from sora2.data.datasets import RawDataset


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shards", type=Path, default=Path("data/shards/toybox/train"), help="raw training clips")
    add("--clips", type=int, default=512, help="of them, whose statistics are taken")
    add("--video-channels", type=int, default=VideoDCTConfig.latent_channels)
    add("--audio-channels", type=int, default=AudioMDCTConfig.latent_channels)
    add("--out", type=Path, default=Path("runs/transform"), help="gets video_dct/ and audio_mdct/")
    args = parser.parse_args()
    dataset = RawDataset(args.shards)
    clips = [dataset[i] for i in tqdm(range(min(args.clips, len(dataset))), unit="clip", desc="statistics")]
    dataset.close()
    video = VideoDCT(VideoDCTConfig(latent_channels=args.video_channels))
    audio = AudioMDCT(AudioMDCTConfig(latent_channels=args.audio_channels))
    fit_statistics(video, (clip.pixels()[None] for clip in clips))
    fit_statistics(audio, (clip.audio[None].float() for clip in clips))
    info = {"statistics": f"{len(clips)} clips of {args.shards}"}
    for codec in (video, audio):
        print(codec.save(args.out / codec.kind, info=info))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
