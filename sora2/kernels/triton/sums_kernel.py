"""Sums of consecutive rows, group by group."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["pieces", "rows"])
def sum_kernel(shares, begin, out, pieces, rows, width, COLUMNS: tl.constexpr, TILE: tl.constexpr):
    """out[k, u] = the sum of shares[k, p] over p in begin[u] .. begin[u + 1] - 1."""
    row = tl.program_id(0)
    kind = tl.program_id(1).to(tl.int64)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    first = tl.load(begin + row)
    last = tl.load(begin + row + 1)
    total = tl.zeros([TILE, COLUMNS], out.dtype.element_ty)
    for i in range(first, last, TILE):
        piece = i + tl.arange(0, TILE)
        mask = (piece < last)[:, None] & inside[None, :]
        at = (kind * pieces + piece) * width
        total += tl.load(shares + at[:, None] + column[None, :], mask=mask, other=0.0)
    tl.store(out + (kind * rows + row) * width + column, tl.sum(total, 0), mask=inside)
