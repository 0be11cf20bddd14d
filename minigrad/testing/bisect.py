"""Which kernel of a program is the first that a backend gets wrong: what ``minigrad bisect`` does.

A program is run on each backend with every launch watched. A kernel is compared with the oracle from the inputs that it
really had, so an error before it does not count; and it is lowered for the other backends and compared there from the
same inputs.
"""

from __future__ import annotations

import math
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from minigrad import device as devices
from minigrad.errors import DataError, VerifyError
from minigrad.kernel import Kernel
from minigrad.testing import reproducer
from minigrad.testing.bounds import OutOfBound, bounded, compare
from minigrad.testing.checks import WAYS, in_one_way
from minigrad.testing.evaluate import Array
from minigrad.testing.fuzzing import can_run
from minigrad.testing.kernels import compare_stores
from minigrad.testing.programs import Program, on, outcomes
from minigrad.testing.validate import Launch, watched


class Case(NamedTuple):
    """One kernel with the contents of its buffers, as validate mode writes it."""

    kernel: Kernel
    arrays: list[Array]
    scheduled_for: str


class Verdict(NamedTuple):
    """What a backend made of a kernel.

    Attributes:
        share: the worst error as a share of its bound; infinite where it raised.
        text: what is wrong, if that is more than 1.
    """

    share: float
    text: str = ""


class Row(NamedTuple):
    """A kernel and what each backend that can run it made of it.

    Attributes:
        schedule: the backend for which the program was scheduled.
        number: of the launch, from 1.
        kernel: what was launched.
        verdicts: by backend.
    """

    schedule: str
    number: int
    kernel: Kernel
    verdicts: dict[str, Verdict]

    @property
    def worst(self) -> float:
        """The greatest share of a bound."""
        return max(verdict.share for verdict in self.verdicts.values())


@dataclass
class Found:
    """What one way of running showed.

    Attributes:
        way: of :data:`minigrad.testing.checks.WAYS`.
        rows: all kernels, schedule by schedule.
        complaints: what is wrong though it shows in no kernel: results of the whole program, exceptions.
    """

    way: str
    rows: list[Row] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def first(self) -> Row | None:
        """The first kernel that a backend gets wrong."""
        return next((row for row in self.rows if row.worst > 1), None)

    @property
    def diverges(self) -> bool:
        """Whether anything is wrong."""
        return self.first is not None or bool(self.complaints)


def load(path: str | Path) -> tuple[Program | Case, list[str]]:
    """What a reproducer defines: ``program`` (of ``minigrad fuzz``), or ``kernel`` and ``arrays`` (of validate mode).

    Its folder becomes one in which modules are found, as when Python runs it.

    Returns:
        That, and the backends on which the file is run unless others are named.

    Raises:
        DataError: if there is no such file, it cannot be run, or it defines neither.
    """
    if not Path(path).is_file():
        raise DataError.of("bisect", "a reproducer", f"{path}, which is no file")
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        names = runpy.run_path(str(path), run_name="reproducer")
    except (Exception, SystemExit) as error:
        raise DataError.of("bisect", "a reproducer that runs", f"{path}: {type(error).__name__}: {error}") from error
    backends = list(names.get("backends", []))
    program = names.get("program")
    if isinstance(program, Program):
        return program, backends
    if isinstance(names.get("kernel"), Kernel) and {"arrays", "scheduled_for"} <= names.keys():
        return Case(names["kernel"], list(names["arrays"]), names["scheduled_for"]), backends
    hint = "`minigrad fuzz` and MINIGRAD_VALIDATE=1 write such files"
    raise DataError.of("bisect", "a file that defines a Program `program`, or a kernel", f"{path}: neither", hint)


def bisect(case: Program | Case, backends: Sequence[str]) -> Found:
    """Run ``case`` on backends and judge each kernel.

    Args:
        case: a program is run in every way of :data:`minigrad.testing.checks.WAYS` until one shows something.
        backends: usual names of devices.

    Returns:
        The first way that shows something wrong, or the first of all.
    """
    if isinstance(case, Case):
        kernel, arrays, scheduled_for = case
        verdicts = {name: _verdict(name, scheduled_for, kernel, arrays) for name in backends if lowers(name, kernel)}
        return Found("", [Row(scheduled_for, 1, kernel, verdicts)] if verdicts else [])
    tried = []
    for way in WAYS:
        tried.append(_in_one_way(case, backends, way))
        if tried[-1].diverges:
            return tried[-1]
    return tried[0]


def lowers(backend: str, kernel: Kernel) -> bool:
    """Whether a backend declares that it can run ``kernel``."""
    able = devices.get(backend).backend.capabilities
    if any(line.op != "core" for line in kernel.epilogue) and kernel.core_shapes and kernel.op not in able.epilogues:
        return False
    kinds = {operand.dtype for operand in (*kernel.inputs, *kernel.outputs)}
    computed = kernel.computes()
    return not {op for op, _ in computed} & able.unsupported and able.dtypes >= kinds | {d for _, d in computed}


def _in_one_way(program: Program, backends: Sequence[str], way: str) -> Found:
    found = Found(way)
    for backend in (name for name in backends if can_run(name, program)):
        rows: list[Row] = []

        def judge(launch: Launch, rows: list[Row] = rows, backend: str = backend) -> None:
            before = launch.before
            verdicts = {backend: _judged(launch.kernel, before, launch.after, backend)}
            others = (name for name in backends if name != backend and lowers(name, launch.kernel))
            verdicts.update({name: _verdict(name, backend, launch.kernel, before) for name in others})
            rows.append(Row(backend, len(rows) + 1, launch.kernel, verdicts))

        expected = outcomes(program, program.build(on(backend)))
        bounds = bounded(expected)
        results: list[Array] = []
        try:
            with watched(judge):
                results = in_one_way(program, backend, WAYS[way])
        except AssertionError as error:  # an input has changed
            found.complaints.append(str(error))
        except Exception as error:
            found.complaints.append(f"{backend} raised {type(error).__name__} after {len(rows)} kernels: {error}")
        for number, (result, bound, node) in enumerate(zip(results, bounds, expected)):
            try:
                compare(result, bound, node.dtype, f"result {number} on {backend}")
            except AssertionError as error:
                found.complaints.append(str(error))
        found.rows += rows
    return found


def _verdict(backend: str, scheduled_for: str, kernel: Kernel, before: Sequence[Array]) -> Verdict:
    """What a backend makes of a kernel that was made for another, or of one from a file."""
    try:
        kernel, before = reproducer.lowered_for(backend, scheduled_for, kernel, before)
        after = reproducer.launch(devices.get(backend), kernel, before)
    except Exception as error:  # whatever a compiler or a driver raises
        return Verdict(math.inf, f"{type(error).__name__}: {error}")
    return _judged(kernel, before, after, backend)


def _judged(kernel: Kernel, before: Sequence[Array], after: Sequence[Array], backend: str) -> Verdict:
    try:
        comparisons = compare_stores(kernel, before, after, backend)
    except OutOfBound as error:
        return Verdict(error.share, str(error))
    except VerifyError as error:
        return Verdict(math.inf, str(error))
    return Verdict(max(c.worst for c in comparisons))
