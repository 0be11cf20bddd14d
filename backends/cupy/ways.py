"""In which ways a kernel can be computed: by templates, by cuBLAS around which they copy, by cuDNN."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from minigrad.backends.cstyle.render import candidates, render, separated, with_scratch
from minigrad.backends.cstyle.source import Rendered
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.matrices import render_around
from minigrad.backends.cstyle.templates.tiled_product import CORES
from minigrad.backends.cupy.blas import Gemm, Library
from minigrad.backends.cupy.dnn import Convolution, Dnn, order_of
from minigrad.backends.cupy.program import Step
from minigrad.config import settings
from minigrad.kernel import Kernel


class By(Enum):
    """Libraries as choices, besides the tiles of templates."""

    CUBLAS = "products of matrices; of a convolution, those of its windows"
    CUDNN = "convolutions"


class Parts(NamedTuple):
    """A kernel as functions and calls of libraries, in order, and bytes of each piece of scratch memory."""

    parts: tuple[Rendered | Step, ...]
    scratch: tuple[int, ...]


class Ways:
    """The ways on one device.

    Args:
        target: gives what the renderer is told at the moment.
        library: cuBLAS, if it is there.
        dnn: opens cuDNN, if it is there: not before a convolution is measured, or was found to be fastest so.
    """

    def __init__(self, target: Callable[[], Target], library: Library | None, dnn: Callable[[], Dnn | None]) -> None:
        self._target, self._library, self._open = target, library, dnn
        self._dnn: list[Dnn | None] = []
        self._convolutions: dict[tuple[Kernel, str], Parts | None] = {}

    def choices(self, kernel: Kernel) -> list[Any]:
        """Ways to compute a contraction, best first as far as that can be said without measuring.

        That is cuBLAS for products of matrices, and the templates for convolutions, which copy no windows.
        """
        tiles = candidates(kernel, self._target())
        others = [By.CUBLAS] if self._around(kernel) is not None else []
        if kernel.op == "matmul":
            return [*others, *tiles]
        others += [By.CUDNN] if self._convolution(kernel) is not None else []
        return [tiles[0], *others, *tiles[1:]]

    def parts(self, kernel: Kernel, choice: Any = None) -> Parts:
        """A kernel computed as ``choice`` says; None is the first of :meth:`choices`."""
        found = None
        if choice is By.CUDNN:
            found = self._convolution(kernel)
        elif choice is By.CUBLAS or (choice is None and kernel.op == "matmul"):
            found = self._around(kernel)
        if found is not None:
            return found
        rendered = render(kernel, self._target(), choice)
        return Parts((rendered,), rendered.scratch)

    def _around(self, kernel: Kernel) -> Parts | None:
        """A contraction for cuBLAS; None where it cannot be."""
        if self._library is None or kernel.op not in CORES:
            return None
        around = render_around(kernel, self._target())
        if around is None:
            return None
        gemm = Gemm(self._library, around.products, settings.matmul_precision)
        return Parts((around.before, gemm, around.after), around.before.scratch) if gemm.fits else None

    def _convolution(self, kernel: Kernel) -> Parts | None:
        """A convolution for cuDNN; None where it cannot be. Remembered, as planning takes it long."""
        key = (kernel, settings.matmul_precision)
        if key not in self._convolutions:
            if not self._dnn:
                self._dnn.append(self._open())
            dnn = self._dnn[0]
            self._convolutions[key] = None if dnn is None else self._planned(dnn, kernel.in_core_shape())
        return self._convolutions[key]

    def _planned(self, dnn: Dnn, kernel: Kernel) -> Parts | None:
        rounds = settings.matmul_precision != "highest"
        if len(kernel.epilogue) == len(kernel.stores) == 1:
            step = dnn.convolution(kernel, kernel.buffers, rounds)
            return None if step is None else Parts((step,), _workspace(step))
        stored = kernel.outputs[kernel.stores[0][1]].view
        core, epilogue = separated(kernel, order_of(stored))
        step = dnn.convolution(core, kernel.buffers, rounds)
        if step is None:
            return None
        after = render(epilogue, self._target())
        stages = tuple(with_scratch(stage, kernel.buffers, 0) for stage in after.stages)
        result = core.outputs[0]
        nbytes = result.dtype.itemsize
        for size in result.view.shape:
            nbytes *= size
        return Parts((step, dataclasses.replace(after, stages=stages)), (nbytes, *_workspace(step)))


def _workspace(step: Convolution) -> tuple[int, ...]:
    return (step.workspace,) if step.workspace else ()
