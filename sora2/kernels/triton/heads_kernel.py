"""Split of the flat stream into heads with RMS-norm and rotation on the way, and its backward.

One program per block of tokens; it walks the heads, so that the rotation's tables are read once.
"""

import triton
import triton.language as tl

#: Arguments that change with every batch: no new compilation for a new value.
SIZES = ["tokens", "heads", "length", "angle_rows"]


@triton.jit
def _load_pair(at, stride, inside, HALF: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Both halves of the channels of one head, (tokens, BLOCK) each."""
    channel = tl.arange(0, BLOCK)
    mask = inside[:, None] & (channel < HALF)[None, :]
    place = at + stride[:, None] + channel[None, :]
    return tl.load(place, mask=mask, other=0.0).to(ACC), tl.load(place + HALF, mask=mask, other=0.0).to(ACC)


@triton.jit
def _store_pair(at, stride, first, second, inside, HALF: tl.constexpr, BLOCK: tl.constexpr):
    channel = tl.arange(0, BLOCK)
    mask = inside[:, None] & (channel < HALF)[None, :]
    place = at + stride[:, None] + channel[None, :]
    tl.store(place, first.to(at.dtype.element_ty), mask=mask)
    tl.store(place + HALF, second.to(at.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def split_kernel(
    qkv,
    gain,
    cosine,
    sine,
    sequence,
    q,
    k,
    v,
    tokens,
    heads,
    length,
    angle_rows,
    row_stride,
    eps,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    ACC: tl.constexpr,
):
    """`sequence` (T,) int32 is sample * N + position of each row of the stream."""
    row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    inside = row < tokens
    flat = tl.load(sequence + row, mask=inside, other=0)
    sample, position = flat // length, flat % length
    angle = (flat % angle_rows).to(tl.int64) * HALF  # one row of samples, or all of them
    channel = tl.arange(0, BLOCK)
    half = channel < HALF
    mask = inside[:, None] & half[None, :]
    cos = tl.load(cosine + angle[:, None] + channel[None, :], mask=mask, other=0.0).to(ACC)
    sin = tl.load(sine + angle[:, None] + channel[None, :], mask=mask, other=0.0).to(ACC)
    source = row.to(tl.int64) * row_stride
    target = (sample.to(tl.int64) * heads * length + position) * (2 * HALF)
    for head in range(heads):
        for part in tl.static_range(2):
            x1, x2 = _load_pair(qkv + (part * heads + head) * 2 * HALF, source, inside, HALF, BLOCK, ACC)
            inverse = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / (2 * HALF) + eps)[:, None]
            g1 = tl.load(gain + part * 2 * HALF + channel, mask=half, other=0.0).to(ACC)[None, :]
            g2 = tl.load(gain + part * 2 * HALF + HALF + channel, mask=half, other=0.0).to(ACC)[None, :]
            x1, x2 = x1 * inverse * g1, x2 * inverse * g2
            to = q if part == 0 else k
            _store_pair(to, target, x1 * cos - x2 * sin, x2 * cos + x1 * sin, inside, HALF, BLOCK)
        x1, x2 = _load_pair(qkv + (2 * heads + head) * 2 * HALF, source, inside, HALF, BLOCK, ACC)
        _store_pair(v, target, x1, x2, inside, HALF, BLOCK)
        target += length * 2 * HALF


@triton.jit(do_not_specialize=SIZES)
def split_backward_kernel(
    qkv,
    gain,
    cosine,
    sine,
    sequence,
    grad_q,
    grad_k,
    grad_v,
    grad,
    grad_gain,
    tokens,
    heads,
    length,
    angle_rows,
    row_stride,
    q_batch,
    q_head,
    q_stride,
    k_batch,
    k_head,
    k_stride,
    v_batch,
    v_head,
    v_stride,
    eps,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradient of qkv, and this program's share of the gain's, (programs, 2, 2 * HALF)."""
    row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    inside = row < tokens
    flat = tl.load(sequence + row, mask=inside, other=0)
    sample, position = (flat // length).to(tl.int64), (flat % length).to(tl.int64)
    angle = (flat % angle_rows).to(tl.int64) * HALF
    channel = tl.arange(0, BLOCK)
    half = channel < HALF
    mask = inside[:, None] & half[None, :]
    cos = tl.load(cosine + angle[:, None] + channel[None, :], mask=mask, other=0.0).to(ACC)
    sin = tl.load(sine + angle[:, None] + channel[None, :], mask=mask, other=0.0).to(ACC)
    source = row.to(tl.int64) * row_stride
    target = row.to(tl.int64) * (heads * 6 * HALF)
    share = grad_gain + tl.program_id(0) * 4 * HALF
    for part in tl.static_range(2):
        g1 = tl.load(gain + part * 2 * HALF + channel, mask=half, other=0.0).to(ACC)[None, :]
        g2 = tl.load(gain + part * 2 * HALF + HALF + channel, mask=half, other=0.0).to(ACC)[None, :]
        sum1, sum2 = tl.zeros([BLOCK], ACC), tl.zeros([BLOCK], ACC)
        if part == 0:
            at = sample * q_batch + position * q_stride
        else:
            at = sample * k_batch + position * k_stride
        for head in range(heads):
            if part == 0:
                d1, d2 = _load_pair(grad_q, at, inside, HALF, BLOCK, ACC)
                at += q_head
            else:
                d1, d2 = _load_pair(grad_k, at, inside, HALF, BLOCK, ACC)
                at += k_head
            place = (part * heads + head) * 2 * HALF
            x1, x2 = _load_pair(qkv + place, source, inside, HALF, BLOCK, ACC)
            inverse = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / (2 * HALF) + eps)[:, None]
            n1, n2 = x1 * inverse, x2 * inverse
            t1, t2 = d1 * cos + d2 * sin, d2 * cos - d1 * sin  # rotated back
            sum1 += tl.sum(t1 * n1, 0)
            sum2 += tl.sum(t2 * n2, 0)
            t1, t2 = t1 * g1, t2 * g2
            along = ((tl.sum(t1 * n1, 1) + tl.sum(t2 * n2, 1)) / (2 * HALF))[:, None]
            _store_pair(
                grad + place,
                target,
                (t1 - n1 * along) * inverse,
                (t2 - n2 * along) * inverse,
                inside,
                HALF,
                BLOCK,
            )
        tl.store(share + part * 2 * HALF + channel, sum1, mask=half)
        tl.store(share + part * 2 * HALF + HALF + channel, sum2, mask=half)
    at = sample * v_batch + position * v_stride
    for head in range(heads):
        d1, d2 = _load_pair(grad_v, at, inside, HALF, BLOCK, ACC)
        at += v_head
        _store_pair(grad + (2 * heads + head) * 2 * HALF, target, d1, d2, inside, HALF, BLOCK)
