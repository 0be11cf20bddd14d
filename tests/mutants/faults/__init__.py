"""Planted faults: what is changed in which module, and what is wrong then."""

from faults import cupy, engine, gpu, gradients, numpy_backend, opencl
from faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *gradients.FAULTS,
    *engine.FAULTS,
    *numpy_backend.FAULTS,
    *opencl.FAULTS,
    *gpu.FAULTS,
    *cupy.FAULTS,
)
