"""The squared ReLU, a block of numbers a program."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["numbers"])
def squared_relu_kernel(x, out, numbers, BLOCK: tl.constexpr):
    """out = max(x, 0)^2; NaN stays NaN."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numbers
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    positive = tl.where(value < 0, 0.0, value)
    tl.store(out + at, positive * positive, mask=inside)


@triton.jit(do_not_specialize=["numbers"])
def squared_relu_backward_kernel(x, grad_out, grad_x, numbers, BLOCK: tl.constexpr):
    """grad_x = 2 max(x, 0) grad_out."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numbers
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_out + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(grad_x + at, 2 * tl.where(value < 0, 0.0, value) * grad, mask=inside)
