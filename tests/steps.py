"""Scenarios that run without and with jit and must give the same."""

import numpy as np

import minigrad
from minigrad import Tensor, jit, nn


def arrays(*shape, count=5, seed=0):
    return list(np.random.default_rng(seed).standard_normal((count, *shape)).astype("float32"))


def classes(n, count=5):
    return list(np.random.default_rng(1).integers(0, 3, (count, n)))


def values(result):
    """The arrays in a nested result, in order."""
    if isinstance(result, Tensor):
        return [result.numpy()]
    if isinstance(result, dict):
        result = result.values()
    return [] if result is None else [a for v in result for a in values(v)]


def tensors(value):
    """Nested arguments with arrays as tensors, as jit gives them to the function."""
    if isinstance(value, np.ndarray):
        return Tensor(value)
    if isinstance(value, dict):
        return {k: tensors(v) for k, v in value.items()}
    return type(value)(map(tensors, value)) if isinstance(value, (list, tuple)) else value


def plain(f):
    return lambda *args, **options: f(*tensors(args), **tensors(options))


def same_with_jit(scenario, rtol=1e-5, captures=None):
    """Run ``scenario(wrap)``, which returns what there is to compare, without and with jit."""
    found = []
    for wrap in (plain, jit):
        minigrad.manual_seed(0)
        runs = []

        def counted(f, wrap=wrap, runs=runs):
            def inner(*args, **options):
                runs.append(1)
                return f(*args, **options)

            return wrap(inner)

        found.append(values(scenario(counted)))
    eager, captured = found
    assert len(eager) == len(captured) and eager
    for a, b in zip(eager, captured):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)
    if captures is not None:
        assert len(runs) == captures


def net(*extra):
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), *extra, nn.Linear(5, 3))


def training(wrap, model, optimizer, loss=lambda out, y: out.cross_entropy(y)):
    def step(x, y):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value

    return wrap(step)
