"""Triton's CPU interpreter, in which the kernels are tested without a GPU. Choose it by TRITON_INTERPRET=1 before the
first import of Triton, and repair it before the first launch."""

from __future__ import annotations

import os
from typing import Any


def interpreted() -> bool:
    """Whether Triton runs its kernels in the interpreter: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def repair() -> None:
    """Three faults of the interpreter of Triton 3.6, which the compiler does not have.

    It multiplies the bit patterns of bf16; it cuts float32 off to bf16 where GPUs round to nearest; and its loop
    bounds, arrays of one element, are refused by int() in NumPy 2.4.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    patch, dot, cast = interpreter._patch_lang_tensor, builder.create_dot, builder.cast_impl

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def widened(x: Any) -> Any:
        if x.dtype.scalar != tl.bfloat16:
            return x
        return handle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return cast(self, source, target)
        bits = np.ascontiguousarray(source.data).view(np.uint32)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # ties to even
        nan = np.isnan(source.data)
        return handle(np.where(nan, 0x7FC0, nearest).astype(np.uint16), tl.bfloat16)

    interpreter._patch_lang_tensor = patch_lang_tensor
    builder.create_dot, builder.cast_impl = create_dot, cast_impl
