"""Level 5: captured steps. Whatever a step and its surroundings do, jit does the same, call after call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minigrad
from minigrad import Tensor, dtypes, jit, no_grad
from minigrad import device as devices
from minigrad.dtypes import DType
from minigrad.graph import Node
from minigrad.testing import program_strategies
from minigrad.testing.bounds import bounded, compare
from minigrad.testing.checks import Tally
from minigrad.testing.conformance.support import dtypes_of, needs, some, unsupported
from minigrad.testing.evaluate import Array
from minigrad.testing.programs import Program, on, outcomes

pytestmark = pytest.mark.level(5)
Step = Callable[..., Any]
Wrap = Callable[[Step], Step]


def plain(step: Step) -> Step:
    """The step as it is."""
    return step


# Functions of their arguments.


def shuffled(program: Program, rng: np.random.Generator) -> Program:
    """The same program on other data of the same kind."""
    inputs = []
    for given_ in program.inputs:
        array = given_.array
        if 0 not in given_.layout.steps:  # what a layout repeats must stay the same all along
            array = rng.permutation(array.ravel()).reshape(array.shape)
        inputs.append(given_._replace(array=array, made=""))
    return replace(program, inputs=tuple(inputs))


def as_function(program: Program) -> Step:
    """The program as a function of tensors that show its inputs' buffers."""

    def function(*tensors: Tensor) -> list[Tensor]:
        given_ = iter(tensors)

        def make(array: Array, dtype: DType, order: tuple[int, ...]) -> Node:
            return next(given_).node

        return [Tensor.wrap(node) for node in outcomes(program, program.build(make))]

    return function


def test_jit_replay_equals_eager_on_fresh_data(device: str) -> None:
    """A captured program gives what the oracle makes of the data of each call, not of those that it was captured on."""
    tally = Tally()

    can = dtypes_of(device)
    kinds = [d for d in (dtypes.float32, dtypes.int32) if d in can]

    @given(program_strategies.programs(most=5, kinds=kinds, without=unsupported(device), only=can))
    @some(0.6)
    def property_(program: Program) -> None:
        if not program.inputs:
            return
        captured, rng = jit(as_function(program)), np.random.default_rng(0)
        for call in range(3):
            fresh = shuffled(program, rng)
            nodes = outcomes(fresh, fresh.build(on(device)))
            expected = bounded(nodes)
            results = captured(*(Tensor(given_.buffer(), device=device) for given_ in fresh.inputs))
            for n, (got, bound, node) in enumerate(zip(results, expected, nodes, strict=True)):
                tally.add(compare(got.numpy(), bound, node.dtype, f"call {call}, result {n}"))

    property_()
    assert tally.decided > 0.8 * tally.elements > 0


# Steps that write over what they read.

STATES: tuple[tuple[int, ...], ...] = ((5,), (4, 4), (4, 4), (2, 3, 11_003), (2, 3, 11_003))  # the last in blocks
UPDATES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "scaled": lambda state, other, x: state * x + 1,
    "turned": lambda state, other, x: state.flip(*range(state.ndim)) * x,
    "rolled": lambda state, other, x: Tensor.cat(state[1:], state[:1]),
    "transposed": lambda state, other, x: state.T if state.ndim == 2 else state.flip(0),
    "exchanged": lambda state, other, x: other + x,
    "added": lambda state, other, x: state.flip(*range(state.ndim)) * 0.5 + other,
    "summed": lambda state, other, x: state.cumsum(-1),
    "multiplied": lambda state, other, x: state @ other if state.ndim == 2 else state * other,
    "pooled": lambda state, other, x: state.max_pool1d(3, 1, 1) if state.ndim > 1 else state.maximum(other),
    "averaged": lambda state, other, x: state.avg_pool1d(3, 1, 1) if state.ndim > 1 else state + other,
}
READS: dict[str, Callable[[Tensor, Tensor], list[Tensor]]] = {
    "neither": lambda old, new: [],
    "old after new": lambda old, new: [new.sum() + old * 2],
    "both": lambda old, new: [old.sum() + new, old - new, new.flip(0)],
}


