"""The OpenCL backend: kernels rendered as OpenCL C, compiled by the driver of a GPU or, through PoCL, of the CPU."""

from minigrad.backends.opencl.backend import OpenCLBackend

__all__ = ["OpenCLBackend"]
