"""What the attention kernels must compute before their speed counts. One list, for the interpreter and for the card.

Each gate is a function of a `Bench` that raises AssertionError. `run_gates` runs them all and reports each.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sora2.kernels.pattern import TilePattern, concatenate, dense_pattern
from sora2.kernels.tiles import Tiles
from sora2.kernels.triton import KernelPattern, launch, triton_attention
from sora2.kernels.triton.blocks import blocks

TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float64: 1e-12}
#: Scores up to this size keep those errors; beyond it the errors grow in proportion, in any implementation.
LARGE_SCORE = 16.0
#: Of a failed gate: characters of each traceback, and cases, that are shown.
TRACEBACK, CASES_SHOWN = 2000, 8


@dataclass(frozen=True)
class Bench:
    """Where and how large. The interpreter takes seconds for what the card does in microseconds."""

    device: str
    dtypes: tuple[torch.dtype, ...]
    heads: tuple[int, ...]  # head sizes
    tile: int
    repeats: int
    compiler: str  # backend of torch.compile
    float32_tolerance: float = 1e-5

    @classmethod
    def card(cls) -> Bench:
        dtypes = (torch.bfloat16, torch.float16, torch.float32)
        return cls(
            "cuda", dtypes, (64, 128), 128, 1000, "inductor", 4e-5
        )  # three TF32 products per float32 one

    @classmethod
    def interpreter(cls) -> Bench:
        dtypes = (torch.float32, torch.bfloat16, torch.float16)
        return cls("cpu", dtypes, (32,), 64, 2, "aot_eager")

    def tolerance(self, dtype: torch.dtype) -> float:
        """Largest relative error (Frobenius norm) of the output and of each gradient against float64."""
        return self.float32_tolerance if dtype == torch.float32 else TOLERANCE[dtype]


@dataclass(frozen=True)
class Report:
    gate: str
    passed: bool
    seconds: float
    message: str


def reference_gradients(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, grad_out: Tensor, grad_lse: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """out, lse, dQ, dK, dV by plain PyTorch in `dtype`, from the dense definition (1 or B, 1 or H, N, M)."""
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in (q, k, v))
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~allowed, -math.inf)
    alive = allowed.any(-1).expand(scores.shape[:-1])  # (B, H, N)
    scores = scores.masked_fill(~alive[..., None], 0.0)
    weights = scores.softmax(-1).masked_fill(~alive[..., None], 0.0)
    out = weights @ v
    lse = scores.logsumexp(-1)
    gradients = torch.autograd.grad(
        (out * grad_out.to(dtype)).sum() + (lse * grad_lse.to(dtype) * alive).sum(), (q, k, v)
    )
    return [out.detach(), lse.detach().masked_fill(~alive, -math.inf), *gradients]


def kernel_gradients(
    q: Tensor, k: Tensor, v: Tensor, pattern: TilePattern | KernelPattern, grad_out: Tensor, grad_lse: Tensor
) -> list[Tensor]:
    """The same by the kernels."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    out, lse = triton_attention(q, k, v, pattern)
    alive = lse.detach() > -math.inf
    loss = (out * grad_out).sum(dtype=torch.float64)
    loss = loss + (torch.where(alive, lse, 0.0) * grad_lse).sum(dtype=torch.float64)
    return [out.detach(), lse.detach(), *torch.autograd.grad(loss, (q, k, v))]