class Update(NamedTuple):
    """What becomes of which state, with which other, and what is read of it."""

    state: int
    how: str
    other: int
    read: str


updates = st.lists(
    st.builds(
        Update, st.integers(0, 4), st.sampled_from(sorted(UPDATES)), st.integers(0, 4), st.sampled_from([*READS])
    ),
    min_size=1,
    max_size=4,
)


def updated(changes: list[Update], wrap: Wrap) -> list[Array]:
    """All that can be seen of three steps that make these changes, on the default device."""
    rng = np.random.default_rng(0)
    states = [Tensor(rng.uniform(-0.5, 0.5, shape).astype(np.float32)) for shape in STATES]

    def run(x: Tensor) -> list[Tensor]:
        found = []
        before = [state * 1 for state in states]
        for state, how, other, read in changes:
            target, old = states[state], before[state]
            beside = before[other] if before[other].shape == target.shape else old
            target.assign(UPDATES[how](target, beside, x))
            found += READS[read](old, target)
        return found

    step, seen = wrap(run), list[Array]()
    for call in range(3):
        seen += [value.numpy() for value in step(Tensor(np.float32(1 - call / 8)))]
    return seen + [state.numpy() for state in states]


def check_updates(device: str, changes: list[Update]) -> None:
    """A captured step changes states as the function does."""
    needs(device, "assign_view", "cat", "maximum", "matmul", "cumsum", "max_pool", "avg_pool")
    with devices.backend(device):
        expected, found = updated(changes, plain), updated(changes, jit)
    for a, b in zip(expected, found, strict=True):
        # As below; differences of what three steps have made large are as inexact as that.
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * np.abs(a).max(initial=1))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("how", UPDATES)
def test_jit_writes_over_what_it_reads(device: str, how: str, read: str) -> None:
    """State from itself: other elements of it, or what a core makes of it; read before and after."""
    check_updates(device, [Update(state, how, other, read) for state, other in ((0, 0), (1, 2), (2, 1), (3, 4))])


@some(0.5)
@given(updates)
def test_jit_writes_several_times_over_what_it_reads(device: str, changes: list[Update]) -> None:
    """The same of one state after the other, and of one again."""
    check_updates(device, changes)


# Steps that read, write, view and draw, on state that others hold too.

SHAPES: tuple[tuple[int, ...], ...] = ((3,), (3,), (2, 3), (2, 3), (), (3, 3), (2, 3, 11_003))  # the last in blocks
COMPUTED = ("add", "mul", "max", "tanh", "sum", "mean", "view", "copy", "draw")
WRITTEN = ("assign", "in place", "item", "alias", "reverse", "shift", "core", *["old and new"] * 3, *["grad"] * 2)
INSIDE = (*COMPUTED, "draw", *WRITTEN)
OUTSIDE = ("assign", "item", "readers", "view", "read", "realize", "swap", "draw", "grad", *["backward"] * 2)

Action = tuple[str, int, int]  # what, and two numbers that choose tensors
numbers = st.integers(0, 20)


def actions(names: Sequence[str], least: int, most: int) -> st.SearchStrategy[list[Action]]:
    """Some actions, each with its two numbers."""
    return st.lists(st.tuples(st.sampled_from(names), numbers, numbers), min_size=least, max_size=most)


class Scenario(NamedTuple):
    """Two steps on shared state, the calls of them, and what happens between the calls."""

    steps: tuple[list[Action], list[Action]]
    results: tuple[list[int], list[int]]
    trained: bool
    calls: list[tuple[int, int, list[Action]]]  # step, kind of argument, actions after it


scenarios = st.builds(
    Scenario,
    st.tuples(actions(INSIDE, 3, 8), actions(INSIDE, 2, 5)),
    st.tuples(*[st.lists(st.integers(0, 9), min_size=2, max_size=4)] * 2),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), actions(OUTSIDE, 0, 3)), min_size=4, max_size=7),
)


