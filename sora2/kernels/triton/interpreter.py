"""Triton's CPU interpreter, in which the kernels are tested without a GPU. Choose it by TRITON_INTERPRET=1 before the
first import of Triton. Its bf16 products are wrong (it multiplies the bit patterns): use float32 and float16."""

from __future__ import annotations

import os
from typing import Any


def interpreted() -> bool:
    """Whether Triton runs its kernels in the interpreter: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def allow_numpy_2_4() -> None:
    """NumPy 2.4 refuses int() of the arrays of one element in which Triton 3.6's interpreter keeps loop bounds."""
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
