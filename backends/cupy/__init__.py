"""The CuPy backend: kernels rendered as CUDA and compiled by NVRTC, matrix products by cuBLAS, on an NVIDIA GPU."""

from minigrad.backends.cupy.backend import CupyBackend

__all__ = ["CupyBackend"]
