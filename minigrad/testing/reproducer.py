"""One kernel and the arrays of its buffers as a Python file that launches it again and says whether it is right."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import sys
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import __version__, dtypes
from minigrad import device as devices
from minigrad.buffer import Buffer
from minigrad.device import Device
from minigrad.dtypes import DType
from minigrad.kernel import Instr, Kernel, Operand
from minigrad.shapes import Window
from minigrad.testing.bounds import OutOfBound
from minigrad.testing.evaluate import Array
from minigrad.testing.kernels import compare_stores, elements, extent, without_blocks
from minigrad.testing.programs import sentinel
from minigrad.testing.script import asked
from minigrad.view import Block, View

LISTED = 400  # elements of an array that is written one by one
SEEDS = 3  # how many drawn inputs are tried in place of the real ones
_MARGIN = 64  # bytes kept behind what a kernel knows of a buffer: writes beyond the end should show

# Arrays of the file ---------------------------------------------------------------------------------------------------


def listed(dtype: str, text: str) -> Array:
    """An array given element by element: floats in hexadecimal, integers and bools as integers."""
    kind = dtypes.as_dtype(dtype)
    if kind.is_float:
        return np.array([float.fromhex(word) for word in text.split()], np.float64).astype(kind.numpy)
    return np.array([int(word) for word in text.split()], kind.numpy)


def drawn(dtype: str, count: int, seed: int, low: float, high: float) -> Array:
    """An array of random elements between two values."""
    kind, rng = dtypes.as_dtype(dtype), np.random.default_rng(seed)
    if kind.is_float:
        return rng.uniform(low, high, count).astype(kind.numpy)
    return rng.integers(int(low), int(high), count, np.int64 if kind.is_signed else np.uint64, True).astype(kind.numpy)


def packed(dtype: str, text: str) -> Array:
    """An array given as compressed bytes."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtypes.as_dtype(dtype).numpy).copy()


def junk(dtype: str, count: int) -> Array:
    """Memory that the kernel does not read: it should not matter what is there."""
    kind = dtypes.as_dtype(dtype)
    return np.full(count, sentinel(kind), kind.numpy)


# Running --------------------------------------------------------------------------------------------------------------


def launch(device: Device, kernel: Kernel, arrays: Sequence[Array]) -> list[Array]:
    """The contents of the buffers after ``kernel`` has run once on ``device``, in memory that held ``arrays``."""
    with device.lock:
        program = device.compile([kernel])[0]
        buffers = [Buffer(device, max(array.nbytes, 1)) for array in arrays]
        for buffer, array in zip(buffers, arrays):
            device.backend.copy_in(buffer.memory, array)
        with device.backend.session():
            program([buffer.memory for buffer in buffers])
        after = [np.empty_like(array) for array in arrays]
        for buffer, array in zip(buffers, after):
            device.backend.copy_out(buffer.memory, array)
    return after


def fails(device: Device, kernel: Kernel, arrays: Sequence[Array]) -> bool:
    """Whether a launch on ``arrays`` is wrong."""
    try:
        compare_stores(kernel, arrays, launch(device, kernel, arrays), device.name)
    except OutOfBound:
        return True
    return False


def lowered_for(name: str, scheduled_for: str, kernel: Kernel, arrays: Sequence[Array]) -> tuple[Kernel, list[Array]]:
    """A kernel and its buffers as another device can run them: only who wished for blocks knows them."""
    same = name.partition(":")[0] == scheduled_for.partition(":")[0]
    return (kernel, list(arrays)) if same else without_blocks(kernel, arrays)


def reproduce(kernel: Kernel, arrays: Sequence[Array], scheduled_for: str, backends: Sequence[str]) -> int:
    """What a written file does: launch the kernel and print the verdicts.

    Args:
        kernel: the kernel.
        arrays: the contents of its buffers.
        scheduled_for: the device for which the engine made it.
        backends: where to run it, unless the command line names others.

    Returns:
        1 if one is wrong, else 0.
    """
    wrong = 0
    print(kernel)
    for device in map(devices.get, asked(backends)):
        lowered, memory = lowered_for(device.name, scheduled_for, kernel, arrays)
        try:
            found = compare_stores(lowered, memory, launch(device, lowered, memory), device.name)
        except OutOfBound as error:
            wrong = 1
            print(f"{device.name} is wrong: {error}")
        else:
            print(f"{device.name} is right: at most {max(c.worst for c in found):.3g} of the bound")
    return wrong


# Writing --------------------------------------------------------------------------------------------------------------


