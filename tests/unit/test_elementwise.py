"""Operators and elementwise functions: NumPy's and PyTorch's values, gradients, dtypes and errors."""

import itertools
import math
import operator

import ml_dtypes
import numpy as np
import pytest

from minigrad import Tensor, dtypes
from minigrad.errors import ArgumentError, ArgumentTypeError, DTypeError, GradientError, ShapeError
from minigrad.graph import set_grad_enabled

INF, NAN = float("inf"), float("nan")
SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1e-30, -1e-30, 100.0, -100.0, 1.0, -1.0]

erf = np.vectorize(math.erf, otypes=["f8"])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(x, 0)


# name: (meaning in NumPy, lowest and highest argument)
FUNCTIONS = {
    "abs": (np.abs, -3, 3), "sign": (np.sign, -3, 3), "square": (np.square, -3, 3), "neg": (np.negative, -3, 3),
    "reciprocal": (np.reciprocal, 0.5, 3), "sqrt": (np.sqrt, 0.1, 5), "rsqrt": (lambda x: x**-0.5, 0.1, 5),
    "floor": (np.floor, -3, 3), "ceil": (np.ceil, -3, 3), "trunc": (np.trunc, -3, 3), "round": (np.rint, -3, 3),
    "exp": (np.exp, -3, 3), "exp2": (np.exp2, -3, 3), "expm1": (np.expm1, -3, 3), "log": (np.log, 0.1, 5),
    "log2": (np.log2, 0.1, 5), "log10": (np.log10, 0.1, 5), "log1p": (np.log1p, -0.8, 5),
    "sin": (np.sin, -3, 3), "cos": (np.cos, -3, 3), "tan": (np.tan, -1.4, 1.4), "tanh": (np.tanh, -3, 3),
    "erf": (erf, -3, 3), "relu": (lambda x: np.maximum(x, 0), -3, 3), "relu6": (lambda x: np.clip(x, 0, 6), -3, 9),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), -3, 3), "sigmoid": (sigmoid, -5, 5),
    "logsigmoid": (lambda x: -softplus(-x), -50, 50), "silu": (lambda x: x * sigmoid(x), -5, 5),
    "gelu": (lambda x: x * (1 + erf(x / 2**0.5)) / 2, -3, 3), "elu": (lambda x: np.where(x > 0, x, np.expm1(x)), -3, 3),
    "selu": (lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)), -3, 3),
    "softplus": (softplus, -30, 30), "softsign": (lambda x: x / (1 + np.abs(x)), -3, 3),
    "mish": (lambda x: x * np.tanh(softplus(x)), -5, 5), "hardtanh": (lambda x: np.clip(x, -1, 1), -3, 3),
    "hardsigmoid": (lambda x: np.clip(x + 3, 0, 6) / 6, -5, 5),
    "hardswish": (lambda x: x * np.clip(x + 3, 0, 6) / 6, -5, 5),
}  # fmt: skip
ROUNDING = ("floor", "ceil", "trunc", "round")
KEEP_INTEGERS = (*ROUNDING, "abs", "sign", "square", "neg", "relu")


def arguments(name):
    """Numbers between the bounds, away from kinks at multiples of one half."""
    _, low, high = FUNCTIONS[name]
    return np.linspace(low, high, 50) + 0.013 * (high - low) / 8


def t(value, dtype=None, **options):
    return Tensor(value, dtype=dtype, **options)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_follow_numpy(name):
    x = arguments(name)
    expected = FUNCTIONS[name][0](x)
    double = getattr(t(x), name)()
    assert double.dtype is dtypes.float64
    np.testing.assert_allclose(double.numpy(), expected, rtol=1e-9, atol=1e-9)
    single = getattr(t(x.astype("f4")), name)()
    assert single.dtype is dtypes.float32
    np.testing.assert_allclose(single.numpy(), FUNCTIONS[name][0](x.astype("f4").astype("f8")), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_half_types_round_once(name, dtype):
    x = arguments(name).astype(dtype.numpy)
    result = getattr(t(x), name)()
    assert result.dtype is dtype
    expected = FUNCTIONS[name][0](x.astype("f8"))
    rounded = expected.astype(dtype.numpy).astype("f8")
    limits = ml_dtypes.finfo(dtype.numpy)
    ulp = np.maximum(np.abs(expected), float(limits.smallest_normal)) * float(limits.eps)
    assert np.all(np.abs(result.numpy().astype("f8") - rounded) <= ulp)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_follow_differences(name):
    x, h = arguments(name), 1e-5
    function = FUNCTIONS[name][0]
    point = t(x, requires_grad=True)
    getattr(point, name)().sum().backward()
    expected = (function(x + h) - function(x - h)) / (2 * h)
    np.testing.assert_allclose(point.grad.numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in ROUNDING])