class World:
    """The tensors that a scenario works on, on the default device."""

    def __init__(self, wrap: Wrap) -> None:
        minigrad.manual_seed(1)
        self.rng = np.random.default_rng(0)
        self.state = [Tensor(np.asarray(self.rng.standard_normal(shape), np.float32)) for shape in SHAPES]
        a, b, c, *_ = self.state
        self.lazy = [a * 2, Tensor(b), c.sum(0), a[1:], Tensor.rand(3), Tensor.zeros(3)]  # older than every step
        self.w = Tensor(np.ones(3, np.float32), requires_grad=True)
        self.wrap = wrap
        self.held: list[Tensor] = []

    def step(self, scenario: Scenario, which: int) -> Step:
        """One of the scenario's steps as a function of one tensor."""

        def run(x: Tensor) -> list[Tensor]:
            values = [x, x * 0.5, self.w * 1.0, *self.state, *self.lazy]
            for action, i, j in scenario.steps[which]:
                self.act(action, values, i, j)
            if scenario.trained and self.w.grad is not None:
                with no_grad():
                    self.w.assign(self.w - 0.01 * self.w.grad)
            return [values[-1 - i % len(values)] for i in scenario.results[which]]

        return self.wrap(run)

    def act(self, action: str, values: list[Tensor], i: int, j: int) -> None:
        """Do one thing inside a step."""
        target, one = self.state[i % len(self.state)], values[i % len(values)]
        like = [v for v in values if v.shape == one.shape]
        other = like[j % len(like)]
        fitting = [v.detach() for v in values if v.shape in (target.shape, ())]
        if action in ("add", "mul", "max"):
            values.append({"add": one + other, "mul": one * other, "max": one.maximum(other)}[action])
        elif action == "tanh":
            values.append(one.tanh())
        elif action in ("sum", "mean") and one.ndim and 0 not in one.shape:
            values.append(one.sum(0) if action == "sum" else one.mean())
        elif action == "view" and one.ndim:
            values.append((one[0], one.flip(0), one[1:], one.T)[j % 4])
        elif action == "copy":
            values.append(Tensor(one.detach()))
        elif action == "draw":
            values.append(Tensor.rand(3) if j % 2 else Tensor.randn(2, 3))
        elif action == "assign":
            target.assign(fitting[j % len(fitting)])
        elif action == "in place":
            target *= 0.5
            target += fitting[j % len(fitting)] * 0.1
        elif action == "item" and target.ndim:
            target[j % target.shape[0]] = float(j)
        elif action == "alias":
            alias = target.flip(0) if target.ndim and j % 2 else target.detach()
            alias *= 0.9
        elif action in ("reverse", "shift", "core") and target.ndim:
            self.write_over(action, target, j)
        elif action == "old and new":
            old = target * 2
            if j % 2:
                self.write_over("reverse", target, j)
            else:
                target *= 0.5
            values += [old.sum() + target, target.sum() + old]  # the new one, then the old one after it
        elif action == "grad":
            if j % 3 == 0:
                self.w.grad = None
            (self.w * (one.detach().sum() if j % 2 else self.w)).sum().backward()

    def write_over(self, action: str, target: Tensor, j: int) -> None:
        """Write to elements of a tensor that the same write has still to read."""
        if action == "shift":
            there, here = (target[1:], target[:-1]) if j % 2 else (target[..., :-1], target[..., 1:])
            there.assign(here if j % 3 else here + 1)
        elif action == "core" and target.ndim > 2:
            target.assign(target.max_pool1d(3, 1, 1) if j % 2 else target.avg_pool1d(3, 1, 1))
        elif action == "core":
            target.assign((target @ self.state[5] if j % 2 else target.cumsum(0)).tanh())
        elif target.ndim:
            square = target.ndim == 2 and target.shape[0] == target.shape[1]
            turned = target.T if square and j % 3 else target.flip(*range(target.ndim))
            target.assign(turned if j % 5 else turned * 0.5 + target)

    def argument(self, kind: int, results: list[Tensor]) -> Tensor:
        """An array, something not computed yet, a result of the call before, or a view of something."""
        x = self.rng.standard_normal(3).astype(np.float32)
        if kind == 1:
            return self.state[0] * 0.5 + self.state[1]
        if kind == 2:
            return next((r for r in results if r.shape == (3,)), Tensor(x))
        if kind == 3:
            return (self.state[2] * 1)[1][::-1]
        return Tensor(x)[::-1] if kind == 4 else Tensor(x)

    def between(self, action: str, i: int, j: int) -> None:
        """Do one thing between two calls."""
        target = self.state[i % len(self.state)]
        other = next(t for t in self.state[i % len(self.state) - 1 :: -1] + self.state if t.shape == target.shape)
        if action == "assign":
            target.assign(float(j))
        elif action == "item" and target.ndim:
            target[0] = float(j)
        elif action == "readers":
            self.held += [(t * 1, t.sum(), Tensor(t))[j % 3] for t in self.state]
        elif action == "view" and target.ndim:
            self.held.append((target[0], target.flip(0), target.detach())[j % 3])
        elif action == "read":
            self.held.append(Tensor(target.numpy()))
        elif action == "realize":
            target.realize()
        elif action == "swap":
            old = other * 1
            other.assign(target)
            target.assign(old)
        elif action == "draw":
            self.held.append(Tensor.rand(2))
        elif action == "grad":
            self.held.append(self.w.grad * 1 if self.w.grad is not None else self.w * 1)
        elif action == "backward":
            self.w.grad = None
            (self.w * float(j)).sum().backward()


