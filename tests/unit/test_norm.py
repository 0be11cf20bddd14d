"""Normalisation layers: PyTorch's numbers, statistics that are kept, large means, captured steps, errors."""

import math

import numpy as np
import pytest
from steps import arrays, classes, same_with_jit, training

from minigrad import Tensor, dtypes, nn, no_grad
from minigrad.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from minigrad.nn import functional as F
from minigrad.nn import optim
from minigrad.testing import check_grads

SHAPES = {1: (5, 4, 7), 2: (5, 4, 3, 7), 3: (5, 4, 3, 2, 6)}  # by spatial dimensions
MAKE = {
    "batch": lambda nn, rank, **o: getattr(nn, f"BatchNorm{rank}d")(4, **o),
    "instance": lambda nn, rank, **o: getattr(nn, f"InstanceNorm{rank}d")(4, **o),
}


def pairs(ours, theirs):
    """Both modules with the same random parameters and statistics, in float64."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    ours.to(dtypes.float64), theirs.double()
    state = {n: t.numpy() for n, t in ours.state_dict().items()}
    assert {n: a.shape for n, a in state.items()} == {n: tuple(t.shape) for n, t in theirs.state_dict().items()}
    for name, array in state.items():
        if array.dtype.kind == "f":
            state[name] = rng.uniform(0.5, 2, array.shape)
    ours.load_state_dict(state)
    theirs.load_state_dict({n: torch.tensor(a) for n, a in state.items()})
    return torch


def same(ours, theirs, shape, steps=3):
    """Outputs, gradients and statistics of several batches in training, then in evaluation."""
    torch = pairs(ours, theirs)
    rng = np.random.default_rng(0)
    for step in range(steps + 1):
        if step == steps:
            ours.eval(), theirs.eval()
        array, weights = rng.standard_normal(shape) * 3 + 2, rng.standard_normal(shape)
        x, y = Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        out, expected = ours(x), theirs(y)
        np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
        (out * Tensor(weights)).sum().backward()
        (expected * torch.tensor(weights)).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-8, atol=1e-11)
    for (name, a), (other, b) in zip(ours.named_parameters(), theirs.named_parameters()):
        assert name == other
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-11)
    for name, b in theirs.named_buffers():
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), b.numpy(), rtol=1e-10)


OPTIONS = [
    {},
    dict(affine=False),
    dict(affine=True, bias=False),
    dict(momentum=0.3, eps=0.1),
    dict(track_running_stats=False),
    dict(affine=True, track_running_stats=True),
]


CASES = [(2, options) for options in OPTIONS] + [(rank, OPTIONS[-1]) for rank in (1, 3)]


@pytest.mark.parametrize("rank, options", CASES, ids=str)
@pytest.mark.parametrize("kind", MAKE)
def test_equals_pytorchs_over_several_batches(kind, rank, options):
    torch = pytest.importorskip("torch")
    same(MAKE[kind](nn, rank, **options), MAKE[kind](torch.nn, rank, **options), SHAPES[rank])


def test_batch_norm_of_vectors_and_cumulative_averages_equal_pytorchs():
    torch = pytest.importorskip("torch")
    same(nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4), (6, 4))
    same(nn.BatchNorm2d(4, momentum=None), torch.nn.BatchNorm2d(4, momentum=None), SHAPES[2])


@pytest.mark.parametrize("make, shape", [
    (lambda nn: nn.GroupNorm(3, 6), (5, 6, 4, 7)),
    (lambda nn: nn.GroupNorm(1, 6, affine=False), (5, 6, 4)),
    (lambda nn: nn.GroupNorm(2, 6, eps=0.5, bias=False), (5, 6)),
    (lambda nn: nn.LayerNorm(7), (5, 6, 7)),
    (lambda nn: nn.LayerNorm((6, 7), eps=0.1), (5, 6, 7)),
    (lambda nn: nn.LayerNorm(7, bias=False), (2, 7)),
    (lambda nn: nn.LayerNorm([7], elementwise_affine=False), (7,)),
    (lambda nn: nn.RMSNorm(7), (5, 6, 7)),
    (lambda nn: nn.RMSNorm((6, 7), eps=0.1, elementwise_affine=False), (5, 6, 7)),
    (lambda nn: nn.LocalResponseNorm(3, alpha=0.5, k=2.0), (5, 6, 4, 7)),
    (lambda nn: nn.LocalResponseNorm(4), (5, 6, 4)),
    (lambda nn: nn.InstanceNorm1d(6, affine=True), (6, 7)),
    (lambda nn: nn.InstanceNorm2d(6), (6, 7, 4)),
    (lambda nn: nn.InstanceNorm3d(6), (6, 7, 4, 3)),
])  # fmt: skip
def test_equals_pytorchs(make, shape):
    torch = pytest.importorskip("torch")
    same(make(nn), make(torch.nn), shape, steps=1)
    assert repr(make(nn)) == repr(make(torch.nn))


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("options", [*OPTIONS, dict(momentum=None)], ids=str)
def test_repr_equals_pytorchs(kind, options):
    torch = pytest.importorskip("torch")
    assert repr(MAKE[kind](nn, 2, **options)) == repr(MAKE[kind](torch.nn, 2, **options))


def batch_norm(x, eps=1e-5):
    """The definition, in float64."""
    axes = (0, *range(2, x.ndim))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def test_batch_norm_follows_its_definition():
    layer, rng = nn.BatchNorm2d(3), np.random.default_rng(0)
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(10):
        x = rng.normal(2, 3, (5, 3, 4, 7))
        np.testing.assert_allclose(layer(Tensor(x, dtype="float32")).numpy(), batch_norm(x), rtol=1e-4, atol=1e-5)
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * x.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 10 and layer.num_batches_tracked.dtype is dtypes.int64
    x = rng.normal(2, 3, (1, 3, 1, 1))
    expected = (x - mean.reshape(3, 1, 1)) / np.sqrt(variance.reshape(3, 1, 1) + 1e-5)
    np.testing.assert_allclose(layer.eval()(Tensor(x, dtype="float32")).numpy(), expected, rtol=1e-4)


def test_a_cumulative_average_weighs_all_batches_alike():
    layer, rng = nn.BatchNorm1d(3, momentum=None), np.random.default_rng(0)
    batches = rng.standard_normal((7, 5, 3))
    for batch in batches:
        layer(Tensor(batch, dtype="float32"))
    np.testing.assert_allclose(layer.running_mean.numpy(), batches.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), batches.var(1, ddof=1).mean(0), rtol=1e-5)
    layer.reset_running_stats()
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.tolist() == [0.0] * 3 and layer.running_var.tolist() == [1.0] * 3


@pytest.mark.parametrize("mean, deviation", [(1e4, 0.01), (-3e5, 1.0), (0.0, 1e-3)])
def test_a_large_mean_costs_no_digits_of_a_small_variance(mean, deviation):
    x = (mean + deviation * np.random.default_rng(0).standard_normal((32, 3, 6, 7))).astype("float32")
    out = nn.BatchNorm2d(3, eps=1e-12)(Tensor(x)).numpy()
    # Deviations from the mean are exact but for the mean's own rounding, at most half an ulp of it (and of the sum's).
    error = 4 * float(np.spacing(np.float32(abs(mean)))) / deviation
    np.testing.assert_allclose(out, batch_norm(x.astype("f8"), 1e-12), rtol=1e-4, atol=error + 1e-5)


@pytest.mark.parametrize("function", [
    lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
    lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    lambda x, w, b: F.group_norm(x, 2, w, b),
    lambda x, w, b: F.layer_norm(x, x.shape[2:]) * w.reshape(4, 1, 1) + b.reshape(4, 1, 1),
    lambda x, w, b: F.rms_norm(x, x.shape[3:]) * w.reshape(4, 1, 1) + b.reshape(4, 1, 1),
    lambda x, w, b: F.local_response_norm(x, 3, 0.5) * w.reshape(4, 1, 1) + b.reshape(4, 1, 1),
    lambda x, w, b: F.normalize(x) * w.reshape(4, 1, 1) + b.reshape(4, 1, 1),
    lambda x, w, b: F.cosine_similarity(x, w.reshape(4, 1, 1), dim=1) + b.sum(),
])  # fmt: skip
def test_first_and_second_derivatives(function):
    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal((3, 4, 2, 5)), rng.uniform(0.5, 2, 4), rng.standard_normal(4)]
    weights = Tensor(rng.standard_normal(function(*map(Tensor, arguments)).shape))
    check_grads(lambda *inputs: function(*inputs) * weights, [Tensor(a) for a in arguments], order=2)


def test_functions_of_vectors_equal_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 4, 5)), rng.standard_normal((4, 5))
    x[0, :, 1] = 0
    for options in ({}, dict(p=1), dict(dim=-1), dict(p=math.inf, dim=0, eps=0.5)):
        expected = torch.nn.functional.normalize(torch.tensor(x), **options)
        np.testing.assert_allclose(F.normalize(Tensor(x), **options).numpy(), expected.numpy(), rtol=1e-12)
    for options in ({}, dict(dim=-1), dict(dim=0, eps=0.5)):
        expected = torch.nn.functional.cosine_similarity(torch.tensor(x), torch.tensor(y), **options)
        found = F.cosine_similarity(Tensor(x), Tensor(y), **options)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-10, atol=1e-15)


class Noted(nn.Module):
    """A normalisation whose result nobody needs, between two layers."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.first, self.last = norm, nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.first(x)
        self.norm(x)
        return self.last(x)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("used", [True, False])