def test_second_gradients_follow_differences(name):
    x, h = arguments(name), 1e-4

    def slope(values):
        point = t(values, requires_grad=True)
        return getattr(point, name)().sum().gradient(point)[0]

    point = t(x, requires_grad=True)
    first = getattr(point, name)().sum().gradient(point)[0]
    try:
        second = first.sum().gradient(point)[0].numpy()
    except GradientError:  # piecewise linear
        second = np.zeros_like(x)
    expected = (slope(x + h).numpy() - slope(x - h).numpy()) / (2 * h)
    np.testing.assert_allclose(second, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_integers(name):
    x = np.array([1, 2, 3], "i4")
    result = getattr(t(x), name)()
    assert result.dtype is (dtypes.int32 if name in KEEP_INTEGERS else dtypes.float32)
    np.testing.assert_allclose(result.numpy(), FUNCTIONS[name][0](x.astype("f8")), rtol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_shapes_without_axes_or_elements(name, shape):
    result = getattr(Tensor.ones(shape), name)()
    assert result.shape == shape and result.numpy().shape == shape


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_and_their_gradients_follow_pytorch(name):
    torch = pytest.importorskip("torch")
    special = np.array(SPECIAL, "f4")
    if name == "sign":
        special = special[1:]  # of NaN it is NaN here, as in NumPy
    if name == "gelu":
        special = special[np.isfinite(special)]  # PyTorch gives NaN
    x, y = t(special, requires_grad=True), torch.tensor(special, requires_grad=True)
    ours = getattr(x, name)()
    theirs = (getattr(y, name, None) or (lambda: getattr(torch.nn.functional, name)(y)))()
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=2e-6, atol=1e-30)
    ours.sum().backward()
    theirs.sum().backward()
    defined = ~np.isnan(special) if name in ("relu", "leaky_relu", "softplus") else np.isfinite(special)
    if name in ("reciprocal", "rsqrt", "log", "log2", "log10", "sqrt"):
        defined &= np.abs(special) >= 1  # elsewhere inf and NaN meet in an order of their own
    np.testing.assert_allclose(x.grad.numpy()[defined], y.grad.numpy()[defined], rtol=1e-5, atol=1e-20)


@pytest.mark.parametrize(
    "name, options",
    [
        ("gelu", dict(approximate="tanh")), ("elu", dict(alpha=0.5)), ("softplus", dict(beta=2.0, threshold=3.0)),
        ("leaky_relu", dict(negative_slope=0.3)), ("hardtanh", dict(min_val=-0.5, max_val=2.0)),
    ],
)  # fmt: skip
def test_settings_follow_pytorch(name, options):
    torch = pytest.importorskip("torch")
    values = np.linspace(-4, 4, 33).astype("f4") + 0.01
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    ours, theirs = getattr(x, name)(**options), getattr(torch.nn.functional, name)(y, **options)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    ours.sum().backward()
    theirs.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_unknown_approximation_raises():
    with pytest.raises(ArgumentError, match="'none' or 'tanh'"):
        t([1.0]).gelu("erf")


def test_round_decimals():
    np.testing.assert_allclose(t([1.25, 2.345, -0.055]).round(decimals=2).numpy(), [1.25, 2.34, -0.06], atol=0.011)
    assert t([0.5, 1.5, 2.5]).round().tolist() == [0, 2, 2]
    assert t([1234.0]).round(decimals=-2).tolist() == [1200]


# Operators.

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow]
BITWISE = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]


