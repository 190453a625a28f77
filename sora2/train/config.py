"""The training config: every section as a dataclass, checked as a whole before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sora2.config import ConfigError

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "float16", "bfloat16", "int8"]  # of weights in a file


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon, with a schedule over samples seen (not steps), so nothing changes with the batch size."""

    name: Literal["adamw", "muon"] = "adamw"  # muon: for hidden matrices, the rest stays with AdamW
    lr: float = 1e-3
    muon_lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_samples: int = 2_000
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"  # wsd: warm-up, stable, decay
    decay_fraction: float = 0.2  # wsd: the last part of the run, in which the rate falls
    final_lr_fraction: float = 0.02
    grad_clip: float = 1.0
    discriminator_lr: float = 2e-4

    def __post_init__(self) -> None:
        if min(self.lr, self.discriminator_lr, self.muon_lr) <= 0:
            raise ConfigError(
                f"optimizer.lr={self.lr}, muon_lr={self.muon_lr} and discriminator_lr={self.discriminator_lr} must be "
                "positive"
            )
        if not 0 < self.decay_fraction <= 1:
            raise ConfigError(f"optimizer.decay_fraction={self.decay_fraction} must be above 0 and at most 1")
        if self.grad_clip <= 0:
            raise ConfigError(
                f"optimizer.grad_clip={self.grad_clip} must be positive; inf (in YAML .inf) switches it off"
            )


@dataclass(frozen=True)
class TrainerConfig:
    """The machine and the loop."""

    max_samples: int = 100_000
    max_minutes: float | None = (
        None  # wall clock; a run that hits it ends with a checkpoint and can be resumed
    )
    stop_at_samples: int | None = None  # end this session earlier; schedules still follow max_samples
    accumulate: int = 1  # micro-batches per optimizer step
    precision: Literal["auto", "32-true", "bf16-mixed"] = (
        "auto"  # auto: bf16 where the hardware multiplies it
    )
    cpu_kernels: Literal["auto", "compiled", "plain"] = (
        "auto"  # of a run on the CPU; auto: compiled where there is a compiler, unless SORA2_CPU_KERNELS says otherwise
    )
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = (
        "auto"  # fsdp: weights and all that follows them spread over devices
    )
    shard_devices: int | None = None  # fsdp: devices that share one copy of the weights; None = all
    sequence_devices: int = 1  # devices that share each sequence of tokens
    compile: bool = False
    activation_checkpointing: bool = False
    threads: int | None = None  # CPU threads of the matrix products; None = all cores
    checkpoint_every_samples: int = 20_000
    checkpoint_every_minutes: float | None = None
    keep_checkpoints: int = 2
    log_every_steps: int = 20
    render_every_samples: int | None = None  # None = no samples during training
    render_prompts: tuple[str, ...] = ()
    export_dtype: Dtype = "float32"  # int8: of matrices, with a scale per row
    peak_tflops: float | None = None  # denominator of MFU; None = measured matrix product of this machine

    @property
    def processes(self) -> int:
        return self.devices * self.nodes

    @property
    def replicas(self) -> int:
        """Processes that have batches of their own."""
        return self.processes // self.sequence_devices

    @property
    def product_dtype(self) -> torch.dtype:
        """What matrix products run in, once `precision` is settled."""
        import torch  # here, for commands read this file before they know whether they have work to do

        return torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32

    def __post_init__(self) -> None:
        for name in (
            "max_samples",
            "accumulate",
            "devices",
            "nodes",
            "checkpoint_every_samples",
            "log_every_steps",
            "sequence_devices",
            "keep_checkpoints",
            "render_every_samples",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} must be at least 1")
        if self.shard_devices is not None and self.strategy != "fsdp":
            raise ConfigError(
                f"trainer.shard_devices={self.shard_devices} is a setting of trainer.strategy=fsdp"
            )
        for name in ("sequence_devices", "shard_devices"):
            together = getattr(self, name)
            if together is not None and (together < 1 or self.processes % together):
                raise ConfigError(
                    f"trainer.{name}={together} must divide the {self.processes} devices of the run "
                    "(trainer.devices x trainer.nodes)"
                )


@dataclass(frozen=True)
class EmaConfig:
    """Power-function EMA (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models").

    `sigma_rel` are relative widths of the averaging window; the first is the one exported and rendered. Snapshots of
    all of them allow another width to be reconstructed after training (`sora2.train.ema.reconstruct`).
    """

    sigma_rel: tuple[float, ...] = (0.05, 0.10)
    snapshot_every_samples: int | None = None

    def __post_init__(self) -> None:
        if not self.sigma_rel or any(not 0 < s < 0.28 for s in self.sigma_rel):
            raise ConfigError(f"ema.sigma_rel={list(self.sigma_rel)} must hold values between 0 and 0.28")
        if self.snapshot_every_samples is not None and self.snapshot_every_samples < 1:
            raise ConfigError(
                f"ema.snapshot_every_samples={self.snapshot_every_samples} must be at least 1, or null"
            )


@dataclass(frozen=True)
class ValidationConfig:
    """The loss of the averaged weights on held-out clips during training."""

    datasets: tuple[str, ...] = ()  # folders of shards
    every_samples: int | None = None  # None = never
    clips: int = 256  # the same ones every time

    def __post_init__(self) -> None:
        if self.clips < 1 or (self.every_samples is not None and self.every_samples < 1):
            raise ConfigError(
                f"validation.clips={self.clips} and every_samples={self.every_samples} must be at least 1"
            )


@dataclass(frozen=True)
class LoggerConfig:
    name: Literal["csv", "tensorboard", "wandb"] = "csv"
    project: str = "sora2"
    offline: bool = True  # wandb only: no network unless asked


@dataclass(frozen=True)
class CodecPaths:
    """The frozen codecs that made the latents, and that decode samples."""

    video: str = "checkpoints/video_vae"
    audio: str = "checkpoints/audio_vae"
    text: str = "minilm"
    text_tokens: int | None = (
        None  # longest prompt, as `sora2 encode --max-text-tokens` had it; None: the encoder's own
    )


@dataclass(frozen=True)
class ClipConfig:
    """The clip that the run is about: used by renders and as the default of `sora2 sample`."""

    frames: int = 33
    height: int = 64
    width: int = 64
    fps: float = 16.0
    sample_rate: int = 16_000
    channels: int = 2


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run. `model`, `task`, `data` and `codec` are parsed by the recipe that uses them."""

    name: str
    recipe: Literal["diffusion", "video_codec", "audio_codec", "readers"]
    data: dict[str, Any]
    out: str = "runs"
    seed: int = 0
    resume: bool = True  # continue from the newest checkpoint of the run's folder, if there is one
    init_from: str | None = None  # weights of another run to start from (a folder with model.safetensors)
    init_fresh: tuple[str, ...] = ()  # beginnings of names of tensors that are not taken from init_from
    train_only: tuple[str, ...] = ()  # parts of names of the parameters that learn; () = all
    dry_run: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    codec: dict[str, Any] = field(default_factory=dict)
    codecs: CodecPaths = field(default_factory=CodecPaths)
    clip: ClipConfig = field(default_factory=ClipConfig)
    sampling: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        if self.init_fresh and self.init_from is None:
            raise ConfigError(
                f"init_fresh={list(self.init_fresh)} says what not to take from init_from, which is not set"
            )
