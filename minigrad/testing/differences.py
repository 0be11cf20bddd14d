"""Every row of the table of primitives on several backends, side by side: how far each is from the oracle.

A row runs in a process of its own kind: a driver that takes the process with it costs one example.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from minigrad import device as devices
from minigrad import dtypes
from minigrad.config import settings
from minigrad.dtypes import DType
from minigrad.errors import ArgumentError, did_you_mean
from minigrad.graph import Node
from minigrad.primitive import TABLE, Primitive
from minigrad.testing.bounds import TOLERANCES, Bounded, Error, OutOfBound, bounded, compare, ulp
from minigrad.testing.checks import Tally, in_one_way, with_gradients
from minigrad.testing.drawing import draw_once
from minigrad.testing.evaluate import Array, widen
from minigrad.testing.fuzzing import CACHES, can_run
from minigrad.testing.programs import Program, on, outcomes


class Key(NamedTuple):
    """A row of the comparison: a primitive, or its derivative."""

    op: str
    gradient: bool = False

    def __str__(self) -> str:
        return f"{self.op}, gradient" if self.gradient else self.op


@dataclass
class Worst:
    """The worst example of one row and one backend, or pair.

    Attributes:
        share: its error as a share of the bound; above 1 is a violation.
        ulps: the greatest error in ulps, where that is what the row's bound is measured in.
        dtype: of the element.
        shapes: of the inputs.
        example: its number.
    """

    share: float = 0.0
    ulps: float | None = None
    dtype: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()
    example: int = 0


@dataclass
class Row:
    """What was found about one primitive, or its derivative.

    Attributes:
        key: which.
        worst: by backend, and by pair as ``one/other``.
        examples: programs run.
        inconclusive: those of which less than half of the elements could be decided, by anybody.
        unsupported: backends that declare that they cannot run it.
        violations: who, the number of the example, and what was wrong.
    """

    key: Key
    worst: dict[str, Worst] = field(default_factory=dict)
    examples: int = 0
    inconclusive: int = 0
    unsupported: tuple[str, ...] = ()
    violations: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def overall(self) -> Worst:
        """The worst of all."""
        return max(self.worst.values(), key=lambda w: w.share, default=Worst())

    def add(self, other: Row) -> None:
        """Count what another process found about the same row."""
        for who, found in other.worst.items():
            mine = self.worst.setdefault(who, Worst())
            _keep(mine, found)
        self.examples += other.examples
        self.inconclusive += other.inconclusive
        self.violations += other.violations


def _keep(mine: Worst, found: Worst) -> None:
    """The greater share wins, with its example; the greatest number of ulps may be of another."""
    ulps = max((w.ulps for w in (mine, found) if w.ulps is not None), default=None)
    if found.share >= mine.share:
        mine.share, mine.dtype, mine.shapes, mine.example = found.share, found.dtype, found.shapes, found.example
    mine.ulps = ulps


def keys(ops: Sequence[str]) -> list[Key]:
    """The rows of some primitives, or of ``["all"]``, each with its derivative where it has one.

    Raises:
        ArgumentError: naming the one that has no cases.
    """
    from minigrad.testing.strategies import rows

    known = {op.name: op for op in rows()}
    names = list(known) if list(ops) == ["all"] else list(ops)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise ArgumentError.of("--ops", "all, or names of primitives", repr(name), hint)
    return [Key(name, g) for name in names for g in (False, True) if not g or known[name].vjp is not None]


# One example ---------------------------------------------------------------------------------------------------------


def example(key: Key, backends: Sequence[str], seed: int, number: int) -> Program:
    """The program that is example ``number`` of a row: a backend has what its inputs need if all of them do."""
    found: list[Program] = []
    draw_once(_drawn(TABLE[key.op], key.gradient, backends), f"{seed} {key} {number}", found.append)
    return found[0]


def _drawn(op: Primitive, gradient: bool, backends: Sequence[str]) -> Any:
    from minigrad.testing.strategies import cases

    can = [devices.get(name).backend.capabilities for name in backends]
    kinds = [d for d in (dtypes.FLOATS if gradient else dtypes.ALL) if all(d in c.dtypes for c in can)]
    drawn = cases(op, only=kinds)
    return drawn.map(with_gradients) if gradient else drawn


class _Run(NamedTuple):
    """What one backend made of a program, beside the oracle's values and their bounds."""

    got: list[Array]
    expected: list[Bounded]
    nodes: list[Node]


