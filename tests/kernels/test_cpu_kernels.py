"""Compiled CPU kernels equal the plain operations, whatever the layout, and 1 thread equals 2 bit for bit.

The measure is the plain path in float64, whose gradients `test_fused` checks by finite differences. In bf16 the
compiled kernels may not be further from it than PyTorch's own operations are.
"""

import os
import stat

import pytest
import torch

from sora2.kernels import (
    CpuKernelError,
    Levels,
    PlainKernelsWarning,
    Runs,
    Span,
    TilePattern,
    Tiles,
    attention,
    cpu_kernels,
    explain,
    linear,
    merge_heads,
    split_heads,
    squared_relu,
    use_cpu_kernels,
)
from sora2.kernels.cpu.choice import library_for
from sora2.kernels.cpu.library import PRODUCTS


@pytest.fixture(autouse=True)
def compiled():
    """The compiled kernels in force; without a compiler there is nothing to test."""
    try:
        use_cpu_kernels("compiled")
    except CpuKernelError as error:
        pytest.skip(str(error))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    use_cpu_kernels()


@pytest.fixture(params=PRODUCTS)
def products(request, compiled):
    """Each way of multiplying bf16 that this processor has."""
    library = library_for(torch.zeros(1))
    if library.use_products(request.param) != request.param:
        pytest.skip(f"this CPU does not multiply bf16 as {request.param}")
    yield request.param


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _distance(got, want):
    return float((got.double() - want).norm() / want.norm().clamp_min(1e-12))


