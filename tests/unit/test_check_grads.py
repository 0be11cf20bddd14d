"""The gradient checker is checked: it passes right derivatives and finds wrong ones, at first and second order."""

import math

import numpy as np
import pytest

from minigrad import Function, Tensor
from minigrad.errors import ArgumentError, ArgumentTypeError
from minigrad.graph import apply
from minigrad.primitive import TABLE
from minigrad.testing import check_grads, check_vjps, run
from minigrad.testing.gradients import slope
from minigrad.testing.programs import Input, on, one_step

X = np.array([[0.5, -1.25, 2.0], [0.75, 1.5, -0.6]])
Y = np.array([[1.5], [0.4]])


def node(name, *tensors, **attrs):
    return Tensor.wrap(apply(name, *[t.node for t in tensors], **attrs))


def product(a, b):
    return node("mul", a, b)


def with_derivative(forward, rule):
    """A function of one tensor with a derivative of its own."""

    class Custom(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx, g):
            return rule(g, *ctx.saved_tensors)

    return Custom.apply


def cube(x):
    return product(product(x, x), x)


def scaled(x, factor):
    return product(x, Tensor(np.array(factor)))


# What is right passes.


def test_right_derivatives_pass_to_the_third_order():
    assert check_grads(lambda x, y: product(node("exp", x), node("sin", y)), [X, Y], order=3) == 0


def test_several_outputs_and_inputs_of_other_dtypes():
    def f(x, index, y):
        return node("take", x, index), product(y, y)

    assert check_grads(f, [X, np.array([1, 0, 1]), Y]) == 0


def test_an_input_that_nothing_depends_on_has_derivative_zero():
    assert check_grads(lambda x, y: product(x, x), [X, Y]) == 0


def test_inputs_may_be_lists_scalars_tensors_and_float32():
    assert check_grads(lambda a, b, c: product(product(a, b), c), [[1.0, 2.0], 3.0, Tensor([0.5, 0.25])]) == 0


def test_a_custom_function_with_the_right_rule_passes():
    right = with_derivative(lambda x: product(x, x), lambda g, x: product(g, scaled(x, 2.0)))
    assert check_grads(right, [X]) == 0


# What is wrong does not.


@pytest.mark.parametrize("factor", [2.001, -2.0, 0.0, 1.0])
def test_a_wrong_first_derivative_is_found(factor):
    wrong = with_derivative(lambda x: product(x, x), lambda g, x: product(g, scaled(x, factor)))
    with pytest.raises(AssertionError, match="first derivative by input 0"):
        check_grads(wrong, [X], order=1)


def test_one_wrong_element_among_many_is_found():
    mask = np.ones((20, 30))
    mask[7, 11] = 1.01
    wrong = with_derivative(lambda x: scaled(x, 3.0), lambda g, x: product(scaled(g, 3.0), Tensor(mask)))
    with pytest.raises(AssertionError, match="first derivative"):
        check_grads(wrong, [np.random.default_rng(0).standard_normal((20, 30))], order=1)


def test_a_wrong_second_derivative_is_found_though_the_first_is_right():
    # The rule is right where it is called, but its own derivative is cut off.
    cut = with_derivative(lambda x: product(x, x), lambda g, x: product(g, scaled(x.detach(), 2.0)))
    assert check_grads(cut, [X], order=1) == 0
    with pytest.raises(AssertionError, match="second derivative"):
        check_grads(cut, [X], order=2)


def test_a_wrong_second_derivative_of_a_first_that_is_a_function_itself_is_found():
    slope_of_cube = with_derivative(lambda x: scaled(product(x, x), 3.0), lambda g, x: product(g, scaled(x, 6.06)))
    wrong = with_derivative(cube, lambda g, x: product(g, slope_of_cube(x)))
    assert check_grads(wrong, [X], order=1) == 0
    with pytest.raises(AssertionError, match="second derivative by input 0"):
        check_grads(wrong, [X], order=2)


def test_a_hessian_that_is_not_symmetric_is_found():
    class Twisted(Function):
        """The derivative of x*y by x forgets that it depends on y, the one by y does not."""

        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return product(x, y)

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return product(g, y.detach()), product(g, x)

    with pytest.raises(AssertionError, match="symmetric Hessian"):
        check_grads(Twisted.apply, [X, X[::-1].copy()], order=2)


@pytest.mark.parametrize("order", [1, 2])
def test_a_wrong_rule_in_the_table_is_found(device, monkeypatch, order):
    """The checker of graphs, which the tests of the primitives rest on, with a deliberately wrong row."""
    right = TABLE["tanh"]
    wrong = {
        1: lambda g, out, x: g * (1 - out * out) * 1.0001,
        2: lambda g, out, x: g * (1 - apply("detach", out * out)),
    }
    program = one_step("tanh", (Input(X),), {})

    def checked():
        built = program.build(on(device))
        check_vjps(built.results, built.values[:1], order=order)

    checked()
    monkeypatch.setitem(right.__dict__, "vjp", (wrong[order],))
    with pytest.raises(AssertionError, match="first derivative" if order == 1 else "second derivative"):
        checked()


def test_a_wrong_value_of_the_gradient_on_the_device_is_found(device):
    def wrong(nodes):
        return [a + 1e-4 for a in run(nodes)]

    built = one_step("exp", (Input(X),), {}).build(on(device))
    with pytest.raises(AssertionError, match="first derivative"):
        check_vjps(built.results, built.values[:1], order=1, compute=wrong)


# Kinks and jumps.


def test_directions_along_which_a_kink_lies_are_left_out_and_counted():
    near = np.array([0.0002, 5.0, -5.0])
    left_out = check_grads(lambda x: node("relu", x), [near], order=1)
    assert left_out > 0
    assert check_grads(lambda x: node("relu", x), [near + 0.1], order=1) == 0


@pytest.mark.parametrize("name", ["relu", "abs", "sign"])
def test_a_point_on_a_kink_or_jump_is_refused(name):
    with pytest.raises(ArgumentError, match="smooth"):
        check_grads(lambda x: node(name, x), [np.array([0.0])], order=1)


def test_slopes_are_accurate_to_ten_digits():
    found = slope(lambda t: math.exp(0.3 + t) * math.sin(2 + t), 1.0)
    assert found.smooth
    assert found.value == pytest.approx(math.exp(0.3) * (math.sin(2) + math.cos(2)), rel=1e-10)


@pytest.mark.parametrize("at", [0.0, 2e-4, -4e-4, 7e-4])
def test_kinks_and_jumps_between_the_sampled_points_are_seen(at):
    assert not slope(lambda t: abs(t - at) + 3 * t, 1.0).smooth
    assert not slope(lambda t: float(t > at) + t, 1.0).smooth


# Bad input.


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="order"):
        check_grads(lambda x: x, [X], order=0)
    with pytest.raises(ArgumentTypeError, match="floating tensors"):
        check_grads(lambda x: node("isnan", x), [X])
    with pytest.raises(ArgumentTypeError, match="floating tensors"):
        check_grads(lambda x: x.numpy(), [X])
