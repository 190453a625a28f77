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

from sora2.train.config import OptimizerConfig

#: Quintic Newton-Schulz coefficients and number of iterations (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A matrix with the singular vectors of `matrix` (rows, columns) and singular values near 1, in its own dtype.

    In float32 the iteration runs on the smaller Gram matrix: with G = X X^T it keeps Q such that the result is Q X,
    which costs products of the smaller side only. Q loses small singular values in bfloat16 (at a condition number of
    100 the result is 19 degrees off), so there the iteration runs on X itself, which is within 3.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).to(dtype)
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    if dtype == torch.bfloat16:
        for _ in range(ITERATIONS):
            gram = x @ x.mT  # (m, m)
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    else:
        gram = x @ x.mT  # (m, m)
        product: Tensor | None = None
        for _ in range(ITERATIONS):
            step = b * gram + c * (gram @ gram)
            step.diagonal().add_(a)
            product = step if product is None else step @ product
            gram = step @ gram @ step
        x = product @ x
    return (x.mT if tall else x).to(matrix.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Parameter groups with `muon=True` take Muon steps, the others AdamW steps.

    `dtype` is that of Muon's products: bfloat16 where training multiplies in bfloat16.
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
        update = orthogonalize(nesterov.flatten(1), self.dtype).reshape(p.shape)
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
    return MuonAdamW([g for g in groups if g["params"]], config.betas, config.eps, dtype)
