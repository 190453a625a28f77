"""The squared ReLU, a block of numbers a program; of a multiple of 16, which Triton compiles apart, eight a thread."""

import triton
import triton.language as tl


@triton.jit
def squared_relu_kernel(x, out, width, BLOCK: tl.constexpr):
    """out = max(x, 0)^2 of `width` numbers; NaN stays NaN."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    positive = tl.where(value < 0, 0.0, value)
    tl.store(out + at, positive * positive, mask=inside)


@triton.jit
def squared_relu_backward_kernel(x, grad_out, grad_x, width, BLOCK: tl.constexpr):
    """grad_x = 2 max(x, 0) grad_out."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_out + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(grad_x + at, 2 * tl.where(value < 0, 0.0, value) * grad, mask=inside)
