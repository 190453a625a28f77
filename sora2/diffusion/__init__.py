"""Rectified-flow diffusion over per-token noise levels: tasks, losses, guidance and samplers as pure
functions.
"""

from sora2.diffusion.layout import STREAMS, Layout, NoiseMap
from sora2.diffusion.losses import LossConfig, flow_losses
from sora2.diffusion.noise_levels import LevelConfig, Trajectory
from sora2.diffusion.tasks import TASKS, Task, get_task
from sora2.diffusion.training import (
    DiffusionConfig,
    make_training_example,
    sample_training_levels,
    training_loss,
)

__all__ = [
    "STREAMS",
    "TASKS",
    "DiffusionConfig",
    "Layout",
    "LevelConfig",
    "LossConfig",
    "NoiseMap",
    "Task",
    "Trajectory",
    "flow_losses",
    "get_task",
    "make_training_example",
    "sample_training_levels",
    "training_loss",
]
