"""From source to kernels: built once in a process, and once on a machine."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from minigrad import config
from minigrad.backends.cache import Cache, digest
from minigrad.backends.cstyle.mathematics import BUILT_IN
from minigrad.backends.opencl import pocl
from minigrad.backends.opencl.driver import Place
from minigrad.errors import DeviceError

OPTIONS = ("-cl-mad-enable", "-cl-denorms-are-zero", "-w")
# Calls of built-in functions that `pocl.DECLARATIONS` lacks: those of the portable dialect, and float64 mathematics.
_BUILT_IN = re.compile(rf"\b(?:vload\d+|vstore\d+|convert_\w+|{'|'.join(BUILT_IN)})\(")
_LINE = re.compile(r"(?:^|[:\s])(\d+):\d+: ")


class Built:
    """A program of several functions.

    Attributes:
        program: pyopencl's program.
        directory: where PoCL keeps its files; None for other drivers.
    """

    def __init__(self, program: Any, directory: str | None = None) -> None:
        self.program, self.directory = program, directory


class Compiler:
    """Builds source for one device.

    PoCL compiles functions when they are first launched: :meth:`settle`, called whenever the queue is empty, takes its
    results to the disk cache.

    Attributes:
        cache: on disk.
        expecting: something was launched for the first time.
    """

    def __init__(self, context: Any, place: Place) -> None:
        self.cache = Cache(config.cache_directory() / "opencl")
        self.expecting = False
        self._context, self._place = context, place
        self._unsaved: dict[str, tuple[weakref.ref[Built], str, Sequence[str]]] = {}
        self._gone: list[str] = []

    def build(self, source: str, functions: Sequence[str]) -> Built:
        """The program that defines ``functions``.

        Raises:
            DeviceError: with the driver's message and the source around the lines that it names.
        """
        key = digest("program", pocl.DECLARATIONS, source, *OPTIONS, *self._place.identity)
        found = self.cache.get(key)
        if self._place.is_pocl:
            return self._build_on_pocl(source, functions, key, found)
        if found is not None:
            with suppress(self._place.cl.Error, KeyError):
                program = self._place.cl._cl._Program(self._context, [self._place.device], [found["binary"]])
                program._build(b"")
                if not self._lacking(program, functions):
                    return Built(program)
        program = self._compile(source, functions)
        self.cache.put(key, {"binary": program.get_info(self._place.cl.program_info.BINARIES)[0]})
        return Built(program)

    def settle(self, last: bool = False) -> None:
        """Save what PoCL has compiled, and forget the files of programs that are gone. Nothing may be running.

        ``last``: also save programs of which some functions have never been launched.
        """
        store = pocl.store() if self.expecting or self._gone or last else None
        if store is None:
            return
        self.expecting = False
        for key, (reference, directory, functions) in list(self._unsaved.items()):
            if reference() is None or last or store.is_compiled(directory, functions):
                self._unsaved.pop(key, None)
                self.cache.put(key, {"directory": directory.encode(), **store.files(directory)})
        with suppress(IndexError):
            while True:
                store.drop(self._gone.pop())

    def _build_on_pocl(
        self, source: str, functions: Sequence[str], key: str, found: dict[str, bytes] | None
    ) -> Built:
        store = pocl.store()
        if store is None:  # PoCL keeps its files elsewhere
            return Built(self._compile(source, functions))
        directory = store.places.get(key)
        if directory is None and found is not None:
            directory = found.pop("directory").decode()
            store.fill(directory, found)
        program = self._compile(source, functions)
        directory = directory or store.built()
        built = Built(program, directory)
        if directory is not None:
            store.use(key, directory)
            if not store.is_compiled(directory, functions):
                self._unsaved[key] = weakref.ref(built), directory, functions
            weakref.finalize(built, self._gone.append, directory).atexit = False
        return built

    def _compile(self, source: str, functions: Sequence[str]) -> Any:
        if self._place.is_pocl and not _BUILT_IN.search(source):
            with suppress(_Refused):
                return self._complete(pocl.DECLARATIONS + source, functions, (*OPTIONS, pocl.WITHOUT_HEADER))
        try:
            return self._complete(source, functions, OPTIONS)
        except _Refused as refused:
            raise _complaint(source, str(refused), self._place.name) from None

    def _complete(self, source: str, functions: Sequence[str], options: Sequence[str]) -> Any:
        """A program with all its functions: PoCL has returned a large one without any."""
        cl, device = self._place.cl, self._place.device
        for again in ((), ("-DMINIGRAD_AGAIN",)):
            program = cl._cl._Program(self._context, source)
            try:  # pyopencl.Program.build adds a cache of its own and warns of every message
                with pocl.uninterrupted():
                    program._build(" ".join((*options, *again)).encode(), [device])
            except cl.Error as error:
                log = program.get_build_info(device, cl.program_build_info.LOG)
                raise _Refused(f"{error}\n{log}") from None
            lacking = self._lacking(program, functions)
            if not lacking:
                return program
        raise DeviceError.of("compile", "a program with all its functions", f"one without {', '.join(lacking)}")

    def _lacking(self, program: Any, functions: Sequence[str]) -> list[str]:
        names = program.get_info(self._place.cl.program_info.KERNEL_NAMES)
        return sorted(set(functions) - set(names.split(";")))


class _Refused(Exception):
    """The driver's compiler has something against the source."""


def _complaint(source: str, log: str, device: str) -> DeviceError:
    """What the compiler said, and the numbered source around the lines that it named."""
    log = log.strip()
    lines = source.split("\n")
    near: set[int] = set()
    for line in log.split("\n"):
        for number in map(int, _LINE.findall(line)[:1] if "error" in line else ()):
            near.update(range(max(number - 4, 0), min(number + 3, len(lines))))
    shown = "\n".join(f"{n + 1:5d}  {lines[n]}" for n in sorted(near) or range(len(lines)))
    return DeviceError(f"compile: {device} does not accept generated source\n{log}\n{shown}")