def check(case, slack=1.02):
    """`case(dtype)` -> a list of tensors. float32 to 1e-5, bf16 within `slack` of plain, threads without a trace."""
    want = case(torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            use_cpu_kernels("compiled")
            found.append(case(dtype))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        use_cpu_kernels("plain")
        plain = case(dtype)
        for i, (x, p, w) in enumerate(zip(found[0], plain, want, strict=True)):
            assert x.shape == w.shape
            limit = 1e-5 if dtype == torch.float32 else max(slack * _distance(p, w), 4e-3)
            assert _distance(x, w) <= limit, f"{dtype}, result {i}: {_distance(x, w):.2e} > {limit:.2e}"


# Per segment: tokens of a sample, runs, rows (None: one per run). The last has a row of 3 x 67 tokens in several tasks.
LAYOUTS = {
    "one level per clip": [(24, 1, 1), (36, 1, None), (13, 1, None)],
    "one level per token": [(5, 1, 1), (36, 36, None), (13, 13, None)],
    "few levels in no order": [(3, 1, 1), (36, 36, 2), (26, 13, 5)],
    "only one modality": [(67, 1, 1)],
}


def _levels(layout, width, dtype, batch=3):
    runs, index, rows, at = [], [], [], 0
    for i, (n, r, u) in enumerate(LAYOUTS[layout]):
        count = batch * r if u is None else u
        order = (
            torch.arange(batch * r) if u is None else torch.randint(u, (batch * r,), generator=_generator(i))
        )
        order[:count] = torch.arange(count)  # every row is somebody's
        runs.append(Runs(slice(at, at + batch * n), batch, r, None if u is None else order))
        index.append(order)
        rows.append(_randn(count, 8, width, seed=20 + i).to(_wide(dtype)).requires_grad_())
        at += batch * n
    return runs, index, rows, at


def _wide(dtype):
    """Rows and tables stay float32 beside a bf16 stream."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("width", [12, 40, 256])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_layers_share_the_rows_of_levels(layout, width):
    def case(dtype):
        runs, index, rows, count = _levels(layout, width, dtype)
        x, u, g = (_randn(count, width, seed=s).to(dtype) for s in (1, 2, 3))
        x.requires_grad_(), u.requires_grad_()
        tables = [
            [
                _randn(6, width, seed=40 + 9 * k + i).to(_wide(dtype)).requires_grad_()
                for i in range(len(runs))
            ]
            for k in range(2)
        ]
        levels = Levels.of(rows, tuple(runs), tuple(index), x)
        assert (levels.compiled is None) == (library_for(x) is None)
        stream, outputs = x, []
        for layer in tables:
            m = levels.layer(layer, 0, 6)
            stream, h = m.norm_modulate(stream, 0, 1e-5)
            stream, h2 = m.gated_add_norm_modulate(stream, h * u, 2, 1e-5)
            stream = m.gated_add(stream, h2 * u, 5) * 0.1
            outputs += [h, h2]
        outputs.append(levels.layer(None, 6, 2).norm_modulate(stream, 0, 1e-5)[1])
        wanted = [x, u, *rows, *tables[0], *tables[1]]
        grads = torch.autograd.grad(outputs, wanted, [g] * len(outputs))
        assert [g.dtype for g in grads] == [w.dtype for w in wanted]
        return [*(o.detach() for o in outputs), *grads]

    check(case, slack=1.15 if width == 256 else 3.0)  # of few channels chance decides who is nearer


def test_gradients_add_up_over_backward_passes():
    """A kept graph gives the same again; a pass that leaves the rows out leaves nothing behind."""
    runs, index, rows, count = _levels("one level per clip", 16, torch.float32)
    x = _randn(count, 16).float().requires_grad_()
    m = Levels.of(rows, tuple(runs), tuple(index), x).layer(None, 0, 3)
    out = m.gated_add_norm_modulate(x, x * 2, 0, 1e-5)[1].square().sum()
    torch.autograd.grad(out, x, retain_graph=True)
    first = torch.autograd.grad(out, rows, retain_graph=True)
    again = torch.autograd.grad(out, rows)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b) and bool((a[:, :3] != 0).any()) and bool((a[:, 3:] == 0).all())


def _heads(dtype, clocks, batch=3, heads=2, width=64):
    lengths, spans, row, place = (5, 30, 13), [], 0, 0
    for n in lengths:
        spans.append(Span(slice(row, row + batch * n), slice(place, place + n)))
        row, place = row + batch * n, place + n
    angle = _randn(clocks, place, width // 2, seed=6).to(_wide(dtype))
    return tuple(spans), row, place, angle


@pytest.mark.parametrize(("width", "clocks"), [(64, 1), (24, 3), (10, 1)])
def test_heads(width, clocks):
    def case(dtype):
        spans, count, _, angle = _heads(dtype, clocks, width=width)
        wide = _randn(count, 2 * 3 * 2 * width, seed=1).to(dtype).requires_grad_()
        qkv = wide[:, : 3 * 2 * width]  # not contiguous: copied
        gain = (_randn(2, width, seed=2) / 4 + 1).to(_wide(dtype)).requires_grad_()
        q, k, v = split_heads(qkv, gain, angle.cos(), angle.sin(), spans, 3, 1e-5)
        merged = merge_heads(v * q, spans)
        grads = [_randn(*x.shape, seed=7).to(dtype) for x in (q, k, v, merged)]
        return [q, k, v, merged, *torch.autograd.grad([q, k, v, merged], [wide, gain], grads)]

    check(lambda dtype: [x.detach() for x in case(dtype)])


def test_spans_that_do_not_cover_the_stream_are_refused():
    spans, count, _, angle = _heads(torch.float32, 1)
    qkv, gain = torch.zeros(count, 3 * 2 * 64), torch.ones(2, 64)
    with pytest.raises(ValueError, match="do not cover"):
        split_heads(qkv, gain, angle.cos(), angle.sin(), spans[:-1], 3, 1e-5)
    with pytest.raises(ValueError, match="angles"):
        split_heads(qkv, gain, angle.cos()[:, :-1], angle.sin()[:, :-1], spans, 3, 1e-5)


def test_squared_relu():
    def case(dtype):
        x = _randn(3, 7001).to(dtype).requires_grad_()
        out = squared_relu(x.t())
        return [out.detach(), *torch.autograd.grad(out, x, _randn(7001, 3, seed=1).to(dtype))]

    check(case)
    assert bool(squared_relu(torch.tensor([float("nan")])).isnan())


def _attention(backend, n, m, width, scale, hide):
    def case(dtype):
        q, k, v, g = (_randn(2, 3, x, width, seed=i).to(dtype) for i, x in enumerate((n, m, m, n)))
        q = q * scale
        mask = torch.rand(2, m, generator=_generator(1)) < 0.7
        mask[1] = False  # a sample that may see nothing
        name = "reference" if dtype == torch.float64 else backend
        x = [t.requires_grad_() for t in (q, k, v)]
        out = attention(*x, key_mask=mask if hide else None, backend=name)
        return [out.detach(), *torch.autograd.grad(out, x, g)]

    return case


@pytest.mark.parametrize(
    ("n", "m", "scale", "hide"), [(33, 70, 1.0, False), (65, 20, 4.0, True), (1, 1, 1.0, False)]
)
def test_softmax_between_products(n, m, scale, hide):
    check(_attention("matmul", n, m, 16, scale, hide))


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize(
    ("n", "m", "width", "scale"),
    [(220, 220, 64, 1.0), (1, 127, 32, 4.0), (129, 64, 128, 16.0), (32, 33, 64, 1.0), (5, 2100, 48, 4.0)],
)
def test_attention(n, m, width, scale, hide, products):
    """2,100 keys are three stretches of the forward: the largest score is not in the first."""
    x = torch.zeros(1, 1, 4, 64, dtype=torch.bfloat16)
    assert (explain(x, x, x).backend == "compiled") == (products != "floats")
    case = _attention("compiled", n, m, width, scale, hide)
    want = case(torch.float64)
    plain = _attention("matmul", n, m, width, scale, hide)(torch.bfloat16)
    _equal_on_any_threads(case, torch.float32, want, [1e-5] * 4)
    _equal_on_any_threads(
        case, torch.bfloat16, want, [max(_distance(p, w), 4e-3) for p, w in zip(plain, want, strict=True)]
    )
    if hide:  # what hides a key hides it wholly
        assert all(torch.equal(x == 0, w == 0) for x, w in zip(case(torch.bfloat16), want, strict=True))


def _equal_on_any_threads(case, dtype, want, tolerances):
    """`case` on one thread and on two: the same to the bit, and within the tolerances of `want`."""
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(case(dtype))
    for one, two, w, tolerance in zip(*found, want, tolerances, strict=True):
        assert torch.equal(one, two)
        assert (one.double() - w).norm() <= tolerance * w.norm().clamp_min(1.0)


@pytest.mark.parametrize("groups", ["one list", "lists by sample", "lists by head"])
@pytest.mark.parametrize("length", [1, 64, 127, 128, 1500])
def test_attention_over_lists_of_tiles(length, groups, products):
    """Tiles of 1 to 200 tokens, lists of every length with empty ones among them, ranks that cut inside tiles."""
    g = _generator(2)
    pieces = torch.randint(1, 200, (length,), generator=g).cumsum(0)
    ends = [*pieces[pieces < length].tolist(), length]
    tiles = Tiles.of_lengths(torch.tensor(ends).diff(prepend=torch.tensor([0])))
    count = {"one list": 1, "lists by sample": 2, "lists by head": 6}[groups]
    kept = torch.rand(count, tiles.count, tiles.count, generator=g) < 0.6
    kept[:, 0] = kept[:, :, -1] = tiles.count == 1
    rank = (torch.arange(length) // 37)[None].expand(2 if count > 1 else 1, -1)
    pattern = TilePattern.of_matrix(tiles, tiles, kept, rank, rank)
    q, k, v, grad = (_randn(2, 3, length, 64, seed=s) for s in range(4))

    def case(dtype):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        backend = "reference" if dtype == torch.float64 else "compiled"
        out, lse = attention(*leaves, pattern, backend=backend, return_lse=True)
        return [out.detach(), lse.detach().exp(), *torch.autograd.grad(out, leaves, grad.to(dtype))]

    want = case(torch.float64)
    _equal_on_any_threads(case, torch.float32, want, [1e-5] * 5)
    _equal_on_any_threads(case, torch.bfloat16, want, [8e-3] * 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 3])
def test_threads_share_the_work_of_few_heads(heads, dtype, products):
    """More threads than heads take parts of them; what comes out is the same to the bit, and right."""
    tiles = Tiles.of_lengths(torch.tensor([5, 200, 64, 1, 300, 130]))
    rank = (torch.arange(700) // 37)[None]
    kept = torch.ones(1, tiles.count, tiles.count, dtype=torch.bool)
    kept[:, 2, 4] = kept[:, 4, 0] = False
    pattern = TilePattern.of_matrix(tiles, tiles, kept, rank, rank)
    q, k, v, grad = (_randn(1, heads, 700, 64, seed=s) for s in range(4))

    def case(dtype, backend="compiled"):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = attention(*leaves, pattern, backend=backend)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))]

    found = []
    for threads in (1, 2, 5, 24):
        torch.set_num_threads(threads)
        found.append(case(dtype))
    want = case(torch.float64, "reference")
    for one, *others, w in zip(*found, want, strict=True):
        assert all(torch.equal(one, x) for x in others)
        assert _distance(one, w) < (1e-5 if dtype == torch.float32 else 8e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_passes_on_what_is_not_a_number(dtype, products):
    """And only to those that see it: the keys of padding may be anything."""
    q, k, v = (_randn(1, 1, 70, 64, seed=s).to(dtype) for s in range(3))
    mask = torch.ones(1, 70, dtype=torch.bool)
    mask[:, 69] = False
    k[0, 0, 69] = float("inf")
    assert bool(attention(q, k, v, key_mask=mask, backend="compiled").isfinite().all())
    q[0, 0, 3, 0] = float("nan")
    out = attention(q, k, v, key_mask=mask, backend="compiled")
    assert bool(out[0, 0, 3].isnan().all()) and int(out.isnan().any(-1).sum()) == 1


def test_attention_reads_a_longer_buffer_where_it_lies():
    """As the key-value cache hands it out."""
    buffer = _randn(2, 3, 50, 64).bfloat16()
    q, part = buffer[:, :, :7].contiguous(), buffer[:, :, :41]
    whole = part.contiguous()
    assert torch.equal(
        attention(q, part, part, backend="compiled"), attention(q, whole, whole, backend="compiled")
    )


@pytest.mark.parametrize("rows", [1, 33, 400])
def test_linear_layers(rows):
    """The gradient of the weight comes in float32 and is nearer than PyTorch's, which was rounded to bf16."""
    if library_for(torch.zeros(1)).products != "tiles":
        pytest.skip("this CPU has no AMX")
    x, w, g = _randn(2, rows, 64), _randn(96, 64, seed=1), _randn(2, rows, 96, seed=2)

    def case(function, dtype):
        inputs = [t.to(dtype).requires_grad_() for t in (x, w)]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            out = function(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs, g.to(out.dtype))]

    want, plain = (
        case(torch.nn.functional.linear, torch.float64),
        case(torch.nn.functional.linear, torch.float32),
    )
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(case(linear, torch.float32))
    for a, b, p, w64 in zip(*found, plain, want, strict=True):
        assert torch.equal(a, b) and a.dtype == p.dtype
        assert _distance(a, w64) <= 1.02 * _distance(p, w64)