def test_captured_steps_update_running_statistics(momentum, used):
    def scenario(wrap):
        norm = nn.BatchNorm1d(5, momentum=momentum)
        model = nn.Sequential(nn.Linear(4, 5), norm, nn.Tanh(), nn.Linear(5, 3)) if used else Noted(norm)
        step = training(wrap, model, optim.SGD(model.parameters(), 0.1, momentum=0.9))
        evaluate = wrap(lambda x: model(x))
        losses = []
        for x, y in zip(arrays(6, 4), classes(6)):
            losses.append(step(x, y))
            model.eval()
            losses.append(evaluate(x))
            model.train()
        return losses, model.state_dict()

    same_with_jit(scenario, captures=2)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=None)])
def test_statistics_follow_without_gradients_and_without_readers(norm):
    batches = np.random.default_rng(0).standard_normal((3, 5, 4)).astype("float32")
    with no_grad():
        for x in batches:
            norm(Tensor(x))
    other = nn.BatchNorm1d(4, momentum=norm.momentum)
    for x in batches:
        other(Tensor(x, requires_grad=True)).sum().backward()
    for name, tensor in norm.state_dict().items():
        assert not tensor.requires_grad
        np.testing.assert_array_equal(tensor.numpy(), other.state_dict()[name].numpy())
    assert norm.num_batches_tracked.item() == 3


