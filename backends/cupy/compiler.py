"""From source to functions: by NVRTC through CuPy, which keeps machine code on disk (``CUPY_CACHE_DIR``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from minigrad.backends.cstyle.cuda import OPTIONS
from minigrad.backends.cupy.driver import Place
from minigrad.errors import DeviceError

_LINE = re.compile(r"\((\d+)\): (?:catastrophic )?error")
_SHOWN = 3  # lines of source before and after one with an error


def build(place: Place, source: str, names: Sequence[str]) -> dict[str, Any]:
    """The functions ``names`` of a program, on the current device.

    Raises:
        DeviceError: with the compiler's message and the source around the lines that it names.
    """
    cuda = place.cupy.cuda
    module = place.cupy.RawModule(code=source, options=OPTIONS, backend="nvrtc")
    try:
        return {name: module.get_function(name) for name in names}
    except cuda.compiler.CompileException as error:
        raise _complaint(source, str(error), place.name) from None
    except RuntimeError as error:  # of the driver, or CUDA's headers are missing, for which CuPy looks
        raise DeviceError.of("compile", f"a program that {place.name} loads", str(error)) from None


def _complaint(source: str, log: str, device: str) -> DeviceError:
    """What the compiler said, and the numbered source around the lines that it named."""
    lines = source.split("\n")
    near: set[int] = set()
    for number in map(int, _LINE.findall(log)):
        near.update(range(max(number - 1 - _SHOWN, 0), min(number + _SHOWN, len(lines))))
    shown = "\n".join(f"{n + 1:5d}  {lines[n]}" for n in sorted(near) or range(len(lines)))
    return DeviceError(f"compile: {device} does not accept generated source\n{log.strip()}\n{shown}")
