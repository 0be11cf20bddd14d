"""Losses: PyTorch's numbers and gradients, extreme arguments, errors."""

import itertools
import math

import numpy as np
import pytest

from minigrad import Tensor, dtypes
from minigrad.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

REDUCTIONS = ["mean", "sum", "none"]
SHAPES = [(5, 4), (5, 4, 3), (2, 4, 3, 2), (4,)]  # (N, C, ...) or (C,)


def cases(*settings):
    """Every combination of the settings on the first shape; on the others, the last of each."""
    every = [(SHAPES[0], *values) for values in itertools.product(*settings)]
    return every + [(shape, *(values[-1] for values in settings)) for shape in SHAPES[1:]]


def compare(call, arrays):
    """``call(module, *tensors)`` here and in PyTorch: the value, and gradients of the float arguments."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(9)
    ours = [a if a is None else Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    theirs = [a if a is None else torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    x, y = call(Tensor, *ours), call(torch.nn.functional, *theirs)
    assert x.shape == tuple(y.shape)
    np.testing.assert_allclose(x.numpy(), y.detach().numpy(), rtol=1e-10, atol=1e-12)
    weights = rng.standard_normal(x.shape)
    (x * Tensor(weights)).sum().backward()
    (y * torch.tensor(weights)).sum().backward()
    for a, b in zip(ours, theirs):
        if a is not None and a.requires_grad and b.grad is not None:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-12)


def example(shape, classes=4, seed=0):
    """Logits, class indices and class weights."""
    rng = np.random.default_rng(seed)
    axis = 0 if len(shape) == 1 else 1
    target = rng.integers(0, classes, shape[:axis] + shape[axis + 1 :])
    return rng.standard_normal(shape) * 3, target, rng.uniform(0.5, 2, classes)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape, weighted, smoothing, ignored", cases([False, True], [0.0, 0.3], [-100, 1]), ids=str)
def test_cross_entropy_of_indices(shape, reduction, weighted, smoothing, ignored):
    x, target, weight = example(shape)
    weight = weight if weighted else None

    def call(module, x, weight):
        index = Tensor(target) if module is Tensor else pytest.importorskip("torch").tensor(target)
        return module.cross_entropy(
            x, index, weight=None if weight is None else weight.detach(), ignore_index=ignored, reduction=reduction,
            label_smoothing=smoothing,
        )  # fmt: skip

    compare(call, [x, weight])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape, weighted, smoothing", cases([False, True], [0.0, 0.3]), ids=str)
def test_cross_entropy_of_probabilities(shape, reduction, weighted, smoothing):
    x, _, weight = example(shape)
    target = np.exp(example(shape, seed=1)[0])
    target /= target.sum(0 if len(shape) == 1 else 1, keepdims=True)

    def call(module, x, target, weight):
        weight = weight.detach() if weighted else None
        return module.cross_entropy(x, target, weight=weight, reduction=reduction, label_smoothing=smoothing)

    compare(call, [x, target, weight])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape, weighted, ignored", cases([False, True], [-100, 1]), ids=str)
def test_nll_loss(shape, reduction, weighted, ignored):
    x, target, weight = example(shape)

    def call(module, x, weight):
        index = Tensor(target) if module is Tensor else pytest.importorskip("torch").tensor(target)
        weight = weight.detach() if weighted else None
        return module.nll_loss(x, index, weight=weight, ignore_index=ignored, reduction=reduction)

    compare(call, [x, weight])


def test_cross_entropy_follows_its_formula():
    x, target, _ = example((6, 4))
    expected = np.log(np.exp(x).sum(1)) - x[np.arange(6), target]
    np.testing.assert_allclose(Tensor(x).cross_entropy(target, reduction="none").numpy(), expected)
    np.testing.assert_allclose(Tensor(x).cross_entropy(target).item(), expected.mean())


def test_cross_entropy_of_large_and_infinite_logits():
    x = Tensor([[1e4, -1e4, 0.0], [0.0, -math.inf, 0.0]], requires_grad=True)
    loss = x.cross_entropy(Tensor([0, 2]), reduction="none")
    np.testing.assert_allclose(loss.numpy(), [0, math.log(2)], rtol=1e-6)
    loss.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0, 0], [0.5, 0, -0.5]], atol=1e-7)
    assert Tensor([[0.0, -math.inf]]).cross_entropy(Tensor([1])).item() == math.inf


@pytest.mark.parametrize("dtype", [d for d in dtypes.INTEGERS], ids=str)
def test_targets_of_every_integer_dtype(dtype):
    x, target, _ = example((5, 300), classes=100)
    expected = Tensor(x).cross_entropy(Tensor(target)).item()
    assert Tensor(x).cross_entropy(Tensor(target, dtype=dtype)).item() == expected


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_targets_that_are_no_class_are_seen(dtype):
    """Nothing is read, so nothing can be raised; but labels from 1 to C do not go unnoticed."""
    x = Tensor(np.ones((3, 4), np.float32), requires_grad=True)
    target = Tensor([3, 4, 200], dtype=dtype)
    losses = x.cross_entropy(target, reduction="none")
    np.testing.assert_allclose(losses.numpy(), [math.log(4), math.nan, math.nan], rtol=1e-6)
    assert math.isnan(x.log_softmax(1).nll_loss(target).item())
    assert math.isnan(x.cross_entropy(Tensor([0, 1, -1])).item())
    assert x.cross_entropy(Tensor([0, 1, -1]), ignore_index=-1).item() == pytest.approx(math.log(4))


def test_targets_that_do_not_count():
    x, _, _ = example((3, 4))
    one = Tensor(x[:1]).cross_entropy(Tensor([2])).item()
    assert Tensor(x).cross_entropy(Tensor([2, -100, -100])).item() == pytest.approx(one)
    assert math.isnan(Tensor(x).cross_entropy(Tensor([-100] * 3)).item())
    assert math.isnan(Tensor.zeros(0, 4).cross_entropy(Tensor.zeros(0, dtype="int64")).item())
    assert Tensor.zeros(0, 4).cross_entropy(Tensor.zeros(0, dtype="int64"), reduction="sum").item() == 0


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_half_types_compute_in_float32(dtype):
    x, target, _ = example((64, 4))
    half = Tensor(x, dtype=dtype, requires_grad=True)
    loss = half.cross_entropy(target, label_smoothing=0.1)
    assert loss.dtype is dtype
    expected = Tensor(half.numpy().astype("f8")).cross_entropy(target, label_smoothing=0.1).item()
    assert loss.item() == pytest.approx(expected, rel=2**-8)
    loss.backward()
    assert half.grad.dtype is dtype
    for name in ("mse_loss", "l1_loss", "huber_loss", "binary_cross_entropy_with_logits"):
        assert getattr(half, name)(Tensor.zeros_like(half)).dtype is dtype


POINTWISE = {
    "mse_loss": [{}], "l1_loss": [{}], "smooth_l1_loss": [{}, dict(beta=0.5), dict(beta=0.0)],
    "huber_loss": [{}, dict(delta=0.5)],
}  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name, options", [(n, o) for n, many in POINTWISE.items() for o in many], ids=str)
def test_differences(name, options, reduction):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((3, 4)) for _ in range(2)]
    compare(lambda module, x, t: getattr(module, name)(x, t, reduction=reduction, **options), arrays)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(reduction, weighted):
    rng = np.random.default_rng(0)
    x, target, weight = rng.uniform(0.01, 0.99, (3, 4)), rng.uniform(0, 1, (3, 4)), rng.uniform(0.5, 2, (3, 4))

    def call(module, x, target, weight):
        return module.binary_cross_entropy(x, target, weight.detach() if weighted else None, reduction=reduction)

    compare(call, [x, target, weight])


def test_binary_cross_entropy_at_certainty():
    x = Tensor([0.0, 1.0, 0.0, 1.0, math.nan], requires_grad=True)
    loss = x.binary_cross_entropy(Tensor([0.0, 1.0, 1.0, 0.0, 0.0]), reduction="none")
    np.testing.assert_allclose(loss.numpy(), [0, 0, 100, 100, math.nan])
    loss.sum().backward()
    assert np.isfinite(x.grad.numpy()[:4]).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted, positive", list(itertools.product([False, True], [False, True])))
def test_binary_cross_entropy_with_logits(reduction, weighted, positive):
    rng = np.random.default_rng(0)
    x, target, weight = rng.standard_normal((3, 4)) * 20, rng.uniform(0, 1, (3, 4)), rng.uniform(0.5, 2, (3, 1))
    x[0, :3] = 0, 200, -200

    def call(module, x, target, weight):
        return module.binary_cross_entropy_with_logits(
            x, target, weight.detach() if weighted else None, reduction=reduction,
            pos_weight=weight.detach() if positive else None,
        )  # fmt: skip

    compare(call, [x, target, weight])


def test_the_second_derivative_at_logit_0():
    x = Tensor([0.0], requires_grad=True)
    first = x.binary_cross_entropy_with_logits(Tensor([1.0])).gradient(x)[0]
    second = first.gradient(x)[0]
    assert first.item() == -0.5 and second.item() == 0.25


@pytest.mark.filterwarnings("ignore:reduction")  # PyTorch advises batchmean
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(reduction, log_target):
    rng = np.random.default_rng(0)
    x, target = np.log(rng.uniform(0.1, 1, (3, 4))), rng.uniform(0.1, 1, (3, 4))
    target = np.log(target) if log_target else target
    compare(lambda module, x, t: module.kl_div(x, t, reduction=reduction, log_target=log_target), [x, target])


def test_kl_div_of_impossible_events():
    assert Tensor([-1.0, -2.0]).kl_div(Tensor([0.0, 1.0]), reduction="none").tolist() == [0, 2]


def test_targets_may_be_arrays_and_integers():
    assert Tensor([1.0, 3.0]).mse(np.array([1, 1])).item() == 2
    assert Tensor([1, 3]).mse_loss(Tensor([1, 1])).dtype is dtypes.float32
    assert Tensor([[0.0, 0.0]]).cross_entropy([1]).item() == pytest.approx(math.log(2))


def test_wrong_arguments_raise():
    x = Tensor.zeros(3, 4)
    with pytest.raises(ShapeError, match=r"class indices of shape \(3,\)"):
        x.cross_entropy(Tensor([0, 1]))
    with pytest.raises(ShapeError, match=r"probabilities of shape \(3, 4\)"):
        x.cross_entropy(Tensor([0.0, 1.0, 2.0]))
    with pytest.raises(ShapeError, match="one weight per class"):
        x.cross_entropy(Tensor([0, 1, 2]), weight=Tensor.ones(3))
    with pytest.raises(ShapeError, match="input of shape"):
        Tensor(1.0).cross_entropy(Tensor(0))
    with pytest.raises(DTypeError, match="integer dtype"):
        x.cross_entropy(Tensor([True, False, True]))
    with pytest.raises(DTypeError, match="nll_loss: expected class indices of an integer dtype"):
        x.nll_loss(Tensor([0.0, 1.0, 2.0]))
    with pytest.raises(ArgumentError, match="mean, sum, none"):
        x.cross_entropy(Tensor([0, 1, 2]), reduction="average")
    with pytest.raises(ArgumentError, match="label_smoothing"):
        x.cross_entropy(Tensor([0, 1, 2]), label_smoothing=2)
    with pytest.raises(ShapeError, match="one shape"):
        x.mse_loss(Tensor.zeros(3, 1))
    with pytest.raises(ArgumentTypeError, match="target"):
        x.l1_loss("a")
    with pytest.raises(ArgumentError, match="batchmean"):
        x.kl_div(x, reduction="none of these")
    for call in (lambda: x.huber_loss(x, delta=0), lambda: x.smooth_l1_loss(x, beta=-1)):
        with pytest.raises(ArgumentError):
            call()