def test_evaluation_changes_nothing():
    norm = nn.BatchNorm2d(3)
    norm.eval()(Tensor.randn(2, 3, 4, 5)).realize()
    assert norm.running_mean.tolist() == [0.0] * 3 and norm.num_batches_tracked.item() == 0


def test_half_types_compute_in_float32():
    x = (100 + np.random.default_rng(0).standard_normal((8, 3, 4, 5))).astype("float16")
    out = nn.BatchNorm2d(3)(Tensor(x))
    assert out.dtype is dtypes.float16
    np.testing.assert_allclose(out.numpy().astype("f8"), batch_norm(x.astype("f8")), rtol=2**-10, atol=1e-5)
    for layer in (nn.LayerNorm(5), nn.GroupNorm(3, 3), nn.InstanceNorm2d(3), nn.LocalResponseNorm(2), nn.RMSNorm(5)):
        assert layer(Tensor(x)).dtype is dtypes.float16


def test_state_dicts_without_the_number_of_batches_load():
    """PyTorch's oldest files lack it."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert model.load_state_dict(state) == ([], [])


def test_bad_input_leaves_the_statistics_alone():
    norm = nn.BatchNorm2d(4)
    for bad in (X[:1, :, :1, :1], X.long(), X[0]):
        with pytest.raises(RuntimeError):
            norm(bad)
    mean = Tensor.zeros(4)
    with pytest.raises(ArgumentTypeError):
        F.batch_norm(X + 1, mean, np.ones(4), training=True)
    assert norm.num_batches_tracked.item() == 0 and mean.tolist() == norm.running_mean.tolist() == [0.0] * 4


def test_no_examples_leave_the_statistics_alone():
    norm = nn.BatchNorm2d(3)
    assert norm(Tensor.zeros(0, 3, 4, 5)).shape == (0, 3, 4, 5)
    assert norm.running_mean.tolist() == [0.0] * 3 and norm.running_var.tolist() == [1.0] * 3


X = Tensor.zeros(2, 4, 3, 5)


@pytest.mark.parametrize("call, error, message", [
    (lambda: nn.BatchNorm2d(4)(X[0]), ValueError, "input of 4 dimensions"),
    (lambda: nn.BatchNorm1d(4)(X), ValueError, "input of 2 or 3 dimensions"),
    (lambda: nn.BatchNorm2d(5)(X), RuntimeError, r"5 channels \(num_features\)"),
    (lambda: nn.BatchNorm2d(4)(X[:1, :, :1, :1]), ValueError, "more than 1 value per channel"),
    (lambda: nn.InstanceNorm2d(4)(X[:, :, :1, :1]), ValueError, "more than 1 value per channel of an example"),
    (lambda: nn.GroupNorm(3, 4), ValueError, "num_groups that divides num_channels"),
    (lambda: F.group_norm(X, 3), ArgumentError, "num_groups that divides"),
    (lambda: F.group_norm(X[:, :, 0, 0], 4), ArgumentError, "more than 1 value per group"),
    (lambda: nn.LayerNorm((3, 4))(X), ShapeError, r"ends in normalized_shape \(3, 4\)"),
    (lambda: F.layer_norm(X, 5, weight=Tensor.ones(4)), ShapeError, r"weight of shape \(5,\)"),
    (lambda: F.batch_norm(X), ArgumentError, "running_mean and running_var"),
    (lambda: F.batch_norm(X, Tensor.zeros(3), Tensor.ones(4)), ShapeError, r"running_mean of shape \(4,\)"),
    (lambda: F.batch_norm(X, np.zeros(4), np.ones(4), training=True), ArgumentTypeError, "statistics that are tensors"),
    (lambda: F.instance_norm(X, Tensor.zeros(3), Tensor.ones(4)), ShapeError, r"statistics of shape \(4,\)"),
    (lambda: F.batch_norm(X[0, 0, 0]), ShapeError, "at least 2 dimensions"),
    (lambda: F.instance_norm(X[0, 0]), ShapeError, "at least 3 dimensions"),
    (lambda: F.batch_norm(X.long(), training=True), DTypeError, "floating dtype"),
])  # fmt: skip
def test_wrong_arguments_raise(call, error, message):
    with pytest.raises(error, match=message):
        call()
