"""Gate + residual + LayerNorm + modulate in one pass over a modality's rows, and the backward with its column sums."""

import triton
import triton.language as tl

#: Arguments that change with every batch: no new compilation for a new value.
SIZES = ["run_length", "chunk", "chunks"]


@triton.jit
def _table_row(index, run, SHARED: tl.constexpr):
    """Which row of the tables a run of tokens uses."""
    # One chain and one return: what follows an early return is compiled too, and there is no `index` to load from.
    if SHARED:
        row = run * 0
    elif index is None:
        row = run
    else:
        row = tl.load(index + run)
    return row


@triton.jit(do_not_specialize=SIZES)
def modulate_kernel(
    x,
    update,
    gate,
    shift,
    gain,
    index,
    added,
    modulated,
    mean,
    rstd,
    run_length,
    width,
    eps,
    GATED: tl.constexpr,
    NORMED: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per row: added = x + gate * update, modulated = LayerNorm(added) * gain + shift."""
    row = tl.program_id(0).to(tl.int64)
    table = _table_row(index, row // run_length, SHARED) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    at = row * width + column
    h = tl.load(x + at, mask=inside, other=0.0).to(ACC)
    if GATED:
        factor = tl.load(gate + table + column, mask=inside, other=0.0).to(ACC)
        h += factor * tl.load(update + at, mask=inside, other=0.0).to(ACC)
        rounded = h.to(added.dtype.element_ty)
        tl.store(added + at, rounded, mask=inside)
        h = rounded.to(ACC)  # what the backward will read
    if NORMED:
        middle = tl.sum(h, 0) / width
        centred = tl.where(inside, h - middle, 0.0)
        inverse = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
        factor = tl.load(gain + table + column, mask=inside, other=0.0).to(ACC)
        offset = tl.load(shift + table + column, mask=inside, other=0.0).to(ACC)
        y = centred * inverse * factor + offset
        tl.store(modulated + at, y.to(modulated.dtype.element_ty), mask=inside)
        tl.store(mean + row, middle)
        tl.store(rstd + row, inverse)


@triton.jit(do_not_specialize=SIZES)
def modulate_backward_kernel(
    grad_added,
    grad_modulated,
    h,
    update,
    gate,
    gain,
    index,
    mean,
    rstd,
    grad_x,
    grad_update,
    share_gate,
    share_shift,
    share_gain,
    order,
    piece,
    run_length,
    chunk,
    chunks,
    width,
    GATED: tl.constexpr,
    NORMED: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program per chunk of a run's rows; its column sums go to row `program` of the shares.

    With an `order` of the rows, runs have one row each, and a program takes those from piece[program] to the next piece
    in that order: they use the same row of the tables.
    """
    program = tl.program_id(0).to(tl.int64)
    if order is None:
        run = program // chunks
        first = (program % chunks) * chunk
        last = tl.minimum(first + chunk, run_length)
    else:
        first = tl.load(piece + program)
        last = tl.load(piece + program + 1)
        run = tl.load(order + first, mask=first < last, other=0)
    table = _table_row(index, run, SHARED) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    if GATED:
        gate_factor = tl.load(gate + table + column, mask=inside, other=0.0).to(ACC)
        gate_sum = tl.zeros([BLOCK], ACC)
    if NORMED:
        gain_factor = tl.load(gain + table + column, mask=inside, other=0.0).to(ACC)
        shift_sum = tl.zeros([BLOCK], ACC)
        gain_sum = tl.zeros([BLOCK], ACC)
    for i in range(first, last):
        if order is None:
            row = run * run_length + i
        else:
            row = tl.load(order + i)
        at = row * width + column
        if NORMED:
            g = tl.load(grad_modulated + at, mask=inside, other=0.0).to(ACC)
            normed = tl.load(h + at, mask=inside, other=0.0).to(ACC) - tl.load(mean + row)
            inverse = tl.load(rstd + row)
            normed = tl.where(inside, normed * inverse, 0.0)
            shift_sum += g
            gain_sum += g * normed
            g *= gain_factor
            d = inverse * (g - tl.sum(g, 0) / width - normed * (tl.sum(g * normed, 0) / width))
            if GATED:
                d += tl.load(grad_added + at, mask=inside, other=0.0).to(ACC)
            tl.store(grad_x + at, d.to(grad_x.dtype.element_ty), mask=inside)
        else:
            d = tl.load(grad_added + at, mask=inside, other=0.0).to(ACC)
        if GATED:
            gate_sum += d * tl.load(update + at, mask=inside, other=0.0).to(ACC)
            tl.store(grad_update + at, (d * gate_factor).to(grad_update.dtype.element_ty), mask=inside)
    share = program * width + column
    if GATED:
        tl.store(share_gate + share, gate_sum, mask=inside)
    if NORMED:
        tl.store(share_shift + share, shift_sum, mask=inside)
        tl.store(share_gain + share, gain_sum, mask=inside)
