"""Shared settings of the suite: offline, one thread per worker process (make test runs two), deterministic."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from tests.worlds import save_tiny_codecs, write_latents

torch.set_num_threads(int(os.environ.get("SORA2_TEST_THREADS", "1")))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiny codecs and latent shards of random numbers, for tests that train."""
    root = tmp_path_factory.mktemp("world")
    save_tiny_codecs(root / "codecs")
    write_latents(root / "latents", root / "codecs")
    return root
