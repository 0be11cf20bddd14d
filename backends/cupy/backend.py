"""The CuPy backend: what the contract asks for, on one NVIDIA GPU."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigrad import config, dtypes
from minigrad.backends.base import Adopted, Backend, Capabilities, Program
from minigrad.backends.cache import Cache
from minigrad.backends.cstyle.cuda import CUDA
from minigrad.backends.cstyle.render import templates
from minigrad.backends.cstyle.source import Rendered, assembled, function_names
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cupy import blas, compiler, driver, exchange
from minigrad.backends.cupy.dnn import Dnn
from minigrad.backends.cupy.memory import Heap, Memory
from minigrad.backends.cupy.program import CupyProgram, Functions, Replay
from minigrad.backends.cupy.ways import Parts, Ways
from minigrad.backends.tune import Tuner
from minigrad.dtypes import DType
from minigrad.kernel import Kernel
from minigrad.view import View

REGISTERS = 64  # floats that a thread may well accumulate in
TENSOR_CORES = (8, 0)  # the compute capability from which on the dialect knows them


class CupyBackend(Backend):
    """One GPU with one stream."""

    name = "cupy"

    def __init__(self, device: str = "") -> None:
        super().__init__(device)
        self.place = place = driver.choose(int(device or 0))
        self.heap = Heap(place)
        with place.cupy.cuda.Device(place.index):
            self.recorder = place.cupy.cuda.Stream(non_blocking=True)
        self.library = blas.Library.found()
        tensor = place.capability >= TENSOR_CORES
        self._target = Target(
            CUDA, True, 1, REGISTERS, place.cores, place.shared_bytes, frozenset(dtypes.ALL), tensor=tensor
        )
        self.capabilities = Capabilities(
            self._target.dtypes,
            frozenset(templates(self._target)),
            flush_denormals=True,  # CuPy compiles everything with -ftz=true
            contracts_fma=True,
        )
        self._ways = Ways(lambda: self.target, self.library, self._open_dnn)
        self._tuner = Tuner(self, Cache(config.cache_directory() / "cupy"), self.place.identity)
        self._scratch: list[Memory] = []
        self._functions: weakref.WeakValueDictionary[Rendered, Functions] = weakref.WeakValueDictionary()

    @classmethod
    def available(cls) -> str | None:
        """Whether CuPy, a driver and a GPU are there; what to install if not."""
        return driver.reason()

    @classmethod
    def devices(cls) -> list[str]:
        """All GPUs, the fastest first."""
        return [place.name for place in driver.places()]

    @property
    def target(self) -> Target:
        """What the renderer is told: whether float32 values may be rounded for tensor cores is the user's choice."""
        rounds = config.settings.matmul_precision != "highest"
        return dataclasses.replace(self._target, tf32=self._target.tensor and rounds)

    def _open_dnn(self) -> Dnn | None:
        with self.place.cupy.cuda.Device(self.place.index):
            return Dnn.found(self.place.cupy.cuda)

    def fingerprint(self) -> dict[str, str]:
        """Device and versions, how float32 products are computed, and what was measured."""
        library = "without cuBLAS" if self.library is None else "with cuBLAS"
        return {
            "driver": ", ".join(self.place.identity),
            "kernels": f"{library}, {self.place.cores} cores, float32 products: {config.settings.matmul_precision}",
            "tiles": self._tuner.history(),
        }

    # Memory.

    def allocate(self, nbytes: int) -> Memory:
        """Memory of CuPy's pool."""
        return self.heap.allocate(nbytes)

    def copy_in(self, memory: Memory, array: np.ndarray[Any, Any]) -> None:
        """Copy to the device by way of pinned memory: nothing waits for launches unless much is on its way."""
        self.heap.copy_in(memory, array)

    def copy_ahead(self, memory: Memory, array: np.ndarray[Any, Any]) -> None:
        """Copy on a stream of its own; launches that use the memory wait for it by themselves."""
        self.heap.copy_ahead(memory, array)

    def copy_out(self, memory: Memory, array: np.ndarray[Any, Any], offset: int = 0) -> None:
        """Copy from the device, when all launches before are done."""
        self.heap.copy_out(memory, array, offset)

    def copy(self, source: Memory, target: Memory, nbytes: int) -> None:
        """Copy on the device, in the order of launches."""
        self.heap.copy(source, target, nbytes)

    def synchronize(self) -> None:
        """Wait for launches."""
        self.heap.wait()

    @property
    def dlpack_device(self) -> tuple[int, int]:  # type: ignore[override]
        """A CUDA device."""
        return (exchange.CUDA_DEVICES[0], self.place.index)

    def lend(self, memory: Memory, dtype: DType, view: View, owner: Any) -> Any:
        """A CuPy array over memory."""
        self.heap.wait_for(memory)
        return exchange.lend(self.place, memory, dtype, view, owner)

    def adopt(self, array: Any) -> Adopted | None:
        """An array of this device, by DLPack or the CUDA array interface."""
        with self.session():
            return exchange.adopt(self.place, array, self.heap.stream)

    def _shared(self, piece: int, nbytes: int) -> Memory:
        """Memory that all programs share: they run one after the other, and none reads what another left there."""
        if piece == len(self._scratch) or self._scratch[piece].size < nbytes:
            self._scratch[piece : piece + 1] = [self.allocate(nbytes)]
        return self._scratch[piece]

    # Programs.

    def choices(self, kernel: Kernel) -> list[Any]:
        """Ways to compute a contraction, best first as far as that can be said without measuring."""
        return self._ways.choices(kernel)

    def variants(self, kernel: Kernel, choices: Sequence[Any]) -> list[CupyProgram]:
        """A kernel computed in each of some ways, built as one program."""
        return self._build([self._ways.parts(kernel, choice) for choice in choices], [kernel.name] * len(choices))

    def lower(self, kernel: Kernel) -> Program:
        """A program of one kernel."""
        return self.compile([kernel])[0]

    def compile(self, kernels: Sequence[Kernel]) -> list[Program]:
        """Render kernels and build them as one program."""
        made = [self._ways.parts(kernel, self._tuner.tile(kernel)) for kernel in kernels]
        return [*self._build(made, [kernel.name for kernel in kernels])]

    def _build(self, made: Sequence[Parts], labels: Sequence[str]) -> list[CupyProgram]:
        """Programs for what was rendered; what is not there yet is built as one. ``labels`` go into function names."""
        functions: dict[Rendered, Functions] = {}
        missing: dict[Rendered, list[str]] = {}
        for each, label in zip(made, labels):
            for part in each.parts:
                if not isinstance(part, Rendered) or part in missing:
                    continue
                known = functions.get(part) or self._functions.get(part)
                if known is not None:
                    functions[part] = known
                    continue
                missing[part] = function_names(part, label, len(missing))
        names = [name for own in missing.values() for name in own]
        built: dict[str, Any] = {}
        if names:
            with self.place.cupy.cuda.Device(self.place.index):
                built = compiler.build(self.place, assembled(CUDA.prelude(True), missing), names)
        for part, own in missing.items():
            functions[part] = self._functions[part] = Functions(part, built, own)
        return [
            CupyProgram(
                self,
                [functions[part] if isinstance(part, Rendered) else part for part in each.parts],
                [self._shared(n, size) for n, size in enumerate(each.scratch)],
            )
            for each in made
        ]

    # Launches.

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What CuPy raises when the device or a library fails."""
        return self.heap.errors if self.library is None else (*self.heap.errors, self.library.error)

    @contextmanager
    def session(self) -> Iterator[None]:
        """CuPy's current device and stream are this one's."""
        with self.place.cupy.cuda.Device(self.place.index), self.heap.stream:
            yield

    @contextmanager
    def enqueuing(self, names: Sequence[str]) -> Iterator[None]:
        """The same while the functions ``names`` are enqueued.

        Raises:
            DeviceError: naming them, if one cannot be, or an earlier launch has failed.
        """
        self.heap.latest = names
        try:
            with self.session():
                yield
        except self.errors as error:
            raise self.heap.failure(error) from None

    def run(self, program: CupyProgram, buffers: Sequence[Memory]) -> None:
        """Enqueue a program."""
        with self.enqueuing(program.names):
            for memory in buffers:
                self.heap.wait_for(memory)
            for step in program.steps:
                step(buffers, program.scratch)

    def bind(self, calls: Sequence[tuple[Program, Sequence[Memory]]]) -> Callable[[], None]:
        """A launch list as graphs, recorded at the first call."""
        bound = []
        for program, memory in calls:
            assert isinstance(program, CupyProgram)
            bound.append((program, memory))
        return Replay(self, bound)