def test_without_a_compiler_all_runs_plain_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(PlainKernelsWarning, match="no-such-compiler is not on the path"):
        assert use_cpu_kernels("auto").name == "plain"
    assert library_for(torch.zeros(3)) is None
    with pytest.raises(CpuKernelError, match=r"no-such-compiler.*trainer.cpu_kernels=plain"):
        use_cpu_kernels("compiled")

    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'error: no such header' >&2; exit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("SORA2_KERNEL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CpuKernelError, match="exit code 3: error: no such header"):
        use_cpu_kernels("compiled")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SORA2_KERNEL_CACHE", str(tmp_path / "file" / "kernels"))
    with pytest.raises(CpuKernelError, match=r"file/kernels cannot be written .* SORA2_KERNEL_CACHE"):
        use_cpu_kernels("compiled")


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv("SORA2_CPU_KERNELS", "plain")
    assert str(use_cpu_kernels()) == "plain: SORA2_CPU_KERNELS=plain" == str(cpu_kernels())
    monkeypatch.setenv("SORA2_CPU_KERNELS", "fast")
    with pytest.raises(CpuKernelError, match="'fast' are unknown: use one of auto, compiled, plain"):
        use_cpu_kernels()
    assert "SORA2_CPU_KERNELS" in os.environ
    monkeypatch.delenv("SORA2_CPU_KERNELS")
