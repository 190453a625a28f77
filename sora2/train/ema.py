"""Exponential moving averages of the weights, with other widths reconstructed after training.

Karras et al. 2024 (EDM2), section 3: the averaging profile is a power function of training time, so its width is a
fixed fraction `sigma_rel` of the run, whatever its length; and because two profiles are kept and stored along the
way, the average of any other width is their least-squares combination.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import _CHECKPOINT_PREFIX

from sora2.atomic import save_safetensors
from sora2.errors import UserError
from sora2.train.parts import assign, local, to_store


@functools.cache
def exponent(sigma_rel: float) -> float:
    """gamma of the profile t^gamma whose standard deviation is `sigma_rel` of the run (EDM2, eq. 126).

    sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^(-1/2), the largest real root of the cubic.
    """
    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


class PowerEMA:
    """Averages of named parameters, one set per width, in fp32 on the parameters' device."""

    def __init__(self, parameters: Mapping[str, Tensor], sigma_rel: Iterable[float]) -> None:
        self.sigma_rel = tuple(sigma_rel)
        self.averages: list[dict[str, Tensor]] = [
            {name: p.detach().float().clone() for name, p in parameters.items()} for _ in self.sigma_rel
        ]

    def to(self, device: torch.device) -> None:
        """Move all averages."""
        for average in self.averages:
            average.update({name: value.to(device) for name, value in average.items()})

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], samples_seen: int, step_samples: int) -> None:
        """Fold the weights after a step of `step_samples`, `samples_seen` in all, into every average.

        beta(t) = (1 - dt / t)^(gamma + 1): at the first step beta is 0 and the average is the weights themselves.
        """
        live = [local(parameters[name].detach()).float() for name in self.averages[0]]
        for sigma, average in zip(self.sigma_rel, self.averages, strict=True):
            beta = (1 - min(1.0, step_samples / samples_seen)) ** (exponent(sigma) + 1)
            torch._foreach_lerp_([local(value) for value in average.values()], live, 1 - beta)

    def average(self, index: int = 0) -> dict[str, Tensor]:
        return self.averages[index]

    def _named(self) -> dict[str, Tensor]:
        return {
            f"{sigma}/{name}": value
            for sigma, average in zip(self.sigma_rel, self.averages, strict=True)
            for name, value in average.items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """All averages, to be stored by the first process; all processes of a run must ask."""
        return {name: to_store(value) for name, value in self._named().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        expected, got = set(self._named()), set(state)
        if expected != got:
            raise UserError(
                f"the checkpoint's EMA does not fit this run: ema.sigma_rel={list(self.sigma_rel)} needs "
                f"{len(expected)} averages, it holds {len(got)}. Keep ema.sigma_rel and the model as they were."
            )
        for name, value in self._named().items():
            assign(value, state[name])

    def save_snapshot(self, folder: Path, samples_seen: int, write: bool = True) -> Path:
        """Store all averages for a later `reconstruct`. All processes of a run must call it; one has `write`."""
        path = folder / f"ema-{samples_seen:012d}.safetensors"
        state = self.state_dict()
        if write:
            save_safetensors(state, path)
        return path


def _profile_product(t_a: float, gamma_a: float, t_b: float, gamma_b: float) -> float:
    """Inner product of two power-function profiles that end at t_a and t_b (EDM2, eq. 151)."""
    ratio = t_a / t_b
    exponent_ = gamma_b if ratio < 1 else -gamma_a
    num = (gamma_a + 1) * (gamma_b + 1) * ratio**exponent_
    return num / ((gamma_a + gamma_b + 1) * max(t_a, t_b))


def reconstruct(folder: Path, sigma_rel: float, at_samples: int | None = None) -> dict[str, Tensor]:
    """The average of width `sigma_rel` at `at_samples` (default: the last snapshot) from stored snapshots.

    Solves the least-squares problem of EDM2, section 3.2 over all snapshots up to then. Errors: `UserError` when
    the folder holds no snapshot, or none at `at_samples`.
    """
    found: list[tuple[int, float, Path]] = []
    for path in sorted(Path(folder).glob("ema-*.safetensors")):
        samples = int(re.findall(r"\d+", path.stem)[0])
        with safe_open(path, "pt") as file:
            found += [
                (samples, s, path) for s in sorted({float(k.split("/", 1)[0]) for k in list(file.keys())})
            ]
    if not found:
        raise UserError(f"no EMA snapshots (ema-*.safetensors) in {folder}: set ema.snapshot_every_samples")
    end = max(s for s, _, _ in found) if at_samples is None else at_samples
    found = [f for f in found if f[0] <= end]
    if not found or found[-1][0] != end:
        raise UserError(f"no EMA snapshot at {end} samples in {folder}")
    profiles = [(float(samples), exponent(sigma)) for samples, sigma, _ in found]
    a = np.array([[_profile_product(ta, ga, tb, gb) for tb, gb in profiles] for ta, ga in profiles])
    b = np.array([_profile_product(t, g, float(end), exponent(sigma_rel)) for t, g in profiles])
    weights = np.linalg.lstsq(a, b, rcond=None)[0]
    total: dict[str, Tensor] = {}
    for weight, (_, sigma, path) in zip(weights, found, strict=True):
        with safe_open(path, "pt") as file:
            for key in list(file.keys()):
                width, name = key.split("/", 1)
                if float(width) == sigma:
                    term = file.get_tensor(key).double() * float(weight)
                    total[name] = total[name] + term if name in total else term
    return {name: value.float() for name, value in total.items()}


def named_parameters(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and float buffers of several modules under "module.name", whether activations are checkpointed or
    not, as in `state_dict`."""
    return {
        f"{prefix}.{name.replace(_CHECKPOINT_PREFIX, '')}": tensor
        for prefix, module in modules.items()
        for name, tensor in list(module.named_parameters()) + list(module.named_buffers())
        if tensor.is_floating_point()
    }