def outcome(scenario: Scenario, wrap: Wrap) -> list[Array]:
    """All that can be seen when the scenario has run."""
    world = World(wrap)
    steps = [world.step(scenario, which) for which in (0, 1)]
    seen: list[Tensor] = []
    results: list[Tensor] = []
    for which, kind, after in scenario.calls:
        results = steps[which](world.argument(kind, results))
        if wrap is not jit:  # jit's results own their memory
            results = [Tensor(r.numpy()) for r in results]
        seen += results
        for action, i, j in after:
            world.between(action, i, j)
    seen += [*world.held, *world.state, *world.lazy, world.w]
    return [t.numpy() for t in seen] + ([] if world.w.grad is None else [world.w.grad.numpy()])


# What happens between calls, each kind at least once: draws, gradients made anew, readers that have not read yet.
DRAWN = Scenario(([("draw", 0, 0), ("draw", 0, 1)], []), ([0, 1], [0]), False, [(0, 0, [("draw", 0, 0)])] * 3)
GRADED = Scenario(([("grad", 0, 1)], [("grad", 0, 3)]), ([0], [0]), True, [(0, 0, [("backward", 0, 2)])] * 4)
READ = Scenario(([("in place", n, 0) for n in range(7)], []), ([0], [0]), False, [(0, 0, [("readers", 0, 0)])] * 3)


@some(2)
@example(DRAWN)
@example(GRADED)
@example(READ)
@given(scenarios)
def test_jit_does_what_the_function_does(device: str, scenario: Scenario) -> None:
    """Steps with effects: state, views of it, gradients, random numbers, and what happens between the calls."""
    needs(device, "assign_view", "strided_view", "threefry", "tanh", "maximum", "log", "cos", "sqrt")
    needs(device, "matmul", "cumsum", "max_pool", "avg_pool")
    with devices.backend(device):
        expected, found = outcome(scenario, plain), outcome(scenario, jit)
    assert len(expected) == len(found)
    for a, b in zip(expected, found):
        assert a.shape == b.shape
        # The same arithmetic, cut into kernels elsewhere: what they keep in registers may round otherwise.
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