@pytest.mark.parametrize("f", ARITHMETIC + COMPARISONS, ids=lambda f: f.__name__)
def test_float_operators_follow_numpy(f):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 3, (4, 1)), rng.uniform(0.5, 3, (3,))
    for x, y, expected in [
        (t(a), t(b), f(a, b)), (t(a), 2, f(a, 2)), (2.0, t(b), f(2.0, b)),
        (t(a), b, f(a, b)), (a, t(b), f(a, b)), (np.float64(2), t(b), f(2.0, b)),
    ]:  # fmt: skip
        result = f(x, y)
        assert isinstance(result, Tensor) and result.shape == expected.shape
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("f", ARITHMETIC + BITWISE + COMPARISONS, ids=lambda f: f.__name__)
def test_integer_operators_follow_numpy(f):
    a, b = np.array([[-7], [0], [5], [7]], "i4"), np.array([1, 2, 3], "i4")
    for x, y, expected in [(t(a), t(b), f(a, b)), (t(a), 2, f(a, np.int32(2))), (2, t(b), f(np.int32(2), b))]:
        result = f(x, y)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)
        kind = dtypes.float32 if f is operator.truediv else dtypes.bool_ if f in COMPARISONS else dtypes.int32
        assert result.dtype is kind


@pytest.mark.parametrize("f", [*BITWISE[:3], *COMPARISONS, operator.add, operator.mul], ids=lambda f: f.__name__)
def test_bool_operators_follow_numpy(f):
    a, b = np.array([[False], [True]]), np.array([False, True])
    for x, y, expected in [(t(a), t(b), f(a, b)), (t(a), True, f(a, True)), (False, t(b), f(False, b))]:
        result = f(x, y)
        assert result.dtype is dtypes.bool_
        np.testing.assert_array_equal(result.numpy(), expected)


def test_unary_operators():
    x = t([1, -2])
    assert (-x).tolist() == [-1, 2] and (+x).tolist() == [1, -2] and abs(x).tolist() == [1, 2]
    assert (~x).tolist() == [-2, 1] and (~t([True, False])).tolist() == [False, True]


