"""OpenCL devices: which there are, in which order, and why there are none."""

from __future__ import annotations

import importlib
import os
import platform as machine
import re
import sys
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

from minigrad.backends.opencl import pocl
from minigrad.errors import DeviceError


@dataclass(frozen=True)
class Place:
    """A device and what it says of itself.

    Attributes:
        cl: the module pyopencl.
        device: pyopencl's device.
        name: device, platform and version, for people.
        identity: strings that change when compiled programs can no longer be used.
        is_pocl: whether the driver is PoCL.
        is_cpu: whether it is a CPU.
        is_gpu: whether it is a GPU; simulators are neither.
        rank: the least is the default.
    """

    cl: Any
    device: Any
    name: str
    identity: tuple[str, ...]
    is_pocl: bool
    is_cpu: bool
    is_gpu: bool
    rank: tuple[int, ...]


_opening = threading.Lock()  # two threads that open the drivers at once would both change the environment


@cache
def _listing() -> tuple[int, tuple[Place, ...]]:
    """The process that opened the drivers, and their devices."""
    cl = _import()
    with pocl.directory(), pocl.uninterrupted():  # PoCL's threads compile later, and start linkers
        try:
            found = [(p, d) for p in cl.get_platforms() for d in p.get_devices()]
        except cl.Error:  # no platform is an error, too
            found = []
    made = [_place(cl, p, d) for p, d in found]
    return os.getpid(), tuple(sorted((m for m in made if not (m.is_pocl and pocl.missing())), key=lambda m: m.rank))


def _import() -> Any:
    """The module pyopencl; without caches of its own, which fail where the user's folder cannot be written."""
    before = os.environ.get("PYOPENCL_NO_CACHE")
    os.environ["PYOPENCL_NO_CACHE"] = "1"
    try:
        module = importlib.import_module("pyopencl")
        if not hasattr(module, "get_platforms"):  # what PoCL's wheel leaves in the folder of an uninstalled pyopencl
            raise ImportError("pyopencl is not installed", name="pyopencl")
        return module
    finally:
        os.environ.pop("PYOPENCL_NO_CACHE")
        if before is not None:
            os.environ["PYOPENCL_NO_CACHE"] = before


def places() -> tuple[Place, ...]:
    """All devices that can be used, the best one first.

    Raises:
        ImportError: if pyopencl cannot be imported.
    """
    with _opening:
        return _listing()[1]


def choose(index: int) -> Place:
    """The device at ``index`` of :func:`places`.

    Raises:
        DeviceError: in a child whose parent has opened the drivers: their threads are not there.
    """
    with _opening:
        owner, found = _listing()
    if owner != os.getpid():
        raise DeviceError.of(
            "device", "a process that opened OpenCL itself", "a fork of one that did", "use the 'spawn' start method"
        )
    return found[index]


def _place(cl: Any, platform: Any, device: Any) -> Place:
    kinds = cl.device_type
    kind = device.type & (kinds.GPU | kinds.CPU)  # a simulator says that it is both
    is_cpu, is_gpu = kind == kinds.CPU, kind == kinds.GPU
    version = re.search(r"PoCL (\d+)\.(\d+)", platform.version)
    if version is None:
        rank: tuple[int, ...] = (0 if is_gpu else 2 if is_cpu else 4,)
    else:
        rank = (3 if is_gpu else 1, *(-int(part) for part in version.groups()))
    name = f"{device.name.strip()} ({platform.name.strip()}, {platform.version.strip()})"
    identity = (device.name, device.version, device.driver_version, platform.version)
    return Place(cl, device, name, identity, version is not None, is_cpu, is_gpu, rank)


def reason() -> str | None:
    """Why there is no device, and what to do about it; None if there is one."""
    try:
        if places():
            return None
    except ImportError as error:
        if error.name == "pyopencl":
            return f'pyopencl is not installed: pip install "minigrad[opencl]"{_besides()}'
        return f"pyopencl cannot be imported ({error})"
    return pocl.missing() or f"no OpenCL device: {_remedy()}"


def _has_wheel() -> bool:
    return sys.platform == "linux" and machine.machine() == "x86_64"


def _besides() -> str:
    return "" if _has_wheel() else f" and, as PyPI has no PoCL for this system, {_remedy()}"


def _remedy() -> str:
    """What to install where there is no driver."""
    if _has_wheel():
        return 'pip install "minigrad[opencl]" brings PoCL, which runs on the CPU; a GPU needs its vendor\'s driver'
    conda = "conda install -c conda-forge pyopencl pocl"
    if sys.platform == "darwin":
        return f"install PoCL: {conda}, or brew install pocl"
    if sys.platform == "win32":
        return f"install the driver of the GPU's vendor, Intel's OpenCL runtime for CPUs, or PoCL: {conda}"
    return f"install PoCL: apt install pocl-opencl-icd, or {conda}; a GPU needs its vendor's driver"
