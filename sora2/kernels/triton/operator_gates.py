"""What the attention operator must hold inside PyTorch: contract, compilation, checkpointing, autocast, refusals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sora2.kernels.dispatch import attention
from sora2.kernels.pattern import dense_pattern
from sora2.kernels.tiles import Tiles
from sora2.kernels.triton import KernelError, KernelPattern, triton_attention
from sora2.kernels.triton.gates import Bench, draw, random_pattern


def operator_contract(bench: Bench) -> None:
    """PyTorch's own check of schema, fake tensors, autograd registration and tracing."""
    pattern = random_pattern(bench).to(bench.device)
    inputs = draw(bench, (1, 1, pattern.queries.tokens, bench.heads[0]), pattern.keys.tokens)
    q, k, v = (x.contiguous().requires_grad_() for x in inputs)
    p = KernelPattern.of(pattern, q.device)
    sizes = [p.query_size, p.key_size, p.groups]
    args = (q, k, v, p.tensors(), p.query_rank, p.key_rank, sizes, 0.25)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.sora2.tile_attention.default, args, test_utils=checks)
    out, lse = (x.detach() for x in torch.ops.sora2.tile_attention(*args))
    back = (torch.randn_like(out), None, q.detach(), k.detach(), v.detach(), out, lse, *args[3:])
    torch.library.opcheck(
        torch.ops.sora2.tile_attention_backward.default, back, test_utils=("test_schema", "test_faketensor")
    )


def padded_without_a_pattern(bench: Bench) -> None:
    """Keys that a mask hides are seen by nobody; a sample without any gives zero; nothing changes without a mask."""
    batch, n, m = 3, 140, 150
    q, k, v = (x.contiguous().requires_grad_() for x in draw(bench, (batch, 2, n, bench.heads[0]), m))
    mask = torch.arange(m) < torch.tensor([[150], [131], [0]])
    mask[0, 5:9] = False
    for key_mask in (mask.to(bench.device), None):
        ours, plain = (attention(q, k, v, key_mask=key_mask, backend=b) for b in ("triton", "reference"))
        grads = [torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (ours, plain)]
        for a, b in zip((ours, *grads[0]), (plain, *grads[1]), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4)
    assert not attention(q, k, v, key_mask=mask.to(bench.device), backend="triton")[2].any()


def compiled_and_checkpointed(bench: Bench) -> None:
    """torch.compile without a graph break, activation checkpointing, and both, give the eager gradients."""
    n = bench.tile + 3
    pattern = KernelPattern.of(
        dense_pattern(Tiles.regular(n, bench.tile)), torch.zeros(1, device=bench.device).device
    )
    inputs = [x.contiguous().requires_grad_() for x in draw(bench, (1, 1, n, bench.heads[0]))]

    def layer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return triton_attention(q * 2, k, v, pattern)[0].sin()

    def again(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return checkpoint(layer, q, k, v, use_reentrant=False)

    want = torch.autograd.grad(layer(*inputs).sum(), inputs)
    forms: list[Callable[..., Tensor]] = [again]
    forms += [torch.compile(f, backend=bench.compiler, fullgraph=True) for f in (layer, again)]
    for form in forms:
        for a, b in zip(torch.autograd.grad(form(*inputs).sum(), inputs), want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def autocast(bench: Bench) -> None:
    """Under autocast float32 inputs are computed in its dtype, and their gradients come back in float32."""
    low = torch.float16 if torch.float16 in bench.dtypes else torch.bfloat16
    pattern = dense_pattern(Tiles.regular(bench.tile, bench.tile)).to(bench.device)
    q, k, v = (x.requires_grad_() for x in draw(bench, (1, 1, bench.tile, bench.heads[0])))
    with torch.autocast(bench.device, low):
        out, _ = triton_attention(q, k, v, pattern)
    want, _ = triton_attention(q.to(low), k.to(low), v.to(low), pattern)
    assert out.dtype == low and torch.equal(out, want)
    for x, grad in zip((q, k, v), torch.autograd.grad(out.float().square().sum(), (q, k, v)), strict=True):
        assert grad.dtype == x.dtype and bool(grad.any())


def refusals(bench: Bench) -> None:
    """What cannot be computed is refused before any launch, with what can."""
    n = bench.tile
    pattern = dense_pattern(Tiles.regular(n, n)).to(bench.device)

    def refused(said: str, *inputs: Tensor) -> None:
        try:
            triton_attention(inputs[0], inputs[1], inputs[2], pattern)
        except KernelError as error:
            assert said in str(error), f"{said!r} is not in {str(error)!r}"
        else:
            raise AssertionError(f"taken, though it should be refused: {said}")

    good = torch.zeros(1, 1, n, 32, device=bench.device)
    refused("head sizes", *[torch.zeros(1, 1, n, 24, device=bench.device)] * 3)
    refused("one dtype", good, good.half(), good.half())
    refused("tokens", *[torch.zeros(1, 1, n + 1, 32, device=bench.device)] * 3)
    refused("contiguous", *[torch.zeros(1, 1, 32, n, device=bench.device).transpose(2, 3)] * 3)
    refused("int64", *[good.long()] * 3)
    if bench.device == "cuda":
        refused("aligned", *[torch.zeros(1, 1, n, 33, device="cuda")[..., 1:]] * 3)


OPERATOR_GATES: tuple[Callable[[Bench], None], ...] = (
    refusals,
    operator_contract,
    padded_without_a_pattern,
    compiled_and_checkpointed,
    autocast,
)