def test_division_by_zero():
    x = t([5, -5, 0])
    assert (x // 0).tolist() == [0, 0, 0] and (x % 0).tolist() == [0, 0, 0]
    assert (t([5.0, -5.0]) // 0).tolist() == [INF, -INF]
    assert math.isnan((t([0.0]) / 0).item())


def test_integer_powers():
    assert (t([2, -3, 0]) ** 3).tolist() == [8, -27, 0]
    assert (t([2, -1, 1, 0]) ** t([-1, -3, -2, -1])).tolist() == [0, -1, 1, 0]
    with pytest.raises(DTypeError, match="exponent of at least 0"):
        t([2]) ** -1
    assert (t([2.0]) ** -1).tolist() == [0.5]


def test_equality_is_elementwise_and_hash_is_identity():
    x = t([1.0, 2.0])
    assert (x == x).tolist() == [True, True]
    assert {x: 1}[x] == 1 and len({x, t([1.0, 2.0])}) == 2
    assert (x == None) is False and (x != "a") is True  # noqa: E711


@pytest.mark.parametrize("other", [None, "a", [1.0], (1.0,)])
def test_other_operands_raise(other):
    x = t([1.0])
    for f in (operator.add, operator.sub, operator.mul, operator.lt):
        with pytest.raises(TypeError):
            f(x, other)
        with pytest.raises(TypeError):
            f(other, x)
    with pytest.raises(ArgumentTypeError, match="add: expected a tensor"):
        x.add(other)
    with pytest.raises(ArgumentTypeError, match="clip"):
        x.clip(other if other is not None else "a")
    with pytest.raises(ArgumentTypeError, match="where"):
        x.where(x > 0, other)


def test_wrong_dtypes_and_shapes_raise():
    with pytest.raises(DTypeError, match="sub"):
        t([True]) - t([True])
    with pytest.raises(DTypeError, match="neg"):
        -t([True])
    with pytest.raises(DTypeError, match="bitwise_and"):
        t([1.0]) & t([1.0])
    with pytest.raises(DTypeError, match="shift_left"):
        t([1.0]) << 1
    with pytest.raises(ShapeError, match=r"add: .*\(2,\) and \(3,\)"):
        t([1.0, 2.0]) + t([1.0, 2.0, 3.0])


def test_numbers_out_of_range():
    x = t([1, 255], dtype="uint8")
    assert (x < 256).tolist() == [True, True] and (x == -1).tolist() == [False, False]
    assert (300 > x).tolist() == [True, True]
    for call in (lambda: x + 256, lambda: x * -1, lambda: t([1]) + 2**40, lambda: Tensor.full((2,), 300, dtype="int8")):
        with pytest.raises(DTypeError, match="can hold"):
            call()


SHARED = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("a, b", list(itertools.product(SHARED, SHARED)))
def test_promotion_follows_pytorch(a, b):
    torch = pytest.importorskip("torch")

    def ours(name, shape):
        return Tensor.ones(shape, dtype=name)

    def theirs(name, shape):
        return torch.ones(shape, dtype=getattr(torch, name))

    for f in (operator.mul, operator.truediv):
        for shapes in [((2,), (2,)), ((), (2,)), ((2,), ()), ((), ())]:
            expected = str(f(theirs(a, shapes[0]), theirs(b, shapes[1])).dtype).removeprefix("torch.")
            assert f(ours(a, shapes[0]), ours(b, shapes[1])).dtype is dtypes.as_dtype(expected), (f, shapes)


@pytest.mark.parametrize("name", SHARED)
def test_promotion_with_numbers_follows_pytorch(name):
    torch = pytest.importorskip("torch")
    for shape, number in itertools.product([(), (2,)], [True, 2, 2.5]):
        expected = str((torch.ones(shape, dtype=getattr(torch, name)) * number).dtype).removeprefix("torch.")
        if name == "bool" and number == 2:
            expected = "int32"  # integer literals are int32 here
        for f in (lambda x, y: x * y, lambda x, y: y * x):
            assert f(Tensor.ones(shape, dtype=name), number).dtype is dtypes.as_dtype(expected)


INTEGERS = list(itertools.product((dtypes.bool_, *dtypes.INTEGERS), repeat=2))


@pytest.mark.parametrize("a, b", [(a, b) for a, b in INTEGERS if np.promote_types(a.numpy, b.numpy).kind != "f"])
def test_promotion_of_integers_follows_numpy(a, b):
    expected = np.promote_types(a.numpy, b.numpy)
    assert (Tensor.ones(2, dtype=a) | Tensor.ones(2, dtype=b)).dtype.numpy == expected


def test_operators_have_gradients_of_the_operands_shapes():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 3, (2, 1, 3)), rng.uniform(0.5, 3, (4, 1))
    for f in (*ARITHMETIC, lambda x, y: x.maximum(y), lambda x, y: x.minimum(y), lambda x, y: x.atan2(y)):
        if f is operator.floordiv:
            continue  # no gradient in PyTorch
        x, y = t(a, requires_grad=True), t(b, requires_grad=True)
        u, v = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
        f(x, y).sum().backward()
        f(u, v).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), u.grad.numpy(), rtol=1e-9)
        np.testing.assert_allclose(y.grad.numpy(), v.grad.numpy(), rtol=1e-9)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, -2, 0.5, -0.5, 1.5])
def test_power_gradients_at_zero_and_below(exponent):
    torch = pytest.importorskip("torch")
    values = [2.0, 0.0, -2.0] if exponent == int(exponent) and exponent >= 0 else [2.0, 0.5]
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    (x**exponent).sum().backward()
    (y**exponent).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-6)


def test_ties_share_the_gradient():
    x, y = t([1.0, 2.0, 3.0], requires_grad=True), t([1.0, 3.0, 2.0], requires_grad=True)
    x.maximum(y).sum().backward()
    assert x.grad.tolist() == [0.5, 0, 1] and y.grad.tolist() == [0.5, 1, 0]
    assert np.isnan(t([NAN, 1.0]).maximum(t([1.0, NAN])).numpy()).all()


# In place.


def test_in_place_operators_write_to_the_same_tensor():
    for f in (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod,
              operator.ipow):  # fmt: skip
        x = before = t([5.0, 7.0])
        alias = x.detach()
        expected = f(np.array([5.0, 7.0], "f4"), 2)
        x = f(x, 2)
        assert x is before
        np.testing.assert_allclose(x.numpy(), expected)
        np.testing.assert_allclose(alias.numpy(), expected)
    x = t([5, 7])
    for f in (operator.iand, operator.ior, operator.ixor, operator.ilshift, operator.irshift):
        expected = f(x.numpy(), 1)
        x = f(x, 1)
        np.testing.assert_array_equal(x.numpy(), expected)


