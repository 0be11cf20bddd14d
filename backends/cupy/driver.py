"""CUDA devices as CuPy sees them: which there are, and why there are none."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import Any

from minigrad.errors import DeviceError

LEAST = (7, 5)  # the oldest compute capability that NVRTC 13 compiles for
_WITH_TOOLKIT = 'pip install "minigrad[cupy]" brings CuPy for CUDA 12, with the libraries that it needs'
_NO_DEVICE = 100  # cudaErrorNoDevice


@dataclass(frozen=True)
class Place:
    """A device and what is known of it.

    Attributes:
        cupy: the module.
        index: of the device, as CUDA counts.
        name: device, memory and driver, for people.
        identity: strings that change when what was measured can no longer be used.
        capability: compute capability, major and minor.
        cores: multiprocessors.
        shared_bytes: shared memory that a block can ask for.
    """

    cupy: Any
    index: int
    name: str
    identity: tuple[str, ...]
    capability: tuple[int, int]
    cores: int
    shared_bytes: int


class _Missing(Exception):
    """Why there is no device, and what to do about it."""


_opening = threading.Lock()


def places() -> tuple[Place, ...]:
    """All devices that can be used, in CUDA's order: the fastest first.

    Raises:
        DeviceError: if there is none, saying what is missing.
    """
    _, found = _opened()
    if isinstance(found, str):
        raise DeviceError.of("device", "a GPU with CUDA", found)
    return found


def reason() -> str | None:
    """Why there is no device, and what to do about it; None if there is one."""
    _, found = _opened()
    return found if isinstance(found, str) else None


def choose(index: int) -> Place:
    """The device at ``index`` of :func:`places`.

    Raises:
        DeviceError: in a child whose parent has opened CUDA, which does not survive a fork.
    """
    found = places()
    if _opened()[0] != os.getpid():
        raise DeviceError.of(
            "device", "a process that opened CUDA itself", "a fork of one that did", "use the 'spawn' start method"
        )
    return found[index]


def _opened() -> tuple[int, tuple[Place, ...] | str]:
    with _opening:
        return _listing()


@cache
def _listing() -> tuple[int, tuple[Place, ...] | str]:
    """The process that opened CUDA, and its devices or why there are none."""
    try:
        return os.getpid(), _found(_import())
    except _Missing as missing:
        return os.getpid(), f"{missing}{_damage()}"


def _damage() -> str:
    """What pip's list says of CuPy where it does not work: packages for several CUDA versions have the same files."""
    found = {dist.metadata["Name"] for dist in distributions() if dist.metadata["Name"]}
    names = sorted(name for name in found if re.fullmatch(r"cupy(-(cuda|rocm)[\w-]+)?", name.lower()))
    if len(names) > 1:
        return f"; {', '.join(names)} are installed together and overwrite each other: uninstall all, then install one"
    if names and find_spec("cupy") is None:
        return f"; pip lists {names[0]}, but its files are gone: pip install --force-reinstall {names[0]}"
    return ""


def _import() -> Any:
    try:
        return import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            raise _Missing(f"CuPy is not installed: {_WITH_TOOLKIT}") from None
        raise _Missing(f"CuPy cannot be imported ({error}): {_WITH_TOOLKIT}") from None
    except ImportError as error:  # a library that it was built with is not there
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
        raise _Missing(f"CuPy cannot be imported ({lines[-1] if lines else error}): {_WITH_TOOLKIT}") from None


def _found(cupy: Any) -> tuple[Place, ...]:
    runtime = cupy.cuda.runtime
    if runtime.is_hip:
        raise _Missing(f"CuPy is installed for AMD's ROCm, not for CUDA: {_WITH_TOOLKIT}")
    failures = (runtime.CUDARuntimeError, RuntimeError)
    try:
        driver = int(runtime.driverGetVersion())
    except failures:
        driver = 0
    if not driver:
        raise _Missing("no NVIDIA driver: install the one for the GPU; `nvidia-smi` lists the GPU when it works")
    built = int(runtime.runtimeGetVersion())
    if driver // 1000 < built // 1000:
        raise _Missing(
            f"CuPy is installed for CUDA {built // 1000}, the driver has CUDA {_version(driver)}: update the driver, "
            f"or uninstall CuPy and pip install cupy-cuda{driver // 1000}x[ctk]"
        )
    try:
        count = int(runtime.getDeviceCount())
    except failures as error:
        if getattr(error, "status", None) != _NO_DEVICE:
            raise _Missing(f"CUDA cannot be used ({error}): `nvidia-smi` may say more") from None
        count = 0
    if not count:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = f"CUDA_VISIBLE_DEVICES={hidden} hides those that there are" if hidden is not None else "see `nvidia-smi`"
        raise _Missing(f"the driver (CUDA {_version(driver)}) finds no GPU: {hint}")
    try:
        compiler = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    except (ImportError, OSError, RuntimeError) as error:
        wheel = f"pip install cupy-cuda{built // 1000}x[ctk]"
        raise _Missing(f"CUDA's compiler NVRTC is missing ({_first_line(error)}): {wheel} brings it") from None
    made = [_place(cupy, index, driver, compiler) for index in range(count)]
    able = tuple(place for place in made if place.capability >= LEAST)
    if not able:
        least = ".".join(map(str, LEAST))
        raise _Missing(f"no GPU of compute capability {least} or more: {made[0].name}")
    return able


def _place(cupy: Any, index: int, driver: int, compiler: str) -> Place:
    about = cupy.cuda.runtime.getDeviceProperties(index)
    name = about["name"].decode()
    capability = (int(about["major"]), int(about["minor"]))
    shown = f"{name} ({about['totalGlobalMem'] / 2**30:.0f} GiB, CUDA {_version(driver)})"
    identity = (
        name, f"compute capability {capability[0]}.{capability[1]}", f"CUDA {_version(driver)}",
        f"NVRTC {compiler}", f"CuPy {cupy.__version__}",
    )  # fmt: skip
    return Place(
        cupy,
        index,
        shown,
        identity,
        capability,
        int(about["multiProcessorCount"]),
        int(about["sharedMemPerBlockOptin"]),
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
