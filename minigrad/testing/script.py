"""Programs as Python text: short for a report, or with every element as a literal, for a file that needs no other."""

from __future__ import annotations

import argparse
import base64
import textwrap
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from minigrad import device as devices
from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import MinigradError

if TYPE_CHECKING:
    from minigrad.testing.evaluate import Array
    from minigrad.testing.programs import Input, Program, Step

_LISTED = 600  # elements of an array that is written as a list
_IMPORTS = (
    "import ml_dtypes",
    "from numpy import array, inf, nan",
    "from minigrad import dtypes",
    "from minigrad.shapes import Window",
    "from minigrad.testing.programs import Input, Layout, Program, Step, on",
)


def script(program: Program) -> str:
    """Python that builds ``program`` and prints its results; large inputs are drawn again as they were."""
    return "\n".join(
        [
            "# ruff: noqa",
            *_IMPORTS,
            "from numpy.random import default_rng",
            "from minigrad.primitive import Domain",
            "from minigrad.testing.evaluate import run",
            "from minigrad.testing.strategies import fill, laid",
            definition(program),
            "for result in run(program.build(on('numpy')).results):",
            "    print(result)",
        ]
    )


def reproducer(program_text: str, backends: Iterable[str], comment: str) -> str:
    """A file that runs a program on backends, given or on its command line, and exits with 1 if they differ.

    Args:
        program_text: the program as :func:`definition` writes it with ``literal``.
        backends: names, as ``--backends`` of ``minigrad fuzz`` takes them.
        comment: what is said at the top.
    """
    lines = [
        *(f"# {line}".rstrip() for line in comment.splitlines()),
        "# ruff: noqa",
        *_IMPORTS,
        "from minigrad.testing.script import unpacked",
        "",
        program_text,
        f"backends = {list(backends)!r}",
        "",
        'if __name__ == "__main__":',
        "    import sys",
        "",
        "    from minigrad.testing.fuzzing import reproduce",
        "",
        "    sys.exit(reproduce(program, backends))",
    ]
    return "\n".join(lines) + "\n"


def asked(backends: Sequence[str]) -> list[str]:
    """The usual names of the backends on a reproducer's command line, or else of ``backends``, opened.

    Exits, with 2 and one message where the command line is wrong or a backend cannot run here.
    """
    text = "Run this reproducer on backends: exits with 0 if they agree, 1 if they differ, 2 if one cannot run here."
    parser = argparse.ArgumentParser(description=text)
    text = f"as `minigrad backends` lists them, or pkg.mod:Class (default: {' '.join(backends)})"
    parser.add_argument("backends", metavar="BACKEND", nargs="*", help=text)
    named = [name for given in parser.parse_args().backends for name in given.split(",") if name]
    devices.look_here()
    try:
        return [devices.canonical(name) for name in named or backends]
    except MinigradError as error:
        parser.exit(2, f"error: {error}\n")


def definition(program: Program, literal: bool = False) -> str:
    """The statement that binds ``program``.

    Args:
        program: what is printed.
        literal: write every element of the inputs, exactly, and none as the call that once drew it.
    """
    return "\n".join(
        [
            "program = Program(",
            "    inputs=(",
            *(f"        {_input(i, literal)},  # {n}" for n, i in enumerate(program.inputs)),
            "    ),",
            "    steps=(",
            *(f"        {_step(s)},  # {n}" for n, s in enumerate(program.steps, len(program.inputs))),
            "    ),",
            f"    results={program.results!r},",
            f"    realized={set(program.realized) or 'frozenset()'},",
            f"    gradients={program.gradients},",
            ")",
        ]
    )


def unpacked(text: str, dtype: str, shape: tuple[int, ...]) -> Array:
    """The array that a script holds as compressed bytes, because it is too large for a list."""
    data = zlib.decompress(base64.b85decode(text))
    return np.frombuffer(data, dtypes.as_dtype(dtype).numpy).reshape(shape).copy()


def _packed(array: Array) -> str:
    text = base64.b85encode(zlib.compress(array.tobytes(), 9)).decode()
    lines = textwrap.wrap(text, 110, break_on_hyphens=False)
    return f"unpacked({chr(10).join(map(repr, lines))}, '{array.dtype}', {array.shape})"


def _input(given: Input, literal: bool) -> str:
    if given.made and not literal:
        return given.made
    layout = f", {given.layout!r}" if any(given.layout) else ""
    array = given.array
    if array.size > _LISTED:
        return f"Input({_packed(array)}{layout})"
    kind = f"ml_dtypes.{array.dtype}" if array.dtype == ml_dtypes.bfloat16 else f"'{array.dtype}'"
    values = array.astype(np.float64) if given.dtype.is_float else array
    return f"Input(array({values.ravel().tolist()}, {kind}).reshape({array.shape}){layout})"


def _step(step: Step) -> str:
    def text(value: Any) -> str:
        return f"dtypes.{value.name}" if isinstance(value, DType) else repr(value)

    attrs = ", ".join(f"{k!r}: {text(v)}" for k, v in step.attrs.items())
    return f"Step({step.op!r}, {step.sources}, {{{attrs}}})"
