"""Memory shared with other libraries of CUDA, by way of CuPy's arrays."""

from __future__ import annotations

from typing import Any

from minigrad import dtypes
from minigrad.backends.base import Adopted
from minigrad.backends.cstyle.cuda import CUDA
from minigrad.backends.cupy.driver import Place
from minigrad.backends.cupy.memory import Memory
from minigrad.dtypes import DType
from minigrad.shapes import row_major
from minigrad.view import Order, View

CUDA_DEVICES = (2, 13)  # DLPack's numbers: memory of the device, and memory that it shares with the host


def lend(place: Place, memory: Memory, dtype: DType, view: View, owner: Any) -> Any:
    """A CuPy array over what ``view`` shows; ``owner`` lives as long as anyone has it. On the current stream."""
    cupy, size = place.cupy, dtype.itemsize
    unowned = cupy.cuda.UnownedMemory(int(memory.pointer.ptr), memory.size, owner, place.index)
    pointer = cupy.cuda.MemoryPointer(unowned, view.offset * size)
    return cupy.ndarray(view.shape, dtype.numpy, pointer, tuple(stride * size for stride in view.strides))


def adopt(place: Place, array: Any, stream: Any) -> Adopted | None:
    """An array of the device's memory: what is enqueued on ``stream``, the current one, waits for its owner's."""
    cupy = place.cupy
    if hasattr(array, "__dlpack_device__"):
        kind, index = array.__dlpack_device__()
        if kind not in CUDA_DEVICES or index != place.index:
            return None
        found = cupy.from_dlpack(array)
    elif hasattr(array, "__cuda_array_interface__"):
        found = cupy.asarray(array)
        if found.device.id != place.index:
            return None
    else:
        return None
    dtype = dtypes.as_dtype(found.dtype)
    strides = tuple(stride // dtype.itemsize for stride in found.strides)
    order = _order(tuple(found.shape), strides)
    if order is None or int(found.data.ptr) % CUDA.wide:  # kernels read so many bytes at once
        found, order = cupy.array(found, order="C"), ()
    return Adopted(Memory(found.data, found.nbytes, stream), dtype, tuple(found.shape), order)


def _order(shape: tuple[int, ...], strides: tuple[int, ...]) -> Order | None:
    """The order in which axes lie without gaps; None where there are some."""
    axes = tuple(sorted(range(len(shape)), key=lambda axis: (-strides[axis], axis)))
    dense = row_major(tuple(shape[axis] for axis in axes))
    if any(shape[axis] > 1 and strides[axis] != step for axis, step in zip(axes, dense)):
        return None
    return () if axes == tuple(range(len(shape))) else axes
