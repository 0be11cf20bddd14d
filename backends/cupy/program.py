"""Kernels as launches and calls of libraries, once or, on fixed memory, as a graph that the device replays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from minigrad.backends.base import Program
from minigrad.backends.cstyle.source import NAME, Rendered
from minigrad.backends.cupy.memory import Memory

if TYPE_CHECKING:
    from minigrad.backends.cupy.backend import CupyBackend

STATIC_SHARED = 48 << 10  # bytes of shared memory that a launch gets without asking for more


class Step(Protocol):
    """What a kernel consists of.

    Attributes:
        name: of the function or the library, for messages.
        captures: whether a stream that records takes it.
    """

    name: str
    captures: bool

    def __call__(self, buffers: Sequence[Memory], scratch: Sequence[Memory]) -> None:
        """Enqueue on the current stream."""


class Launch:
    """One function, with the buffers and pieces of scratch memory that are its arguments."""

    captures = True

    def __init__(
        self,
        name: str,
        function: Any,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        dynamic: int,
        buffers: tuple[int, ...],
        scratch: tuple[int, ...],
    ) -> None:
        self.name = name
        self._function, self._grid, self._block, self._dynamic = function, grid, block, dynamic
        self._buffers, self._scratch = buffers, scratch
        if dynamic > STATIC_SHARED:
            function.max_dynamic_shared_size_bytes = dynamic

    def __call__(self, buffers: Sequence[Memory], scratch: Sequence[Memory]) -> None:
        """Enqueue it."""
        pointers = [*(buffers[b].pointer for b in self._buffers), *(scratch[s].pointer for s in self._scratch)]
        self._function(self._grid, self._block, tuple(pointers), shared_mem=self._dynamic)


class Functions:
    """The functions of what was rendered, in a built program.

    Attributes:
        rendered: it.
        names: of the functions, one for each stage.
        launches: the stages.
    """

    def __init__(self, rendered: Rendered, functions: Mapping[str, Any], names: Sequence[str]) -> None:
        self.rendered, self.names = rendered, names
        self.launches = [
            Launch(name, functions[name], stage.groups, stage.local, stage.dynamic, stage.buffers, stage.scratch)
            for stage, name in zip(rendered.stages, names)
        ]

    @property
    def source(self) -> str:
        """Their text."""
        return "\n\n".join(stage.text.replace(NAME, name) for stage, name in zip(self.rendered.stages, self.names))


class CupyProgram(Program):
    """A kernel as steps: functions, or calls of a library between functions.

    Attributes:
        steps: in order.
        names: of the functions, and of the library.
        scratch: memory that the steps share.
    """

    def __init__(self, backend: CupyBackend, parts: Sequence[Functions | Step], scratch: Sequence[Memory]) -> None:
        self._backend, self._parts, self.scratch = backend, parts, scratch
        self.steps: list[Step] = []
        self.names: list[str] = []
        for part in parts:
            self.steps += part.launches if isinstance(part, Functions) else [part]
            self.names += part.names if isinstance(part, Functions) else [part.name]

    @property
    def source(self) -> str:  # type: ignore[override]
        """The text of the functions."""
        return "\n\n".join(part.source for part in self._parts if isinstance(part, Functions) and part.names)

    def __call__(self, buffers: Sequence[Memory]) -> None:
        """Enqueue the steps."""
        self._backend.run(self, buffers)

    def bind(self, buffers: Sequence[Memory]) -> Callable[[], None]:
        """The steps as a graph."""
        return self._backend.bind([(self, buffers)])


class Replay:
    """A launch list on fixed memory: recorded when it is first called, after that replayed by the device.

    What cannot be recorded is called between graphs. Memory stays alive as long as this does.

    Attributes:
        reason: why nothing was recorded; empty where something was, or nothing is to be.
    """

    def __init__(self, backend: CupyBackend, calls: Sequence[tuple[CupyProgram, Sequence[Memory]]]) -> None:
        self._backend, self._calls = backend, calls
        self._names = [name for program, _ in calls for name in program.names]
        self._parts: list[Callable[[], None]] | None = None
        self.reason = ""

    def __call__(self) -> None:
        """Enqueue everything."""
        with self._backend.enqueuing(self._names):
            if self._parts is None:
                self._parts = self._recorded()
            for part in self._parts:
                part()

    def _recorded(self) -> list[Callable[[], None]]:
        """Graphs, and what is called between them."""
        runs: list[tuple[bool, list[Callable[[], None]]]] = []
        for program, buffers in self._calls:
            for memory in buffers:
                self._backend.heap.wait_for(memory)
            for step in program.steps:
                if not runs or runs[-1][0] is not step.captures:
                    runs.append((step.captures, []))
                runs[-1][1].append(_bound(step, buffers, program.scratch))
        parts: list[Callable[[], None]] = []
        try:
            for captures, launches in runs:
                parts += [self._graph(launches).launch] if captures and len(launches) > 1 else launches
        except RuntimeError as error:
            self.reason = str(error)
            text = f"cupy: a captured step is launched kernel by kernel, as CUDA records no graph of it: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            return [launch for _, launches in runs for launch in launches]
        return parts

    def _graph(self, launches: Sequence[Callable[[], None]]) -> Any:
        """Launches recorded by a stream that nothing else uses, so that other threads go on copying."""
        stream = self._backend.recorder
        with stream:
            stream.begin_capture()
            try:
                for launch in launches:
                    launch()
            except BaseException:
                with suppress(RuntimeError):  # else the stream stays as it is
                    stream.end_capture()
                raise
            return stream.end_capture()


def _bound(step: Step, buffers: Sequence[Memory], scratch: Sequence[Memory]) -> Callable[[], None]:
    def launch() -> None:
        step(buffers, scratch)

    return launch
