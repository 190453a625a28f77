"""The forward kernel: one program per block of queries and head walks the key blocks of its tile's list.

Imported only where it is launched: importing sora2 never imports Triton.
"""

import triton
import triton.language as tl

#: Rank of a key that nobody may see, `sora2.kernels.pattern.PADDING`.
PADDING = tl.constexpr(2**31 - 1)
#: Arguments that change with every batch: no new compilation for a new value.
SIZES = ["samples", "heads", "queries", "tiles", "group_batch", "group_head", "q_rank_batch", "k_rank_batch"]


@triton.jit
def locate(unit, samples, heads, tiles, heavy):
    """Which sample, head and rank in its order of tiles a program works on.

    The few tiles with long lists start first, of all heads, so that none is left running at the end; the others follow
    head by head, so that their keys stay in the L2 cache.
    """
    lines = samples * heads
    long = tl.load(heavy)
    rest = unit - long * lines
    others = tl.maximum(tiles - long, 1)
    line = tl.where(rest < 0, unit % lines, rest // others)
    rank = tl.where(rest < 0, unit // lines, long + rest % others)
    return (line // heads).to(tl.int64), (line % heads).to(tl.int64), rank


@triton.jit
def _blocks(
    acc,
    total,
    peak,
    query,
    k,
    v,
    k_tiles,
    v_tiles,
    batch,
    head,
    q_rank,
    k_rank,
    begin,
    count,
    first,
    last,
    k_stride,
    v_stride,
    SCALE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HEAD: tl.constexpr,
    MASKED: tl.constexpr,
    RANKED: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Online softmax over the pairs [first, last) of one query tile. Scores are in units of log2."""
    channel = tl.arange(0, HEAD)
    for i in tl.range(first * PARTS, last * PARTS):
        pair = i // PARTS
        base = tl.load(begin + pair).to(tl.int64)  # first token of this tile of keys
        offset = (i % PARTS) * BLOCK_N + tl.arange(0, BLOCK_N)
        k_at = k + base * k_stride + (offset[:, None] * k_stride + channel[None, :])
        v_at = v + base * v_stride + (offset[:, None] * v_stride + channel[None, :])
        if MASKED:
            inside = offset < tl.load(count + pair)
            key = tl.load(k_at, mask=inside[:, None], other=0.0)
            value = tl.load(v_at, mask=inside[:, None], other=0.0)
        elif k_tiles is None:
            key = tl.load(k_at)
            value = tl.load(v_at)
        else:
            first_row = base.to(tl.int32) + (i % PARTS) * BLOCK_N
            key = k_tiles.load([batch.to(tl.int32), head.to(tl.int32), first_row, 0]).reshape(BLOCK_N, HEAD)
            value = v_tiles.load([batch.to(tl.int32), head.to(tl.int32), first_row, 0]).reshape(BLOCK_N, HEAD)
        score = tl.dot(query, tl.trans(key), out_dtype=ACC, input_precision=PRECISION)
        if MASKED:
            seen = inside[None, :]
            if RANKED:
                rank = tl.load(k_rank + base + offset, mask=inside, other=PADDING)
                seen = rank[None, :] <= q_rank[:, None]
            score = tl.where(seen, score, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(score, 1) * SCALE)
        if MASKED:  # a row that has seen no key yet keeps weights of zero
            level = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        else:
            level = new_peak
        weight = tl.exp2(score * SCALE - level[:, None])
        shrink = tl.exp2(peak - level)
        total = total * shrink + tl.sum(weight, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(weight.to(value.dtype), value, acc, out_dtype=ACC, input_precision=PRECISION)
        peak = new_peak
    return acc, total, peak


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    q,
    k,
    v,
    k_tiles,
    v_tiles,
    out,
    lse,
    q_rank,
    k_rank,
    starts,
    heavy,
    order,
    pointer,
    full,
    begin,
    count,
    q_batch,
    q_head,
    q_stride,
    k_batch,
    k_head,
    k_stride,
    v_batch,
    v_head,
    v_stride,
    o_batch,
    o_head,
    o_stride,
    samples,
    heads,
    queries,
    tiles,
    group_batch,
    group_head,
    q_rank_batch,
    k_rank_batch,
    SCALE: tl.constexpr,
    ROW_PARTS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HEAD: tl.constexpr,
    EVEN: tl.constexpr,
    RANKED: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    program = tl.program_id(0)
    batch, head, rank = locate(program // ROW_PARTS, samples, heads, tiles, heavy)
    group = (batch * group_batch + head * group_head) * tiles
    tile = tl.load(order + group + rank)
    line = group + tile  # of the lists
    offset = (program % ROW_PARTS) * BLOCK_M + tl.arange(0, BLOCK_M)
    start = tl.load(starts + tile)
    row = start + offset
    stop = tl.load(starts + tile + 1)
    if start + (program % ROW_PARTS) * BLOCK_M >= stop:
        return  # a short tile has fewer blocks
    inside = row < stop
    channel = tl.arange(0, HEAD)

    q += batch * q_batch + head * q_head
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    at = row[:, None].to(tl.int64)
    query = tl.load(q + at * q_stride + channel[None, :], mask=inside[:, None], other=0.0)
    row_rank = tl.zeros([BLOCK_M], tl.int32)
    if RANKED:
        row_rank = tl.load(q_rank + batch * q_rank_batch + row, mask=inside, other=0)
        k_rank += batch * k_rank_batch

    acc = tl.zeros([BLOCK_M, HEAD], ACC)
    total = tl.zeros([BLOCK_M], ACC)
    peak = tl.full([BLOCK_M], float("-inf"), ACC)
    first = tl.load(pointer + line)
    split = first + tl.load(full + line) if EVEN else first
    last = tl.load(pointer + line + 1)
    acc, total, peak = _blocks(
        acc, total, peak, query, k, v, k_tiles, v_tiles, batch, head, row_rank, k_rank, begin, count,
        first, split, k_stride, v_stride, SCALE, PARTS, BLOCK_N, HEAD, False, RANKED, ACC, PRECISION,
    )  # fmt: skip
    acc, total, peak = _blocks(
        acc, total, peak, query, k, v, k_tiles, v_tiles, batch, head, row_rank, k_rank, begin, count,
        split, last, k_stride, v_stride, SCALE, PARTS, BLOCK_N, HEAD, True, RANKED, ACC, PRECISION,
    )  # fmt: skip

    seen = total != 0  # true for NaN, which must stay visible
    acc = acc / tl.where(seen, total, 1.0)[:, None]
    out += batch * o_batch + head * o_head
    tl.store(
        out + at * o_stride + channel[None, :],
        tl.where(seen[:, None], acc, 0.0).to(out.dtype.element_ty),
        mask=inside[:, None],
    )
    level = tl.where(seen, peak + tl.log2(tl.where(seen, total, 1.0)), float("-inf"))
    tl.store(lse + (batch * heads + head) * queries + row, level, mask=inside)
