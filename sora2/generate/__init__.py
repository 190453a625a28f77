"""Requests in, clips out: what a person asks for, and the pipeline that samples it from a checkpoint."""

from sora2.generate.checkpoint import CheckpointError
from sora2.generate.grid import Grid, World
from sora2.generate.pipeline import Pipeline
from sora2.generate.request import Request, RequestError, SamplingConfig, resolve_task

__all__ = [
    "CheckpointError",
    "Grid",
    "Pipeline",
    "Request",
    "RequestError",
    "SamplingConfig",
    "World",
    "resolve_task",
]
