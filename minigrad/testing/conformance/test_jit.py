"""Level 5: captured steps. Whatever a step and its surroundings do, jit does the same, call after call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
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


# Steps that read, write, view and draw, on state that others hold too.

SHAPES: tuple[tuple[int, ...], ...] = ((3,), (3,), (2, 3), (2, 3), (), (3, 3))
COMPUTED = ("add", "mul", "max", "tanh", "sum", "mean", "view", "copy", "draw")
INSIDE = (*COMPUTED, "assign", "in place", "item", "alias", "reverse", "shift", "old and new", "grad")
OUTSIDE = ("assign", "item", "reader", "view", "read", "realize", "swap", "draw", "grad")

Action = tuple[str, int, int]  # what, and two numbers that choose tensors
numbers = st.integers(0, 20)


def actions(names: Sequence[str], most: int) -> st.SearchStrategy[list[Action]]:
    """Some actions, each with its two numbers."""
    return st.lists(st.tuples(st.sampled_from(names), numbers, numbers), max_size=most)


class Scenario(NamedTuple):
    """Two steps on shared state, the calls of them, and what happens between the calls."""

    steps: tuple[list[Action], list[Action]]
    results: tuple[list[int], list[int]]
    trained: bool
    calls: list[tuple[int, int, list[Action]]]  # step, kind of argument, actions after it


scenarios = st.builds(
    Scenario,
    st.tuples(actions(INSIDE, 8), actions(INSIDE, 5)),
    st.tuples(*[st.lists(numbers, min_size=1, max_size=3)] * 2),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), actions(OUTSIDE, 3)), min_size=3, max_size=6),
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
            return [values[i % len(values)] for i in scenario.results[which]]

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
        elif action == "reverse" and target.ndim:
            turned = target.T if target.ndim > 1 and target.shape[0] == target.shape[1] and j % 2 else target.flip(-1)
            target.assign(turned if j % 3 else turned * 0.5 + target)
        elif action == "shift" and target.ndim:  # over what it has still to read
            there, here = (target[1:], target[:-1]) if j % 2 else (target[..., :-1], target[..., 1:])
            there.assign(here if j % 3 else here + 1)
        elif action == "old and new":
            old = (target * 1, Tensor(target.detach()), target.flip(-1) * 2 if target.ndim else target + 1)[j % 3]
            target *= 0.5
            values += [old, old + target]
        elif action == "grad":
            if j % 3 == 0:
                self.w.grad = None
            (self.w * (one.detach().sum() if j % 2 else self.w)).sum().backward()

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
        elif action == "reader":
            self.held.append((target * 1, target.sum(), Tensor(target))[j % 3])
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


@given(scenarios)
def test_jit_does_what_the_function_does(device: str, scenario: Scenario) -> None:
    """Steps with effects: state, views of it, gradients, random numbers, and what happens between the calls."""
    needs(device, "assign_view", "strided_view", "threefry", "tanh", "maximum", "log", "cos", "sqrt")
    with devices.backend(device):
        expected, found = outcome(scenario, plain), outcome(scenario, jit)
    assert len(expected) == len(found)
    for a, b in zip(expected, found):
        assert a.shape == b.shape
        # The same arithmetic, cut into kernels elsewhere: what they keep in registers may round otherwise.
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
