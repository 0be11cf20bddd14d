"""The process that draws programs and runs them for :mod:`minigrad.testing.fuzzing`, which reads what it prints.

A worker may crash with a driver or hang in it, and what it compiles stays in its memory: it is a process that can be
lost. Each program is in its journal before it runs. One line of JSON on its standard input is what to do, then one
chunk number per line; each line that it prints is one event in JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minigrad import device as devices
from minigrad import dtypes, extras
from minigrad.config import settings
from minigrad.primitive import TABLE
from minigrad.testing import checks
from minigrad.testing.checks import with_gradients
from minigrad.testing.drawing import draw_once
from minigrad.testing.fuzzing import SHRINKING, WHAT, Check, checks_of
from minigrad.testing.programs import Program
from minigrad.testing.script import definition
from minigrad.testing.shrinking import Enough, shrunk

PROGRAMS = {"programs": 40, "rows": 80, "gradients": 40, "training": 6}  # of one chunk: each kind has its turn
Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Read what to do, do it, and print events until standard input ends."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what drivers print is no event

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    orders = json.loads(sys.stdin.readline())
    backends = [devices.canonical(name) for name in orders["backends"]]
    emit({"event": "ready"})
    with settings.override(verify=True, tune=False, debug=0):
        for line in sys.stdin:
            chunk = Chunk(backends, orders["seed"], int(line), orders["what"], Path(orders["journal"]), emit)
            try:
                chunk.run()
            except Exception:
                emit({"event": "broken", "traceback": traceback.format_exc()})
            emit({"event": "done", "memory": _memory()})


def _memory() -> int:
    """The most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Chunk:
    """Programs that one seed and one number determine.

    The first that fails is shrunk, by the one check that it failed; the chunk ends with it.
    """

    def __init__(
        self, backends: Sequence[str], seed: int, number: int, what: Sequence[str], journal: Path, emit: Emit
    ) -> None:
        self.backends, self.seed, self.number, self.journal, self.emit = backends, seed, number, journal, emit
        turn = [kind for kind in WHAT if kind in what]
        self.kind = turn[number % len(turn)]
        self.drawn = drawing(self.kind, backends)
        self.failed: Failure | None = None

    def run(self) -> None:
        """Draw, check, shrink; each program is an event, and so is a difference, first as found, then shrunk."""
        for number in range(PROGRAMS[self.kind]):
            try:
                draw_once(self.drawn, f"{self.seed} {self.number} {number}", self.check, simplest=number == 0)
            except (Exception, Enough):
                if self.failed is None:
                    raise
            if self.failed is not None:
                self.cut(self.failed)
                self.emit({"event": "shrunk", **self.failed.told()})
                return

    def check(self, program: Program) -> None:
        """Run one program; raises what its check raises."""
        if self.failed is not None:
            self.again(program, self.failed)
            return
        self.journal.write_text(definition(program, literal=True), encoding="utf-8")
        tally = [0, 0]
        for check in checks_of(program, self.backends):
            self.emit({"event": "check", "backends": check.backends})
            try:
                found = check.run(program)
            except Exception as error:
                self.failed = Failure(program, check.narrowed(program), error)
                self.emit({"event": "failed", **self.failed.told()})
                raise
            tally = [tally[0] + found.decided, tally[1] + found.elements]
        self.emit({"event": "program", "steps": len(program.steps), "decided": tally[0], "elements": tally[1]})

    def again(self, program: Program, failed: Failure) -> None:
        """While shrinking: whether a program fails the check that the first one failed."""
        if time.monotonic() > failed.since + SHRINKING:
            raise Enough
        self.journal.write_text(definition(program, literal=True), encoding="utf-8")
        self.emit({"event": "shrinking"})
        if failed.check in checks_of(program, self.backends, failed.check):
            try:
                failed.check.run(program)
            except Exception as error:
                failed.keep(program, error)
                raise

    def cut(self, failed: Failure) -> None:
        """Leave out more than Hypothesis can, which only draws other programs."""

        def fails(program: Program) -> bool:
            try:
                self.again(program, failed)
            except Exception:
                return program is failed.program
            return False

        with contextlib.suppress(Exception, Enough):  # a program may fail when it is built, or time be up
            shrunk(failed.program, fails)


class Failure:
    """The smallest program known to fail a check, and how."""

    def __init__(self, program: Program, check: Check, error: Exception) -> None:
        self.program, self.check, self.error = program, check, error
        self.since = time.monotonic()

    def keep(self, program: Program, error: Exception) -> None:
        """Another program that fails, if it is no larger and fails in the same way."""
        if type(error) is type(self.error) and _size(program) <= _size(self.program):
            self.program, self.error = program, error

    def told(self) -> dict[str, Any]:
        """As part of an event."""
        error = self.error
        text = str(error) if isinstance(error, AssertionError) else _traceback(error)
        return {
            "program": definition(self.program, literal=True),
            "steps": len(self.program.steps),
            "ops": sorted({step.op for step in self.program.steps}),
            "gradients": self.program.gradients,
            "backends": self.check.backends,
            "what": "differs" if isinstance(error, AssertionError) else f"raises {type(error).__name__}",
            "message": text,
        }


def _traceback(error: Exception) -> str:
    """Where an exception was raised, from the check inwards."""
    frames = traceback.extract_tb(error.__traceback__)
    outer = [n for n, frame in enumerate(frames) if frame.filename == checks.__file__]
    lines = traceback.format_list(frames[outer[0] :] if outer else frames)
    return "".join([f"{error}\n", *lines, *traceback.format_exception_only(error)]).rstrip()


def _size(program: Program) -> tuple[int, int, int]:
    elements = sum(given.array.size for given in program.inputs)
    asked = len(program.results) + len(program.realized) + program.gradients
    return len(program.steps) + asked, elements, len(definition(program))


def drawing(kind: str, backends: Sequence[str]) -> Any:
    """The strategy that draws programs of one kind of :data:`minigrad.testing.fuzzing.WHAT` for some backends."""
    st = extras.load("hypothesis", "test").strategies
    from minigrad.testing import strategies
    from minigrad.testing.program_strategies import programs

    can = [devices.get(name).backend.capabilities for name in backends]
    kinds = [d for d in dtypes.ALL if all(d in c.dtypes for c in can)]
    rows = [op for op in strategies.rows() if not any(op.name in c.unsupported for c in can)]
    if kind == "rows":
        return st.sampled_from(rows).flatmap(lambda op: strategies.cases(op, only=kinds))
    if kind == "gradients":
        floats = [d for d in kinds if d.is_float]
        smooth = [op for op in rows if TABLE[op.name].vjp is not None]
        return st.sampled_from(smooth).flatmap(lambda op: strategies.cases(op, only=floats)).map(with_gradients)
    if kind == "training":
        from minigrad.testing import training_strategies

        return training_strategies.training_programs()
    small, large = programs(kinds=kinds), programs(kinds=kinds, most=4, large=True)
    return st.integers(0, 9).flatmap(lambda n: large if n == 9 else small)


if __name__ == "__main__":
    main()
