"""Reductions, softmax, cumsum and sorting: NumPy's and PyTorch's values, gradients, dtypes and errors."""

import math

import numpy as np
import pytest

from minigrad import Tensor, dtypes
from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError, DTypeError, ShapeError

INF, NAN = float("inf"), float("nan")
AXES = [None, 0, -1, (0, 2), (1,), ()]


def logsumexp(x, axis=None, keepdims=False):
    return np.logaddexp.reduce(x, axis=axis if axis != () else (), keepdims=keepdims)


def var(x, axis=None, keepdims=False):
    with np.errstate(all="ignore"):
        return x.var(axis=axis, ddof=1, keepdims=keepdims) if axis != () else x * NAN


REDUCTIONS = {
    "sum": np.sum, "prod": np.prod, "mean": np.mean, "max": np.max, "min": np.min, "amax": np.max, "amin": np.min,
    "any": np.any, "all": np.all, "logsumexp": logsumexp, "var": var, "std": lambda *a, **k: np.sqrt(var(*a, **k)),
    "norm": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
}  # fmt: skip
SMOOTH = ("sum", "prod", "mean", "max", "min", "logsumexp", "var", "std", "norm")


def sample(shape=(3, 4, 5), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def t(value, **options):
    return Tensor(value, **options)


@pytest.mark.filterwarnings("ignore:Degrees of freedom")
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_values_follow_numpy(name, axis, keepdims):
    if axis == () and name == "logsumexp":
        axis = None  # logaddexp.reduce has no such case
    x = sample()
    expected = REDUCTIONS[name](x, axis=axis, keepdims=keepdims)
    for call in (dict(axis=axis, keepdims=keepdims), dict(dim=axis, keepdim=keepdims)):
        result = getattr(t(x), name)(**call)
        assert result.shape == np.shape(expected)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("axis", [None, 1, (0, 2)])
def test_gradients_follow_pytorch(name, axis):
    torch = pytest.importorskip("torch")
    values, weights = sample(), sample(seed=1)
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    axes = (0, 1, 2) if axis is None else axis
    theirs = {"max": "amax", "min": "amin"}.get(name, name)
    if name == "prod":
        expected = y.prod() if axis is None else y.prod(1) if axis == 1 else y.prod(2).prod(0)
    else:
        expected = getattr(y, theirs)(dim=axes) if name != "norm" else torch.linalg.vector_norm(y, dim=axes)
    result = getattr(x, name)(axis=axis)
    weight = weights[0, : math.prod(result.shape), 0] if result.shape else np.array(2.0)
    weight = np.resize(weight, result.shape)
    (result * t(weight)).sum().backward()
    (expected * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_ties_of_an_extremum_share_the_gradient():
    x = t([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    x.max(1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0.5, 0.5], [1 / 3] * 3], rtol=1e-6)


def test_products_with_zeros_have_gradients():
    torch = pytest.importorskip("torch")
    values = [[2.0, 0.0, 3.0], [0.0, 0.0, 5.0], [1.0, 2.0, 4.0]]
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    x.prod(1).sum().backward()
    y.prod(1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy())


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_result_dtypes(dtype):
    x = Tensor.ones(3, dtype=dtype)
    wide = dtype if dtype.is_float else dtypes.int64
    assert x.sum().dtype is x.prod().dtype is x.cumsum(0).dtype is wide
    assert x.max().dtype is x.min().dtype is dtype
    assert x.any().dtype is x.all().dtype is dtypes.bool_
    assert x.argmax().dtype is x.argmin().dtype is x.argsort().dtype is x.count_nonzero().dtype is dtypes.int64
    assert x.sort()[0].dtype is dtype
    assert x.sum(dtype="float64").dtype is x.mean(dtype="float64").dtype is dtypes.float64
    for name in ("mean", "var", "std", "softmax", "log_softmax", "norm"):
        if dtype.is_float:
            assert getattr(x, name)().dtype is dtype
        else:
            with pytest.raises(DTypeError, match=f"{name}: expected a floating dtype"):
                getattr(x, name)()
    assert x.logsumexp().dtype is (dtype if dtype.is_float else dtypes.float32)


def test_narrow_integers_do_not_overflow():
    x = t([200, 100], dtype="uint8")
    assert x.sum().item() == 300 and x.prod().item() == 20000 and x.cumsum(0).tolist() == [200, 300]
    assert t([True, True]).sum().item() == 2


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_half_types_compute_in_float32(dtype):
    x = np.full(4096, 30.0).astype(dtype.numpy)
    assert t(x).mean().item() == 30
    assert t(x).var().item() == 0
    assert (t(x) / 8).cumsum(0).numpy()[-1] == 4096 * 30 / 8
    values = sample((8, 300)).astype(dtype.numpy)
    wide = values.astype("f8")
    exact = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    result = t(values).softmax(1).numpy().astype("f8")
    np.testing.assert_allclose(result, exact, rtol=float(2**-8 if dtype is dtypes.bfloat16 else 2**-10), atol=1e-7)
    np.testing.assert_allclose(t(values).logsumexp(1).numpy().astype("f8"), logsumexp(wide, 1), rtol=2**-8)


def test_empty_reductions():
    x = Tensor.zeros(2, 0, 3)
    assert x.sum(1).tolist() == [[0] * 3] * 2 and x.prod(1).tolist() == [[1] * 3] * 2
    assert x.sum(0).shape == (0, 3) and x.max(0).shape == (0, 3) and x.argmax(0).shape == (0, 3)
    assert np.isnan(x.mean(1).numpy()).all() and np.isnan(x.var(1).numpy()).all()
    assert x.any(1).tolist() == [[False] * 3] * 2 and x.all(1).tolist() == [[True] * 3] * 2
    assert x.any(1, keepdims=True).shape == (2, 1, 3)
    assert (x.logsumexp(1).numpy() == -INF).all()
    assert x.norm(axis=1).tolist() == [[0] * 3] * 2
    assert x.softmax(1).numpy().shape == x.log_softmax(1).numpy().shape == (2, 0, 3)
    assert x.cumsum(1).numpy().shape == x.sort(1)[0].numpy().shape == (2, 0, 3)
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises(ShapeError, match=f"{name}: expected at least one element"):
            getattr(x, name)(1)
        with pytest.raises(ShapeError):
            getattr(x, name)()


def test_nan_and_infinities():
    x = t([[1.0, NAN, 3.0], [INF, 1.0, -INF], [-INF, -INF, -INF]])
    np.testing.assert_array_equal(x.max(1).numpy(), [NAN, INF, -INF])
    np.testing.assert_array_equal(x.min(1).numpy(), [NAN, -INF, -INF])
    assert x.argmax(1).tolist() == [1, 0, 0] and x.argmin(1).tolist() == [1, 2, 0]
    np.testing.assert_array_equal(x.logsumexp(1).numpy(), [NAN, INF, -INF])
    assert np.isnan(x.softmax(1).numpy()[[0, 2]]).all()


def test_softmax_takes_infinite_and_large_scores():
    torch = pytest.importorskip("torch")
    values = np.array([[1000.0, 1001.0, -INF], [-1e30, 0.0, 1.0]])
    for name in ("softmax", "log_softmax", "logsumexp"):
        x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        ours, theirs = getattr(x, name)(1), getattr(y, name)(1)
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-12)
        for side in (ours, theirs):
            (side[:, 1] if side.ndim == 2 else side).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_follows_pytorch(name, axis):
    torch = pytest.importorskip("torch")
    values, weights = sample(), sample(seed=1)
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    ours, theirs = getattr(x, name)(axis), getattr(y, name)(axis)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-12)
    (ours * t(weights)).sum().backward()
    (theirs * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-14)
    assert getattr(t([1, 2]), name)(dtype="float32").dtype is dtypes.float32


