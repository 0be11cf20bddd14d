"""A lazy tensor library with reverse-mode autograd and interchangeable backends."""

from minigrad import dtypes
from minigrad import ops as _ops  # fills the table of primitives before anything is computed
from minigrad.checkpoint import checkpoint
from minigrad.device import available_backends, backend, set_backend
from minigrad.function import Function, grad
from minigrad.jit import jit
from minigrad.mode import (
    autocast,
    enable_grad,
    get_float32_matmul_precision,
    no_grad,
    set_float32_matmul_precision,
)
from minigrad.random import manual_seed
from minigrad.tensor import Tensor

__version__ = "0.1.0"
__all__ = [
    "Function",
    "Tensor",
    "autocast",
    "available_backends",
    "backend",
    "checkpoint",
    "dtypes",
    "enable_grad",
    "get_float32_matmul_precision",
    "grad",
    "jit",
    "manual_seed",
    "no_grad",
    "set_backend",
    "set_float32_matmul_precision",
]
del _ops
