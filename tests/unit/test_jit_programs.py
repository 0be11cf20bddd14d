"""Random steps that read, write, view and draw: whatever they do, jit does the same, call after call."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import minigrad
from minigrad import Tensor, jit, no_grad

SHAPES = ((3,), (3,), (2, 3), (2, 3), ())
COMPUTED = ("add", "mul", "max", "tanh", "sum", "mean", "view", "copy", "draw")
INSIDE = (*COMPUTED, "assign", "in place", "item", "alias", "grad")
OUTSIDE = ("assign", "item", "reader", "view", "read", "realize", "swap", "draw", "grad")

Action = tuple[str, int, int]  # what, and two numbers that choose tensors
numbers = st.integers(0, 20)


def actions(names, most):
    return st.lists(st.tuples(st.sampled_from(names), numbers, numbers), max_size=most)


class Program(NamedTuple):
    """Two steps on shared state, the calls of them, and what happens between the calls."""

    steps: tuple[list[Action], list[Action]]
    results: tuple[list[int], list[int]]
    trained: bool
    calls: list[tuple[int, int, list[Action]]]  # step, kind of argument, actions after it


programs = st.builds(
    Program,
    st.tuples(actions(INSIDE, 8), actions(INSIDE, 5)),
    st.tuples(*[st.lists(numbers, min_size=1, max_size=3)] * 2),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), actions(OUTSIDE, 3)), min_size=3, max_size=6),
)


class World:
    """The tensors that a program works on."""

    def __init__(self, wrap):
        minigrad.manual_seed(1)
        self.rng = np.random.default_rng(0)
        self.state = [Tensor(np.asarray(self.rng.standard_normal(shape), "f4")) for shape in SHAPES]
        a, b, c, *_ = self.state
        self.lazy = [a * 2, Tensor(b), c.sum(0), a[1:], Tensor.rand(3), Tensor.zeros(3)]  # older than every step
        self.w = Tensor(np.ones(3, "f4"), requires_grad=True)
        self.wrap, self.held = wrap, []

    def step(self, program, which):
        """One of the program's steps as a function of one tensor."""

        def run(x):
            values = [x, x * 0.5, self.w * 1.0, *self.state, *self.lazy]
            for action, i, j in program.steps[which]:
                self.act(action, values, i, j)
            if program.trained and self.w.grad is not None:
                with no_grad():
                    self.w.assign(self.w - 0.01 * self.w.grad)
            return [values[i % len(values)] for i in program.results[which]]

        return self.wrap(run)

    def act(self, action, values, i, j):
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
        elif action == "grad":
            if j % 3 == 0:
                self.w.grad = None
            (self.w * (one.detach().sum() if j % 2 else self.w)).sum().backward()

    def argument(self, kind, results):
        """An array, something not computed yet, a result of the call before, or a view of something."""
        x = self.rng.standard_normal(3).astype("f4")
        if kind == 1:
            return self.state[0] * 0.5 + self.state[1]
        if kind == 2:
            return next((r for r in results if r.shape == (3,)), Tensor(x))
        return (self.state[2] * 1)[1][::-1] if kind == 3 else Tensor(x)

    def between(self, action, i, j):
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


def outcome(program, wrap):
    """All that can be seen when the program has run."""
    world = World(wrap)
    steps = [world.step(program, which) for which in (0, 1)]
    seen, results = [], []
    for which, kind, after in program.calls:
        results = steps[which](world.argument(kind, results))
        if wrap is not jit:  # jit's results own their memory
            results = [Tensor(r.numpy()) for r in results]
        seen += results
        for action, i, j in after:
            world.between(action, i, j)
    seen += [*world.held, *world.state, *world.lazy, world.w]
    return [t.numpy() for t in seen] + ([] if world.w.grad is None else [world.w.grad.numpy()])


@given(programs)
def test_jit_does_what_the_function_does(program):
    expected, found = outcome(program, lambda f: f), outcome(program, jit)
    assert len(expected) == len(found)
    for a, b in zip(expected, found):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
