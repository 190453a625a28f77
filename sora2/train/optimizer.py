"""AdamW, or Muon for the hidden matrices with AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024) steps along the orthogonalised momentum of a matrix. The update is scaled by
0.2 sqrt(max(rows, columns)), so that its size matches AdamW's and learning rates carry over (Liu et al. 2025,
arXiv:2502.16982). `torch.optim.Muon` takes matrices only; here convolution kernels are flattened to (out, rest).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sora2.kernels import has_fast_bf16
from sora2.train.config import OptimizerConfig

#: Quintic Newton-Schulz coefficients and number of iterations (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
#: Rows of a matrix, or columns where these are fewer, from which bf16 is worth its conversions.
LARGE = 128


def orthogonalize(matrix: Tensor) -> Tensor:
    """A matrix with the singular vectors of `matrix` (rows, columns) and singular values near 1.

    Where bf16 products are fast, large matrices are iterated in bf16, as usual for Muon. Else the iteration runs on the
    smaller Gram matrix: with G = X X^T it keeps Q such that the result is Q X, which costs products of the smaller side
    only but needs float32.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    if x.shape[0] >= LARGE and (x.is_cuda or has_fast_bf16()):
        low = x.to(torch.bfloat16, memory_format=torch.contiguous_format)
        for _ in range(ITERATIONS):
            gram = low @ low.mT  # (m, m)
            low = torch.addmm(low, torch.addmm(gram, gram, gram, beta=b, alpha=c), low, beta=a)
        x = low.to(matrix.dtype)
        return x.mT if tall else x
    gram = x @ x.mT  # (m, m)
    product: Tensor | None = None
    for _ in range(ITERATIONS):
        step = b * gram + c * (gram @ gram)
        step.diagonal().add_(a)
        product = step if product is None else step @ product
        gram = step @ gram @ step
    x = product @ x
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Parameter groups with `muon=True` take Muon steps, the others AdamW steps."""

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "muon": False, "momentum": 0.95})
        self.betas, self.eps = betas, eps

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    (self._muon if group["muon"] else self._adam)(p, group)

    def _muon(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - group["momentum"])
        nesterov = p.grad.lerp(state["momentum"], group["momentum"])
        update = orthogonalize(nesterov.flatten(1)).reshape(p.shape)
        p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape[0], p[0].numel()) ** 0.5)

    def _adam(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state |= {"step": 0, "first": torch.zeros_like(p), "second": torch.zeros_like(p)}
        state["step"] += 1
        low, high = self.betas
        state["first"].lerp_(p.grad, 1 - low)
        state["second"].lerp_(p.grad.square(), 1 - high)
        scale = group["lr"] / (1 - low ** state["step"])
        deviation = (state["second"] / (1 - high ** state["step"])).sqrt().add_(self.eps)
        p.addcdiv_(state["first"], deviation, value=-scale)


def build_optimizer(
    parameters: dict[str, nn.Parameter], config: OptimizerConfig, outer: tuple[str, ...]
) -> torch.optim.Optimizer:
    """The configured optimizer over named parameters; weight decay on matrices only. The trainer sets the rates.

    `outer` are parts of names that Muon leaves to AdamW: input and output layers, embeddings, tables.
    """
    decay = config.weight_decay
    matrices = {n: p for n, p in parameters.items() if p.ndim >= 2}
    hidden = [p for n, p in matrices.items() if config.name == "muon" and not any(o in n for o in outer)]
    chosen = {id(p) for p in hidden}
    groups = [
        {"params": [p for p in matrices.values() if id(p) not in chosen], "weight_decay": decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        groups = [g for g in groups if g["params"]]
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=True)
    groups.append({"params": hidden, "weight_decay": decay, "muon": True})
    return MuonAdamW([g for g in groups if g["params"]], config.betas, config.eps)
