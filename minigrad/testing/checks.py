"""Run a program on a device and compare what comes out with the oracle, in every way in which the engine can run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minigrad.config import settings
from minigrad.graph import Node
from minigrad.realize import realize
from minigrad.testing.bounds import SIGNED_ZERO, Bounded, Comparison, bounded, compare
from minigrad.testing.evaluate import Array, read, run, widen
from minigrad.testing.programs import Built, Program, on, outcomes


class Way(NamedTuple):
    """One way of running a program.

    Attributes:
        settings: of the engine.
        realize: called with the values that are computed as soon as they are made.
        every: whether that is each value of the program.
    """

    settings: Mapping[str, Any] = {}
    realize: Callable[[list[Node]], object] | None = None
    every: bool = False


WAYS = {
    "lazy": Way(),
    "unfused": Way({"fuse": False}),
    "row-major": Way({"layouts": False}),
    "realized here and there": Way({}, realize),
    "eager": Way({"fuse": False, "layouts": False}, realize, True),
}


@dataclass
class Tally:
    """How much of what was compared could be decided: a bound that says nothing is never a pass.

    Attributes:
        worst: the greatest error as a share of its bound.
        decided: elements compared with a bound that says something.
        elements: all of them.
    """

    worst: float = 0.0
    decided: int = 0
    elements: int = 0

    def add(self, found: Comparison | Tally) -> None:
        """Count another comparison."""
        self.worst = max(self.worst, found.worst)
        self.decided += found.decided
        self.elements += found.elements

    @property
    def is_conclusive(self) -> bool:
        """Whether at least something was decided, or there was nothing to decide."""
        return self.decided > 0 or self.elements == 0


def check_untouched(program: Program, built: Built, what: str = "") -> None:
    """Assert that the inputs are as they were given, and the elements around them too."""
    for given, node in zip(program.inputs, built.buffers):
        same = read(node).tobytes() == given.buffer().tobytes()
        assert same, f"{what}: an input, or memory around it, was written"


def in_one_way(program: Program, device: str, way: Way = WAYS["lazy"]) -> list[Array]:
    """The program's results, and gradients, as a device computes them from fresh nodes."""
    with settings.override(**way.settings):
        built = program.build(on(device), way.realize, way.every)
        found = run(outcomes(program, built))
    check_untouched(program, built)
    return found


def check_program(program: Program, device: str, ways: Iterable[str] = ("lazy",), what: str = "") -> Tally:
    """Compare a program's results, and gradients, on a device with the oracle, in each of ``ways``.

    Each later way is also compared with the first: within both bounds, and equal where the oracle's value is exact.

    Raises:
        AssertionError: naming the way, the result, the worst element, and its error as a share of the bound.
    """
    plain = program.build(on(device))
    wanted = outcomes(program, plain)
    expected = bounded(wanted)
    tally = Tally()
    first: list[Array] | None = None
    for way in ways:
        got = in_one_way(program, device, WAYS[way])
        for n, (value, bound, node) in enumerate(zip(got, expected, wanted)):
            name = f"{what or device}, {way}, result {n}"
            signed = len(program.steps) == 1 and n < len(program.results) and program.steps[0].op in SIGNED_ZERO
            tally.add(compare(value, bound, node.dtype, name, signed))
            if first is not None:
                other = Bounded(widen(first[n], node.dtype), 2 * bound.error)
                compare(value, other, node.dtype, f"{name} against the first way")
        first = first or got
    return tally


def check_pair(program: Program, one: str, other: str) -> Tally:
    """Compare two devices with each other on one program: what each may err, they may differ by together."""
    found = []
    for device in (one, other):
        wanted = outcomes(program, program.build(on(device)))
        found.append((in_one_way(program, device), bounded(wanted), wanted))
    tally = Tally()
    (here, mine, nodes), (there, theirs, _) = found
    for n, (a, b, node) in enumerate(zip(here, there, nodes)):
        error = mine[n].error + theirs[n].error
        expected = Bounded(widen(b, node.dtype), error)
        tally.add(compare(a, expected, node.dtype, f"{one} against {other}, result {n}"))
    return tally


def with_gradients(program: Program) -> Program:
    """The same program, asked for the gradients of its results too."""
    return replace(program, gradients=True)
