"""AdamW, or Muon for the hidden matrices with AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024) steps along the orthogonalised momentum of a matrix. The update is scaled by
0.2 sqrt(max(rows, columns)), so that its size matches AdamW's and learning rates carry over (Liu et al. 2025,
arXiv:2502.16982). `torch.optim.Muon` takes matrices only; here convolution kernels are flattened to (out, rest).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sora2.train.config import OptimizerConfig
from sora2.train.parts import Turns, local

#: Quintic Newton-Schulz coefficients and number of iterations (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5

#: Numbers in the matrices that are orthogonalised at once: a quarter of a GiB in float32.
STACK_NUMBERS = 2**26


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Matrices with the singular vectors of `matrices` (..., rows, columns) and singular values near 1, in their dtype.

    In float32 the iteration runs on the smaller Gram matrix: with G = X X^T it keeps Q such that the result is Q X,
    which costs products of the smaller side only. Q loses small singular values in bfloat16 (at a condition number of
    100 the result is 19 degrees off), so there the iteration runs on X itself, which is within 3.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x.reshape(-1, *x.shape[-2:])  # (n, m, k), m <= k
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    a, b, c = COEFFICIENTS
    if dtype == torch.bfloat16:
        for _ in range(ITERATIONS):
            gram = x @ x.mT  # (n, m, m)
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    else:
        gram = x @ x.mT  # (n, m, m)
        product: Tensor | None = None
        for _ in range(ITERATIONS):
            step = b * gram + c * (gram @ gram)
            step.diagonal(dim1=1, dim2=2).add_(a)
            product = step if product is None else step @ product
            gram = step @ gram @ step
        x = product @ x
    return (x.mT if tall else x).reshape(matrices.shape).to(matrices.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Parameter groups with `muon=True` take Muon steps, the others AdamW steps.

    `dtype` is that of Muon's products: bfloat16 where training multiplies in bfloat16. Matrices of one shape are
    orthogonalised together: few large products keep all cores, or a GPU, busy where many small ones do not.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        betas: tuple[float, float],
        eps: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "muon": False, "momentum": 0.95})
        self.betas, self.eps, self.dtype = betas, eps, dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            with torch.enable_grad():
                closure()
        # The trainer steps inside its autocast region, where products would be rounded to bfloat16; the iteration on
        # Gram matrices then no longer converges, and training diverges.
        with torch.autocast(self.param_groups[0]["params"][0].device.type, enabled=False):
            for group in self.param_groups:
                parameters = [p for p in group["params"] if p.grad is not None]
                if not parameters:
                    continue
                torch._foreach_mul_([local(p) for p in parameters], 1 - group["lr"] * group["weight_decay"])
                if group["muon"]:
                    self._muon(parameters, group)
                else:
                    self._adam(parameters, group)

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [local(p.grad) for p in parameters]
        momenta = [local(self.state[p]["momentum"]) for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p, direction in zip(parameters, nesterov, strict=True):
            alike.setdefault((p.shape[0], math.prod(p.shape[1:])), []).append((p, direction.flatten(1)))
        turns = Turns.of(parameters[0])
        for (rows, columns), members in alike.items():
            size = group["lr"] * 0.2 * max(rows, columns) ** 0.5
            at_once = turns.processes * max(1, STACK_NUMBERS // (rows * columns))
            for first in range(0, len(members), at_once):
                part = members[first : first + at_once]
                updates = turns.apply(
                    lambda matrices: orthogonalize(matrices, self.dtype), [matrix for _, matrix in part], rows
                )
                shaped = [u.reshape(local(p).shape) for (p, _), u in zip(part, updates, strict=True)]
                torch._foreach_add_([local(p) for p, _ in part], shaped, alpha=-size)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            if not state:
                state |= {"step": 0, "first": torch.zeros_like(p), "second": torch.zeros_like(p)}
            state["step"] += 1
        gradients = [local(p.grad) for p in parameters]
        first, second = ([local(state[name]) for state in states] for name in ("first", "second"))
        low, high = self.betas
        torch._foreach_lerp_(first, gradients, 1 - low)
        torch._foreach_lerp_(second, torch._foreach_mul(gradients, gradients), 1 - high)
        deviation = torch._foreach_div(second, [1 - high ** state["step"] for state in states])
        torch._foreach_sqrt_(deviation)
        torch._foreach_add_(deviation, self.eps)
        scales = [-group["lr"] / (1 - low ** state["step"]) for state in states]
        torch._foreach_addcdiv_([local(p) for p in parameters], first, deviation, scales)


def is_hidden(name: str, parameter: Tensor, outer: tuple[str, ...]) -> bool:
    """Whether Muon takes a parameter: matrices, but for those whose names hold a part in `outer`."""
    return parameter.ndim >= 2 and not any(part in name for part in outer)


def state_values(parameters: Mapping[str, Tensor], config: OptimizerConfig, outer: tuple[str, ...]) -> float:
    """Numbers that the optimizer keeps for a parameter, on average: two for AdamW, one for Muon."""
    total = sum(p.numel() for p in parameters.values())
    hidden = sum(p.numel() for n, p in parameters.items() if is_hidden(n, p, outer))
    return 2 - (hidden / total if config.name == "muon" else 0)


def build_optimizer(
    parameters: dict[str, nn.Parameter],
    config: OptimizerConfig,
    outer: tuple[str, ...],
    dtype: torch.dtype = torch.float32,
) -> torch.optim.Optimizer:
    """The configured optimizer over named parameters; weight decay on matrices only. The trainer sets the rates.

    `outer` are parts of names that Muon leaves to AdamW: input and output layers, embeddings, tables. `dtype` is that
    of Muon's products.
    """
    decay = config.weight_decay
    matrices = {n: p for n, p in parameters.items() if p.ndim >= 2}
    hidden = [p for n, p in matrices.items() if config.name == "muon" and is_hidden(n, p, outer)]
    chosen = {id(p) for p in hidden}
    groups = [
        {"params": [p for p in matrices.values() if id(p) not in chosen], "weight_decay": decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        groups = [g for g in groups if g["params"]]
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=True)
    groups.append({"params": hidden, "weight_decay": decay, "muon": True})
    return MuonAdamW([g for g in groups if g["params"]], config.betas, config.eps, dtype)
