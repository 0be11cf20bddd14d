"""Layers against PyTorch's: outputs, gradients, defaults, how they print."""

import inspect

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, ShapeError

torch = pytest.importorskip("torch")

IMAGES = {1: (2, 4, 11), 2: (2, 4, 11, 9), 3: (2, 4, 7, 6, 5)}  # by spatial dimensions; no two sizes of one equal


def compare(ours, theirs, *shapes, rtol=1e-4, atol=1e-5):
    """Same weights, same input: outputs, and gradients of a random weighting of them, must agree."""
    rng = np.random.default_rng(0)
    if list(theirs.parameters()):
        ours.load_state_dict({n: t.detach().numpy() for n, t in theirs.state_dict().items()})
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    x, y = [Tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*x), theirs(*(t.clone() for t in y))  # PyTorch writes into the input if inplace=True
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


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("rank, settings", [
    (1, dict(padding=2)), (2, dict(padding=(2, 1), stride=2)), (2, dict(padding="same", dilation=(1, 3))),
    (2, dict(padding="valid")), (3, dict(padding=1)),
], ids=str)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_convolution_with_other_padding(rank, settings, mode):
    settings = dict(kernel_size=(2, 3, 2)[:rank], padding_mode=mode, bias=False, **settings)
    name = f"Conv{rank}d"
    ours, theirs = (getattr(m, name)(4, 6, **settings) for m in (nn, torch.nn))
    compare(ours, theirs, IMAGES[rank])
    assert repr(ours) == repr(theirs)


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


OTHERS = [
    lambda nn: nn.ReLU(),
    lambda nn: nn.ReLU(inplace=True),
    lambda nn: nn.ReLU6(),
    lambda nn: nn.LeakyReLU(0.2),
    lambda nn: nn.PReLU(),
    lambda nn: nn.PReLU(3, init=0.1),
    lambda nn: nn.ELU(1.5, inplace=True),
    lambda nn: nn.SELU(),
    lambda nn: nn.CELU(1.5),
    lambda nn: nn.GELU(),
    lambda nn: nn.GELU("tanh"),
    lambda nn: nn.SiLU(),
    lambda nn: nn.Mish(),
    lambda nn: nn.Softplus(2.0, 3.0),
    lambda nn: nn.Sigmoid(),
    lambda nn: nn.LogSigmoid(),
    lambda nn: nn.Hardsigmoid(),
    lambda nn: nn.Hardswish(),
    lambda nn: nn.Tanh(),
    lambda nn: nn.Tanhshrink(),
    lambda nn: nn.Hardtanh(-0.5, 0.75),
    lambda nn: nn.Softsign(),
    lambda nn: nn.Softshrink(),
    lambda nn: nn.Hardshrink(0.75),
    lambda nn: nn.Threshold(0.5, -2.0),
    lambda nn: nn.GLU(dim=2),
    lambda nn: nn.Softmax(dim=1),
    lambda nn: nn.Softmin(dim=-1),
    lambda nn: nn.Softmax2d(),
    lambda nn: nn.LogSoftmax(dim=-1),
    lambda nn: nn.Flatten(),
    lambda nn: nn.Flatten(0, 2),
    lambda nn: nn.Unflatten(2, (2, -1)),
    lambda nn: nn.Identity(54, unused=True),
    lambda nn: nn.Linear(5, 3),
    lambda nn: nn.Linear(5, 3, bias=False),
    lambda nn: nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)),
    lambda nn: nn.Dropout(0.5).eval(),
    lambda nn: nn.Dropout(0.0),
    lambda nn: nn.Dropout2d(0.5, inplace=True).eval(),
    lambda nn: nn.Dropout3d(0.5).eval(),
    lambda nn: nn.ZeroPad2d((1, 0, 2, 3)),
    lambda nn: nn.ConstantPad2d(1, 0.5),
    lambda nn: nn.ReflectionPad2d((1, 2, 0, 3)),
    lambda nn: nn.ReplicationPad2d(2),
    lambda nn: nn.CircularPad2d((2, 1, 1, 0)),
    lambda nn: nn.Upsample(scale_factor=2),
    lambda nn: nn.Upsample((6, 13)),
    lambda nn: nn.Upsample(scale_factor=(1.5, 2.5), mode="nearest"),
    lambda nn: nn.Upsample((3, 7), mode="nearest-exact"),
    lambda nn: nn.Upsample((7, 3), mode="bilinear"),
    lambda nn: nn.Upsample(scale_factor=2.5, mode="bilinear", align_corners=False),
    lambda nn: nn.Upsample(scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
    lambda nn: nn.Upsample((9, 1), mode="bilinear", align_corners=True),
    lambda nn: nn.Upsample((3, 2), mode="area"),
    lambda nn: nn.PixelUnshuffle(1),
]


