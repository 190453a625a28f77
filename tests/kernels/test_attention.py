"""Every backend equals the reference, forward and backward; wrong calls are refused before anything runs."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

from sora2.kernels import (
    AttentionError,
    Part,
    PatternError,
    Rule,
    SlowAttentionWarning,
    SlowProductsWarning,
    TilePattern,
    Tiles,
    Tiling,
    attention,
    choose_dtype,
    concatenate,
    dense_pattern,
    explain,
    record_choices,
    select_tiles,
)
from sora2.kernels import flex as flex_module
from sora2.kernels import matmul as matmul_module
from sora2.kernels.bf16 import bf16_speedup
from sora2.kernels.cpu.choice import library_for

# Largest error allowed against the reference: float32 by rounding, bf16 by the format's 3 digits.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 4e-2}
B, H, D = 2, 3, 16
GRID, TEXT, AUDIO = (5, 3, 4), 7, 24
N = TEXT + 60 + AUDIO


def tiling(chunk_seconds=None):
    video = ((torch.arange(5) + 0.5) * 0.25).repeat_interleave(12)[None]
    audio = ((torch.arange(AUDIO) + 0.5) * 0.05)[None]
    parts = [Part("text", torch.zeros(1, TEXT)), Part("video", video, GRID), Part("audio", audio)]
    return Tiling.of(parts, (2, 2, 2), 8, chunk_seconds)


def patterns():
    window = Rule((3, 1, 1), 0.2, 0.3)
    uneven = Tiles.of_lengths([5, 3, 11, 1, 40, 31])
    straddling = (torch.arange(N) // 13).int()[None]  # chunks that end inside tiles
    return {
        "window": tiling().pattern(window),
        "causal": tiling(0.5).pattern(Rule()),
        "causal_window": tiling(0.5).pattern(window),
        "masked_inside_tiles": TilePattern.of_matrix(
            uneven, uneven, torch.ones(1, 6, 6, dtype=torch.bool), straddling, straddling
        ),
        "packed": concatenate([dense_pattern(Tiles.regular(n, 8)) for n in (1, 30, N - 31)]),
    }


def inputs(dtype=torch.float32, m=N, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((B, H, N, D), (B, H, m, D), (B, H, m, D))
    return [(scale * torch.randn(s, generator=g)).to(dtype).requires_grad_() for s in shapes]


def run(q, k, v, pattern=None, **kwargs):
    q, k, v = (x.detach().clone().requires_grad_() for x in (q, k, v))
    out = attention(q, k, v, pattern, **kwargs)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), (q, k, v))]


def assert_equal(got, expected, tolerance):
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert (a.double() - b.double()).abs().max() <= tolerance * b.double().abs().max()


def padding(m=N):
    mask = torch.ones(B, m, dtype=torch.bool)
    mask[0, 3:7] = False
    mask[1, :2] = False
    return mask


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "matmul", "auto"])
@pytest.mark.parametrize("padded", [False, True])
def test_dense_backends_equal_the_reference(backend, dtype, padded):
    x = inputs(dtype)
    options = {"key_mask": padding() if padded else None}
    assert_equal(
        run(*x, backend=backend, **options), run(*x, backend="reference", **options), TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["compiled", "tiled"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", list(patterns()))
def test_tiles_on_the_cpu_equal_the_reference(name, padded, backend, dtype):
    if backend == "compiled" and (dtype == torch.float64 or library_for(torch.zeros(1)) is None):
        pytest.skip("no compiled kernels here")
    x, options = inputs(dtype), {"key_mask": padding() if padded else None}
    pattern = patterns()[name]
    expected = run(*x, pattern, backend="reference", **options)
    assert_equal(run(*x, pattern, backend=backend, **options), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("scale", [1.0, 4.0, 16.0])
def test_large_activations_keep_their_gradients(scale):
    """Scores of up to thousands, which float32 knows to 1e-4: the softmax is one-hot."""
    x, pattern = inputs(scale=scale), patterns()["causal_window"]
    assert_equal(run(*x, pattern), run(*x, pattern, backend="reference"), 1e-5 if scale < 16 else 3e-4)
    exact = [t.detach().double() for t in x]
    assert_equal(run(*exact, pattern), run(*exact, pattern, backend="reference"), 1e-10)


def test_rows_of_very_low_scores_keep_their_gradients():
    """All scores of a row far below -88, where exp underflows: only differences of scores may count."""
    q, k, v = (t.detach() for t in inputs())
    low = [
        torch.cat([q, torch.full_like(q[..., :1], 40.0)], -1),
        torch.cat([k, torch.full_like(k[..., :1], -40.0)], -1),
    ]
    low, wide = [*low, torch.cat([v, torch.zeros_like(v[..., :1])], -1)], patterns()["causal_window"]
    lse = attention(*low, wide, return_lse=True, scale=0.25)[1]
    assert float(lse.max()) < -88
    assert_equal(run(*low, wide, scale=0.25), run(*low, wide, backend="reference", scale=0.25), 1e-4)
    plain = attention(q, k, v, wide, scale=0.25)
    torch.testing.assert_close(attention(*low, wide, scale=0.25)[..., :-1], plain, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::sora2.kernels.SlowAttentionWarning")
def test_masks_of_pytorch_equal_the_reference():
    x, pattern = inputs(), patterns()["causal_window"]
    expected = run(*x, pattern, backend="reference", key_mask=padding())
    assert_equal(run(*x, pattern, backend="sdpa", key_mask=padding()), expected, 1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_equals_the_reference(monkeypatch):
    monkeypatch.setattr(flex_module, "compiled", lambda: flex_attention)  # compilation takes a minute on CPUs
    x = [t.detach() for t in inputs()]
    for pattern in (patterns()["causal_window"], patterns()["window"].with_padding(padding())):
        expected = attention(*x, pattern, backend="reference")
        assert_equal([attention(*x, pattern, backend="flex")], [expected], 1e-5)


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_log_sum_exp_joins_parts_of_the_keys(backend):
    """What two halves of the keys give, weighted by their log-sum-exp, is attention to all of them."""
    q, k, v = (x.detach().double() for x in inputs())
    whole, lse = attention(q, k, v, dense_pattern(Tiles.regular(N, 16)), backend=backend, return_lse=True)
    parts = []
    for half in (slice(0, 32), slice(32, N)):
        m = k[:, :, half].shape[2]
        pattern = dense_pattern(Tiles.regular(N, 16), Tiles.regular(m, 16))
        parts.append(attention(q, k[:, :, half], v[:, :, half], pattern, backend=backend, return_lse=True))
    weights = torch.stack([part[1] for part in parts]).softmax(0).unsqueeze(-1)
    torch.testing.assert_close(weights[0] * parts[0][0] + weights[1] * parts[1][0], whole)
    torch.testing.assert_close(torch.logsumexp(torch.stack([p[1] for p in parts]), 0), lse)


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_gradients_are_those_of_the_values(backend):
    q, k, v = (x.detach()[:, :1, :, :3].double().requires_grad_() for x in inputs())
    for name in ("causal_window", "masked_inside_tiles"):
        pattern = patterns()[name].with_padding(padding())
        assert torch.autograd.gradcheck(
            lambda *x, p=pattern: attention(*x, p, backend=backend), (q, k, v), fast_mode=True
        )


def test_packed_samples_equal_separate_ones():
    lengths = (1, 30, N - 31)
    tiles = [Tiles.regular(n, 8) for n in lengths]
    x = inputs()
    packed = run(*x, concatenate([dense_pattern(t) for t in tiles]))[0]
    parts = [t.split(lengths, dim=2) for t in x]
    separate = [attention(*(p[i] for p in parts)) for i in range(3)]
    torch.testing.assert_close(packed, torch.cat(separate, 2), rtol=1e-4, atol=1e-6)


def test_repeats_are_equal_to_the_bit():
    x, pattern = inputs(), patterns()["causal_window"]
    first = run(*x, pattern)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(run(*x, pattern), first, strict=True))


def test_chunked_products_equal_whole_ones(monkeypatch):
    x = inputs(m=21)
    mask = padding(21)
    whole = run(*x, backend="matmul", key_mask=mask)
    monkeypatch.setattr(matmul_module, "KEEP_WEIGHTS", 0)
    monkeypatch.setattr(matmul_module, "CHUNK_SCORES", B * H * 21 * 10)
    for got, want in zip(run(*x, backend="matmul", key_mask=mask), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "matmul", "tiled", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_without_keys_gives_zero_and_no_gradient(backend, dtype):
    x = inputs(dtype)
    mask = padding()
    mask[1] = False
    pattern = patterns()["window"] if backend in ("tiled", "auto") else None
    out, *grads = run(*x, pattern, backend=backend, key_mask=mask)
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert all(torch.equal(g[1], torch.zeros_like(g[1])) for g in grads)
    assert all(bool(t.isfinite().all()) for t in (out, *grads))


def test_a_tile_that_nobody_lists_has_no_gradient_and_one_that_lists_nobody_no_output():
    tiles = Tiles.regular(N, 16)
    kept = torch.ones(1, tiles.count, tiles.count, dtype=torch.bool)
    kept[:, 1], kept[:, :, 2] = False, False
    x = inputs()
    out, gq, gk, gv = run(*x, TilePattern.of_matrix(tiles, tiles, kept))
    assert bool((out[:, :, 16:32] == 0).all()) and bool((gq[:, :, 16:32] == 0).all())
    assert bool((gk[:, :, 32:48] == 0).all()) and bool((gv[:, :, 32:48] == 0).all())


@pytest.mark.parametrize("backend", ["sdpa", "tiled", "auto"])
def test_padding_is_never_read(backend):
    q, k, v = inputs()
    mask = padding()
    pattern = None if backend == "sdpa" else patterns()["window"]
    expected = attention(q, k, v, pattern, key_mask=mask, backend=backend)
    far = torch.where(mask[:, None, :, None], 0.0, 1e4)
    got = attention(q, k + far, v + far, pattern, key_mask=mask, backend=backend)
    torch.testing.assert_close(got, expected)


def test_top_k_keeps_the_best_video_tiles_of_each_head():
    x = inputs()
    pattern = tiling(0.5).pattern(Rule())
    chosen = select_tiles(x[0], x[1], pattern, 2)
    assert chosen.groups == B * H
    video = pattern.keys.kind == 3
    before, after = pattern.matrix(), chosen.matrix()
    assert not bool((after & ~before).any())
    assert torch.equal(after[..., ~video], before[..., ~video].expand(B * H, -1, -1))
    assert torch.equal(after[..., video].sum(-1), before[..., video].sum(-1).clamp_max(2).expand(B * H, -1))
    assert_equal(run(*x, chosen), run(*x, chosen, backend="reference"), 1e-5)
    all_tiles = select_tiles(x[0], x[1], pattern, 99)
    torch.testing.assert_close(attention(*x, all_tiles), attention(*x, pattern), rtol=1e-4, atol=1e-6)


def test_explain_names_a_backend_and_a_reason(monkeypatch):
    half = [x.detach().bfloat16() for x in inputs()]
    monkeypatch.setattr("sora2.kernels.cpu.attention.bf16_products", lambda call: None)
    monkeypatch.setattr("sora2.kernels.dispatch.has_fast_bf16", lambda: True)
    assert str(explain(*half)).startswith("matmul: ")
    monkeypatch.setattr("sora2.kernels.dispatch.has_fast_bf16", lambda: False)
    assert explain(*half).backend == "sdpa"
    assert explain(*inputs(), backend="matmul").reason == "asked for by name"
    choice = explain(*(x.double() for x in inputs()), patterns()["window"])
    assert choice.backend == "tiled" and "compiled takes bf16, fp16 and fp32" in choice.reason


def test_float32_takes_the_wider_vectors(monkeypatch):
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: True)
    monkeypatch.setattr("sora2.kernels.cpu.attention.why_not_best", lambda call: None)
    for amd, backend in ((False, "sdpa"), (True, "compiled")):
        monkeypatch.setattr("sora2.kernels.cpu.attention.is_amd", lambda amd=amd: amd)
        assert explain(*inputs()).backend == backend
        assert explain(*(x.double() for x in inputs())).backend == "sdpa"


def test_bf16_is_timed_against_float32_whoever_asks(monkeypatch):
    """A network in training asks under autocast, which turns float32 products into bf16."""
    seen = set()

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                seen.add(args[0].dtype)
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    with torch.autocast("cpu", torch.bfloat16), Products():
        assert bf16_speedup.__wrapped__(size=8, rounds=1) > 0
    assert seen == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize(
    ("speedup", "auto", "slow"), [(0.0, "float32", True), (0.5, "float32", True), (4.0, "bfloat16", False)]
)
def test_products_are_those_asked_for_and_slow_ones_are_said_aloud(monkeypatch, recwarn, speedup, auto, slow):
    monkeypatch.setattr("sora2.kernels.bf16.bf16_speedup", lambda: speedup)
    assert choose_dtype("cpu") == getattr(torch, auto)
    assert choose_dtype("cpu", "fp32") == torch.float32
    assert choose_dtype("cuda") == choose_dtype("cuda", "bf16") == torch.bfloat16
    assert not recwarn
    assert choose_dtype("cpu", "bf16") == torch.bfloat16
    assert [w.category for w in recwarn] == [SlowProductsWarning] * slow


def test_what_ran_is_on_record_and_waste_is_said_aloud():
    x, pattern = inputs(), patterns()["window"]
    with record_choices() as ran:
        attention(*x, pattern, backend="tiled")
        attention(*x, pattern, backend="tiled")
        with pytest.warns(SlowAttentionWarning, match=rf"a mask of {N} x {N} and all of its pairs"):
            attention(*x, pattern, backend="sdpa")
    assert {choice.backend: count for choice, count in ran.items()} == {"tiled": 2, "sdpa": 1}
    assert "SLOW" in str(explain(*x, pattern, backend="sdpa"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backend": "magic"},
            "use one of auto, reference, tiled, triton, sdpa, matmul, compiled, cudnn, flash",
        ),
        ({"backend": "xformers"}, "takes cuda"),
        ({"backend": "cudnn"}, "takes cuda; the tensors are on cpu"),
        ({"backend": "flash"}, "takes cuda; the tensors are on cpu"),
        ({"backend": "tiled"}, "runs patterns"),
        ({"backend": "triton"}, "need a CUDA device"),
        ({"backend": "flex"}, "no backward on the CPU"),
        ({"backend": "matmul", "pattern": patterns()["window"]}, "takes no pattern"),
        ({"return_lse": True, "backend": "sdpa"}, "does not give the log-sum-exp"),
        ({"key_mask": torch.ones(B, N + 1, dtype=torch.bool)}, "key_mask must be bool"),
        ({"key_mask": torch.ones(B, N)}, "key_mask must be bool"),
        (
            {"pattern": dense_pattern(Tiles.regular(N + 1, 8))},
            f"of {N + 1} queries and {N + 1} keys; q has {N}",
        ),
    ],
)
def test_impossible_requests_say_what_is_possible(change, message):
    with pytest.raises(AttentionError, match=message):
        attention(*inputs(), **change)


def test_a_pattern_of_another_batch_is_refused():
    x = inputs()
    of_three = select_tiles(*(torch.randn(3, H, N, D) for _ in range(2)), patterns()["window"], 1)
    with pytest.raises(PatternError, match="9 groups of lists; a batch of 2 with 3 heads"):
        attention(*x, of_three)
    masked = patterns()["window"].with_padding(torch.arange(N).expand(3, N) > torch.arange(3)[:, None])
    with pytest.raises(PatternError, match="ranks are of 3 samples"):
        attention(*x, masked)


def test_impossible_shapes_and_dtypes():
    q, k, v = inputs()
    with pytest.raises(AttentionError, match="head size"):
        attention(q[..., :8], k, v)
    with pytest.raises(AttentionError, match=r"q \(B, H, N, D\)"):
        attention(q[0], k, v)
    with pytest.raises(AttentionError, match="one floating dtype"):
        attention(q.double(), k, v)
    with pytest.raises(AttentionError, match=r"float32, torch.bfloat16 on cpu; got torch.float16"):
        attention(q.half(), k.half(), v.half(), backend="matmul")
    with pytest.raises(AttentionError, match="move all of it to one device"):
        attention(q, k.to("meta"), v.to("meta"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "xformers", "cudnn", "flash"])
@pytest.mark.parametrize("padded", [False, True])
def test_cuda_backends_equal_the_reference(backend, dtype, padded):
    if backend == "xformers":
        pytest.importorskip("xformers")
    if padded and backend != "sdpa":
        pytest.skip("takes no key_mask")
    if dtype == torch.float32 and backend in ("cudnn", "flash"):
        pytest.skip("takes half precision")
    x = [t.detach().cuda() for t in inputs(dtype)]
    mask = padding().cuda() if padded else None
    expected = run(*x, backend="reference", key_mask=mask)
    assert_equal(run(*x, backend=backend, key_mask=mask), expected, TOLERANCE[dtype] * 10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["auto", "flex", "sdpa"])
@pytest.mark.filterwarnings("ignore::sora2.kernels.SlowAttentionWarning")
def test_cuda_patterns_equal_the_reference(backend):
    g = torch.Generator().manual_seed(0)
    x = [torch.randn(B, H, N, 64, generator=g).cuda().bfloat16() for _ in range(3)]
    for pattern in patterns().values():
        pattern = pattern.to("cuda")
        expected = run(*x, pattern, backend="reference")
        assert_equal(run(*x, pattern, backend=backend), expected, TOLERANCE[torch.bfloat16])
