"""OpenCL on the first device there is, with kernels rendered as for a GPU: faults in those templates show here."""

import dataclasses

from minigrad.backends.cstyle.dialect import OPENCL
from minigrad.backends.opencl import OpenCLBackend


class GpuBackend(OpenCLBackend):
    """The device taken for a GPU."""

    name = "gpu"

    def __init__(self, device: str = "") -> None:
        """Open a device."""
        target = OpenCLBackend(device).target
        super().__init__(device, dataclasses.replace(target, dialect=OPENCL, is_gpu=True, lanes=1, registers=64))
