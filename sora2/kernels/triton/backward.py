"""The backward kernels: dQ over the lists of the queries, dK and dV over the transposed lists.

Each gradient row is summed by one program in a fixed order and stored once: no atomics, the same bits every time.
Splitting costs seven matrix products per pair where one fused pass would cost five and an ordered reduction of dQ.
"""

import triton
import triton.language as tl

from sora2.kernels.triton.forward import PADDING, SIZES, locate


@triton.jit
def _query_blocks(
    grad,
    query,
    grad_out,
    level,
    delta,
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
    """dQ / scale over the pairs [first, last) of one query tile."""
    channel = tl.arange(0, HEAD)
    for i in tl.range(first * PARTS, last * PARTS):
        pair = i // PARTS
        base = tl.load(begin + pair).to(tl.int64)
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
        weight = tl.exp2(score * SCALE - level[:, None])
        if MASKED:
            seen = inside[None, :]
            if RANKED:
                rank = tl.load(k_rank + base + offset, mask=inside, other=PADDING)
                seen = rank[None, :] <= q_rank[:, None]
            weight = tl.where(seen, weight, 0.0)
        grad_weight = tl.dot(grad_out, tl.trans(value), out_dtype=ACC, input_precision=PRECISION)
        grad_score = weight * (grad_weight - delta[:, None])
        grad = tl.dot(grad_score.to(key.dtype), key, grad, out_dtype=ACC, input_precision=PRECISION)
    return grad


@triton.jit(do_not_specialize=SIZES)
def query_gradient_kernel(
    q,
    k,
    v,
    k_tiles,
    v_tiles,
    out,
    grad_out,
    lse,
    grad_lse,
    delta,
    grad_q,
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
    g_batch,
    g_head,
    g_stride,
    d_batch,
    d_head,
    d_stride,
    samples,
    heads,
    queries,
    tiles,
    group_batch,
    group_head,
    q_rank_batch,
    k_rank_batch,
    SCALE: tl.constexpr,
    FACTOR: tl.constexpr,
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
    """dQ, and delta = sum(out * grad_out) - grad_lse per query for the other kernel, which runs after this one."""
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
    at = row[:, None].to(tl.int64)

    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    q += batch * q_batch + head * q_head
    g_at = grad_out + batch * g_batch + head * g_head + at * g_stride + channel[None, :]
    o_at = out + batch * o_batch + head * o_head + at * o_stride + channel[None, :]
    sums = (batch * heads + head) * queries + row
    row_grad = tl.load(g_at, mask=inside[:, None], other=0.0)
    row_out = tl.load(o_at, mask=inside[:, None], other=0.0)
    row_delta = tl.sum(row_grad.to(ACC) * row_out.to(ACC), 1)
    if grad_lse is not None:
        row_delta -= tl.load(grad_lse + sums, mask=inside, other=0.0)
    tl.store(delta + sums, row_delta, mask=inside)

    query = tl.load(q + at * q_stride + channel[None, :], mask=inside[:, None], other=0.0)
    level = tl.load(lse + sums, mask=inside, other=float("inf"))
    row_rank = tl.zeros([BLOCK_M], tl.int32)
    if RANKED:
        row_rank = tl.load(q_rank + batch * q_rank_batch + row, mask=inside, other=0)
        k_rank += batch * k_rank_batch
    first = tl.load(pointer + line)
    split = first + tl.load(full + line) if EVEN else first
    last = tl.load(pointer + line + 1)
    grad = tl.zeros([BLOCK_M, HEAD], ACC)
    grad = _query_blocks(
        grad, query, row_grad, level, row_delta, k, v, k_tiles, v_tiles, batch, head, row_rank, k_rank,
        begin, count, first, split, k_stride, v_stride, SCALE, PARTS, BLOCK_N, HEAD, False, RANKED, ACC, PRECISION,
    )  # fmt: skip
    grad = _query_blocks(
        grad, query, row_grad, level, row_delta, k, v, k_tiles, v_tiles, batch, head, row_rank, k_rank,
        begin, count, split, last, k_stride, v_stride, SCALE, PARTS, BLOCK_N, HEAD, True, RANKED, ACC, PRECISION,
    )  # fmt: skip
    grad_q += batch * d_batch + head * d_head
    grad *= FACTOR
    tl.store(
        grad_q + at * d_stride + channel[None, :], grad.to(grad_q.dtype.element_ty), mask=inside[:, None]
    )


@triton.jit
def _key_blocks(
    grad_key,
    grad_value,
    key,
    value,
    q,
    grad_out,
    q_tiles,
    g_tiles,
    batch,
    head,
    lse,
    delta,
    q_rank,
    k_rank,
    inside_key,
    begin,
    count,
    first,
    last,
    q_stride,
    g_stride,
    SCALE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    HEAD: tl.constexpr,
    MASKED: tl.constexpr,
    RANKED: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dK / scale and dV over the pairs [first, last) of one key tile; scores are transposed, (keys, queries)."""
    channel = tl.arange(0, HEAD)
    for i in tl.range(first * PARTS, last * PARTS):
        pair = i // PARTS
        base = tl.load(begin + pair).to(tl.int64)
        offset = (i % PARTS) * BLOCK_M + tl.arange(0, BLOCK_M)
        q_at = q + base * q_stride + (offset[:, None] * q_stride + channel[None, :])
        g_at = grad_out + base * g_stride + (offset[:, None] * g_stride + channel[None, :])
        if MASKED:
            inside = offset < tl.load(count + pair)
            query = tl.load(q_at, mask=inside[:, None], other=0.0)
            row_grad = tl.load(g_at, mask=inside[:, None], other=0.0)
            level = tl.load(lse + base + offset, mask=inside, other=float("inf"))
            row_delta = tl.load(delta + base + offset, mask=inside, other=0.0)
        else:
            if q_tiles is None:
                query = tl.load(q_at)
                row_grad = tl.load(g_at)
            else:
                first_row = base.to(tl.int32) + (i % PARTS) * BLOCK_M
                query = q_tiles.load([batch.to(tl.int32), head.to(tl.int32), first_row, 0]).reshape(
                    BLOCK_M, HEAD
                )
                row_grad = g_tiles.load([batch.to(tl.int32), head.to(tl.int32), first_row, 0]).reshape(
                    BLOCK_M, HEAD
                )
            level = tl.load(lse + base + offset)
            row_delta = tl.load(delta + base + offset)
        score = tl.dot(key, tl.trans(query), out_dtype=ACC, input_precision=PRECISION)
        weight = tl.exp2(score * SCALE - level[None, :])
        if MASKED:
            seen = inside_key[:, None]
            if RANKED:
                rank = tl.load(q_rank + base + offset, mask=inside, other=0)
                seen = k_rank[:, None] <= rank[None, :]
            weight = tl.where(seen, weight, 0.0)
        grad_value = tl.dot(
            weight.to(row_grad.dtype), row_grad, grad_value, out_dtype=ACC, input_precision=PRECISION
        )
        grad_weight = tl.dot(value, tl.trans(row_grad), out_dtype=ACC, input_precision=PRECISION)
        grad_score = weight * (grad_weight - row_delta[None, :])
        grad_key = tl.dot(
            grad_score.to(query.dtype), query, grad_key, out_dtype=ACC, input_precision=PRECISION
        )
    return grad_key, grad_value


@triton.jit(do_not_specialize=SIZES)
def key_gradient_kernel(
    q,
    k,
    v,
    grad_out,
    q_tiles,
    g_tiles,
    lse,
    delta,
    grad_k,
    grad_v,
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
    g_batch,
    g_head,
    g_stride,
    d_batch,
    d_head,
    d_stride,
    e_batch,
    e_head,
    e_stride,
    samples,
    heads,
    queries,
    tiles,
    group_batch,
    group_head,
    q_rank_batch,
    k_rank_batch,
    SCALE: tl.constexpr,
    FACTOR: tl.constexpr,
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
    """dK and dV of one block of keys, from the query tiles that see it. Strides d are of dK, e of dV."""
    program = tl.program_id(0)
    batch, head, rank = locate(program // ROW_PARTS, samples, heads, tiles, heavy)
    group = (batch * group_batch + head * group_head) * tiles
    tile = tl.load(order + group + rank)
    line = group + tile  # of the lists
    offset = (program % ROW_PARTS) * BLOCK_N + tl.arange(0, BLOCK_N)
    start = tl.load(starts + tile)
    row = start + offset
    stop = tl.load(starts + tile + 1)
    if start + (program % ROW_PARTS) * BLOCK_N >= stop:
        return  # a short tile has fewer blocks
    inside = row < stop
    channel = tl.arange(0, HEAD)
    at = row[:, None].to(tl.int64)

    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    q += batch * q_batch + head * q_head
    grad_out += batch * g_batch + head * g_head
    lse += (batch * heads + head) * queries
    delta += (batch * heads + head) * queries
    key = tl.load(k + at * k_stride + channel[None, :], mask=inside[:, None], other=0.0)
    value = tl.load(v + at * v_stride + channel[None, :], mask=inside[:, None], other=0.0)
    row_rank = tl.zeros([BLOCK_N], tl.int32)
    if RANKED:
        row_rank = tl.load(k_rank + batch * k_rank_batch + row, mask=inside, other=PADDING)
        q_rank += batch * q_rank_batch
    first = tl.load(pointer + line)
    split = first + tl.load(full + line) if EVEN else first
    last = tl.load(pointer + line + 1)
    grad_key = tl.zeros([BLOCK_N, HEAD], ACC)
    grad_value = tl.zeros([BLOCK_N, HEAD], ACC)
    grad_key, grad_value = _key_blocks(
        grad_key, grad_value, key, value, q, grad_out, q_tiles, g_tiles, batch, head, lse, delta, q_rank, row_rank,
        inside, begin, count, first, split, q_stride, g_stride,
        SCALE, PARTS, BLOCK_M, HEAD, False, RANKED, ACC, PRECISION,
    )  # fmt: skip
    grad_key, grad_value = _key_blocks(
        grad_key, grad_value, key, value, q, grad_out, q_tiles, g_tiles, batch, head, lse, delta, q_rank, row_rank,
        inside, begin, count, split, last, q_stride, g_stride,
        SCALE, PARTS, BLOCK_M, HEAD, True, RANKED, ACC, PRECISION,
    )  # fmt: skip
    grad_k += batch * d_batch + head * d_head
    grad_v += batch * e_batch + head * e_head
    grad_key *= FACTOR
    tl.store(
        grad_k + at * d_stride + channel[None, :], grad_key.to(grad_k.dtype.element_ty), mask=inside[:, None]
    )
    tl.store(
        grad_v + at * e_stride + channel[None, :],
        grad_value.to(grad_v.dtype.element_ty),
        mask=inside[:, None],
    )
