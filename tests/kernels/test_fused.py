"""The operations with a hand-written backward equal their plain definitions."""

import torch

from sora2.kernels import (
    Runs,
    Span,
    gated_add,
    gated_add_norm_modulate,
    merge_heads,
    norm_modulate,
    split_heads,
    squared_relu,
)
from sora2.kernels.heads import split_heads_reference
from sora2.kernels.modulate import gated_add_reference, norm_modulate_reference

B, D = 2, 12


def gradcheck(function, inputs):
    return torch.autograd.gradcheck(function, inputs, fast_mode=True)


def _double(*shape, seed=0):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True
    )


def _stream():
    """Three modalities: one level for all, one per run of two tokens, one per token out of three."""
    lengths, runs_per_sample = (3, 4, 5), (1, 2, 5)
    g = torch.Generator().manual_seed(1)
    runs, row = [], 0
    for n, r in zip(lengths, runs_per_sample, strict=True):
        index = torch.randint(3, (B * r,), generator=g) if r > 2 else None
        runs.append(Runs(slice(row, row + B * n), B, r, index))
        row += B * n
    rows = (1, B * 2, 3)  # shared by all, one per run, looked up
    tables = [_double(rows[i // 2], D, seed=10 + i) for i in range(6)]
    return tuple(runs), _double(row, D), tables


def _tables(flat):
    return list(flat[::2]), list(flat[1::2])


def test_norm_modulate():
    runs, x, tables = _stream()
    got = norm_modulate(x, runs, *_tables(tables), 1e-5)
    torch.testing.assert_close(got, norm_modulate_reference(x, runs, *_tables(tables), 1e-5))
    assert gradcheck(lambda x, *t: norm_modulate(x, runs, *_tables(t), 1e-5), (x, *tables))


def test_gated_add():
    runs, x, tables = _stream()
    update = _double(*x.shape, seed=5)
    torch.testing.assert_close(
        gated_add(x, update, runs, tables[::2]), gated_add_reference(x, update, runs, tables[::2])
    )
    assert gradcheck(lambda x, u, *t: gated_add(x, u, runs, list(t)), (x, update, *tables[::2]))


def test_gated_add_norm_modulate_is_both():
    runs, x, tables = _stream()
    update, gates = _double(*x.shape, seed=5), tables[::2]

    def fused(x, update, *t):
        return gated_add_norm_modulate(x, update, runs, list(t[::2]), *_tables(t), 1e-5)

    added, modulated = fused(x, update, *tables)
    torch.testing.assert_close(added, gated_add_reference(x, update, runs, gates))
    torch.testing.assert_close(modulated, norm_modulate_reference(added, runs, *_tables(tables), 1e-5))
    assert gradcheck(fused, (x, update, *tables))


def _heads():
    """Two modalities of 3 and 4 tokens, two heads of 6 channels."""
    spans = (Span(slice(0, 6), slice(0, 3)), Span(slice(6, 14), slice(3, 7)))
    angles = torch.rand(1, 7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 6
    gain = (
        torch.rand(2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    ).requires_grad_()
    return _double(14, 3 * D), gain, angles.cos(), angles.sin(), spans


def test_split_heads():
    qkv, gain, cos, sin, spans = _heads()
    got = split_heads(qkv, gain, cos, sin, spans, B, 1e-5)
    for a, b in zip(got, split_heads_reference(qkv, gain, cos, sin, spans, B, 1e-5), strict=True):
        torch.testing.assert_close(a, b)
    assert gradcheck(lambda x, g: split_heads(x, g, cos, sin, spans, B, 1e-5), (qkv, gain))


def test_split_heads_with_a_clock_per_sample():
    qkv, gain, _, _, spans = _heads()
    angles = torch.rand(B, 7, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 6
    got = split_heads(qkv, gain, angles.cos(), angles.sin(), spans, B, 1e-5)
    want = split_heads_reference(qkv, gain, angles.cos(), angles.sin(), spans, B, 1e-5)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_merge_heads_is_the_inverse_layout():
    qkv, gain, cos, sin, spans = _heads()
    value = split_heads(qkv, gain, cos, sin, spans, B, 1e-5)[2]
    torch.testing.assert_close(merge_heads(value, spans), qkv[:, 2 * D :])
    assert gradcheck(lambda x: merge_heads(x, spans), (value.detach().requires_grad_(),))


def test_squared_relu():
    x = _double(5, 7)
    torch.testing.assert_close(squared_relu(x), torch.relu(x) ** 2)
    assert gradcheck(squared_relu, (x,))


def test_bf16_stays_close_to_float32():
    qkv, gain, cos, sin, spans = (t.float() if isinstance(t, torch.Tensor) else t for t in _heads())
    got = split_heads(qkv.bfloat16(), gain, cos, sin, spans, B, 1e-5)
    for a, b in zip(got, split_heads_reference(qkv, gain, cos, sin, spans, B, 1e-5), strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b, rtol=2e-2, atol=3e-2)