def compared(key: Key, program: Program, backends: Sequence[str], number: int) -> Row:
    """Run one example on each backend that declares that it can, and compare all with the oracle and each other."""
    row, tally = Row(key, examples=1), Tally()
    shapes = tuple(given.array.shape for given in program.inputs)
    runs: dict[str, _Run] = {}
    for name in backends:
        if not can_run(name, program):
            continue
        try:
            nodes = outcomes(program, program.build(on(name)))
            runs[name] = _Run(in_one_way(program, name), bounded(nodes), nodes)
        except Exception as error:  # a backend that fails on one example is not done with the others
            row.violations.append((name, number, f"{type(error).__name__}: {error}"))
    parts = [(name, run.got, run.expected, run.nodes) for name, run in runs.items()]
    for (one, a), (other, b) in combinations(runs.items(), 2):
        both = [
            Bounded(widen(theirs, node.dtype), mine.error + yours.error)
            for theirs, mine, yours, node in zip(b.got, a.expected, b.expected, a.nodes)
        ]
        parts.append((f"{one}/{other}", a.got, both, a.nodes))
    for who, got, expected, nodes in parts:
        worst = row.worst.setdefault(who, Worst())
        for n, (array, bound, node) in enumerate(zip(got, expected, nodes)):
            try:
                found = compare(array, bound, node.dtype, f"{who}, result {n}")
                tally.add(found)
                share = found.worst
            except AssertionError as error:
                share = error.share if isinstance(error, OutOfBound) else np.inf
                row.violations.append((who, number, str(error)))
            ulps = _ulps(array, bound, node.dtype) if _in_ulps(key) and node.dtype.is_float else None
            _keep(worst, Worst(share, ulps, node.dtype.name, shapes, number))
    row.inconclusive = int(2 * tally.decided < tally.elements)
    return row


def _in_ulps(key: Key) -> bool:
    return TOLERANCES[key.op].error is Error.ULPS and not key.gradient


def _ulps(got: Array, expected: Bounded, dtype: DType) -> float:
    """The greatest error in ulps of the value, of normal numbers about which something can be said."""
    value, error = expected
    if got.shape != value.shape or value.size == 0:
        return 0.0
    info: Any = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
    wide = widen(got, dtype)
    normal = np.isfinite(error) & np.isfinite(wide) & (np.abs(value) >= float(info.tiny)) & np.isfinite(value)
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(wide - value) / ulp(value, dtype), initial=0.0, where=normal))


# All of them ---------------------------------------------------------------------------------------------------------


def differences(rows: Sequence[Key], backends: Sequence[str], examples: int, seed: int) -> Iterator[Row]:
    """The rows, one after the other, each with examples 0 to ``examples - 1`` of ``seed``.

    Args:
        rows: as :func:`keys` gives them.
        backends: names, or ``pkg.mod:Class``.
        examples: of each row.
        seed: determines them, with the row and the number.
    """
    folder = tempfile.mkdtemp(prefix="minigrad-diff-")
    process: _Process | None = None
    try:
        for key in rows:
            row = Row(key)
            at = 0
            while at < examples:
                process = process or _Process(backends, seed, folder)
                found = process.run(key, at, examples)
                if isinstance(found, int):  # it took the process with it: the others are for another process
                    why = f"the process ended ({process.ended()})"
                    row.add(Row(key, examples=1, violations=[(", ".join(process.at), found, why)]))
                    process, at = None, found + 1
                    continue
                row.add(found)
                row.unsupported, at = found.unsupported, examples
            yield row
    finally:
        if process is not None:
            process.end()
        shutil.rmtree(folder, ignore_errors=True)


class _Process:
    """Runs rows in a process of its own, with caches that go with it."""

    def __init__(self, backends: Sequence[str], seed: int, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.at: tuple[str, ...] = tuple(backends)
        self._here, there = context.Pipe()
        before = {name: os.environ.get(name) for name in (*CACHES, "PYTHONHASHSEED")}
        os.environ.update(dict.fromkeys(CACHES, folder), PYTHONHASHSEED="0")
        try:
            self._process = context.Process(target=_serve, args=(there, tuple(backends), seed), daemon=True)
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        there.close()

    def run(self, key: Key, start: int, stop: int) -> Row | int:
        """The row of some examples, or the number of the example that ended the process."""
        number = start
        try:
            self._here.send((key, start, stop))
            while True:
                told = self._here.recv()
                if isinstance(told, Row):
                    return told
                if isinstance(told, Exception):
                    raise told
                number, self.at = told
        except (EOFError, ConnectionError):
            return number

    def ended(self) -> str:
        """How it ended."""
        self._process.join()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, backends: Sequence[str], seed: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    names = [devices.canonical(name) for name in backends]
    with settings.override(verify=True, tune=False, debug=0):
        while True:
            try:
                key, start, stop = pipe.recv()
            except EOFError:
                return
            able = [n for n in names if key.op not in devices.get(n).backend.capabilities.unsupported]
            row = Row(key, unsupported=tuple(n for n in names if n not in able))
            try:
                for number in range(start, stop) if able else ():
                    pipe.send((number, tuple(able)))
                    row.add(compared(key, example(key, able, seed, number), able, number))
                pipe.send(row)
            except Exception as error:  # not of a backend: of what draws and compares
                pipe.send(error)
                return
