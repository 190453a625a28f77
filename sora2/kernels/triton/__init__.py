"""Kernels written in Triton: tile-sparse attention with trustworthy gradients, and fused token-wise operations.

Nothing here imports Triton until a kernel is launched: machines without it import sora2 as before. A CUDA C++
extension would be a second implementation of the two operators in `attention.py`, behind the same `launch` functions
(`launch.forward`, `launch.backward`), so nothing above them changes.
"""

from sora2.kernels.triton.attention import KernelError, triton_attention, unavailable, why_not
from sora2.kernels.triton.choice import gpu_kernels, takes, use_gpu_kernels
from sora2.kernels.triton.lists import KernelPattern

__all__ = [
    "KernelError",
    "KernelPattern",
    "gpu_kernels",
    "takes",
    "triton_attention",
    "unavailable",
    "use_gpu_kernels",
    "why_not",
]
