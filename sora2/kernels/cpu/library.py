"""The functions of the compiled library, with their types, and the OpenMP pool they run on."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

Pointer, Int, Long, Float = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float

#: Arguments as in `source/main.cpp`.
FUNCTIONS: dict[str, tuple[type, ...]] = {
    "norm_modulate": (Pointer, Int, Long, Pointer, Long, *[Pointer] * 5, Float, Long),
    "norm_modulate_backward": (Pointer, Int, Long, Pointer, Long, *[Pointer] * 8, Int, Pointer, Long),
    "gated_add": (Pointer, Int, Long, Pointer, Long, *[Pointer] * 3, Long),
    "gated_add_backward": (Pointer, Int, Long, Pointer, Long, *[Pointer] * 4, Int, Pointer, Long),
    "split_heads": (Pointer, Int, Long, Long, *[Pointer] * 4, Long, Float, Pointer, Long),
    "split_heads_backward": (Pointer, Int, Long, Long, *[Pointer] * 4, Long, Float, *[Pointer] * 5, Long),
    "merge_heads": (Pointer, Int, Int, Long, Long, Pointer, Pointer, Long),
    "softmax": (Int, Pointer, Pointer, Float, Long, Long, Long, Long),
    "softmax_backward": (Int, Pointer, Pointer, Float, Long, Long, Long),
    "attention": (Pointer, Int, *[Pointer] * 5),
    "attention_backward": (Pointer, Int, *[Pointer] * 9),
    "squared_relu": (Int, Pointer, Pointer, Long, Long),
    "squared_relu_backward": (Int, Pointer, Pointer, Pointer, Long, Long),
}
#: How bf16 can be multiplied: as floats in lanes, by the instruction for pairs (AVX512-bf16), in AMX tiles.
PRODUCTS = ("floats", "pairs", "tiles")
#: Only where the processor has AMX.
TILE_FUNCTIONS: dict[str, tuple[type, ...]] = {
    "weight_gradient": (Pointer, Pointer, Long, Long, Long, Pointer, Long),
}
#: Of the OpenMP runtime that torch brought into the process: GNU's, and LLVM's and Intel's under GNU's names.
OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


class Library:
    """The loaded library; its functions are attributes.

    `threaded` says whether torch's threads were found, `products` how bf16 is multiplied (one of `PRODUCTS`), `wide`
    whether vectors hold 16 floats.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        self._choose_products = library.sora2_choose_products
        self.use_products(PRODUCTS[-1])
        self.wide = int(library.sora2_vector()) == 16
        functions = FUNCTIONS | TILE_FUNCTIONS if self.products == "tiles" else FUNCTIONS
        for name, arguments in functions.items():
            function = getattr(library, f"sora2_{name}")
            function.argtypes, function.restype = arguments, None
            setattr(self, name, function)
        pool = openmp()
        self.threaded = pool is not None
        library.sora2_set_threads.argtypes = (Pointer,) * 3
        library.sora2_set_threads(*(pool or (None, None, None)))

    def use_products(self, most: str) -> str:
        """Multiply bf16 by the best of `PRODUCTS` up to `most` that this processor has; returns which."""
        self.products = PRODUCTS[self._choose_products(PRODUCTS.index(most))]
        return self.products

    def __getattr__(self, name: str) -> ctypes._FuncPointer:  # only for the type checker: all are set above
        raise AttributeError(name)


def openmp() -> tuple[int | None, ...] | None:
    """Addresses of the functions in `OPENMP`, None where torch's build has no such runtime."""
    if not torch.backends.openmp.is_available():
        return None
    process = ctypes.CDLL(None)
    if not all(hasattr(process, name) for name in OPENMP):
        return None
    return tuple(ctypes.cast(getattr(process, name), Pointer).value for name in OPENMP)
