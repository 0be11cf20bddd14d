"""Check derivatives against central differences of the function's values, which use none of the rules under test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad import device as devices
from minigrad.autograd import gradient
from minigrad.dtypes import float64
from minigrad.errors import ArgumentError, ArgumentTypeError
from minigrad.graph import Node, apply, constant, full_like
from minigrad.tensor import Tensor
from minigrad.testing.evaluate import Array, evaluate, run
from minigrad.testing.programs import on

STEP = 1e-3  # of the differences: with one extrapolation the error is of the order STEP**4
KINK = 1e-3  # a relative disagreement of two step sizes beyond which the function is taken to bend here
_DIRECTIONS = 3  # each shows an error anywhere with probability 1; more than one guards against chance cancellation


class Slope(NamedTuple):
    """A directional derivative, and whether the function is smooth along that direction as far as it was sampled."""

    value: float
    smooth: bool


def slope(f: Callable[[float], float], magnitude: float) -> Slope:
    """The derivative of ``f`` at 0, from five points.

    Two central differences with steps h and h/2 are extrapolated to h = 0 (Richardson). They agree to order h**2
    where ``f`` is smooth, as do the second differences; a kink or a jump between the points shows in either.

    Args:
        f: a function of one variable.
        magnitude: the size of what ``f`` adds up, which bounds its rounding error.
    """
    h = STEP
    left, near_left, here, near_right, right = (f(t) for t in (-h, -h / 2, 0.0, h / 2, h))
    wide, narrow = (right - left) / (2 * h), (near_right - near_left) / h
    bend = abs((right - 2 * here + left) - 4 * (near_right - 2 * here + near_left)) / h
    allowed = KINK * max(abs(wide), abs(narrow)) + 1e-9 * magnitude
    return Slope((4 * narrow - wide) / 3, max(abs(wide - narrow), bend) <= allowed)


def _compare(
    value: Callable[[Sequence[Array]], float],
    arrays: Sequence[Array],
    grads: Sequence[Array],
    magnitude: float,
    rtol: float,
    rng: np.random.Generator,
    order: str,
    directions: int,
) -> int:
    """Compare gradients with slopes of ``value`` along random directions by input; returns how many met a kink."""
    kinks = 0
    for n, (array, grad) in enumerate(zip(arrays, grads)):
        found = 0
        for _ in range(3 * _DIRECTIONS if array.size else 0):  # some are left for kinks
            direction = rng.standard_normal(array.shape)
            direction /= math.sqrt(float((direction * direction).sum()))

            def along(t: float, n: int = n, direction: Array = direction) -> float:
                return value([*arrays[:n], arrays[n] + t * direction, *arrays[n + 1 :]])

            expected, smooth = slope(along, magnitude)
            if not smooth:
                kinks += 1
                continue
            found += 1
            terms = grad * direction
            got = float(terms.sum())
            allowed = rtol * max(float(np.abs(terms).sum()), abs(expected)) + 1e-10 * magnitude
            if not abs(got - expected) <= allowed:
                raise AssertionError(
                    f"{order} derivative by input {n}: expected {expected:.12g} along a random direction "
                    f"(central differences), got {got:.12g}"
                )
            if found == directions:
                break
        if array.size and not found:
            hint = "move them away from ties, kinks and jumps"
            raise ArgumentError.of("check_grads", "inputs where the function is smooth", f"a kink at input {n}", hint)
    return kinks


_ORDINALS = ("first", "second", "third", "fourth")


def _gradients(total: Node, targets: Sequence[Node]) -> list[Node]:
    found = gradient(total, targets, constant(1, float64, total.device))
    return [full_like(t, 0) if g is None else g for t, g in zip(targets, found)]


def _weighted(outputs: Sequence[Node], weights: Sequence[Node]) -> Node:
    """The sum of all outputs, each element times its weight."""
    total = None
    for out, weight in zip(outputs, weights):
        term = apply("mul", out, weight)
        term = term.sum(tuple(range(term.ndim))).reshape(())
        total = term if total is None else total + term
    assert total is not None
    return total


def _size(weights: Sequence[Array], outputs: Sequence[Array]) -> float:
    return float(sum(np.abs(w * out).sum() for w, out in zip(weights, outputs)))


Compute = Callable[[Sequence[Node]], "list[Array]"]


def check_vjps(
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    order: int = 2,
    *,
    rtol: float = 1e-6,
    seed: int = 0,
    compute: Compute = run,
) -> int:
    """As :func:`check_grads`, for a float64 graph whose values are the oracle's; only gradients come from the device.

    Args:
        outputs: nodes, not realized yet.
        inputs: nodes they depend on.
        order: as for :func:`check_grads`, like the next two, the result and the errors.
        rtol: as said.
        seed: as said.
        compute: gives the gradients; with :func:`~minigrad.testing.evaluate` they are the oracle's too.
    """
    return _check_graph(outputs, inputs, order, rtol, np.random.default_rng(seed), compute, 0)


def _check_graph(
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    order: int,
    rtol: float,
    rng: np.random.Generator,
    compute: Compute,
    done: int,
) -> int:
    make = on(inputs[0].device)
    weights = [rng.standard_normal(out.shape) for out in outputs]
    seeds = [make(w, float64, ()) for w in weights]
    total = _weighted(outputs, seeds)
    grads = _gradients(total, inputs)
    kinks = 0
    if order > 1:  # first, as running a graph drops it
        kinks += _check_graph(grads, [*inputs, *seeds], order - 1, rtol, rng, compute, done + 1)
    arrays, magnitude = evaluate(inputs), _size(weights, evaluate(outputs))

    def value(given: Sequence[Array]) -> float:
        return float(evaluate([total], dict(zip(inputs, given)))[0])

    return kinks + _compare(value, arrays, compute(grads), magnitude, rtol, rng, _ORDINALS[done], 1)


Inputs = Sequence[Array | Tensor | float | Sequence[Any]]


def check_grads(
    f: Callable[..., Any],
    inputs: Inputs,
    order: int = 2,
    *,
    rtol: float = 1e-6,
    seed: int = 0,
    device: str | None = None,
) -> int:
    """Check the derivatives of ``f`` up to ``order`` against finite differences, in float64.

    The outputs are weighted at random and summed. The gradient of that sum by each input is compared, along random
    directions, with central differences of ``f`` itself (one Richardson step); for each further order the gradient
    takes the place of ``f``, with the weights as inputs too. From order 2 on the Hessian must be symmetric as well.

    Args:
        f: takes as many tensors as there are inputs; returns a tensor or several.
        inputs: arrays; floating ones become float64 and are differentiated, others are passed on as they are.
        order: highest derivative to check, from 1 to 4.
        rtol: allowed error relative to the size of the slope's terms.
        seed: of the weights and directions.
        device: where to compute; the default device unless given.

    Returns:
        The number of directions left out because ``f`` has a kink or jump along them.

    Raises:
        AssertionError: if a derivative is wrong; names the order and the input.
        ArgumentError: if ``f`` is not smooth at an input along any direction, or ``order`` makes no sense.
        ArgumentTypeError: if ``f`` does not return tensors, one of them floating.

    >>> check_grads(lambda x: x * x * x, [[0.5, -2.0]])
    0
    """
    if order not in range(1, len(_ORDINALS) + 1):
        raise ArgumentError.of("check_grads", f"an order from 1 to {len(_ORDINALS)}", order)
    arrays = []
    for given in inputs:
        array = given.numpy() if isinstance(given, Tensor) else np.asarray(given)
        arrays.append(array if array.dtype.kind in "biu" else array.astype(np.float64))
    check = _Check(rtol, np.random.default_rng(seed), devices.canonical(device))
    return check.function(f, arrays, order, 0)


class _Check:
    """One call of :func:`check_grads`."""

    def __init__(self, rtol: float, rng: np.random.Generator, device: str) -> None:
        self.rtol, self.rng, self.device = rtol, rng, device

    def tensors(self, arrays: Sequence[Array]) -> list[Tensor]:
        return [Tensor(a, device=self.device) for a in arrays]

    def function(self, f: Callable[..., Any], arrays: list[Array], order: int, done: int) -> int:
        """Check ``f`` at ``arrays``; ``done`` derivatives have been taken to get to ``f``."""
        numbers = [n for n, a in enumerate(arrays) if a.dtype.kind == "f"]
        values = [out.numpy() for out in _outputs(f(*self.tensors(arrays)))]
        weights = [self.rng.standard_normal(v.shape) for v in values]

        def derivative(*args: Tensor) -> list[Tensor]:
            """The gradient of the weighted sum by the float inputs; ``args`` are the inputs and the weights."""
            outputs = _outputs(f(*args[: len(arrays)]))
            total = _weighted([out.node for out in outputs], [w.node for w in args[len(arrays) :]])
            return [Tensor.wrap(g) for g in _gradients(total, [args[n].node for n in numbers])]

        def value(given: Sequence[Array]) -> float:
            whole = list(arrays)
            for n, array in zip(numbers, given):
                whole[n] = array
            outputs = _outputs(f(*self.tensors(whole)))
            return float(sum((w * out.numpy()).sum() for w, out in zip(weights, outputs)))

        together = [*arrays, *weights]
        grads = [g.numpy() for g in derivative(*self.tensors(together))]
        floats = [arrays[n] for n in numbers]
        size = _size(weights, values)
        kinks = _compare(value, floats, grads, size, self.rtol, self.rng, _ORDINALS[done], _DIRECTIONS)
        if order > 1:
            self.symmetry(derivative, together, numbers)
            kinks += self.function(derivative, together, order - 1, done + 1)
        return kinks

    def symmetry(self, derivative: Callable[..., list[Tensor]], arrays: list[Array], numbers: list[int]) -> None:
        """Check u.H.v = v.H.u for the matrix H of second derivatives, which needs no differences."""
        args = self.tensors(arrays)
        grads, targets = derivative(*args), [args[n].node for n in numbers]
        u, v = ([self.rng.standard_normal(t.shape) for t in targets] for _ in range(2))
        products = []
        for side in (v, u):
            total = _weighted([g.node for g in grads], [t.node for t in self.tensors(side)])
            products.append([Tensor.wrap(h) for h in _gradients(total, targets)])
        terms = [[a * h.numpy() for a, h in zip(side, product)] for side, product in zip((u, v), products)]
        u_h_v, v_h_u = (float(sum(t.sum() for t in side)) for side in terms)
        size = float(sum(np.abs(t).sum() for side in terms for t in side))
        if not abs(u_h_v - v_h_u) <= 1e-10 * size:
            got = f"u.H.v = {u_h_v} and v.H.u = {v_h_u}"
            raise AssertionError(f"second derivatives: expected a symmetric Hessian, got {got}")


def _outputs(result: Any) -> list[Tensor]:
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    floats = [out for out in outputs if isinstance(out, Tensor) and out.dtype.is_float]
    if not floats or not all(isinstance(out, Tensor) for out in outputs):
        raise ArgumentTypeError.of("check_grads", "a function that returns floating tensors", repr(result))
    return floats
