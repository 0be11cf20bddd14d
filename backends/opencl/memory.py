"""Memory of an OpenCL device, and copies to and from it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from minigrad.backends.opencl.driver import Place
from minigrad.errors import DeviceError, OutOfMemory

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

STAGED = 4 << 20  # bytes: larger arrays wait for the queue rather than being copied twice
STAGES = 16  # copies that may wait for the queue
ALIGNMENT = 128  # bytes, the size of the largest vector


class Memory:
    """A piece of memory.

    Attributes:
        buffer: what kernels get.
        array: the same bytes where device and host share memory, else None.
        size: in bytes.
    """

    __slots__ = ("buffer", "array", "size", "_heap")

    def __init__(self, heap: Heap, buffer: Any, array: Bytes | None, size: int) -> None:
        self.buffer, self.array, self.size, self._heap = buffer, array, size, heap
        heap.held += size

    def __del__(self) -> None:
        self._heap.held -= self.size
        if self.array is not None:  # launches that still wait may use it
            try:
                self._heap.queue.finish()
            except Exception:  # at exit the driver may be gone before its memory
                pass


class Heap:
    """Allocates on one device and copies through its one queue, in order.

    Where the device shares the host's memory, arrays are the memory, and a copy costs no more than its bytes: going
    through the queue takes PoCL 50 us. But it has to wait until nothing runs.

    Attributes:
        held: bytes allocated.
        last: the event of what was enqueued last.
        latest: names of the kernels that were launched last.
        lock: held while enqueuing, so that ``last`` is what it says.
    """

    def __init__(self, place: Place, context: Any, queue: Any) -> None:
        self.cl, self.context, self.queue = place.cl, context, queue
        self.shared = place.is_cpu and self._shows_arrays()
        self.limit: int = place.device.global_mem_size
        if self.shared:  # PoCL says a quarter of what there is
            with suppress(AttributeError, ValueError, OSError):
                self.limit = max(self.limit, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        self.held = 0
        self.last: Any = None
        self.latest: Sequence[str] = ()
        self._staged: deque[Any] = deque()
        self.lock = threading.Lock()
        codes = self.cl.status_code
        self._out_of_memory = (
            codes.MEM_OBJECT_ALLOCATION_FAILURE,
            codes.OUT_OF_HOST_MEMORY,
            codes.OUT_OF_RESOURCES,
            codes.INVALID_BUFFER_SIZE,
        )

    def _buffer_of(self, array: Bytes) -> Any:
        flags = self.cl.mem_flags
        return self.cl.Buffer(self.context, flags.READ_WRITE | flags.USE_HOST_PTR, hostbuf=array)

    def _shows_arrays(self) -> bool:
        """Whether an array that is made a buffer shows at once what the device writes: a driver may keep a copy."""
        array = _aligned(ALIGNMENT)
        array[:] = 0
        buffer = self._buffer_of(array)
        self.cl.enqueue_fill_buffer(self.queue, buffer, np.uint8(1), 0, ALIGNMENT).wait()
        return bool(array.all())

    def allocate(self, nbytes: int) -> Memory:
        """Uninitialised memory."""
        if self.held + nbytes > self.limit:
            raise self._exhausted(nbytes)
        array = None
        try:
            if self.shared:
                array = _aligned(nbytes)
                buffer = self._buffer_of(array)
            else:
                buffer = self.cl.Buffer(self.context, self.cl.mem_flags.READ_WRITE, nbytes)
                # Some drivers allocate at first use, which is to be now and not in the middle of a step.
                self.cl.enqueue_fill_buffer(self.queue, buffer, np.uint8(0), 0, 1).wait()
        except MemoryError:
            raise self._exhausted(nbytes) from None
        except self.cl.Error as error:
            if error.code not in self._out_of_memory:
                raise
            raise self._exhausted(nbytes) from None
        return Memory(self, buffer, array, nbytes)

    def _exhausted(self, nbytes: int) -> Exception:
        wanted, held, limit = (f"{n / 2**20:.0f} MB" for n in (nbytes, self.held, self.limit))
        return OutOfMemory.of("allocate", f"room for {wanted}", f"{held} of {limit} in use", "try smaller batches")

    def wait(self) -> None:
        """Wait until everything enqueued has run.

        Raises:
            DeviceError: if something failed.
        """
        try:
            self.queue.finish()
        except self.cl.Error as error:
            raise self.failure(self.latest, error) from None
        with self.lock:
            self._staged.clear()

    def failure(self, names: Sequence[str], error: Exception) -> DeviceError:
        """What to raise for an error of the driver while the kernels ``names`` run."""
        kind = OutOfMemory if getattr(error, "code", 0) in self._out_of_memory else DeviceError
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        hint = "MINIGRAD_DEBUG=1 waits for each kernel and names it" if len(names) > 1 else ""
        made = kind.of("launch", f"{listed or 'a copy'} to run", str(error), hint)
        assert isinstance(made, DeviceError)
        return made

    def _is_idle(self) -> bool:
        return self.last is None or self.last.command_execution_status == self.cl.command_execution_status.COMPLETE

    def copy_in(self, memory: Memory, array: np.ndarray[Any, Any]) -> None:
        """Copy an array, of which nothing is kept, to memory."""
        data = _bytes(array)
        if memory.array is not None and (data.size > STAGED or self._is_idle()):
            self.wait()
            memory.array[: data.size] = data
        elif data.size > STAGED:
            self._enqueue(memory.buffer, data, is_blocking=True)
        elif data.size:
            event = self._enqueue(memory.buffer, data.copy(), is_blocking=False)
            with self.lock:
                self._staged.append(event)  # it holds the copy
                oldest = self._staged.popleft() if len(self._staged) > STAGES else None
            if oldest is not None:
                oldest.wait()

    def copy_out(self, memory: Memory, array: np.ndarray[Any, Any], offset: int) -> None:
        """Fill an array from byte ``offset`` of memory."""
        self.wait()
        data = _bytes(array)
        if memory.array is not None:
            data[:] = memory.array[offset : offset + data.size]
        elif data.size:
            self._enqueue(data, memory.buffer, src_offset=offset)

    def copy(self, source: Memory, target: Memory, nbytes: int) -> None:
        """Copy the first bytes of one piece of memory to another."""
        if source.array is not None and target.array is not None and self._is_idle():
            self.wait()
            target.array[:nbytes] = source.array[:nbytes]
        elif nbytes and source is not target:
            self._enqueue(target.buffer, source.buffer, byte_count=nbytes)

    def _enqueue(self, target: Any, source: Any, **options: Any) -> Any:
        try:
            with self.lock:
                self.last = self.cl.enqueue_copy(self.queue, target, source, **options)
                return self.last
        except self.cl.Error as error:
            raise self.failure(self.latest, error) from None


def _aligned(nbytes: int) -> Bytes:
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def _bytes(array: np.ndarray[Any, Any]) -> Bytes:
    return array.reshape(-1).view(np.uint8)
