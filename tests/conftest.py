"""Shared settings of the suite: offline, one thread per worker process (make test runs two), deterministic."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

torch.set_num_threads(int(os.environ.get("SORA2_TEST_THREADS", "1")))
