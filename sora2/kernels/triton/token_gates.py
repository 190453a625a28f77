"""What the token-wise kernels must hold: forward and backward they equal the plain definitions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sora2.kernels.heads import split_heads_reference
from sora2.kernels.modulate import gated_add_reference, norm_modulate_reference
from sora2.kernels.stream import Runs, Span
from sora2.kernels.triton import modulate
from sora2.kernels.triton.activation import BLOCK, squared_relu
from sora2.kernels.triton.gates import Bench
from sora2.kernels.triton.heads import split_heads
from sora2.kernels.triton.sums import PIECE, SumPlan, sum_pieces

EPS = 1e-6


def _same(
    bench: Bench,
    ours: Callable[..., Sequence[Tensor]],
    plain: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
) -> None:
    """Outputs and gradients of `ours` equal those of `plain` in float64; repeated, they have the same bits."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    want = plain(*exact)
    generator = torch.Generator().manual_seed(7)
    grads = [torch.randn(x.shape, generator=generator).to(inputs[0]) for x in want]
    want = [*want, *torch.autograd.grad(want, exact, [g.double() for g in grads])]
    answers = []
    for _ in range(2):
        outputs = ours(*inputs)
        answers.append([*outputs, *torch.autograd.grad(outputs, inputs, grads)])
    for i, (a, again, b) in enumerate(zip(*answers, want, strict=True)):
        assert torch.equal(a, again), f"result {i} of {inputs[0].dtype} differs between two runs"
        error = float(((a.double() - b).norm() / b.norm()).detach())
        bound = bench.tolerance(inputs[0].dtype)
        assert error <= bound, (
            f"result {i} of {inputs[0].dtype} {[tuple(x.shape) for x in inputs]}: relative error {error:.2e} above "
            f"{bound:.2e}"
        )


def _dtypes(bench: Bench) -> tuple[torch.dtype, ...]:
    return bench.dtypes if bench.device == "cuda" else bench.dtypes[:2]


def _inputs(bench: Bench, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(bench.device, dtype).requires_grad_() for s in shapes]


