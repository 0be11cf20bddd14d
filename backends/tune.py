"""Tiles by measurement: the candidates of a kernel run on the device in turn, and the fastest is remembered on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from minigrad.backends.base import Program
from minigrad.backends.cache import Cache, digest
from minigrad.backends.cstyle.render import has_tiles
from minigrad.backends.cstyle.target import Target
from minigrad.config import settings
from minigrad.kernel import Kernel

MOST = 12  # candidates that are measured, those first that the cost model likes
ROUNDS = 7
SECONDS = 2e-3  # that one candidate runs in one round, at least


class Tunable(Protocol):
    """What a backend whose kernels are rendered offers to be measured, besides the contract."""

    @property
    def target(self) -> Target:
        """What the renderer knows of the device."""

    def choices(self, kernel: Kernel) -> list[Any]:
        """The tiles with which a kernel can be rendered, best first by a cost model."""

    def variants(self, kernel: Kernel, choices: Sequence[Any]) -> Sequence[Program]:
        """A kernel with each of some tiles."""

    def allocate(self, nbytes: int) -> Any:
        """As the contract has it; so have it the next two."""

    def copy_in(self, memory: Any, array: np.ndarray[Any, Any]) -> None:
        """Copy to the device."""

    def synchronize(self) -> None:
        """Wait for launches."""


class Tuner:
    """Which tile each kernel gets on one device.

    ``MINIGRAD_TUNE=1`` measures kernels that are new; what was found then is used ever after, also without.
    """

    def __init__(self, backend: Tunable, cache: Cache, identity: Sequence[str]) -> None:
        self._backend, self._cache, self._identity = backend, cache, tuple(identity)
        self._history_key = digest("tiles", *self._identity)

    def history(self) -> str:
        """A hash of all that was measured on this device, in order: where it is the same, so are the tiles."""
        stored = self._cache.get(self._history_key) or {}
        return stored.get("history", b"").decode() or "none measured"

    def tile(self, kernel: Kernel) -> Any:
        """The tile that was fastest, or None where the cost model decides."""
        if not has_tiles(kernel, self._backend.target):
            return None
        found = self._look_up(kernel)
        return self._measure(kernel) if found is None and settings.tune else found

    def _key(self, kernel: Kernel) -> str:
        target = self._backend.target  # not its repr: the order of a set differs from process to process
        exact = settings.matmul_precision if target.tensor else ""
        described = (target.dialect.name, target.is_gpu, target.lanes, target.registers, target.cores, exact)
        return digest("tile", repr(kernel), repr(described), *self._identity)

    def _look_up(self, kernel: Kernel) -> Any:
        stored = self._cache.get(self._key(kernel))
        if stored is None:
            return None
        name = stored.get("tile", b"").decode()
        known = self._backend.choices(kernel)
        return next((tile for tile in known if repr(tile) == name), None)  # None: from another version

    def _measure(self, kernel: Kernel) -> Any:
        backend = self._backend
        tiles = backend.choices(kernel)[:MOST]
        if len(tiles) < 2:
            return None
        programs = backend.variants(kernel, tiles)
        memory = [backend.allocate(size) for size in _sizes(kernel)]
        for piece, size in zip(memory, _sizes(kernel)):
            backend.copy_in(piece, np.zeros(size, np.uint8))
        best = [float("inf")] * len(tiles)
        for _ in range(ROUNDS):  # in turn: a machine that slows down for a while slows all of them
            for n, program in enumerate(programs):
                run = program.bind(memory)
                run()
                backend.synchronize()
                best[n] = min(best[n], _seconds(run, backend))
        fastest = tiles[min(range(len(tiles)), key=best.__getitem__)]
        gain = f"{best[0] / min(best):.2f} times as fast as the first choice"
        print(f"tuned {kernel.name} {list(kernel.space)}: {fastest}, {gain}", file=sys.stderr)
        key, chosen = self._key(kernel), repr(fastest)
        self._cache.put(key, {"tile": chosen.encode()})
        self._cache.put(self._history_key, {"history": digest(self.history(), key, chosen)[:16].encode()})
        return fastest


def _sizes(kernel: Kernel) -> list[int]:
    """Bytes of each buffer, as far as the kernel's views reach."""
    sizes = [1] * kernel.buffers
    for operand in (*kernel.inputs, *kernel.outputs):
        _, stop = operand.view.span
        sizes[operand.buffer] = max(sizes[operand.buffer], stop * operand.dtype.itemsize)
    return sizes


def _seconds(run: Any, backend: Tunable) -> float:
    count, spent = 1, 0.0
    while True:
        start = time.perf_counter()
        for _ in range(count):
            run()
        backend.synchronize()
        spent = time.perf_counter() - start
        if spent >= SECONDS:
            return spent / count
        count *= 2
