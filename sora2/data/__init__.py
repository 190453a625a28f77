"""Shards of clips and latents, and the loader that feeds training from them."""

from sora2.data.collate import collate_latents, collate_raw
from sora2.data.datasets import LatentDataset, RawDataset
from sora2.data.errors import DataError
from sora2.data.index import ShardIndex, find_shard_folders
from sora2.data.loader import DatasetConfig, LoaderConfig, StatefulLoader, build_loader
from sora2.data.samples import Bucket, LatentSample, pack_latents
from sora2.data.shards import ShardWriter

__all__ = [
    "Bucket",
    "DataError",
    "DatasetConfig",
    "LatentDataset",
    "LatentSample",
    "LoaderConfig",
    "RawDataset",
    "ShardIndex",
    "ShardWriter",
    "StatefulLoader",
    "build_loader",
    "collate_latents",
    "collate_raw",
    "find_shard_folders",
    "pack_latents",
]
