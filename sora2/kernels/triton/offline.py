"""Compile the kernels for a GPU that is not there, and read registers, spills and instructions off the machine code."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

#: Shared memory that one block may use on sm_90, bytes.
SHARED_LIMIT = 232_448


@dataclass(frozen=True)
class Compiled:
    """What the assembler reports for one kernel."""

    name: str
    registers: int
    stack: int  # bytes per thread in local memory: spilled registers, if any
    shared: int  # bytes per block
    warpgroup_products: int  # HGMMA instructions, the tensor cores' full-speed path
    local_accesses: int  # LDL + STL instructions

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.registers} registers, {self.local_accesses} spill instructions, "
            f"{self.shared} bytes shared, {self.warpgroup_products} HGMMA"
        )


_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64"}


def compile_kernel(
    kernel: Any,
    pointers: dict[str, str],
    constants: dict[str, Any],
    warps: int = 4,
    stages: int = 2,
    floats: tuple[str, ...] = (),
) -> Compiled:
    """Compile for sm_90 with Triton's own assembler; arguments that are named nowhere are int32.

    `pointers` maps argument names to types such as "*bf16". Addresses, strides and widths are taken to be multiples
    of 16, as they are where it matters.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, attributes, values = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            values[(i,)] = constants[name]
            continue
        signature[name] = "fp32" if name in floats else pointers.get(name, "i32")
        of_16 = name.endswith(("_batch", "_head", "_stride", "width")) and not name.startswith("group")
        if pointers.get(name, "").startswith("*") or of_16:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    done = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages}
    )
    return _inspect(kernel.__name__, done.asm["cubin"], done.metadata.shared)


def compile_attention(
    name: str, dtype: torch.dtype, head: int, *, ranked: bool = True, tile: int = 128, cut: Any = None
) -> Compiled:
    """One attention kernel ("forward", "query_gradient", "key_gradient") as `launch` runs it on tiles of `tile`."""
    import triton.language as tl

    from sora2.kernels.triton import backward, forward
    from sora2.kernels.triton.blocks import blocks

    kernel = forward.forward_kernel if name == "forward" else getattr(backward, f"{name}_kernel")
    cut = (cut or blocks(name, dtype, head)).fit(tile, tile)
    data, total = f"*{_DTYPES[dtype]}", "*fp64" if dtype == torch.float64 else "*fp32"
    names = dict.fromkeys(("q", "k", "v", "out", "grad_out", "grad_q", "grad_k", "grad_v"), data)
    names |= dict.fromkeys(("lse", "delta"), total)
    integers = ("q_rank", "k_rank", "starts", "heavy", "order", "pointer", "full", "begin", "count")
    names |= dict.fromkeys(integers, "*i32")
    own, other = (cut.keys, cut.queries) if name == "key_gradient" else (cut.queries, cut.keys)
    constants = {
        "SCALE": 0.1275,
        "FACTOR": 0.0884,
        "ROW_PARTS": -(-tile // own),
        "PARTS": -(-tile // other),
        "BLOCK_M": cut.queries,
        "BLOCK_N": cut.keys,
        "HEAD": head,
        "EVEN": tile % other == 0,
        "RANKED": ranked,
        "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "ieee",
        "grad_lse": None,
    }
    rows = cut.queries if name == "key_gradient" else cut.keys
    for side in ("k_tiles", "v_tiles", "q_tiles", "g_tiles"):
        if cut.tensor_maps:
            names[side] = f"tensordesc<{_DTYPES[dtype]}[1, 1, {rows}, {head}]>"
        else:
            constants[side] = None
    constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
    return compile_kernel(
        kernel,
        {k: v for k, v in names.items() if k in kernel.arg_names},
        constants,
        warps=cut.warps,
        stages=cut.stages,
    )


def _inspect(name: str, cubin: bytes, shared: int) -> Compiled:
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
        code = subprocess.run(
            [tool, "--dump-sass", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing of registers: {usage[:500]}")
    local = len(re.findall(r"\b(?:LDL|STL)\b", code))
    return Compiled(name, int(found[1]), int(found[2]), shared, code.count("HGMMA"), local)


def compile_token_kernels(width: int, head: int, dtype: torch.dtype = torch.bfloat16) -> list[Compiled]:
    """The token-wise kernels as `heads`, `modulate` and `activation` launch them on a stream of this width."""
    import triton
    import triton.language as tl

    from sora2.kernels.triton import (
        activation,
        activation_kernel,
        heads,
        heads_kernel,
        modulate,
        modulate_kernel,
        sums,
        sums_kernel,
    )

    data = f"*{_DTYPES[dtype]}"
    half = head // 2
    shape = {"HALF": half, "BLOCK": triton.next_power_of_2(half), "TOKENS": heads.TOKENS, "ACC": tl.float32}
    pointers = dict.fromkeys(("qkv", "q", "k", "v", "grad_q", "grad_k", "grad_v", "grad"), data)
    pointers |= dict.fromkeys(("gain", "cosine", "sine", "grad_gain"), "*fp32") | {"sequence": "*i32"}
    found = [
        compile_kernel(kernel, pointers, shape, floats=("eps",))
        for kernel in (heads_kernel.split_kernel, heads_kernel.split_backward_kernel)
    ]
    streams = (
        "x",
        "update",
        "added",
        "modulated",
        "grad_added",
        "grad_modulated",
        "h",
        "grad_x",
        "grad_update",
    )
    pointers = dict.fromkeys((*streams, "gate", "shift", "gain"), data) | {"index": "*i64"}
    pointers |= dict.fromkeys(("mean", "rstd", "share_gate", "share_shift", "share_gain"), "*fp32")
    constants = modulate._constants(torch.empty(1, width), True, True, torch.empty(2, width))
    warps = constants.pop("num_warps")
    by_run, sorted_ = constants | {"order": None, "piece": None}, {"order": "*i64", "piece": "*i32"}
    forward, backward = modulate_kernel.modulate_kernel, modulate_kernel.modulate_backward_kernel
    for table in ({}, {"index": None}, {"index": None, "SHARED": True}):  # looked up, own, one row for all
        for kernel, fixed in ((forward, constants), (backward, by_run)):
            found.append(compile_kernel(kernel, pointers, fixed | table, warps=warps, floats=("eps",)))
    found += [
        compile_kernel(backward, pointers | sorted_, constants, warps=warps),
        compile_kernel(
            sums_kernel.sum_kernel,
            {"shares": "*fp32", "begin": "*i32", "out": "*fp32"},
            {"COLUMNS": sums.COLUMNS, "TILE": sums.TILE},
        ),
    ]
    pointers = dict.fromkeys(("x", "out", "grad_out", "grad_x"), data)
    for kernel in (activation_kernel.squared_relu_kernel, activation_kernel.squared_relu_backward_kernel):
        found.append(compile_kernel(kernel, pointers, {"BLOCK": activation.BLOCK}))
    return found
