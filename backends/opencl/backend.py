"""The OpenCL backend: what the contract asks for, on one device."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np

from minigrad import dtypes
from minigrad.backends.base import Backend, Capabilities, Program
from minigrad.backends.cstyle.dialect import OPENCL, OPENCL_CLANG
from minigrad.backends.cstyle.orders import preferred_orders
from minigrad.backends.cstyle.render import candidates, render, templates
from minigrad.backends.cstyle.source import NAME, Rendered, assembled, function_names
from minigrad.backends.cstyle.target import Target
from minigrad.backends.opencl import driver, pocl, probe
from minigrad.backends.opencl.compiler import Built, Compiler
from minigrad.backends.opencl.memory import Heap, Memory
from minigrad.backends.tune import Tuner
from minigrad.errors import DeviceError
from minigrad.kernel import Kernel
from minigrad.shapes import Shape
from minigrad.view import Order, View

GPU_REGISTERS = 64  # floats that an item of a work-group may well accumulate in


class Launch(NamedTuple):
    """One function with its arguments set.

    Attributes:
        kernel: pyopencl's kernel.
        size: work-items per dimension.
        local: work-items per group.
        memory: what arguments that stay point to.
    """

    kernel: Any
    size: tuple[int, ...]
    local: tuple[int, ...]
    memory: Sequence[Memory]


class Functions:
    """The functions of one kernel in a built program."""

    def __init__(self, rendered: Rendered, built: Built | None, names: Sequence[str]) -> None:
        self.rendered, self.built, self.names = rendered, built, names


class OpenCLProgram(Program):
    """A kernel as launches."""

    def __init__(self, backend: OpenCLBackend, functions: Functions) -> None:
        self._backend, self._functions = backend, functions
        self._scratch = [backend.scratch(n, size) for n, size in enumerate(functions.rendered.scratch)]
        self._launches: list[Launch] | None = None

    @property
    def names(self) -> Sequence[str]:
        """The functions."""
        return self._functions.names

    @property
    def source(self) -> str:  # type: ignore[override]
        """Their text."""
        stages = self._functions.rendered.stages
        return "\n\n".join(stage.text.replace(NAME, name) for stage, name in zip(stages, self.names))

    def launches(self, buffers: Sequence[Memory] = ()) -> list[Launch]:
        """New launches, on ``buffers`` if these are given."""
        made = []
        functions = self._functions
        for stage, name in zip(functions.rendered.stages, functions.names):
            assert functions.built is not None
            kernel = self._backend.place.cl.Kernel(functions.built.program, name)
            for position, piece in enumerate(stage.scratch, len(stage.buffers)):
                kernel.set_arg(position, self._scratch[piece].buffer)
            size = tuple(groups * items for groups, items in zip(stage.groups, stage.local))
            made.append(Launch(kernel, size, stage.local, (*buffers, *self._scratch)))
        if buffers:
            self._set_buffers(made, buffers)
        return made

    def _set_buffers(self, launches: Sequence[Launch], buffers: Sequence[Memory]) -> None:
        for stage, launch in zip(self._functions.rendered.stages, launches):
            for position, buffer in enumerate(stage.buffers):
                launch.kernel.set_arg(position, buffers[buffer].buffer)

    def __call__(self, buffers: Sequence[Memory]) -> None:
        """Enqueue the launches."""
        if self._launches is None:
            self._launches = self.launches()
            self._backend.expect_results()
        self._set_buffers(self._launches, buffers)
        self._backend.launch(self._launches, self.names)

    def bind(self, buffers: Sequence[Memory]) -> Callable[[], None]:
        """The launches with their arguments set once."""
        return self._backend.bind([(self, buffers)])


class OpenCLBackend(Backend):
    """One OpenCL device with one queue, in order."""

    name = "opencl"

    def __init__(self, device: str = "", target: Target | None = None) -> None:
        """Open a device; ``target`` describes it to the renderer, and is found out unless given."""
        super().__init__(device)
        self.place = driver.choose(int(device or 0))
        cl = self.place.cl
        with pocl.uninterrupted():
            self._context = cl.Context([self.place.device])
            self.queue = cl.CommandQueue(self._context)
        self._heap = Heap(self.place, self._context, self.queue)
        self._compiler = Compiler(self._context, self.place)
        self.target = target or self._find_target()
        self.capabilities = Capabilities(
            self.target.dtypes,
            frozenset(templates(self.target)),
            flush_denormals=True,
            contracts_fma=True,
            max_allocation=None if self._heap.shared else int(self.place.device.max_mem_alloc_size),
        )
        self._tuner = Tuner(self, self._compiler.cache, self.place.identity)
        self._scratch: list[Memory] = []
        self._functions: weakref.WeakValueDictionary[Rendered, Functions] = weakref.WeakValueDictionary()
        weakref.finalize(self, _close, self._heap, self._compiler, os.getpid())

    @classmethod
    def available(cls) -> str | None:
        """Whether pyopencl and a driver are there; what to install if not."""
        return driver.reason()

    @classmethod
    def devices(cls) -> list[str]:
        """All devices, the best one first."""
        return [place.name for place in driver.places()]

    def _find_target(self) -> Target:
        place, device = self.place, self.place.device
        known = frozenset(dtypes.ALL)
        if "cl_khr_fp64" not in device.extensions.split():
            known -= {dtypes.float64}
        dialect = OPENCL_CLANG if place.is_pocl and not place.is_gpu else OPENCL
        lanes, registers = 1, GPU_REGISTERS
        if not place.is_gpu:
            lanes, registers = probe.vectors(place, self._compiler, self._context, self.queue)
        cores, local = device.max_compute_units, device.local_mem_size
        return Target(dialect, place.is_gpu, lanes, registers, cores, local, known)

    def fingerprint(self) -> dict[str, str]:
        """Device and driver, what the renderer knows of them, and the tiles that were measured."""
        target = self.target
        described = f"{target.dialect.name}, {target.lanes} lanes, {target.registers} registers, {target.cores} cores"
        return {"driver": ", ".join(self.place.identity), "kernels": described, "tiles": self._tuner.history()}

    def preferred_orders(
        self, op: str, attrs: Any, shapes: Sequence[Shape], views: Sequence[View | None]
    ) -> list[Order | None] | None:
        """Blocks of images or channels, so that vectors are whole."""
        return preferred_orders(op, attrs, shapes, views, self.target)

    # Memory.

    def allocate(self, nbytes: int) -> Memory:
        """Memory that the host shares where it can."""
        return self._heap.allocate(nbytes)

    def copy_in(self, memory: Memory, array: np.ndarray[Any, Any]) -> None:
        """Copy to the device; small arrays do not wait for launches."""
        self._heap.copy_in(memory, array)

    def copy_out(self, memory: Memory, array: np.ndarray[Any, Any], offset: int = 0) -> None:
        """Wait for launches and copy from the device."""
        self.synchronize()
        self._heap.copy_out(memory, array, offset)

    def copy(self, source: Memory, target: Memory, nbytes: int) -> None:
        """Copy on the device, in the order of launches."""
        self._heap.copy(source, target, nbytes)

    def synchronize(self) -> None:
        """Wait for launches; what the driver has compiled for them is saved."""
        self._heap.wait()
        self._compiler.settle()

    def scratch(self, piece: int, nbytes: int) -> Memory:
        """Memory that all programs share: they run one after the other, and none reads what another left there."""
        if piece == len(self._scratch) or self._scratch[piece].size < nbytes:
            self._scratch[piece : piece + 1] = [self.allocate(nbytes)]
        return self._scratch[piece]

    # Programs.

    def lower(self, kernel: Kernel) -> Program:
        """A program of one kernel."""
        return self.compile([kernel])[0]

    def compile(self, kernels: Sequence[Kernel]) -> list[Program]:
        """Render kernels and build them as one program."""
        rendered = [render(k, self.target, self._tuner.tile(k)) for k in kernels]
        return [*self.build(rendered, [k.name for k in kernels])]

    def choices(self, kernel: Kernel) -> list[Any]:
        """Tiles for a kernel, best first by a cost model."""
        return candidates(kernel, self.target)

    def variants(self, kernel: Kernel, choices: Sequence[Any]) -> list[OpenCLProgram]:
        """A kernel with each of some tiles, built as one program."""
        return self.build([render(kernel, self.target, tile) for tile in choices], [kernel.name] * len(choices))

    def build(self, rendered: Sequence[Rendered], labels: Sequence[str]) -> list[OpenCLProgram]:
        """Programs for what was rendered; what is not there yet is built as one. ``labels`` go into function names."""
        known = {one: self._functions.get(one) for one in rendered}
        functions = {one: found for one, found in known.items() if found is not None}
        missing: dict[Rendered, list[str]] = {}
        for one, label in zip(rendered, labels):
            if one not in functions and one not in missing:
                missing[one] = function_names(one, label, len(missing))
        names = [name for each in missing.values() for name in each]
        prelude = self.target.dialect.prelude(dtypes.float64 in self.target.dtypes)
        built = self._compiler.build(assembled(prelude, missing), names) if names else None
        for one, each in missing.items():
            functions[one] = self._functions[one] = Functions(one, built, each)
        return [OpenCLProgram(self, functions[one]) for one in rendered]

    def launch(self, launches: Sequence[Launch], names: Sequence[str]) -> None:
        """Enqueue launches of the functions ``names``."""
        enqueue, queue, heap = self.place.cl.enqueue_nd_range_kernel, self.queue, self._heap
        kernel = None
        with heap.lock:
            event, heap.latest = heap.last, names
            try:
                with pocl.uninterrupted() if self._compiler.expecting else nullcontext():
                    for kernel, size, local, _ in launches:
                        event = enqueue(queue, kernel, size, local)
            except self.place.cl.Error as error:
                raise heap.failure([kernel.function_name] if kernel else [], error) from None
            finally:
                heap.last = event

    def bind(self, calls: Sequence[tuple[Program, Sequence[Memory]]]) -> Callable[[], None]:
        """All launches of a list with their arguments set, as one loop."""
        launches: list[Launch] = []
        names: list[str] = []
        for program, memory in calls:
            assert isinstance(program, OpenCLProgram)
            launches += program.launches(memory)
            names += program.names

        def run() -> None:
            self.launch(launches, names)

        self.expect_results()
        return run

    def expect_results(self) -> None:
        """Something is about to be launched for the first time: the driver may compile it then."""
        self._compiler.expecting = True


def _close(heap: Heap, compiler: Compiler, owner: int) -> None:
    """At the end of the process, or of the backend."""
    if os.getpid() == owner:
        with suppress(DeviceError):
            heap.wait()
        compiler.settle(last=True)