@pytest.mark.filterwarnings("ignore:The default behavior for interpolate")
@pytest.mark.parametrize("make", OTHERS)
def test_other_layers(make):
    compare(make(nn), make(torch.nn), (2, 3, 4, 5))


@pytest.mark.parametrize("make", [
    *OTHERS,
    lambda nn: nn.MaxPool1d(2),
    lambda nn: nn.MaxPool2d(3, stride=2, padding=1),
    lambda nn: nn.MaxPool3d((1, 2, 3)),
    lambda nn: nn.AvgPool2d((2, 3)),
    lambda nn: nn.AdaptiveAvgPool2d((1, None)),
    lambda nn: nn.AdaptiveMaxPool2d(3),
    lambda nn: nn.MaxUnpool2d(2),
    lambda nn: nn.PixelShuffle(2),
    lambda nn: nn.Embedding(10, 3, padding_idx=-1),
    lambda nn: nn.ConstantPad1d(1, 0.5),
    lambda nn: nn.CrossEntropyLoss(),
    lambda nn: nn.HuberLoss(),
    lambda nn: nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.ReLU())]),
    lambda nn: nn.ModuleList(),
    lambda nn: nn.ModuleDict({"a": nn.ReLU(), "b": nn.ModuleList([nn.Tanh()])}),
])  # fmt: skip
def test_repr_equals_pytorchs(make):
    assert repr(make(nn)) == repr(make(torch.nn))


UNLIKE = {  # PyTorch's deprecated arguments, and what is left out
    "size_average", "reduce", "min_value", "max_value", "generator", "divisor_override", "max_norm",
    "norm_type", "scale_grad_by_freq", "sparse", "_weight", "_freeze",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(
    n for n in nn.__all__ if n[0].isupper() and n not in ("Module", "Parameter", "Identity", "Sequential")
))  # fmt: skip
def test_arguments_and_defaults_equal_pytorchs(name):
    def arguments(cls):
        found = {n: p.default for n, p in inspect.signature(cls).parameters.items() if n not in UNLIKE}
        return {n: None if v is inspect.Parameter.empty else v for n, v in found.items()}

    ours, theirs = arguments(getattr(nn, name)), arguments(getattr(torch.nn, name))
    if name in ("ModuleList", "ParameterList"):  # nothing to start with is () here and None there
        ours = dict.fromkeys(ours)
    if name.startswith("ConvTranspose"):  # there only zeros are allowed
        theirs.pop("padding_mode")
    if name in ("Softmax", "Softmin", "LogSoftmax"):  # there None, which is deprecated
        theirs["dim"] = -1
    assert list(ours) == list(theirs)
    assert ours == theirs


@pytest.mark.parametrize("rank, size", [
    (1, 3), (1, (4,)), (2, 1), (2, (4, 2)), (2, (None, 5)), (2, (13, 2)),
    (3, 3), (3, (4, 2, 3)), (3, (None, 5, 1)), (3, (7, 6, 5)),
], ids=str)  # fmt: skip
def test_adaptive_pooling(rank, size):
    for kind in ("Avg", "Max"):
        name = f"Adaptive{kind}Pool{rank}d"
        compare(getattr(nn, name)(size), getattr(torch.nn, name)(size), (2, 4, 7, 6, 5)[: rank + 2])
    x = np.random.default_rng(0).integers(0, 4, (2, 4, 7, 6, 5)[: rank + 2]).astype("float32")  # with ties
    ours, theirs = (getattr(m, f"AdaptiveMaxPool{rank}d")(size, return_indices=True) for m in (nn, torch.nn))
    for a, b in zip(ours(Tensor(x)), theirs(torch.tensor(x))):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("rank, mode", [(1, "linear"), (3, "trilinear"), (1, "nearest"), (3, "nearest"), (3, "area")])
