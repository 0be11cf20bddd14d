"""Layers against PyTorch's, forward and backward, on the default backend."""

import numpy as np
import pytest

from minigrad import Tensor, nn

torch = pytest.importorskip("torch")

IMAGES = {1: (2, 4, 11), 2: (2, 4, 11, 9), 3: (2, 4, 7, 6, 5)}  # by spatial dimensions; no two sizes of one equal


def compare(ours, theirs, *shapes, rtol=1e-4, atol=1e-5):
    """Same weights, same input: outputs, and gradients of a random weighting of them, must agree."""
    rng = np.random.default_rng(0)
    if list(theirs.parameters()):
        ours.load_state_dict({n: t.detach().numpy() for n, t in theirs.state_dict().items()})
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    x, y = [Tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*x), theirs(*y)
    assert out.shape == tuple(expected.shape)
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), rtol=rtol, atol=atol)
    weights = rng.standard_normal(out.shape).astype("float32")
    (out * Tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    for a, b in zip(x, y):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=rtol, atol=atol)
    for (name, a), (other, b) in zip(ours.named_parameters(), theirs.named_parameters()):
        assert name == other
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=10 * rtol, atol=10 * atol)


CONVOLUTIONS = [
    dict(kernel_size=3),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=2, dilation=2, groups=2, bias=False),
    dict(kernel_size=4, padding="same"),
    dict(kernel_size=3, padding="same", dilation=2, groups=4),
    dict(kernel_size=2, padding="valid", stride=2),
]


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_convolution(rank, settings):
    name = f"Conv{rank}d"
    compare(getattr(nn, name)(4, 8, **settings), getattr(torch.nn, name)(4, 8, **settings), IMAGES[rank])


TRANSPOSED = [
    dict(kernel_size=3),
    dict(kernel_size=3, stride=2, padding=1, output_padding=1),
    dict(kernel_size=2, dilation=2, groups=2, bias=False),
    dict(kernel_size=3, stride=3, dilation=2, output_padding=2),
]


@pytest.mark.parametrize("settings", TRANSPOSED, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolution(rank, settings):
    name = f"ConvTranspose{rank}d"
    compare(getattr(nn, name)(4, 6, **settings), getattr(torch.nn, name)(4, 6, **settings), IMAGES[rank])


def test_settings_per_axis():
    settings = dict(kernel_size=(3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    compare(nn.Conv2d(4, 8, **settings), torch.nn.Conv2d(4, 8, **settings), IMAGES[2])
    settings = dict(kernel_size=(3, 2), stride=(2, 1), padding=(0, 1))
    compare(nn.MaxPool2d(**settings), torch.nn.MaxPool2d(**settings), IMAGES[2])
    compare(nn.AvgPool2d(**settings), torch.nn.AvgPool2d(**settings), IMAGES[2])


@pytest.mark.parametrize("settings", [
    dict(kernel_size=2),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=3, stride=2, ceil_mode=True),
    dict(kernel_size=2, stride=1, dilation=2, padding=1),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pooling(rank, settings):
    name = f"MaxPool{rank}d"
    compare(getattr(nn, name)(**settings), getattr(torch.nn, name)(**settings), IMAGES[rank])


@pytest.mark.parametrize("settings", [
    dict(kernel_size=2),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=3, stride=2, padding=1, count_include_pad=False),
    dict(kernel_size=3, stride=2, padding=1, ceil_mode=True),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_average_pooling(rank, settings):
    name = f"AvgPool{rank}d"
    compare(getattr(nn, name)(**settings), getattr(torch.nn, name)(**settings), IMAGES[rank])


@pytest.mark.parametrize("size", [1, 3, (4, 3), (None, 5), (11, 9), (13, 2)], ids=str)
def test_adaptive_average_pooling(size):
    compare(nn.AdaptiveAvgPool2d(size), torch.nn.AdaptiveAvgPool2d(size), IMAGES[2])
    if isinstance(size, int):
        compare(nn.AdaptiveAvgPool1d(size), torch.nn.AdaptiveAvgPool1d(size), IMAGES[1])


@pytest.mark.parametrize("settings, shape, size", [
    (dict(kernel_size=2), (2, 4, 10, 8), None),
    (dict(kernel_size=2), (2, 4, 11, 9), (2, 4, 11, 9)),
    (dict(kernel_size=3, stride=3, padding=1), (2, 4, 10, 7), None),
], ids=str)  # fmt: skip
def test_unpooling_puts_values_back(settings, shape, size):
    array = np.random.default_rng(0).standard_normal(shape).astype("float32")

    def run(nn, x):
        values, indices = nn.MaxPool2d(**settings, return_indices=True)(x)
        out = nn.MaxUnpool2d(**settings)(values * 2, indices, *([] if size is None else [size]))
        (out * out).sum().backward()
        return out, x.grad

    expected = run(torch.nn, torch.tensor(array, requires_grad=True))
    for ours, theirs in zip(run(nn, Tensor(array, requires_grad=True)), expected):
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)


def test_pool_indices_are_flat_positions():
    x = np.random.default_rng(0).standard_normal(IMAGES[2]).astype("float32")
    settings = dict(kernel_size=3, stride=2, padding=1, return_indices=True)
    values, indices = nn.MaxPool2d(**settings)(Tensor(x))
    expected, positions = torch.nn.MaxPool2d(**settings)(torch.tensor(x))
    np.testing.assert_array_equal(values.numpy(), expected.numpy())
    np.testing.assert_array_equal(indices.numpy(), positions.numpy())
    assert indices.numpy().dtype == np.int64


@pytest.mark.parametrize("make", [
    lambda nn: nn.ReLU(),
    lambda nn: nn.ReLU6(),
    lambda nn: nn.Tanh(),
    lambda nn: nn.Sigmoid(),
    lambda nn: nn.SiLU(),
    lambda nn: nn.GELU(),
    lambda nn: nn.GELU("tanh"),
    lambda nn: nn.LeakyReLU(0.2),
    lambda nn: nn.ELU(1.5),
    lambda nn: nn.Softplus(2.0, 3.0),
    lambda nn: nn.Hardtanh(-0.5, 0.75),
    lambda nn: nn.Softmax(dim=1),
    lambda nn: nn.LogSoftmax(dim=-1),
    lambda nn: nn.Flatten(),
    lambda nn: nn.Flatten(0, 2),
    lambda nn: nn.Identity(54, unused=True),
    lambda nn: nn.Linear(5, 3),
    lambda nn: nn.Linear(5, 3, bias=False),
    lambda nn: nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)),
    lambda nn: nn.Dropout(0.5).eval(),
    lambda nn: nn.Dropout(0.0),
])  # fmt: skip
def test_other_layers(make):
    compare(make(nn), make(torch.nn), (2, 3, 4, 5))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["MSELoss", "L1Loss"])
def test_regression_losses(name, reduction):
    shape = (4, 3, 2)
    compare(getattr(nn, name)(reduction=reduction), getattr(torch.nn, name)(reduction=reduction), shape, shape)


def losses_agree(ours, theirs, x, target):
    a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out, expected = ours(a, Tensor(target)), theirs(b, torch.tensor(target))
    assert out.shape == tuple(expected.shape)
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    out.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-6)


