"""Device memory with an owner: it goes back to its device's pool when the last reference is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.dtypes import DType
from minigrad.shapes import Shape
from minigrad.view import Order, View

if TYPE_CHECKING:
    from minigrad.device import Device


class Buffer:
    """Memory for one tensor whose axes lie in ``order`` (outermost first; empty: row-major).

    Args:
        device: where it is.
        nbytes: its size.
        order: as said.
        adopted: memory that is another library's; otherwise it comes from the device's pool and goes back there.
    """

    __slots__ = ("device", "nbytes", "memory", "order", "_pooled", "__weakref__")

    def __init__(self, device: Device, nbytes: int, order: Order = (), adopted: Any = None) -> None:
        self.device, self.nbytes, self.order, self._pooled = device, nbytes, order, adopted is None
        self.memory: Any = device.pool.take(nbytes) if adopted is None else adopted

    def __del__(self) -> None:
        memory = getattr(self, "memory", None)
        if memory is not None and self._pooled:
            self.device.pool.give(memory, self.nbytes)

    @classmethod
    def of(cls, device: Device, array: np.ndarray[Any, Any], order: Order = (), ahead: bool = False) -> Buffer:
        """A copy of ``array`` on ``device`` with its axes in ``order``; ``ahead`` says that others are used before."""
        buffer = cls(device, array.nbytes, order)
        if order:
            view = View.of(array.shape, order).split()
            array = array.reshape(view.shape).transpose(sorted(range(len(view.shape)), key=lambda a: -view.strides[a]))
        copy = device.backend.copy_ahead if ahead else device.backend.copy_in
        copy(buffer.memory, np.ascontiguousarray(array))
        return buffer

    def read(self, view: View, dtype: DType) -> np.ndarray[Any, Any]:
        """What ``view`` (without bounds) shows, as a new row-major array; reads no more memory than it spans."""
        if 0 in view.shape:
            return np.empty(view.shape, dtype.numpy)
        first, end = view.span
        span = np.empty(end - first, dtype.numpy)
        self.device.backend.copy_out(self.memory, span, first * dtype.itemsize)
        if view.is_row_major:
            return span.reshape(view.shape)
        flat = view.split()
        strides = [s * dtype.itemsize for s in flat.strides]
        start = (view.offset - first) * dtype.itemsize
        shown = np.ndarray(flat.shape, dtype.numpy, span.view(np.uint8).data, start, strides)
        return np.array(shown, order="C").reshape(view.shape)

    def clone(self) -> Buffer:
        """A copy in memory of its own, in the same layout."""
        other = Buffer(self.device, self.nbytes, self.order)
        self.device.backend.copy(self.memory, other.memory, self.nbytes)
        return other

    def view(self, shape: Shape) -> View:
        """The view of the whole buffer as a tensor of ``shape``."""
        return View.of(shape, self.order)
