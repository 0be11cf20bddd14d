"""A captured step computes what the function computes, call for call, on fresh data."""

import numpy as np
import pytest
from steps import arrays, same_with_jit

import minigrad
from minigrad import Tensor, jit, nn, no_grad
from minigrad.nn import optim


def test_random_numbers_are_bitwise_the_same_between_calls_and_draws_outside():
    def scenario(wrap):
        @wrap
        def draw(x):
            return Tensor.rand(3) + 0 * x, Tensor.randn(2), Tensor.randint(0, 100, (4,)), Tensor.rand_like(x)

        out = []
        for i, x in enumerate(arrays(3)):
            out += [draw(Tensor(x)), Tensor.rand(i + 1)]
            if i == 2:
                minigrad.manual_seed(7)
        return out, Tensor(np.array(minigrad.random.get_rng_state(), np.uint64))

    same_with_jit(scenario, rtol=0, captures=1)


class Straight(minigrad.Function):
    """Rounding with the gradient of something smooth."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


def test_functions():
    def scenario(wrap):
        w = Tensor([1.0, 2.0, 3.0], requires_grad=True)
        optimizer = optim.SGD([w], 0.1)

        @wrap
        def step(x):
            optimizer.zero_grad()
            loss = (Straight.apply(w * x) * x).realize().sum()  # realize does nothing while capturing
            loss.backward()
            optimizer.step()
            return loss

        return [step(x) for x in arrays(3)], w, w.grad

    same_with_jit(scenario, captures=1)


def test_python_arguments_and_containers():
    def scenario(wrap):
        @wrap
        def f(pair, *, options, scale=1.0, flag=False, name="sum"):
            a, b = pair
            c = getattr(a * options["w"] + b, name)(0) * scale
            return {"c": c, "parts": (c - 1, [c * 2, None] if flag else None)}

        w, a, b = (Tensor(x) for x in arrays(2, 3, count=3))
        out = []
        for scale in (1.0, 2, -0.0, 0.0, 1.0):
            for flag in (False, True, 1):
                r = f((a, b), options={"w": w}, scale=scale, flag=flag)
                out += [r, 1 / (r["c"] * 0 + scale)]
        return out, f((b, a), options={"w": a}), f((b, a), options={"w": a}, name="mean")

    same_with_jit(scenario, captures=4 * 3 + 2)  # 0.0 and -0.0, True and 1 are told apart


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int16", "bool", "float16", "float32", "float64"])
def test_arrays_as_arguments(dtype):
    def scenario(wrap):
        f = wrap(lambda x, y: (x.cast("float32") * 2).sum(0) + y.T[0])
        out = []
        for i in range(4):
            x = (np.arange(12) * (i + 1)).reshape(4, 3).astype(dtype)
            out.append(f(x[::-1], np.asfortranarray(arrays(3, 4)[i])))
            x[:] = 0  # it was copied
        return out

    same_with_jit(scenario, captures=1)


def test_arguments_may_alias_and_be_views():
    def scenario(wrap):
        f = wrap(lambda a, b: (a * 2, a + b.T, b.flip(0) * 1))
        x = Tensor(arrays(3, 3)[0])
        out = [f(x, x), f(x[::-1], x), f(x.T, x.flip(0)), f(x.T.T, Tensor(arrays(6, 6)[1])[::2, 1:4])]
        x += 1
        return out, f(x, x.T), f(*[Tensor.ones(3, 3)] * 2)

    same_with_jit(scenario, captures=1)


def test_a_result_is_the_next_argument():
    def scenario(wrap):
        f = wrap(lambda h, x: (h * 0.5 + x).tanh())
        h, states = Tensor.zeros(3), []
        for x in arrays(3):
            h = f(h, Tensor(x))
            states.append(h)
        return states

    same_with_jit(scenario, captures=1)


def test_argument_that_is_not_computed_yet():
    def scenario(wrap):
        f = wrap(lambda x: x + 1)
        out = []
        for x in arrays(3):
            lazy = Tensor(x).exp() * 3
            out.append(f(lazy.sum() * Tensor.ones(2)))
        return out

    same_with_jit(scenario, captures=1)


def test_gradients_as_results():
    def scenario(wrap):
        w = Tensor(arrays(4)[0], requires_grad=True)
        f = wrap(lambda x: ((x * w).exp().sum()).gradient(x, w))
        g = wrap(minigrad.grad(minigrad.grad(lambda x: (x * x * x).sum())))
        return [f(Tensor(x)) for x in arrays(4)], [g(Tensor(x[0])) for x in arrays(4)]

    same_with_jit(scenario)


def test_no_grad_inside_and_around():
    def scenario(wrap):
        w = Tensor(arrays(4)[0], requires_grad=True)

        @wrap
        def f(x):
            with no_grad():
                a = x * w
            b = x * w
            return a.sum() + b.sum(), Tensor(float(b.requires_grad)), Tensor(float(a.requires_grad))

        out = []
        for x in arrays(4):
            out.append(f(x))
            with no_grad():
                out.append(f(x))
        return out

    same_with_jit(scenario, captures=2)


def test_empty_and_zero_dimensional_arguments():
    def scenario(wrap):
        f = wrap(lambda a, b: (a.sum() + b, a * 2, b * b))
        return [f(np.zeros((0, 3), "f4"), np.full((), i, "f4")) for i in range(3)]

    same_with_jit(scenario, captures=1)


def test_nothing_to_do():
    called = []
    step = jit(lambda x: called.append(1))
    assert step(Tensor([1.0])) is None and step(Tensor([2.0])) is None
    assert called == [1]
    assert jit(lambda: Tensor(3.0))().item() == 3.0


def test_nested():
    def scenario(wrap):
        inner = wrap(lambda x: x * 2 + 1)
        outer = wrap(lambda x: inner(x) + inner(x * 3).sum())
        return [(outer(x), inner(x)) for x in arrays(3)], outer(np.ones(2, "f4"))

    same_with_jit(scenario)


def test_methods():
    class Model(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        @jit
        def forward(self, x):
            """Scaled."""
            return x * self.scale

    a, b = Model(2.0), Model(3.0)
    assert [m(Tensor([i])).item() for i in (1.0, 2.0) for m in (a, b)] == [2, 3, 4, 6]
    assert Model.forward.__name__ == "forward" and Model.forward.__doc__ == "Scaled."


def test_eager_runs_everything_at_once():
    with minigrad.config.settings.override(eager=True, fuse=False):
        calls = []
        f = jit(lambda x: calls.append(x.numpy()) or x * 2)
        assert [f(Tensor([i])).item() for i in (1.0, 2.0)] == [2, 4]
        assert len(calls) == 2