def test_interpolation_over_other_dimensions(rank, mode):
    shape, size = (2, 3, 4, 5, 3)[: rank + 2], (7, 3, 6)[:rank]
    compare(nn.Upsample(size, mode=mode), torch.nn.Upsample(size, mode=mode), shape)
    align = True if "linear" in mode else None
    settings = dict(scale_factor=2, mode=mode, align_corners=align)
    compare(nn.Upsample(**settings), torch.nn.Upsample(**settings), shape)


def test_interpolation_looks_at_neighbours_only():
    x = np.arange(5.0, dtype="float32")
    x[4] = np.inf
    out = Tensor(x.reshape(1, 1, 5)).interpolate(9, mode="linear", align_corners=True).numpy().ravel()
    np.testing.assert_array_equal(out[:6], np.arange(6) / 2)
    assert out[7] == np.inf


@pytest.mark.parametrize("shape", [(2, 12, 4, 5), (12, 2, 3), (3, 2, 18, 1, 2)], ids=str)
def test_pixel_shuffle_is_undone_by_its_inverse(shape):
    factor = 3 if shape[-3] == 18 else 2
    compare(nn.PixelShuffle(factor), torch.nn.PixelShuffle(factor), shape)
    x = Tensor.randn(*shape)
    shuffled = nn.PixelShuffle(factor)(x)
    compare(nn.PixelUnshuffle(factor), torch.nn.PixelUnshuffle(factor), shuffled.shape)
    np.testing.assert_array_equal(nn.PixelUnshuffle(factor)(shuffled).numpy(), x.numpy())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind, settings", [
    ("ZeroPad", (2,)), ("ConstantPad", (1, -0.5)), ("ReflectionPad", (1,)), ("ReplicationPad", (3,)),
    ("CircularPad", (2,)),
], ids=str)  # fmt: skip
def test_padding(rank, kind, settings):
    name, shape = f"{kind}{rank}d", (2, 3, 4, 5, 3)[: rank + 2]
    compare(getattr(nn, name)(*settings), getattr(torch.nn, name)(*settings), shape)
    compare(getattr(nn, name)(*settings), getattr(torch.nn, name)(*settings), shape[1:])


@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding(padding):
    ours, theirs = nn.Embedding(7, 3, padding), torch.nn.Embedding(7, 3, padding)
    row = ours.padding_idx
    assert row == theirs.padding_idx and (row is None or not ours.weight.numpy()[row].any())
    ours.load_state_dict({n: t.numpy() for n, t in theirs.state_dict().items()})
    index = np.array([[0, 2, 6, 2], [5, 2, 6, 6], [1, 1, 0, 4]])
    out, expected = ours(Tensor(index)), theirs(torch.tensor(index))
    np.testing.assert_array_equal(out.numpy(), expected.detach().numpy())
    weights = np.random.default_rng(0).standard_normal(out.shape).astype("float32")
    (out * Tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-6)