CLASS_WEIGHTS = np.array([0.5, 2.0, 1.0], "float32")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 4)], ids=str)
def test_classification_losses(shape, weighted, reduction):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype("float32")
    target = rng.integers(0, 3, (shape[0], *shape[2:]))
    target[0] = -100  # ignored
    weight, other = (Tensor(CLASS_WEIGHTS), torch.tensor(CLASS_WEIGHTS)) if weighted else (None, None)
    for smoothing in (0.0, 0.1):
        losses_agree(
            nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing),
            torch.nn.CrossEntropyLoss(other, reduction=reduction, label_smoothing=smoothing),
            x, target,
        )  # fmt: skip
    losses_agree(
        nn.NLLLoss(weight, ignore_index=2, reduction=reduction),
        torch.nn.NLLLoss(other, ignore_index=2, reduction=reduction),
        x, np.abs(target) % 3,
    )  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_probabilities(smoothing):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3)).astype("float32")
    target = rng.dirichlet(np.ones(3), 5).astype("float32")
    losses_agree(
        nn.CrossEntropyLoss(label_smoothing=smoothing), torch.nn.CrossEntropyLoss(label_smoothing=smoothing), x, target
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_losses(reduction):
    rng = np.random.default_rng(0)
    x, target = rng.uniform(0.01, 0.99, (2, 5, 3)).astype("float32")
    losses_agree(nn.BCELoss(reduction=reduction), torch.nn.BCELoss(reduction=reduction), x, target)
    logits = (x - 0.5) * 100
    losses_agree(
        nn.BCEWithLogitsLoss(reduction=reduction), torch.nn.BCEWithLogitsLoss(reduction=reduction), logits, target
    )


def test_binary_loss_at_certainty():
    x, target = np.array([0.0, 1.0, 1.0], "float32"), np.array([0.0, 1.0, 0.0], "float32")
    out = nn.BCELoss(reduction="none")(Tensor(x), Tensor(target))
    expected = torch.nn.BCELoss(reduction="none")(torch.tensor(x), torch.tensor(target))
    np.testing.assert_array_equal(out.numpy(), expected.numpy())


def test_dropout_keeps_the_mean_and_drops_the_share():
    layer = nn.Dropout(0.25)
    x = Tensor.ones(200, 200, requires_grad=True)
    out = layer(x)
    values = out.numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((values == 0).mean() - 0.25) < 0.01
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), values)  # backward uses the mask of forward
    assert (layer(x).numpy() != values).any()
    assert not nn.Dropout(1.0)(Tensor.ones(3)).numpy().any()
