"""From the flat stream to heads and back: QK-norm, rotary position and the change of layout, with their
backward.

The stream is modality-major, attention is per sample: (T, 3 D) -> q, k, v (B, H, N, Dh). The copy that the
change of layout needs anyway does the norm and the rotation on its way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sora2.kernels.cpu.choice import library_for
from sora2.kernels.cpu.heads import MergeHeads, SplitHeads
from sora2.kernels.stream import Span
from sora2.kernels.triton import heads as on_gpu
from sora2.kernels.triton import takes


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        gain: Tensor,
        cosine: Tensor,
        sine: Tensor,
        spans: tuple[Span, ...],
        shape: tuple[int, int, int, int],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, h, n, dh = shape
        half = dh // 2
        qk = qkv[:, : 2 * h * dh].view(-1, 2, h, dh)  # (T, 2, H, Dh)
        total = torch.float64 if qkv.dtype == torch.float64 else torch.float32
        inverse = torch.linalg.vector_norm(qk, dim=-1, keepdim=True, dtype=total)  # (T, 2, H, 1)
        inverse = inverse.square_().div_(dh).add_(eps).rsqrt_().to(qkv.dtype)
        normed = qk * inverse  # (T, 2, H, Dh)
        value = qkv[:, 2 * h * dh :].view(-1, h, dh)  # (T, H, Dh)
        out = qkv.new_empty(3, b, h, n, dh)
        by_token = out.permute(1, 3, 0, 2, 4)  # (B, N, 3, H, Dh)
        tables = _tables(cosine, sine, gain, qkv.dtype)  # 4 x (B or 1, N, 2, 1, Dh / 2)
        for s in spans:
            x = normed[s.rows].view(b, -1, 2, h, dh)  # (B, n, 2, H, Dh)
            x1, x2 = x[..., :half], x[..., half:]
            to = by_token[:, s.sequence]
            o1, o2 = to[:, :, :2, :, :half], to[:, :, :2, :, half:]
            c1, s1, c2, s2 = (t[:, s.sequence] for t in tables)
            torch.mul(x1, c1, out=o1).addcmul_(x2, s2, value=-1)
            torch.mul(x2, c2, out=o2).addcmul_(x1, s1)
            to[:, :, 2] = value[s.rows].view(b, -1, h, dh)
        ctx.save_for_backward(normed, inverse, gain, cosine, sine)
        ctx.spans, ctx.shape = spans, shape
        return out[0], out[1], out[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gq: Tensor, gk: Tensor, gv: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse, gain, cosine, sine = ctx.saved_tensors
        b, h, _, dh = ctx.shape
        half = dh // 2
        grad = normed.new_empty(normed.shape[0], 3, h, dh)  # (T, 3, H, Dh)
        turned = torch.empty_like(normed)  # gradient rotated back, (T, 2, H, Dh)
        cos, sin = (
            cosine.to(normed.dtype).unsqueeze(2),
            sine.to(normed.dtype).unsqueeze(2),
        )  # (B or 1, N, 1, half)
        for s in ctx.spans:
            c, si = cos[:, s.sequence], sin[:, s.sequence]
            to = turned[s.rows].view(b, -1, 2, h, dh)
            for i, g in enumerate((gq, gk)):
                g = g[:, :, s.sequence].transpose(1, 2)  # (B, n, H, Dh)
                g1, g2 = g[..., :half], g[..., half:]
                torch.mul(g1, c, out=to[:, :, i, :, :half]).addcmul_(g2, si)
                torch.mul(g2, c, out=to[:, :, i, :, half:]).addcmul_(g1, si, value=-1)
            grad[s.rows, 2].view(b, -1, h, dh).copy_(gv[:, :, s.sequence].transpose(1, 2))
        product = turned * normed  # (T, 2, H, Dh)
        # Summed in two steps: one reduction over both axes at once is ten times slower on CPUs.
        g_gain = product.sum(0, dtype=gain.dtype).sum(1)  # (2, Dh)
        weight = gain.to(normed.dtype)[:, None]  # (2, 1, Dh)
        # d/dx of x * rsqrt(mean(x^2)): inverse * (g - normed * mean(g * normed))
        along = (product.mul_(weight)).sum(-1, keepdim=True).div_(-dh)  # (T, 2, H, 1)
        turned.mul_(weight).addcmul_(normed, along)
        torch.mul(turned, inverse, out=grad[:, :2])
        return grad.view(grad.shape[0], -1), g_gain, None, None, None, None, None


class _MergeHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, spans: tuple[Span, ...]) -> Tensor:
        ctx.spans, ctx.shape = spans, x.shape
        b, h, n, dh = x.shape
        out = x.new_empty(b * n, h * dh)
        parts = [out[s.rows].view(b, -1, h, dh) for s in spans]
        torch.split_with_sizes_copy(x.transpose(1, 2), [p.shape[1] for p in parts], dim=1, out=parts)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        b, h, _, dh = ctx.shape
        rows = torch.cat([grad[s.rows].view(b, -1, h, dh) for s in ctx.spans], dim=1)  # (B, N, H, Dh)
        return rows.transpose(1, 2), None


def split_heads(
    qkv: Tensor, gain: Tensor, cosine: Tensor, sine: Tensor, spans: tuple[Span, ...], batch: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """RMS-norm and rotate queries and keys, and lay q, k, v out per sample.

    Args:
        qkv: (T, 3 * H * Dh) flat stream, T = batch * N.
        gain: (2, Dh) learned scale of the normed queries and keys.
        cosine, sine: (B or 1, N, Dh / 2) of the rotary angles; channel i turns with channel i + Dh / 2.

    Returns:
        q, k, v, each (B, H, N, Dh) contiguous, in the dtype of `qkv`.
    """
    if torch.compiler.is_compiling():  # the compiler fuses the plain form itself
        return split_heads_reference(qkv, gain, cosine, sine, spans, batch, eps)
    dh = gain.shape[-1]
    shape = (batch, qkv.shape[1] // (3 * dh), qkv.shape[0] // batch, dh)
    library = library_for(qkv)
    if library is not None:
        return SplitHeads.apply(library, qkv, gain, cosine, sine, spans, shape, eps)
    if takes(qkv):
        return on_gpu.split_heads(qkv, gain, cosine.contiguous(), sine.contiguous(), spans, batch, eps)
    return _SplitHeads.apply(qkv, gain, cosine, sine, spans, shape, eps)


def merge_heads(x: Tensor, spans: tuple[Span, ...]) -> Tensor:
    """(B, H, N, Dh) -> (T, H * Dh) flat stream, the inverse layout of `split_heads`."""
    if torch.compiler.is_compiling():
        return torch.cat([x[:, :, s.sequence].transpose(1, 2).flatten(0, 1).flatten(1) for s in spans])
    library = library_for(x)
    return _MergeHeads.apply(x, spans) if library is None else MergeHeads.apply(library, x, spans)


def split_heads_reference(
    qkv: Tensor, gain: Tensor, cosine: Tensor, sine: Tensor, spans: tuple[Span, ...], batch: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition of `split_heads` in plain autograd."""
    dh = gain.shape[-1]
    packed = torch.cat([qkv[s.rows].view(batch, -1, qkv.shape[1]) for s in spans], dim=1)  # (B, N, 3 H Dh)
    q, k, v = packed.unflatten(-1, (3, -1, dh)).permute(2, 0, 3, 1, 4)  # 3 x (B, H, N, Dh)
    cos, sin = cosine.to(q.dtype).unsqueeze(1), sine.to(q.dtype).unsqueeze(1)

    def turn(x: Tensor, weight: Tensor) -> Tensor:
        a, b = (x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.to(x.dtype)).chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    return turn(q, gain[0]), turn(k, gain[1]), v


def _tables(cosine: Tensor, sine: Tensor, gain: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Rotation times gain: cos * g1, sin * g1, cos * g2, sin * g2, each (B or 1, N, 2, 1, Dh / 2)."""
    cos, sin = cosine[:, :, None, None], sine[:, :, None, None]
    g1, g2 = gain[:, None].chunk(2, dim=-1)  # (2, 1, Dh / 2)
    return tuple((a * g).to(dtype) for g in (g1, g2) for a in (cos, sin))