def test_embedding_of_a_given_table():
    table = Tensor([[1.0, 2.0], [3.0, 4.0]])
    layer = nn.Embedding.from_pretrained(table)
    assert layer(Tensor([1, 0])).tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert [n for n, _ in layer.named_parameters()] == ["weight"] and not layer.weight.requires_grad
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name, settings", [
    ("MSELoss", {}), ("L1Loss", {}), ("HuberLoss", {}), ("HuberLoss", dict(delta=0.5)),
    ("SmoothL1Loss", {}), ("SmoothL1Loss", dict(beta=0.5)), ("KLDivLoss", dict(log_target=True)),
], ids=str)  # fmt: skip
@pytest.mark.filterwarnings("ignore:reduction")  # PyTorch advises batchmean
def test_regression_losses(name, settings, reduction):
    shape = (4, 3, 2)
    pair = (getattr(m, name)(reduction=reduction, **settings) for m in (nn, torch.nn))
    compare(*pair, shape, shape)


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
    weight, positive = rng.uniform(0.5, 2, (2, 3)).astype("float32")
    logits = (x - 0.5) * 100
    for weighted in (False, True):
        ours, theirs = (
            {"weight": tensor(weight), "pos_weight": tensor(positive)} if weighted else {}
            for tensor in (Tensor, torch.tensor)
        )
        pair = (m.BCEWithLogitsLoss(reduction=reduction, **s) for m, s in ((nn, ours), (torch.nn, theirs)))
        losses_agree(*pair, logits, target)
        pair = (m.BCELoss(s.get("weight"), reduction=reduction) for m, s in ((nn, ours), (torch.nn, theirs)))
        losses_agree(*pair, x, target)


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


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dropout_of_channels(rank):
    shape = (40, 50, 3, 2, 4)[: rank + 2]
    layer = getattr(nn, f"Dropout{rank}d")(0.25)
    x = Tensor.ones(*shape, requires_grad=True)
    out = layer(x)
    values = out.numpy().reshape(40, 50, -1)
    assert (values == values[:, :, :1]).all()  # a channel is dropped as a whole
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    # Of 2000 channels, each dropped with probability 1/4, the share errs by 0.01; this is four times as much.
    assert abs((values[:, :, 0] == 0).mean() - 0.25) < 0.04
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), out.numpy())
    assert layer(x[0]).shape == shape[1:]
    assert layer.eval()(x) is x


@pytest.mark.parametrize("call, error, message", [
    (lambda x: nn.Conv2d(4, 2, 3, padding_mode="mirror"), ArgumentError, "padding_mode of 'zeros', 'reflect'"),
    (lambda x: nn.Dropout(1.5), ArgumentError, r"Dropout: expected a probability"),
    (lambda x: nn.Dropout2d()(x[0, 0]), ShapeError, "dropout2d: expected 4 dimensions"),
    (lambda x: nn.Softmax2d()(x[0, 0]), ShapeError, "Softmax2d"),
    (lambda x: nn.PReLU(3)(x), ShapeError, r"weight of shape \(1,\) or \(4,\)"),
    (lambda x: nn.GLU()(x), ShapeError, "an axis of even size"),
    (lambda x: x.celu(0.0), ArgumentError, "alpha other than 0"),
    (lambda x: x.softshrink(-1.0), ArgumentError, "lambd"),
    (lambda x: nn.ZeroPad2d((1, 2)), ArgumentError, "padding as one number, or 4"),
    (lambda x: nn.ZeroPad2d(1)(x[0, 0]), ShapeError, "4 dimensions"),
    (lambda x: nn.Embedding(5, 2, padding_idx=5), ArgumentError, "padding_idx within 5 rows"),
    (lambda x: nn.Embedding.from_pretrained(x), ShapeError, "a matrix"),
    (lambda x: nn.PixelShuffle(3)(x), ShapeError, "channels that 9 divides"),
    (lambda x: nn.PixelUnshuffle(2)(x), ShapeError, "sizes that 2 divides"),
    (lambda x: x.interpolate(), ArgumentError, "either size or scale_factor"),
    (lambda x: x.interpolate(3, 2.0), ArgumentError, "either size or scale_factor"),
    (lambda x: x.interpolate(3, mode="linear"), ArgumentError, "bilinear for 2 spatial dimensions"),
    (lambda x: x.interpolate(3, align_corners=True), ArgumentError, "linear modes only"),
    (lambda x: x.interpolate(scale_factor=-1.0), ArgumentError, "scale_factor"),
    (lambda x: x[0, 0].interpolate(3), ShapeError, "interpolate"),
    (lambda x: x.adaptive_max_pool2d((1, 2, 3)), ArgumentError, "output_size"),
])  # fmt: skip
def test_wrong_arguments_raise(call, error, message):
    with pytest.raises(error, match=message):
        call(Tensor.zeros(2, 4, 3, 5))