def test_softmax_over_several_axes():
    result = t(sample()).softmax((0, 2)).numpy()
    np.testing.assert_allclose(result.sum((0, 2)), 1)


@pytest.mark.parametrize("correction", [0, 1, 2, 1.5])
def test_correction_of_variance(correction):
    torch = pytest.importorskip("torch")
    x = sample()
    for name in ("var", "std"):
        expected = getattr(torch.tensor(x), name)(1, correction=correction)
        np.testing.assert_allclose(getattr(t(x), name)(1, correction=correction).numpy(), expected, rtol=1e-12)


def test_variance_of_too_few_elements():
    assert math.isnan(t([1.0]).var().item()) and t([1.0]).var(correction=0).item() == 0
    assert math.isnan(t([1.0]).std().item())


def test_roots_have_derivative_0_at_0():
    torch = pytest.importorskip("torch")
    for call in (lambda x: x.std(), lambda x: x.norm(), lambda x: (x - x).norm(p=3)):
        x, y = t([2.0, 2.0], requires_grad=True), torch.tensor([2.0, 2.0], requires_grad=True)
        call(x).backward()
        call(y).backward()
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy())


@pytest.mark.parametrize("p", [0, 0.5, 1, 2, 3, -1, INF, -INF, "fro"])
@pytest.mark.parametrize("axis", [None, 1, (0, 2)])
def test_norms_follow_pytorch(p, axis):
    torch = pytest.importorskip("torch")
    values = sample()
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    ours = x.norm(p, axis)
    theirs = torch.linalg.vector_norm(y, 2.0 if p == "fro" else p, axis)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-12)
    if p != 0:
        ours.sum().backward()
        theirs.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9)