class Cases:
    """The cases of one gate: all are run, however many fail, and those that failed are named together."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            self.failed.append(f"{name}: {error}")
        except Exception:  # it does not compile, say, or the launch is refused
            self.failed.append(f"{name}: {traceback.format_exc()[-TRACEBACK:]}")

    def finish(self) -> None:
        assert not self.failed, f"{len(self.failed)} cases failed\n" + "\n".join(self.failed[:CASES_SHOWN])


def check_against_reference(
    bench: Bench, pattern: TilePattern, inputs: tuple[Tensor, Tensor, Tensor], seed: int = 9
) -> list[Tensor]:
    """Compare with float64; 16-bit errors also stay below twice those of plain PyTorch. Returns the kernels' answer."""
    q, k, v = inputs
    generator = torch.Generator().manual_seed(seed)
    grad_out = torch.randn(q.shape, generator=generator).to(q)
    grad_lse = torch.randn(q.shape[:3], generator=generator).to(bench.device)
    allowed = pattern.allowed(*q.shape[:2]).to(bench.device)
    pattern = pattern.to(bench.device)
    got = kernel_gradients(q, k, v, pattern, grad_out, grad_lse)
    want = reference_gradients(q, k, v, allowed, grad_out, grad_lse, torch.float64)
    plain = reference_gradients(q, k, v, allowed, grad_out, grad_lse, q.dtype)
    finite = want[1][want[1].isfinite()]
    peak = float(finite.abs().max())  # scores of this size carry an error of this times float32's resolution
    found, good = [], True
    for name, g, w, p in zip(("out", "lse", "dq", "dk", "dv"), got, want, plain, strict=True):
        finite = w.isfinite()
        differ = int((g.isfinite() != finite).sum())
        error, floor = (float((x.double() - w)[finite].norm() / (w[finite].norm() + 1e-30)) for x in (g, p))
        bound = bench.tolerance(q.dtype) * max(1.0, peak / LARGE_SCORE)
        if q.dtype.itemsize == 2 and floor == floor:  # plain PyTorch may overflow in float16
            bound = min(bound, 2 * floor + 1e-6)
        passed = differ == 0 and error <= bound
        found.append(
            f"{name}: relative error {error:.2e} {'within' if passed else 'ABOVE'} {bound:.2e} (plain PyTorch: "
            f"{floor:.2e}), finite where the reference is not or the reverse at {differ} of {g.numel()}"
        )
        good &= passed
    problem = f"{q.dtype}, q {tuple(q.shape)}, {k.shape[2]} keys, largest |log-sum-exp| {peak:.3g}"
    assert good, f"{problem}\n    " + "\n    ".join(found)
    return got


