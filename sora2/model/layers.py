"""Linear layers without an initialisation of their own: `init.initialize` owns every parameter's first value."""

from __future__ import annotations

from torch import Tensor, nn

from sora2.kernels import linear


class Linear(nn.Linear):
    """`nn.Linear` whose parameters are left unset by construction, so that building costs no random draws."""

    starts_at_zero = False

    def reset_parameters(self) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight) if self.bias is None else super().forward(x)


class ZeroLinear(Linear):
    """A linear layer that starts at zero: gates and outputs."""

    starts_at_zero = True
