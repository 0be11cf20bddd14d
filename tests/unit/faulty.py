"""A backend with planted faults, for the tests of the tools that must find them; importable by a process of its own."""

import numpy as np

from minigrad.backends.base import Program
from minigrad.backends.numpy import NumpyBackend


class Planted(Program):
    """A right program, after which something is spoilt."""

    def __init__(self, right, spoil):
        self.right, self.spoil = right, spoil

    def __call__(self, buffers):
        self.right(buffers)
        self.spoil(buffers)


class FaultyBackend(NumpyBackend):
    """NumPy's, but for these faults.

    - ``tanh`` of more than 0.9 is off by a ten-thousandth.
    - ``exp``: a byte of the first buffer that is read is turned over.
    - ``sin`` is off where a source is exactly 0.625, which random inputs are not.
    """

    name = "faulty"

    def lower(self, kernel):
        right = super().lower(kernel)
        ops = {line.op for line in (*kernel.prologue, *kernel.epilogue)}
        stored = kernel.outputs[0].buffer if kernel.outputs else 0

        def tanh(buffers):
            out = buffers[stored].view(np.float32)
            out[(out > 0.9) & (out <= 1)] -= np.float32(1e-4)

        def exp(buffers):
            buffers[kernel.inputs[0].buffer].view(np.uint8)[3] ^= 255

        def sin(buffers):
            source = buffers[kernel.inputs[0].buffer].view(np.float32)
            if kernel.inputs[0].buffer != stored and (source == np.float32(0.625)).any():
                buffers[stored].view(np.float32)[0] += 1

        spoil = next((f for op, f in (("tanh", tanh), ("exp", exp), ("sin", sin)) if op in ops), None)
        return right if spoil is None else Planted(right, spoil)
