"""Kernels written in Triton: tile-sparse attention with trustworthy gradients, and fused token-wise operations.

Nothing here imports Triton until a kernel is launched: machines without it import sora2 as before. A CUDA C++
extension would be a second implementation of the two operators in `attention.py`, behind the same `launch` functions
(`launch.forward`, `launch.backward`), so nothing above them changes.
"""