def test_in_place_keeps_dtype_and_shape():
    x = t([1, 2], dtype="int8")
    x += t([1, 1], dtype="int32")
    assert x.dtype is dtypes.int8 and x.tolist() == [2, 3]
    with pytest.raises(DTypeError, match="in-place"):
        x += 0.5
    with pytest.raises(ShapeError):
        x += t([[1], [2]])
    with pytest.raises(TypeError):
        x += "a"


def test_in_place_methods():
    x = t([1.0, -2.0])
    assert x.add_(1, alpha=2) is x and x.tolist() == [3, 0]
    assert x.sub_(t([1.0, 1.0]), alpha=3).tolist() == [0, -3]
    assert x.mul_(2).tolist() == [0, -6] and x.div_(4).tolist() == [0, -1.5]
    assert x.clamp_(-1, 1).tolist() == [0, -1]
    assert x.fill_(7).tolist() == [7, 7] and x.zero_().tolist() == [0, 0]
    assert x.copy_(t([3, 4])).tolist() == [3, 4] and x.dtype is dtypes.float32


def test_in_place_on_a_leaf_needs_no_grad():
    x = t([1.0], requires_grad=True)
    with pytest.raises(GradientError):
        x += 1
    with set_grad_enabled(False):
        x += 1
    assert x.tolist() == [2.0] and x.requires_grad


def test_in_place_is_differentiable():
    x = t([1.0, 2.0], requires_grad=True)
    y = x * 3
    y *= x
    y += 1
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [6, 12])


# Choices and tests.


def test_where_follows_pytorch_in_both_forms():
    x, y = t([1.0, 2.0, 3.0], requires_grad=True), t([[10.0], [20.0]], requires_grad=True)
    test = t([True, False, True])
    for result in (x.where(test, y), Tensor.where(test, x, y)):
        np.testing.assert_array_equal(result.numpy(), [[1, 10, 3], [1, 20, 3]])
    Tensor.where(test, x, y).sum().backward()
    assert x.grad.tolist() == [2, 0, 2] and y.grad.tolist() == [[1], [1]]


def test_where_takes_numbers_and_arrays():
    test = t([True, False])
    assert Tensor.where(test, 1, 2).dtype is dtypes.int32
    assert Tensor.where(test, 1.0, 2).tolist() == [1, 2] and Tensor.where(test, 1, 2.5).dtype is dtypes.float32
    half = t([1.0, 2.0], dtype="float16")
    assert Tensor.where(test, half, 0.0).dtype is Tensor.where(test, 0, half).dtype is dtypes.float16
    assert Tensor.where(np.array([True, False]), half, np.array([5.0, 6.0], "f2")).tolist() == [1, 6]
    assert t([1, 2]).where(test, 2.5).tolist() == [1, 2.5]


def test_where_needs_a_bool_condition():
    with pytest.raises(DTypeError, match="takes it first"):
        Tensor.where(t([1, 0]), 1.0, 2.0)
    with pytest.raises(DTypeError, match="takes it first"):
        t([True]).where(t([1.0]), t([2.0]))


def test_where_keeps_nan_and_inf_out_of_gradients():
    x = t([0.0, 4.0], requires_grad=True)
    Tensor.where(x > 0, x, 1.0).sqrt().sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [0, 0.25])


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (None, 1), (0, None), (2.0, -1.0)])
def test_clip_follows_pytorch(low, high):
    torch = pytest.importorskip("torch")
    values = [-2.0, -1.0, -0.5, 0.0, 1.0, 2.0, NAN, INF]
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    ours, theirs = x.clip(low, high), y.clamp(low, high)
    np.testing.assert_array_equal(ours.numpy(), theirs.detach().numpy())
    ours.sum().backward()
    theirs.sum().backward()
    if low is None or high is None or low <= high:
        np.testing.assert_array_equal(x.grad.numpy()[:6], y.grad.numpy()[:6])


