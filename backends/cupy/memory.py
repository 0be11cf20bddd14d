"""Memory of a GPU, and copies to and from it by way of pinned memory, on which the device can wait by itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.backends.cupy.driver import Place
from minigrad.errors import DeviceError, OutOfMemory

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

SMALL, SMALLS = 64 << 10, 64  # bytes of a piece of pinned memory for the inputs of a step, and how many there are
LARGE, LARGES = 4 << 20, 8  # the same for what is copied in pieces
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, and the same of the driver


class Memory:
    """A piece of memory.

    Attributes:
        pointer: CuPy's, which owns it.
        size: in bytes.
        arrival: what launches that use it have to wait for; None where that is over.
    """

    __slots__ = ("pointer", "size", "arrival", "_stream")

    def __init__(self, pointer: Any, size: int, stream: Any) -> None:
        self.pointer, self.size, self.arrival, self._stream = pointer, size, None, stream

    def __del__(self) -> None:
        if self.arrival is not None:  # CuPy's pool gives the bytes to others, in the order of the stream
            self._stream.wait_event(self.arrival)


class _Piece:
    """Pinned memory for one copy.

    Attributes:
        address: of its first byte.
        array: its bytes.
        done: the event after its last copy.
    """

    def __init__(self, pointer: Any, offset: int, size: int, event: Any) -> None:
        self.address = int(pointer.ptr) + offset
        self.array: Bytes = np.frombuffer(pointer, np.uint8, size, offset)
        self.done = event


class _Staging:
    """Pieces of pinned memory in turn: one is used again when its last copy is done."""

    def __init__(self, cuda: Any, size: int, count: int) -> None:
        self.size, self._cuda, self._count = size, cuda, count
        self._pieces: deque[_Piece] = deque()
        self._lock = threading.Lock()

    def take(self) -> _Piece:
        """The piece that was used first; waits for its copy."""
        with self._lock:
            if not self._pieces:
                pinned = self._cuda.alloc_pinned_memory(self.size * self._count)
                for n in range(self._count):
                    event = self._cuda.Event(disable_timing=True)
                    self._pieces.append(_Piece(pinned, n * self.size, self.size, event))
            piece = self._pieces.popleft()
        piece.done.synchronize()
        return piece

    def give(self, piece: _Piece) -> None:
        """Put a piece back whose copy is enqueued."""
        with self._lock:
            self._pieces.append(piece)


class Heap:
    """Allocates from CuPy's pool on one device and copies in the order of one stream.

    Attributes:
        stream: on which everything runs.
        latest: names of the kernels that were launched last.
    """

    def __init__(self, place: Place) -> None:
        self.cupy, self.cuda, self._device = place.cupy, place.cupy.cuda, place.index
        with self.cuda.Device(self._device):
            self.stream = self.cuda.Stream(non_blocking=True)
            self._copying = self.cuda.Stream(non_blocking=True)
        self._pool = self.cupy.get_default_memory_pool()
        self._small = _Staging(self.cuda, SMALL, SMALLS)
        self._large = _Staging(self.cuda, LARGE, LARGES)
        self.latest: Sequence[str] = ()

    def allocate(self, nbytes: int) -> Memory:
        """Uninitialised memory."""
        try:
            with self.cuda.Device(self._device), self.stream:  # the pool gives memory back to the stream that had it
                return Memory(self._pool.malloc(nbytes), nbytes, self.stream)
        except self.cuda.memory.OutOfMemoryError as error:
            held = f"{self._pool.used_bytes() / 2**20:.0f} MB in use ({error})"
            expected = f"room for {nbytes / 2**20:.0f} MB"
            raise OutOfMemory.of("allocate", expected, held, "try smaller batches") from None

    def copy_in(self, memory: Memory, array: np.ndarray[Any, Any]) -> None:
        """Copy an array, of which nothing is kept, after all launches before."""
        self.wait_for(memory)
        self._send(memory, array, self.stream)

    def copy_ahead(self, memory: Memory, array: np.ndarray[Any, Any]) -> None:
        """The same beside launches that are made from now on; those that use the memory wait."""
        with self.cuda.Device(self._device):
            self._copying.wait_event(self.stream.record(self.cuda.Event(disable_timing=True)))
            self._send(memory, array, self._copying)
            memory.arrival = self._copying.record(self.cuda.Event(disable_timing=True))

    def _send(self, memory: Memory, array: np.ndarray[Any, Any], stream: Any) -> None:
        data = _bytes(array)
        staging = self._small if data.size <= SMALL else self._large
        try:
            with self.cuda.Device(self._device):
                for start in range(0, data.size, staging.size):
                    part = data[start : start + staging.size]
                    piece = staging.take()
                    try:
                        piece.array[: part.size] = part
                        (memory.pointer + start).copy_from_host_async(piece.address, part.size, stream)
                        piece.done.record(stream)
                    finally:
                        staging.give(piece)
        except self.errors as error:
            raise self.failure(error) from None

    def copy_out(self, memory: Memory, array: np.ndarray[Any, Any], offset: int) -> None:
        """Fill an array from byte ``offset`` of memory, when all launches before are done."""
        self.wait_for(memory)
        data = _bytes(array)
        staging = self._small if data.size <= SMALL else self._large
        coming: deque[tuple[_Piece, Bytes]] = deque()
        try:
            with self.cuda.Device(self._device):
                for start in range(0, data.size, staging.size):
                    part = data[start : start + staging.size]
                    piece = staging.take()
                    coming.append((piece, part))
                    (memory.pointer + (offset + start)).copy_to_host_async(piece.address, part.size, self.stream)
                    piece.done.record(self.stream)
                    if len(coming) > 1:  # one is copied to the array while the next is on its way
                        self._received(staging, coming)
                while coming:
                    self._received(staging, coming)
        except self.errors as error:
            raise self.failure(error) from None
        finally:
            for piece, _ in coming:
                staging.give(piece)

    def _received(self, staging: _Staging, coming: deque[tuple[_Piece, Bytes]]) -> None:
        piece, part = coming[0]
        piece.done.synchronize()
        part[:] = piece.array[: part.size]
        coming.popleft()
        staging.give(piece)

    def copy(self, source: Memory, target: Memory, nbytes: int) -> None:
        """Copy the first bytes of one piece of memory to another."""
        if source is target:
            return
        self.wait_for(source)
        self.wait_for(target)
        try:
            with self.cuda.Device(self._device):
                target.pointer.copy_from_device_async(source.pointer, nbytes, self.stream)
        except self.errors as error:
            raise self.failure(error) from None

    def wait_for(self, memory: Memory) -> None:
        """Have what is launched from now on wait until memory has what was copied ahead."""
        arrival, memory.arrival = memory.arrival, None
        if arrival is not None:
            self.stream.wait_event(arrival)

    def wait(self) -> None:
        """Wait until everything enqueued has run.

        Raises:
            DeviceError: if something failed.
        """
        try:
            self.stream.synchronize()
        except self.errors as error:
            raise self.failure(error) from None

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What CuPy raises when the device fails."""
        return (self.cuda.runtime.CUDARuntimeError, self.cuda.driver.CUDADriverError, self.cuda.memory.OutOfMemoryError)

    def failure(self, error: Exception) -> DeviceError:
        """What to raise for an error of the device, which may come from any of the launches before."""
        exhausted = isinstance(error, MemoryError) or getattr(error, "status", 0) == _OUT_OF_MEMORY
        kind = OutOfMemory if exhausted else DeviceError
        names = self.latest
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        hint = "MINIGRAD_DEBUG=1 waits for each kernel and names it" if len(names) > 1 else ""
        made = kind.of("launch", f"{listed or 'a copy'} to run", str(error), hint)
        assert isinstance(made, DeviceError)
        return made


def _bytes(array: np.ndarray[Any, Any]) -> Bytes:
    return array.reshape(-1).view(np.uint8)