def heads(bench: Bench) -> None:
    """Split, QK-norm and rotation: two modalities, one clock or one per sample, head sizes that are no power of two."""
    sizes, lengths, batch = ((128, 64, 24) if bench.device == "cuda" else (12,)), (3, 20), 2
    total = batch * sum(lengths)
    spans = (Span(slice(0, 6), slice(0, 3)), Span(slice(6, total), slice(3, 23)))
    for dtype in _dtypes(bench):
        for size in sizes:
            for clocks in (1, batch):
                angle = torch.rand(clocks, 23, size // 2, generator=torch.Generator().manual_seed(1)) * 6
                angle = angle.to(bench.device)
                qkv, gain = _inputs(bench, dtype, (total, 3 * 3 * size), (2, size))

                def ours(x: Tensor, g: Tensor, angle: Tensor = angle) -> Sequence[Tensor]:
                    return split_heads(x, g, angle.cos(), angle.sin(), spans, batch, EPS)

                def plain(x: Tensor, g: Tensor, angle: Tensor = angle) -> Sequence[Tensor]:
                    return split_heads_reference(x, g, angle.cos(), angle.sin(), spans, batch, EPS)

                _same(bench, ours, plain, (qkv, gain))


def _stream(bench: Bench) -> tuple[tuple[Runs, ...], int, list[int]]:
    """Three modalities of two samples: one level for all, one per run, one per token out of three. With table rows."""
    batch, lengths, runs_per_sample = 2, (3, 40 if bench.device == "cuda" else 6, 5), (1, 2, 5)
    generator = torch.Generator().manual_seed(1)
    runs, row = [], 0
    for n, r in zip(lengths, runs_per_sample, strict=True):
        index = torch.randint(3, (batch * r,), generator=generator).to(bench.device) if r > 2 else None
        runs.append(Runs(slice(row, row + batch * n), batch, r, index))
        row += batch * n
    return tuple(runs), row, [1, 4, 3]


def modulation(bench: Bench) -> None:
    """norm_modulate, gated_add and both in one, with tables that are shared, one per run, and looked up."""
    runs, tokens, rows = _stream(bench)
    for dtype in _dtypes(bench):
        for width in (40,) if bench.device == "cpu" else (40, 2048, 5120):
            tables = [(u, width) for u in rows]
            x, update, *rest = _inputs(bench, dtype, *[(tokens, width)] * 2, *tables * 3)

            def norm(x: Tensor, *t: Tensor) -> Sequence[Tensor]:
                return (modulate.norm_modulate(x, runs, t[:3], t[3:], EPS),)

            def plain_norm(x: Tensor, *t: Tensor) -> Sequence[Tensor]:
                return (norm_modulate_reference(x, runs, t[:3], t[3:], EPS),)

            def gate(x: Tensor, u: Tensor, *t: Tensor) -> Sequence[Tensor]:
                return (modulate.gated_add(x, u, runs, t),)

            def plain_gate(x: Tensor, u: Tensor, *t: Tensor) -> Sequence[Tensor]:
                return (gated_add_reference(x, u, runs, t),)

            def both(x: Tensor, u: Tensor, *t: Tensor) -> Sequence[Tensor]:
                return modulate.gated_add_norm_modulate(x, u, runs, t[:3], t[3:6], t[6:], EPS)

            def plain_both(x: Tensor, u: Tensor, *t: Tensor) -> Sequence[Tensor]:
                added = gated_add_reference(x, u, runs, t[:3])
                return added, norm_modulate_reference(added, runs, t[3:6], t[6:], EPS)

            _same(bench, norm, plain_norm, (x, *rest[:6]))
            _same(bench, gate, plain_gate, (x, update, *rest[:3]))
            _same(bench, both, plain_both, (x, update, *rest))


def sums(bench: Bench) -> None:
    """Pieces have one row each, none is lost; a second sum gives every row, be it used by most tokens or by none."""
    generator = torch.Generator().manual_seed(2)
    for tokens, rows, width in ((700, 20, 24), (5, 9, 70), (64, 1, 8)):
        index = torch.randint(rows, (tokens,), generator=generator)
        index[: tokens // 2] = rows // 2
        plan = SumPlan.of(index.to(bench.device), rows)
        order, bounds = plan.order.cpu(), plan.piece.tolist()
        assert sorted(order.tolist()) == list(range(tokens)) and bounds[-1] == tokens
        shares = torch.zeros(2, plan.pieces, width)
        source = torch.randn(2, tokens, width, generator=generator)
        for i, (first, last) in enumerate(itertools.pairwise(bounds)):
            assert last - first <= PIECE and len(index[order[first:last]].unique()) <= 1
            shares[:, i] = source[:, order[first:last]].sum(1)
        want = torch.zeros(2, rows, width).index_add_(1, index, source)
        torch.testing.assert_close(
            sum_pieces(shares.to(bench.device), plan).cpu(), want, rtol=1e-5, atol=1e-4
        )


def activation(bench: Bench) -> None:
    """Squared ReLU of less than a block, of several and a rest, and of a transposed view; NaN is not lost."""

    def plain(x: Tensor) -> Sequence[Tensor]:
        return (torch.relu(x).square(),)

    def ours(x: Tensor) -> Sequence[Tensor]:
        return (squared_relu(x),)

    def turned(x: Tensor) -> Sequence[Tensor]:
        return (squared_relu(x.t()).t(),)

    for dtype in _dtypes(bench):
        for shape in ((3, 5), (3, BLOCK + 1)):
            (x,) = _inputs(bench, dtype, shape)
            _same(bench, ours, plain, (x,))
            _same(bench, turned, plain, (x,))
    assert bool(squared_relu(torch.tensor([float("nan")], device=bench.device)).isnan())


TOKEN_GATES: tuple[Callable[[Bench], None], ...] = (heads, modulation, sums, activation)