def test_unknown_norm_raises():
    with pytest.raises(ArgumentError, match="'fro'"):
        t([1.0]).norm("nuc")


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions_follow_numpy(name):
    x = np.random.default_rng(0).integers(0, 4, (3, 4, 5))  # with ties: the first wins
    f = getattr(np, name)
    assert getattr(t(x), name)().item() == f(x)
    assert getattr(t(x), name)(keepdims=True).shape == (1, 1, 1)
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(getattr(t(x), name)(axis).numpy(), f(x, axis))
        np.testing.assert_array_equal(getattr(t(x), name)(dim=axis, keepdim=True).numpy(), f(x, axis, keepdims=True))
    assert getattr(t(5.0), name)().item() == getattr(t(5.0), name)(0).item() == 0


def test_counts_and_truth():
    x = np.array([[0.0, NAN, 2.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(t(x).count_nonzero(1).numpy(), np.count_nonzero(x, 1))
    assert t(x).any().item() is True and t(x).all(1).tolist() == [False, False]


def test_allclose_reads_a_python_bool():
    assert t([1.0, 2.0]).allclose(t([1.0, 2.0 + 1e-7])) is True
    assert t([1.0]).allclose(2.0) is False and t([NAN]).allclose(t([NAN]), equal_nan=True)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cumsum_follows_numpy(axis):
    torch = pytest.importorskip("torch")
    values, weights = sample(), sample(seed=1)
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    np.testing.assert_allclose(x.cumsum(axis).numpy(), np.cumsum(values, axis), rtol=1e-12)
    (x.cumsum(dim=axis) * t(weights)).sum().backward()
    (y.cumsum(axis) * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_cumsum_dtype_and_0d():
    assert t(3).cumsum(0).item() == 3 and t([1.5, 1.5]).cumsum(0, dtype="int32").tolist() == [1, 2]
    with pytest.raises(ArgumentTypeError, match="axis"):
        t([1.0]).cumsum()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sort_follows_pytorch(axis, descending):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).integers(0, 5, (4, 5, 3)).astype("f8")  # with ties: stable
    values[0, 0, 0] = values[3, 4, 2] = NAN
    weights = sample((4, 5, 3))
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    ours, theirs = x.sort(axis, descending), y.sort(dim=axis, descending=descending, stable=True)
    np.testing.assert_array_equal(ours[0].numpy(), theirs[0].detach().numpy())
    np.testing.assert_array_equal(ours[1].numpy(), theirs[1].numpy())
    np.testing.assert_array_equal(x.argsort(axis, descending).numpy(), theirs[1].numpy())
    (ours[0] * t(weights)).sum().backward()
    (theirs[0] * torch.tensor(weights)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("k", [0, 1, 3, 5])
def test_topk_follows_pytorch(k, largest):
    torch = pytest.importorskip("torch")
    values = sample()
    x, y = t(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    ours, theirs = x.topk(k, largest=largest), y.topk(k, largest=largest)
    np.testing.assert_array_equal(ours[0].numpy(), theirs[0].detach().numpy())
    np.testing.assert_array_equal(ours[1].numpy(), theirs[1].numpy())
    ours[0].sum().backward()
    theirs[0].sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


def test_0d_sort_and_topk():
    assert [y.item() for y in t(3.0).sort()] == [3, 0] and [y.item() for y in t(3.0).topk(1)] == [3, 0]
    with pytest.raises(ArgumentError, match="k from 0 to 3"):
        t([1, 2, 3]).topk(4)


@pytest.mark.parametrize("call", [lambda x: x.sum(2), lambda x: x.max(-3), lambda x: x.softmax(5), lambda x: x.sort(2)])
def test_axis_out_of_range_raises(call):
    with pytest.raises(AxisError, match="axis"):
        call(Tensor.ones(2, 3))


def test_repeated_or_fractional_axes_raise():
    with pytest.raises(ArgumentError, match="axes that differ"):
        Tensor.ones(2, 3).sum((0, -2))
    with pytest.raises(ArgumentTypeError, match="integer axis"):
        Tensor.ones(2, 3).sum(0.5)


def test_bools_can_be_ordered():
    x = t([[True, False], [False, False]])
    assert x.max(1).tolist() == [True, False] and x.min().item() is False
    assert x.argmax(1).tolist() == [0, 0] and x.sort(1)[0].tolist() == [[False, True], [False, False]]