def test_clip_with_tensors_and_dtypes():
    torch = pytest.importorskip("torch")
    values, low, high = [[-2.0], [0.5], [3.0]], [0.0, NAN], [1.0, 1.0]
    x, lo, hi = t(values, requires_grad=True), t(low, requires_grad=True), t(high, requires_grad=True)
    y, a, b = (torch.tensor(v, requires_grad=True) for v in (values, low, high))
    ours, theirs = x.clip(lo, hi), y.clamp(a, b)
    np.testing.assert_array_equal(ours.numpy(), theirs.detach().numpy())
    assert t([1, 5]).clip(0.5, 2).dtype is dtypes.float32
    assert t([1, 5]).clamp(max=2).tolist() == [1, 2] and t([1, 5], dtype="uint8").clip(2).dtype is dtypes.uint8
    with pytest.raises(ArgumentError, match="at least one"):
        x.clip()


def test_lerp_and_atan2():
    np.testing.assert_allclose(t([1.0, 2.0]).lerp(t([3.0, 6.0]), 0.25).numpy(), [1.5, 3])
    np.testing.assert_allclose(t([1.0]).lerp(t([3.0]), t([0.5, 1.0])).numpy(), [2, 3])
    y, x = np.array([1.0, -1.0, 0.0, 0.0]), np.array([-1.0, -1.0, 1.0, -1.0])
    np.testing.assert_allclose(t(y).atan2(t(x)).numpy(), np.arctan2(y, x))
    assert t([1]).atan2(t([2])).dtype is dtypes.float32


def test_tests_of_floats_and_integers():
    x = t(SPECIAL)
    for name in ("isnan", "isinf", "isfinite"):
        np.testing.assert_array_equal(getattr(x, name)().numpy(), getattr(np, name)(np.array(SPECIAL)))
    assert t([1]).isnan().tolist() == [False] and t([1]).isinf().tolist() == [False]
    assert t([1]).isfinite().tolist() == [True] and t([True]).isfinite().dtype is dtypes.bool_


def test_isclose_follows_numpy():
    a = np.array([1.0, 1.0, INF, INF, NAN, 0.0, 1e-9, 100.0])
    b = np.array([1.0 + 1e-6, 1.1, INF, -INF, NAN, 1e-9, 0.0, 100.0005])
    for options in (dict(), dict(equal_nan=True), dict(rtol=0.2), dict(atol=1e-10)):
        np.testing.assert_array_equal(t(a).isclose(t(b), **options).numpy(), np.isclose(a, b, **options))
    assert t([1, 2]).isclose(t([1, 3])).tolist() == [True, False]


def test_logical_functions():
    a, b = np.array([0.0, 2.0, 0.0, NAN]), np.array([0, 0, 3, 1])
    for name in ("logical_and", "logical_or", "logical_xor"):
        np.testing.assert_array_equal(getattr(t(a), name)(t(b)).numpy(), getattr(np, name)(a, b))
    assert t([0, 2]).logical_not().tolist() == [True, False]


# Casts.


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_casts_follow_numpy(dtype):
    values = np.array([0.0, 1.0, 2.7, 100.0])
    x = t(values)
    assert x.cast(dtype).dtype is dtype
    np.testing.assert_array_equal(x.cast(dtype).numpy(), values.astype(dtype.numpy))
    assert x.cast(dtypes.float64) is x


def test_casts_by_name():
    x = t([1.5])
    names = dict(half="float16", bfloat16="bfloat16", float="float32", double="float64", int="int32", long="int64",
                 bool="bool_")  # fmt: skip
    for name, dtype in names.items():
        assert getattr(x, name)().dtype is getattr(dtypes, dtype)
    assert x.type_as(t([1])).tolist() == [1]


def test_a_cast_passes_the_gradient_on():
    x = t([1.5, 2.5], requires_grad=True)
    (x.half() * 2).double().sum().backward()
    assert x.grad.dtype is dtypes.float32 and x.grad.tolist() == [2, 2]


def test_comparisons_and_integers_stop_gradients():
    x = t([1.5], requires_grad=True)
    for y in (x > 1, x.int(), x.isnan(), x.argmax()):
        assert not y.requires_grad


def test_methods_work_unbound():
    x = t([-1.0, 2.0])
    assert Tensor.relu(x).tolist() == [0, 2] and Tensor.add(x, 1).tolist() == [0, 3]
    assert Tensor.maximum(x, 0.5).tolist() == [0.5, 2]


def test_a_0d_result_is_a_tensor_of_its_own():
    x = t(2.0)
    for y in (x.sum(), x.max(), x.mean(), x.prod()):
        y += 1
        assert x.item() == 2 and y.item() == 3
