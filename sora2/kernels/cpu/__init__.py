"""The token-wise operations as compiled kernels for CPUs, built on first use (`choice` decides, `build` builds)."""
