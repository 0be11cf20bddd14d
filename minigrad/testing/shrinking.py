"""Make a failing program smaller step by step: what Hypothesis leaves because it was drawn for something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from minigrad.graph import Node
from minigrad.testing.evaluate import evaluate
from minigrad.testing.programs import Input, Program, Step, on


class Enough(KeyboardInterrupt):
    """Leaves Hypothesis when it has shrunk for long enough: it catches every Exception, and lets Ctrl-C through."""


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """The smallest program found by leaving out results, steps and inputs, or giving a step's value as an input.

    Args:
        program: one that fails.
        fails: whether another one does.
    """
    going = True
    while going:
        going = False
        for candidate in candidates(program):
            if fails(candidate):
                program, going = candidate, True
                break
    return program


def candidates(program: Program) -> Iterator[Program]:
    """Programs a little smaller than ``program``, the smallest first."""
    if len(program.results) > 1:
        yield from (pruned(replace(program, results=(result,))) for result in program.results)
        for left_out in program.results:
            yield pruned(replace(program, results=tuple(r for r in program.results if r != left_out)))
    if program.gradients:
        yield replace(program, gradients=False)
    if program.realized:
        yield replace(program, realized=frozenset())
    count = len(program.inputs)
    nodes = program.build(on("numpy")).values
    for value in reversed(range(count, count + len(program.steps))):  # the last first: most goes with it
        if nodes[value].op.outputs == 1 and program.steps[value - count].sources:
            yield from _cut(program, value, nodes)
            yield from _bypassed(program, value, nodes)
    for n, given in enumerate(program.inputs):
        if any(given.layout) or given.made:
            yield _with_input(program, n, Input(given.array))


def _cut(program: Program, value: int, nodes: list[Node]) -> Iterator[Program]:
    """``value`` as an input with what the oracle makes of it."""
    if value in program.results:
        return
    (array,) = evaluate([nodes[value]])
    number = len(program.inputs)
    given = Input(np.array(array, order="C").astype(nodes[value].dtype.numpy))
    yield pruned(_rewired(replace(program, inputs=(*program.inputs, given)), number, value))


def _bypassed(program: Program, value: int, nodes: list[Node]) -> Iterator[Program]:
    """A source of a step in place of the step, where it is alike."""
    for source in program.steps[value - len(program.inputs)].sources:
        alike = (nodes[source].shape, nodes[source].dtype) == (nodes[value].shape, nodes[value].dtype)
        if alike and nodes[source].op.outputs == 1:
            steps = [s._replace(sources=tuple(source if v == value else v for v in s.sources)) for s in program.steps]
            results = tuple(dict.fromkeys(source if r == value else r for r in program.results))
            if all(r >= len(program.inputs) for r in results):
                yield pruned(replace(program, steps=tuple(steps), results=results))


def _rewired(program: Program, number: int, value: int) -> Program:
    """A program with a new input at ``number``: what followed moves up by one, and ``value`` is that input."""

    def moved(v: int) -> int:
        return number if v == value else v + (v >= number)

    steps = tuple(s._replace(sources=tuple(map(moved, s.sources))) for s in program.steps)
    realized = frozenset(v + (v >= number) for v in program.realized)
    return replace(program, steps=steps, results=tuple(map(moved, program.results)), realized=realized)


def _with_input(program: Program, n: int, given: Input) -> Program:
    return replace(program, inputs=(*program.inputs[:n], given, *program.inputs[n + 1 :]))


def pruned(program: Program) -> Program:
    """The program without inputs and steps that no result needs."""
    count = len(program.inputs)
    needed: set[int] = set()
    waiting = list(program.results)
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            waiting.extend(program.steps[value - count].sources if value >= count else ())
    kept = sorted(needed)
    number = {value: n for n, value in enumerate(kept)}
    steps: list[Step] = [program.steps[v - count] for v in kept if v >= count]
    return replace(
        program,
        inputs=tuple(program.inputs[v] for v in kept if v < count),
        steps=tuple(s._replace(sources=tuple(number[u] for u in s.sources)) for s in steps),
        results=tuple(number[r] for r in program.results),
        realized=frozenset(number[v] for v in program.realized if v in number),
    )
