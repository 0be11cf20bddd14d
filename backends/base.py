"""The contract between minigrad and a backend.

A backend allocates memory, copies to and from it, lowers kernels to programs and launches them. Everything else (the
graph, gradients, fusion, memory planning, caching of programs, the pool) is done before it is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import Unsupported
from minigrad.kernel import Kernel
from minigrad.shapes import Shape
from minigrad.view import Order, View


@dataclass(frozen=True)
class Capabilities:
    """What a backend declares that it can do. The engine asks before it runs a kernel; the conformance kit checks it.

    Attributes:
        dtypes: element types that it stores and computes with.
        epilogues: core primitives whose kernels take an elementwise epilogue.
        flush_denormals: whether results below the least normal number may become 0.
        unsupported: names of primitives that it cannot run.
        contracts_fma: whether the product in ``a * b + c`` may keep all its digits.
        deterministic: whether a program gives the same bits each time it runs on the same inputs.
        max_allocation: bytes of one piece of memory at most; None where nothing but the memory itself limits it.
    """

    dtypes: frozenset[DType] = field(default_factory=lambda: frozenset(dtypes.ALL))
    epilogues: frozenset[str] = frozenset()
    flush_denormals: bool = False
    unsupported: frozenset[str] = frozenset()
    contracts_fma: bool = False
    deterministic: bool = True
    max_allocation: int | None = None


class Adopted(NamedTuple):
    """Another library's array in the memory of a device.

    Attributes:
        memory: as :meth:`Backend.allocate` gives it; it keeps the array alive.
        dtype: of its elements.
        shape: its shape.
        order: the order in which its axes lie, which leave no gaps.
    """

    memory: Any
    dtype: DType
    shape: Shape
    order: Order


class Program(ABC):
    """A lowered kernel."""

    source: str = ""  # what was generated, for MINIGRAD_DEBUG=4

    @abstractmethod
    def __call__(self, buffers: Sequence[Any]) -> None:
        """Run on memory given by :meth:`Backend.allocate`, one per buffer of the kernel, in its order."""

    def bind(self, buffers: Sequence[Any]) -> Callable[[], None]:
        """This program on fixed memory: captured steps call it again and again."""
        return partial(self, buffers)


class Backend(ABC):
    """One device of one kind. Subclasses set ``name`` and what differs from the defaults below."""

    name: str
    capabilities: Capabilities = Capabilities()
    survives_fork: bool = False
    dlpack_device: tuple[int, int] = (1, 0)  # where others find tensors by DLPack; the host: a copy is made there

    def __init__(self, device: str = "") -> None:
        """Open device ``device`` of :meth:`devices` (default: the first)."""
        self.requested = device

    @classmethod
    def available(cls) -> str | None:
        """None if the backend can run here, else the reason why not and what to do about it."""
        return None

    @classmethod
    def devices(cls) -> list[str]:
        """Descriptions of the devices, the best one first; position ``n`` is opened by ``name:n``."""
        return [cls.name]

    @abstractmethod
    def allocate(self, nbytes: int) -> Any:
        """Uninitialised memory; raises :class:`minigrad.errors.OutOfMemory` when there is none."""

    @abstractmethod
    def copy_in(self, memory: Any, array: np.ndarray[Any, Any]) -> None:
        """Copy a contiguous array to the start of ``memory``, after all launches before.

        When this returns, the array may be changed. Small arrays, the inputs of a step, should not wait for launches.
        """

    def copy_ahead(self, memory: Any, array: np.ndarray[Any, Any]) -> None:
        """The same for what will be used later, beside launches that are made from now on if the device can do that."""
        self.copy_in(memory, array)

    @abstractmethod
    def copy_out(self, memory: Any, array: np.ndarray[Any, Any], offset: int = 0) -> None:
        """Fill a contiguous array from byte ``offset`` of ``memory``, when all launches before are done."""

    def copy(self, source: Any, target: Any, nbytes: int) -> None:
        """Copy the first ``nbytes`` from one piece of memory to another, after all launches before."""
        array = np.empty(nbytes, np.uint8)
        self.copy_out(source, array)
        self.copy_in(target, array)

    def lend(self, memory: Any, dtype: DType, view: View, owner: Any) -> Any:
        """What ``view`` shows of memory, as an array with ``__dlpack__`` that keeps ``owner`` alive, without a copy.

        Asked only of backends whose ``dlpack_device`` is not the host; they want no blocks, which strides cannot say.
        """
        raise Unsupported.of("dlpack", "a backend that lends memory", self.name)

    def adopt(self, array: Any) -> Adopted | None:
        """Another library's array, without a copy if it lies in this device's memory; None if it does not."""
        return None

    @abstractmethod
    def lower(self, kernel: Kernel) -> Program:
        """Turn a kernel into a program; raises :class:`minigrad.errors.Unsupported` for what is not declared."""

    def compile(self, kernels: Sequence[Kernel]) -> list[Program]:
        """Lower the kernels of one schedule together; a backend with a compiler builds them as one program."""
        return [self.lower(kernel) for kernel in kernels]

    def bind(self, calls: Sequence[tuple[Program, Sequence[Any]]]) -> Callable[[], None]:
        """A launch list on fixed memory as one function: what a captured step calls again and again."""
        bound = [program.bind(memory) for program, memory in calls]

        def run() -> None:
            for launch in bound:
                launch()

        return run

    def fingerprint(self) -> dict[str, str]:
        """What the last bits of results depend on besides the program, by name, for people to read.

        Where two answers are equal, the same training gives the same bits; checkpoints keep the answer.
        """
        return {}

    def synchronize(self) -> None:
        """Wait until everything launched has run; nothing to wait for where launches return when they are done."""
        return None

    def session(self) -> AbstractContextManager[None]:
        """Entered around the launches of one realize."""
        return nullcontext()

    def preferred_orders(
        self, op: str, attrs: Any, shapes: Sequence[Shape], views: Sequence[View | None]
    ) -> list[Order | None] | None:
        """The orders, outermost axis first, in which a core works fastest; None: as everything is.

        An order may end in blocks; () is row-major, None a value that is welcome as it is. A source that lies
        otherwise than wished is copied.

        Args:
            op: the core's primitive.
            attrs: its attributes.
            shapes: of its first output, then of its sources; so are the orders.
            views: how each source would be read, as far as it is known; None where it is not a plain load.
        """
        return None

    def check(self, op: str, dtype: DType) -> None:
        """Raise :class:`Unsupported` for a primitive or a dtype that is not among the capabilities."""
        if op in self.capabilities.unsupported:
            raise Unsupported.of(op, f"a primitive that backend {self.name} has", f"{op} of {dtype.name}")
        if dtype not in self.capabilities.dtypes:
            known = ", ".join(sorted(d.name for d in self.capabilities.dtypes))
            raise Unsupported.of(op, f"a dtype that backend {self.name} has ({known})", dtype.name)
