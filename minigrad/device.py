"""Devices by name: which backends there are, which one is the default, and the memory pool of each device."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from minigrad import config
from minigrad.errors import ArgumentError, BackendUnavailable, DeviceError, OutOfMemory

if TYPE_CHECKING:
    from minigrad.backends.base import Backend, Program
    from minigrad.kernel import Kernel

BUILT_IN = {
    "numpy": "minigrad.backends.numpy:NumpyBackend",
    "opencl": "minigrad.backends.opencl:OpenCLBackend",
    "cupy": "minigrad.backends.cupy:CupyBackend",
}
ENTRY_POINTS = "minigrad.backends"
PROGRAM_LIMIT = 4096  # kernels that a device remembers
_LISTED = "`minigrad backends` lists those that have a name"


class Pool:
    """Freed memory by size, to be used again: a steady state asks the device for nothing.

    Attributes:
        allocations: how often the device was asked for memory.
        held: bytes taken from the device and not given back to it.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._free: defaultdict[int, list[Any]] = defaultdict(list)
        self.allocations = 0
        self.held = 0

    @staticmethod
    def bucket(nbytes: int) -> int:
        """The size that a request is rounded up to: at most one eighth more, so that sizes meet again."""
        step = max(64, 1 << max(nbytes.bit_length() - 4, 0))
        return max(-(-nbytes // step) * step, 64)

    def take(self, nbytes: int) -> Any:
        """Memory of at least ``nbytes``; when the device is full, idle memory is given back first."""
        size = self.bucket(nbytes)
        most = self._backend.capabilities.max_allocation
        if most is not None and nbytes > most:
            raise OutOfMemory.of("allocate", f"at most {most} bytes at once", f"{nbytes}", "try smaller batches")
        with suppress(IndexError):  # tensors are made without a lock: another thread may take the last one
            return self._free[size].pop()
        try:
            memory = self._backend.allocate(size)
        except OutOfMemory:
            self.trim()
            memory = self._backend.allocate(size)
        self.allocations += 1
        self.held += size
        return memory

    def give(self, memory: Any, nbytes: int) -> None:
        """Take back memory that nobody uses any more."""
        self._free[self.bucket(nbytes)].append(memory)

    def trim(self) -> None:
        """Give all idle memory back to the device."""
        self.held -= sum(size * len(idle) for size, idle in list(self._free.items()))
        self._free.clear()


class Device:
    """An opened device: its backend, memory pool, compiled programs, and the lock that realize takes."""

    def __init__(self, name: str, backend: Backend) -> None:
        self.name, self.backend = name, backend
        self.pool = Pool(backend)
        self.lock = threading.RLock()
        self.programs: dict[tuple[Kernel, str], Program] = {}  # by kernel and precision
        self.process = os.getpid()

    def compile(self, kernels: list[Kernel]) -> list[Program]:
        """Programs for ``kernels``; each structure is lowered once."""
        keys = [(k, config.settings.matmul_precision) for k in kernels]
        missing = [key for key in dict.fromkeys(keys) if key not in self.programs]
        if missing:
            self.programs.update(zip(missing, self.backend.compile([k for k, _ in missing])))
        programs = [self.programs[key] for key in keys]
        while len(self.programs) > PROGRAM_LIMIT:  # a Python number that changes makes a new kernel each time
            del self.programs[next(iter(self.programs))]
        return programs


@cache
def _backends() -> dict[str, str]:
    """Backend classes as ``module:Class``, by name: the built-in ones and those of installed plugins."""
    found = dict(BUILT_IN)
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, point.value)
    return found


def register(path: str) -> str:
    """Make the backend class ``module:Class`` known in this process, and give its name.

    Packages do the same for every process with an entry point in the group ``minigrad.backends``.

    >>> register("minigrad.backends.numpy:NumpyBackend")
    'numpy'

    Raises:
        BackendUnavailable: if there is no such class, or it is not a backend with all its methods.
        ArgumentError: if another class has that name.
    """
    module, _, attribute = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a module does when it is imported
        got = f"{path!r}: {type(error).__name__}: {error}"
        raise BackendUnavailable.of("backend", "a name, or module:Class", got, _LISTED) from error
    if not (isinstance(cls, type) and hasattr(cls, "available")):
        raise BackendUnavailable.of("backend", "a subclass of minigrad.backends.base.Backend", f"{path!r}: {cls!r}")
    if missing := ", ".join(sorted(getattr(cls, "__abstractmethods__", ()))):
        raise BackendUnavailable.of("backend", "a class with all methods of a Backend", f"{path!r} without {missing}")
    name = str(getattr(cls, "name", ""))
    if _backends().setdefault(name, path) != path:
        raise ArgumentError.of("register", f"a name other than that of {_backends()[name]}", f"{path!r} named {name!r}")
    return name


def look_here() -> None:
    """Find ``module:Class`` in the current folder too, as ``python -m`` does; last, so that it hides no package."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def class_path(name: str) -> str:
    """The class of a known backend, as ``module:Class``."""
    return _backends()[name]


def _load(name: str) -> type[Backend]:
    module, _, attribute = class_path(name).partition(":")
    cls: type[Backend] = getattr(importlib.import_module(module), attribute)
    return cls


def available_backends() -> dict[str, str | None]:
    """Every known backend with None if it can run here, else the reason why it cannot.

    >>> available_backends()["numpy"] is None
    True
    """
    reasons: dict[str, str | None] = {}
    for name in _backends():
        try:
            reasons[name] = _load(name).available()
        except Exception as error:  # a plugin that does not even import must not hide the others
            reasons[name] = f"{type(error).__name__}: {error}"
    return reasons


def device_names(backend: str) -> list[str]:
    """Descriptions of the devices of an available backend; position ``n`` is called ``backend:n``."""
    return _load(backend).devices()


_devices: dict[str, Device] = {}
_names: dict[str, str] = {}  # other names of devices -> those in the table above
_opening = threading.Lock()


def get(name: str) -> Device:
    """The device called ``name`` (``"numpy"``, ``"opencl:1"``), opened at its first use.

    Raises:
        BackendUnavailable: if there is no such backend or it cannot run here; lists those that can.
        DeviceError: in a forked child, for a device that its parent opened and that does not survive a fork.
    """
    device = _devices.get(name)
    if device is None:
        with _opening:
            device = _devices.get(name) or _open(name)
            _devices[name] = device
    if device.process != os.getpid() and not device.backend.survives_fork:
        raise DeviceError.of(
            "device", "a device opened in this process", f"{name}, opened by the parent", "use the 'spawn' start method"
        )
    return device


def _open(name: str) -> Device:
    kind, _, index = resolve(name).partition(":")
    return Device(name, _load(kind)(index))


def resolve(name: str) -> str:
    """The usual form of a name: the backend, and the position of the device unless that is 0.

    Raises:
        BackendUnavailable: if there is no such device here.
    """
    kind, _, which = name.lower().partition(":")
    path = ":".join(name.split(":")[:2])
    if kind not in _backends() or path in _backends().values():  # a module may be called as its backend is
        if not path.partition(":")[2].isidentifier():
            _unavailable(name, "no backend has that name")
        kind, which = register(path), which.partition(":")[2]
    cls = _load(kind)
    reason = cls.available()
    if reason is not None:
        _unavailable(name, reason)
    found = cls.devices()
    if which.isdigit() or not which:
        matching = [n for n in range(len(found)) if n == int(which or 0)]
    else:
        matching = [n for n, description in enumerate(found) if which in description.lower()]
    if len(matching) != 1:
        listed = "".join(f"\n  {kind}:{n}  {found[n]}" for n in matching or range(len(found)))
        count = f"{len(matching) or len(found)} device{'s' * ((len(matching) or len(found)) != 1)}"
        _unavailable(name, f"{kind} has {count}{' of that name' if matching else ', numbered from 0'}{listed}")
    return f"{kind}:{matching[0]}" if matching[0] else kind


def _unavailable(name: str, reason: str) -> None:
    usable = ", ".join(n for n, why in available_backends().items() if why is None)
    raise BackendUnavailable.of(
        "backend", f"one that can run here ({usable})", f"{name!r}: {reason}", "`minigrad backends` lists them all"
    )


class _Default(threading.local):
    name: str | None = None


_default = _Default()
_process_default: list[str] = []


def default() -> str:
    """The name of the device on which tensors are made unless told otherwise."""
    return _default.name or (_process_default[-1] if _process_default else config.backend())


def canonical(name: str | None) -> str:
    """``name`` checked and in its usual form; None means the default.

    A device is named by its position in the list that ``minigrad backends`` prints, or by a part of what stands there:
    ``"opencl:1"``, ``"opencl:nvidia"``. ``"module:Class"`` registers a backend, and is its first device.
    """
    chosen = (name or default()).strip()
    chosen = _names.get(chosen, chosen)
    if chosen not in _devices:
        found = resolve(chosen)
        get(found)
        if found != chosen:
            _names[chosen] = found
        return found
    return chosen


def set_backend(name: str) -> None:
    """Make ``name`` the device of tensors made from now on; existing tensors stay where they are.

    Raises:
        BackendUnavailable: if it cannot run here.
    """
    _process_default[:] = [canonical(name)]


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Within the block and this thread, make tensors on ``name``.

    >>> with backend("numpy"):
    ...     default()
    'numpy'
    """
    before, _default.name = _default.name, canonical(name)
    try:
        yield
    finally:
        _default.name = before


def _after_fork() -> None:
    """A lock that another thread of the parent held would never be released in the child."""
    for device in _devices.values():
        device.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
