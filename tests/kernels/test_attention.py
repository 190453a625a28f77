"""Every backend equals the reference, forward and backward; the pattern and the padding are what they say."""

import pytest
import torch

from sora2.kernels import AttentionError, BlockCausal, attention, block_causal, explain
from sora2.kernels import matmul as matmul_module

# Largest error allowed against the reference: float32 by rounding, bf16 by the format's 3 digits.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 4e-2}
B, H, N, D = 2, 3, 33, 16


def _inputs(dtype=torch.float32, m=N, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((B, H, N, D), (B, H, m, D), (B, H, m, D))
    return [torch.randn(s, generator=g).to(dtype).requires_grad_() for s in shapes]


def _run(q, k, v, **kwargs):
    q, k, v = (x.detach().clone().requires_grad_() for x in (q, k, v))
    out = attention(q, k, v, **kwargs)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), (q, k, v))]


def _padding(m=N):
    mask = torch.ones(B, m, dtype=torch.bool)
    mask[0, 5:9] = False
    mask[1, :4] = False
    return mask


def _layout():
    seconds = torch.cat([torch.zeros(5), torch.arange(20) * 0.1, torch.arange(8) * 0.25])
    return block_causal(seconds.expand(B, N), torch.arange(N) < 5, 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "matmul", "auto"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("pattern", ["full", "block_causal"])
def test_backends_equal_the_reference(backend, dtype, padded, pattern):
    inputs = _inputs(dtype)
    options = {"key_mask": _padding() if padded else None, "layout": _layout() if pattern != "full" else None}
    expected = _run(*inputs, backend="reference", **options)
    for got, want in zip(_run(*inputs, backend=backend, **options), expected, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want.double()).abs().max() <= TOLERANCE[dtype] * want.double().abs().max()


def test_reference_gradients_are_those_of_its_values():
    q, k, v = (x.detach()[:1, :1, :6, :3].double().requires_grad_() for x in _inputs())
    mask = torch.tensor([[True, True, True, True, False, False]])
    layout = BlockCausal(torch.tensor([-1, -1, 0, 0, 1, 1]), torch.tensor([-1, -1, 0, 0, 1, 1]))
    for options in ({}, {"key_mask": mask}, {"key_mask": mask, "layout": layout}):
        assert torch.autograd.gradcheck(
            lambda *x, o=options: attention(*x, backend="reference", **o), (q, k, v), fast_mode=True
        )


def test_chunked_products_equal_whole_ones(monkeypatch):
    inputs = _inputs(m=21)
    mask = _padding(21)
    whole = _run(*inputs, backend="matmul", key_mask=mask)
    monkeypatch.setattr(matmul_module, "KEEP_WEIGHTS", 0)
    monkeypatch.setattr(matmul_module, "CHUNK_SCORES", B * H * 21 * 10)
    for got, want in zip(_run(*inputs, backend="matmul", key_mask=mask), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "matmul"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_without_keys_gives_zero_and_no_gradient(backend, dtype):
    inputs = _inputs(dtype)
    mask = _padding()
    mask[1] = False
    out, *grads = _run(*inputs, backend=backend, key_mask=mask)
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert all(torch.equal(g[1], torch.zeros_like(g[1])) for g in grads)
    assert all(bool(x.isfinite().all()) for x in (out, *grads))


def test_padding_is_never_read():
    q, k, v = _inputs()
    mask = _padding()
    expected = attention(q, k, v, key_mask=mask)
    far = torch.where(mask[:, None, :, None], 0.0, 1e4)
    torch.testing.assert_close(attention(q, k + far, v + far, key_mask=mask), expected)


def test_block_causal_parts_are_exactly_the_pattern():
    layout = _layout()
    built = torch.zeros(N, N, dtype=torch.bool)
    visits = torch.zeros(N)
    for part in layout.parts():
        built[part.queries[:, None], part.keys] = True
        visits[part.queries] += 1
    assert torch.equal(built, layout.allowed())
    assert torch.equal(visits, torch.ones(N))


def test_global_tokens_do_not_carry_the_future_back():
    allowed = _layout().allowed()
    assert bool(allowed[:, :5].all())  # all see text
    assert not bool(allowed[:5, 5:].any())  # text sees no film


def test_patterns_that_differ_per_sample():
    seconds = torch.rand(B, N, generator=torch.Generator().manual_seed(1)) * 2
    layout = block_causal(seconds, torch.arange(N) < 5, 0.5)
    inputs = _inputs()
    assert layout.parts() is None
    assert explain(*inputs, layout).backend == "sdpa"
    expected = _run(*inputs, backend="reference", layout=layout, key_mask=_padding())
    for got, want in zip(_run(*inputs, layout=layout, key_mask=_padding()), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(AttentionError, match="one pattern for all samples"):
        attention(*inputs, layout, backend="matmul")


def test_explain_names_a_backend_and_a_reason(monkeypatch):
    half = [x.detach().bfloat16() for x in _inputs()]
    monkeypatch.setattr("sora2.kernels.dispatch.has_fast_bf16", lambda: True)
    assert str(explain(*half)).startswith("matmul: ")
    monkeypatch.setattr("sora2.kernels.dispatch.has_fast_bf16", lambda: False)
    assert explain(*half).backend == "sdpa"
    assert explain(*_inputs(), backend="matmul").reason == "asked for by name"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "flash"}, "use one of auto, reference, sdpa, matmul, xformers"),
        ({"backend": "xformers"}, "takes cuda"),
        ({"key_mask": torch.ones(B, N + 1, dtype=torch.bool)}, "key_mask must be bool"),
        ({"key_mask": torch.ones(B, N)}, "key_mask must be bool"),
    ],
)
def test_impossible_requests_say_what_is_possible(change, message):
    with pytest.raises(AttentionError, match=message):
        attention(*_inputs(), **change)


def test_impossible_shapes_and_dtypes():
    q, k, v = _inputs()
    with pytest.raises(AttentionError, match="head size"):
        attention(q[..., :8], k, v)
    with pytest.raises(AttentionError, match=r"q \(B, H, N, D\)"):
        attention(q[0], k, v)
    with pytest.raises(AttentionError, match="one floating dtype"):
        attention(q.double(), k, v)
    with pytest.raises(AttentionError, match=r"float16 on cpu; it takes cpu: torch.float64, torch.float32"):
        attention(q.half(), k.half(), v.half(), backend="matmul")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "xformers"])
@pytest.mark.parametrize("padded", [False, True])
def test_cuda_backends_equal_the_reference(backend, dtype, padded):
    if backend == "xformers":
        pytest.importorskip("xformers")
        if padded:
            pytest.skip("xformers takes no key_mask here")
    inputs = [x.detach().cuda() for x in _inputs(dtype)]
    mask = _padding().cuda() if padded else None
    expected = _run(*inputs, backend="reference", key_mask=mask)
    for got, want in zip(_run(*inputs, backend=backend, key_mask=mask), expected, strict=True):
        assert (got.double() - want.double()).abs().max() <= TOLERANCE[dtype] * want.double().abs().max()