def write(device: Device, kernel: Kernel, before: Sequence[Array], text: str) -> Path:
    """Write the file into the current directory and return its path.

    Large inputs are drawn from a seed where the kernel fails on those too; else their bytes are in the file.

    Args:
        device: where the kernel went wrong.
        kernel: the kernel.
        before: the contents of its buffers, each as a flat array.
        text: what was wrong.
    """
    arrays = [_trimmed(kernel, n, memory) for n, memory in enumerate(before)]
    read = {operand.buffer for operand in kernel.inputs}
    texts, note = [], ""
    for n, array in enumerate(arrays):
        if n not in read:
            texts.append(f"junk({array.dtype.name!r}, {array.size})")
            arrays[n] = junk(array.dtype.name, array.size)
        else:
            texts.append(_list(array) if array.size <= LISTED else "")
    large = [n for n, known in enumerate(texts) if not known]
    for seed in range(SEEDS if large else 0):
        calls = {n: (arrays[n].dtype.name, arrays[n].size, seed + n, *_range(arrays[n])) for n in large}
        if fails(device, kernel, [drawn(*calls[n]) if n in calls else array for n, array in enumerate(arrays)]):
            for n, call in calls.items():
                texts[n] = f"drawn({', '.join(map(repr, call))})"
            break
    else:
        for n in large:
            texts[n] = _pack(arrays[n])
        if not fails(device, kernel, arrays):
            note = "It was right when it ran a second time on the same inputs: the kernel is not deterministic.\n"
    lines = _file(device, kernel, texts, text + "\n" + note)
    name = re.sub(r"[^A-Za-z0-9_]+", "_", kernel.name)
    path = Path(f"minigrad-validate-{name}-{hashlib.sha256(lines.encode()).hexdigest()[:8]}.py").absolute()
    path.write_text(lines, encoding="utf-8")
    return path


def _trimmed(kernel: Kernel, buffer: int, memory: Array) -> Array:
    """The part of a buffer that the kernel knows of, and a little more, in the dtype of its elements."""
    dtype, count = extent(kernel, buffer)
    return elements(memory, dtype)[: count + _MARGIN // dtype.itemsize].copy()


def _range(array: Array) -> tuple[float, float]:
    """The least and the greatest finite element."""
    wide = array.astype(np.float64) if array.dtype.kind not in "biu" else array
    finite = wide[np.isfinite(wide)]
    if finite.size == 0:
        return 0, 0
    if wide.dtype.kind != "f":
        return int(finite.min()), int(finite.max())
    return max(float(finite.min()), -1e300), min(float(finite.max()), 1e300)


def _list(array: Array) -> str:
    if array.dtype.kind in "biu":
        words = [str(int(v)) for v in array]
    else:
        words = [re.sub(r"\.?0+p", "p", float(v).hex()) for v in array.astype(np.float64)]
    return f"listed({array.dtype.name!r}, {_wrapped(' '.join(words))})"


def _pack(array: Array) -> str:
    text = base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()
    return f"packed({array.dtype.name!r}, {_wrapped(text)})"


def _wrapped(text: str) -> str:
    """A string literal, over several lines where it is long."""
    if len(text) <= 80:
        return repr(text)
    lines = textwrap.wrap(text, 100, break_on_hyphens=False, drop_whitespace=False)
    return "(\n" + "\n".join(f"        {line!r}" for line in lines) + "\n    )"


def _file(device: Device, kernel: Kernel, arrays: Sequence[str], comment: str) -> str:
    kind, _, index = device.name.partition(":")
    path = devices.class_path(kind)
    name = device.name if path in devices.BUILT_IN.values() else f"{path}:{index}".rstrip(":")
    versions = f"minigrad {__version__}, Python {platform.python_version()}, NumPy {np.__version__}, {sys.platform}"
    described = f"{device.name}: {devices.device_names(kind)[int(index or 0)]}"
    about = [described, versions, "", *comment.strip().split("\n")]
    lines = [
        *(f"# {line}".rstrip() for line in about),
        "#",
        "# Run it: python FILE [BACKEND ...]; or compare backends with it: minigrad bisect FILE",
        "# ruff: noqa",
        "from math import inf, nan",
        "",
        "from minigrad import dtypes",
        "from minigrad.kernel import Instr, Kernel, Operand",
        "from minigrad.primitive import TABLE",
        "from minigrad.shapes import Window",
        "from minigrad.testing.reproducer import drawn, junk, listed, packed, reproduce",
        "from minigrad.view import Block, View",
        "",
        f"kernel = {literal(kernel)}",
        f"scheduled_for = {device.name!r}",
        f"backends = [{name!r}]",
        "arrays = [",
        *(f"    {text},  # {n}" for n, text in enumerate(arrays)),
        "]",
        "",
        'if __name__ == "__main__":',
        "    import sys",
        "",
        "    sys.exit(reproduce(kernel, arrays, scheduled_for, backends))",
    ]
    return "\n".join(lines) + "\n"


def literal(kernel: Kernel) -> str:
    """A kernel as the expression that makes it."""
    fields = {name: _text(value) for name, value in vars(kernel).items() if name != "attrs"}
    fields["attrs"] = "None"
    if kernel.attrs is not None:
        pairs = ", ".join(f"{k}={_text(v)}" for k, v in zip(kernel.attrs._fields, kernel.attrs))
        fields["attrs"] = f"TABLE[{kernel.op!r}].attrs({pairs})"
    for name in ("prologue", "epilogue", "inputs", "outputs"):
        lines = [f"        {_text(line)},\n" for line in getattr(kernel, name)]
        fields[name] = f"(\n{''.join(lines)}    )" if lines else "()"
    return "Kernel(\n" + "".join(f"    {name}={fields[name]},\n" for name in vars(kernel)) + ")"


def _text(value: Any) -> str:
    if isinstance(value, DType):
        return f"dtypes.{value.name}"
    if isinstance(value, (View, Instr, Operand, Window, Block)):
        defaults = {k: _text(v) for k, v in type(value)._field_defaults.items()}
        fields = [(k, _text(v)) for k, v in zip(value._fields, value)]
        return f"{type(value).__name__}({', '.join(f'{k}={v}' for k, v in fields if defaults.get(k) != v)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})"
    return repr(value)