def draw(
    bench: Bench,
    shape: tuple[int, int, int, int],
    keys: int | None = None,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normal q, k, v of standard deviation `scale`, inside buffers whose surroundings are NaN."""
    generator = torch.Generator().manual_seed(seed)
    b, h, n, d = shape
    drawn = []
    for tokens in (n, keys or n, keys or n):
        margin = bench.tile
        buffer = torch.full((b, h, tokens + 2 * margin, d), math.nan, dtype=dtype, device=bench.device)
        inner = buffer[:, :, margin : margin + tokens]
        inner.copy_(torch.randn(b, h, tokens, d, generator=generator) * scale)
        drawn.append(inner)
    return drawn[0], drawn[1], drawn[2]


def random_pattern(bench: Bench, groups: int = 1, ranked: bool = True, seed: int = 0) -> TilePattern:
    """Ragged tiles on both sides, a query tile and a key tile without partner, other counts of queries and keys."""
    generator = torch.Generator().manual_seed(seed)
    t = bench.tile
    queries, keys = Tiles.of_lengths([t, 1, t - 1, t, t // 2]), Tiles.of_lengths([t // 2, t, t, 3, t])
    kept = torch.rand(groups, queries.count, keys.count, generator=generator) < 0.6
    kept[:, 3], kept[:, :, 1] = False, False
    kept[:, 0, 2] = kept[:, 4, 4] = True
    if not ranked:
        return TilePattern.of_matrix(queries, keys, kept)
    ranks = [torch.randint(0, 4, (1, x.tokens), generator=generator) for x in (queries, keys)]
    ranks[1][:, -t:] = 0  # one whole tile is seen by all
    return TilePattern.of_matrix(queries, keys, kept, *ranks)


def one_sees_all() -> TilePattern:
    """Six tiles of 16 that see themselves, and one of them everything: its list is far longer than the mean."""
    kept = torch.eye(6, dtype=torch.bool)
    kept[2], kept[:, 2] = True, True
    tiles = Tiles.regular(6 * 16, 16)
    return TilePattern.of_matrix(tiles, tiles, kept.unsqueeze(0))


def lengths_and_scales(bench: Bench) -> None:
    """Lengths L % tile in {0, 1, tile / 2, tile - 1} and activations of 1, 4, 16, in every dtype and head size."""
    card, cases = bench.device == "cuda", Cases()
    for head in bench.heads:
        for i, rest in enumerate((0, 1, bench.tile // 2, bench.tile - 1)):
            pattern = dense_pattern(Tiles.regular(bench.tile + rest, bench.tile))
            # The interpreter takes its turns: float32 and one 16-bit dtype, one scale each.
            for dtype in bench.dtypes if card else (bench.dtypes[0], bench.dtypes[1 + i % 2]):
                for scale in (1.0, 4.0, 16.0) if card else ((4.0, 16.0, 1.0, 16.0)[i],):
                    with cases.case(f"L % tile = {rest}, activations of {scale:g}"):
                        inputs = draw(bench, (1, 2, bench.tile + rest, head), dtype=dtype, scale=scale)
                        check_against_reference(bench, pattern, inputs)
    cases.finish()


def ragged_and_empty_tiles(bench: Bench) -> None:
    """Short tiles anywhere, rows and columns without partner, comparisons by rank, lists per head and sample."""
    cases = Cases()
    for dtype in bench.dtypes[:1] if bench.device == "cpu" else bench.dtypes:
        for batch, heads, groups, ranked in (
            (1, 1, 1, True),
            (2, 1, 1, False),
            (2, 1, 2, True),
            (1, 2, 2, False),
        ):
            with cases.case(f"{batch} samples, {heads} heads, {groups} groups of lists, ranked {ranked}"):
                pattern = random_pattern(bench, groups, ranked)
                shape = (batch, heads, pattern.queries.tokens, bench.heads[0])
                got = check_against_reference(bench, pattern, draw(bench, shape, pattern.keys.tokens, dtype))
                _nothing_without_partner(pattern, got)
    cases.finish()


def _nothing_without_partner(pattern: TilePattern, got: list[Tensor]) -> None:
    start = pattern.queries.start
    rows = slice(int(start[3]), int(start[4]))
    assert not got[0][:, :, rows].any() and not got[2][:, :, rows].any(), "a query without keys is not zero"
    columns = slice(int(pattern.keys.start[1]), int(pattern.keys.start[2]))
    for grad in got[3:]:
        assert not grad[:, :, columns].any(), "a key that nobody sees has a gradient"


def odd_tile_sizes(bench: Bench) -> None:
    """Tiles that are no power of two: 96, 40 and 5 tokens."""
    cases = Cases()
    for size in (96, 40, 5):
        with cases.case(f"tiles of {size}"):
            pattern = dense_pattern(Tiles.regular(2 * size + 3, size))
            check_against_reference(bench, pattern, draw(bench, (1, 1, 2 * size + 3, bench.heads[0])))
    cases.finish()


def low_log_sum_exp(bench: Bench) -> None:
    """Rows whose log-sum-exp is far below -88, where exp underflows in float32."""
    for dtype in bench.dtypes:
        n = bench.tile + bench.tile // 2
        q, k, v = draw(bench, (1, 2, n, bench.heads[-1]), dtype=dtype)
        level = math.sqrt(200 / math.sqrt(q.shape[-1]))  # q.k / sqrt(D) is about -200
        q.mul_(0.1).add_(level)
        k.mul_(0.1).sub_(level)
        got = check_against_reference(bench, dense_pattern(Tiles.regular(n, bench.tile)), (q, k, v))
        assert float(got[1].max()) < -88, "the gate does not reach the log-sum-exps it is for"


def poisoned_outputs(bench: Bench) -> None:
    """Every element of every result is written, tiles that start early included: memory holds NaN before."""
    with _poisoned_memory():
        assert torch.empty(1).isnan().all(), "PyTorch did not poison the memory"
        for pattern in (random_pattern(bench), one_sees_all()):
            inputs = draw(bench, (1, 2, pattern.queries.tokens, bench.heads[0]), pattern.keys.tokens)
            check_against_reference(bench, pattern, inputs)
        prepared = KernelPattern.of(pattern, torch.device("cpu"))
        assert int(prepared.by_query.heavy) == int(prepared.by_key.heavy) == 1, (
            "the gate has no tile that starts early"
        )


def _same_bits(first: Sequence[Tensor], again: Sequence[Tensor], what: str) -> None:
    for name, a, b in zip(("out", "lse", "dq", "dk", "dv"), first, again, strict=True):
        assert torch.equal(a, b), (
            f"{what}: {name} differs at {int((a != b).sum())} of {a.numel()} places, by at most "
            f"{float((a.double() - b.double()).abs().nan_to_num().max()):.2e}"
        )


def repeats_are_identical(bench: Bench) -> None:
    """The same bits every time, gradients included."""
    pattern = random_pattern(bench).to(bench.device)
    dtype = torch.bfloat16
    q, k, v = draw(bench, (1, 2, pattern.queries.tokens, bench.heads[-1]), pattern.keys.tokens, dtype)
    grad_out, grad_lse = torch.randn_like(q.contiguous()), torch.zeros(q.shape[:3], device=bench.device)
    first = kernel_gradients(q, k, v, pattern, grad_out, grad_lse)
    for i in range(bench.repeats):
        again = kernel_gradients(q, k, v, pattern, grad_out, grad_lse)
        _same_bits(first, again, f"repeat {i}")


def bulk_copies_change_nothing(bench: Bench) -> None:
    """Whole tiles read by the bulk copy engine (TMA, sm_90) instead of by threads give the same bits."""
    if bench.device == "cuda" and torch.cuda.get_device_capability() < (9, 0):
        return
    pattern = dense_pattern(Tiles.of_lengths([bench.tile // 2, bench.tile]))
    dtype = bench.dtypes[-1] if bench.device == "cpu" else bench.dtypes[0]
    inputs = draw(bench, (2, 2, pattern.queries.tokens, bench.heads[-1]), pattern.keys.tokens, dtype)
    q, k, v = (x.contiguous() for x in inputs)
    p = KernelPattern.of(pattern.to(bench.device), q.device)
    problem = launch.Problem(
        p.tensors(), p.query_rank, p.key_rank, p.query_size, p.key_size, p.groups, q.shape[-1] ** -0.5
    )
    grad = torch.randn_like(q)
    answers = []
    for maps in (False, True):
        cuts = {
            name: replace(blocks(name, q.dtype, q.shape[-1]), tensor_maps=maps)
            for name in ("forward", "query_gradient", "key_gradient")
        }
        out, lse = launch.forward(q, k, v, problem, cuts["forward"])
        delta = torch.empty_like(lse)
        dq = launch.query_gradient(grad, None, q, k, v, out, lse, delta, problem, cuts["query_gradient"])
        dk, dv = launch.key_gradient(grad, q, k, v, lse, delta, problem, cuts["key_gradient"])
        answers.append([out, lse, dq, dk, dv])
    _same_bits(answers[0], answers[1], "with bulk copies")


def numerical_gradients(bench: Bench) -> None:
    """gradcheck in float64, of the output and of the log-sum-exp."""
    tiles = Tiles.of_lengths([16, 7])
    rank = torch.arange(23).view(1, -1) // 5
    pattern = TilePattern.of_matrix(tiles, tiles, torch.ones(1, 2, 2, dtype=torch.bool), rank, rank)
    pattern = pattern.to(bench.device)
    q, k, v = (x.requires_grad_() for x in draw(bench, (1, 1, 23, 16), dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda q, k, v: triton_attention(q, k, v, pattern), (q, k, v), fast_mode=True, nondet_tol=0.0
    )


def packed_is_separate(bench: Bench) -> None:
    """Samples packed behind each other give the bits that they give alone, cut into tiles of the same size."""
    t = bench.tile
    patterns = [dense_pattern(Tiles.regular(n, t)) for n in (t + 1, 2 * t)]
    lengths = [p.queries.tokens for p in patterns]
    inputs = draw(bench, (1, 2, sum(lengths), bench.heads[0]), dtype=bench.dtypes[0])
    grad_out = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(3)).to(inputs[0])
    grad_lse = torch.zeros(inputs[0].shape[:3], device=bench.device)
    packed = kernel_gradients(*inputs, concatenate(patterns).to(bench.device), grad_out, grad_lse)
    start = 0
    for pattern, n in zip(patterns, lengths, strict=True):
        part = slice(start, start + n)
        q, k, v, g, g_lse = (x[:, :, part] for x in (*inputs, grad_out, grad_lse))
        alone = kernel_gradients(q, k, v, pattern.to(bench.device), g, g_lse)
        for a, b in zip(packed, alone, strict=True):
            assert torch.equal(a[:, :, part], b), "a packed sample differs from the same sample alone"
        start += n


def padded_is_unpadded(bench: Bench) -> None:
    """Padding at the end of a sample changes nothing, and its keys get no gradient."""
    t, n = bench.tile, bench.tile + bench.tile // 4
    padded = 2 * t + 5
    inputs = draw(bench, (1, 2, padded, bench.heads[0]))
    mask = (torch.arange(padded) < n).view(1, -1)
    grad_out = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(3)).to(inputs[0])
    grad_out[:, :, n:] = 0.0  # nobody reads the padding's own rows
    grad_lse = torch.zeros(inputs[0].shape[:3], device=bench.device)
    pattern = dense_pattern(Tiles.regular(padded, t)).with_padding(mask).to(bench.device)
    long = kernel_gradients(*inputs, pattern, grad_out, grad_lse)
    q, k, v, g, g_lse = (x[:, :, :n] for x in (*inputs, grad_out, grad_lse))
    short = kernel_gradients(q, k, v, dense_pattern(Tiles.regular(n, t)).to(bench.device), g, g_lse)
    for a, b in zip(long, short, strict=True):
        torch.testing.assert_close(a[:, :, :n], b, rtol=1e-5, atol=1e-6)
    for grad in long[3:]:
        assert not grad[:, :, n:].any(), "a padded key has a gradient"


def any_strides(bench: Bench) -> None:
    """Token-major and head-major memory, and an expanded gradient, give the same bits."""
    n = bench.tile + 3
    pattern = dense_pattern(Tiles.regular(n, bench.tile)).to(bench.device)
    inputs = [x.contiguous() for x in draw(bench, (2, 2, n, bench.heads[0]))]
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    grad_out = torch.ones((), device=bench.device).expand(inputs[0].shape)
    grad_lse = torch.zeros(inputs[0].shape[:3], device=bench.device)
    results = [kernel_gradients(q, k, v, pattern, grad_out, grad_lse) for q, k, v in (inputs, turned)]
    _same_bits(results[0], results[1], "token-major memory")


GATES: tuple[Callable[[Bench], None], ...] = (
    lengths_and_scales,
    ragged_and_empty_tiles,
    odd_tile_sizes,
    low_log_sum_exp,
    poisoned_outputs,
    repeats_are_identical,
    bulk_copies_change_nothing,
    numerical_gradients,
    packed_is_separate,
    padded_is_unpadded,
    any_strides,
)


def run_gates(bench: Bench, gates: tuple[Callable[[Bench], None], ...]) -> Iterator[Report]:
    """Each gate once, however many fail."""
    for gate in gates:
        start = time.perf_counter()
        try:
            gate(bench)
            message = ""
        except Exception:  # reported, and counted as a failure by the caller
            message = traceback.format_exc()
        yield Report(gate.__name__, not message, time.perf_counter() - start, message)


@contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Uninitialised tensors come filled with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
