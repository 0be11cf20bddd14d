"""Initialisers: gains, fans, spread and bounds; the layers' own defaults."""

import math
import statistics

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, dtypes, nn
from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn import init

SHAPE = (64, 32, 5, 5)  # fan in 800, fan out 1600
SPREAD = 0.02  # relative error of a standard deviation over these 51,200 numbers is 1/sqrt(2n) = 0.3 %


@pytest.mark.parametrize("fill, std, bounded", [
    (lambda t: init.uniform_(t, -1, 3), 4 / math.sqrt(12), False),
    (lambda t: init.normal_(t, 2, 0.5), 0.5, False),
    (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2 / 800), True),
    (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), math.sqrt(2 / 6 / 800), True),
    (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 1600), False),
    (lambda t: init.xavier_uniform_(t, gain=2.0), 2 * math.sqrt(2 / 2400), True),
    (lambda t: init.xavier_normal_(t), math.sqrt(2 / 2400), False),
    (lambda t: init.trunc_normal_(t), 0.8796256610342398, False),  # sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))
])  # fmt: skip
def test_spread(fill, std, bounded):
    minigrad.manual_seed(0)
    tensor = Tensor.zeros(*SHAPE)
    assert fill(tensor) is tensor
    values = tensor.numpy()
    assert abs(values.std() / std - 1) < SPREAD
    if bounded:
        assert abs(values).max() <= math.sqrt(3) * std
        assert abs(values).max() > 0.99 * math.sqrt(3) * std


def test_means_and_constants():
    tensor = Tensor.zeros(*SHAPE)
    assert abs(init.normal_(tensor, 2, 0.5).numpy().mean() - 2) < 0.01
    assert abs(init.uniform_(tensor, -1, 3).numpy().mean() - 1) < 0.02
    assert (init.constant_(tensor, 4.0).numpy() == 4).all()
    assert (init.ones_(tensor).numpy() == 1).all()
    assert not init.zeros_(tensor).numpy().any()


@pytest.mark.parametrize("mean, std, a, b", [
    (0.0, 1.0, -2.0, 2.0), (1.0, 0.5, 0.8, 4.0), (0.0, 1.0, 3.0, 9.0), (0.0, 2.0, -9.0, -1.0),
])  # fmt: skip
def test_truncated_normal_numbers(mean, std, a, b):
    values = np.sort(init.trunc_normal_(Tensor.zeros(300, 200), mean, std, a, b).numpy().ravel())
    assert a <= values[0] and values[-1] <= b
    normal = statistics.NormalDist(mean, std)
    below = np.array([normal.cdf(v) for v in (a, b, *values[::200])])
    if a >= mean:  # of the upper tail, which does not round to 1
        below = -np.array([normal.cdf(2 * mean - v) for v in (a, b, *values[::200])])
    shares = (below[2:] - below[0]) / (below[1] - below[0])
    # An empirical distribution of n numbers is nowhere 2 / sqrt(n) off, but once in 1500 times (Kolmogorov).
    assert abs(shares - np.arange(0, 1, 200 / values.size)).max() < 2 / math.sqrt(values.size)


def test_identities():
    assert init.eye_(Tensor.zeros(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    x = Tensor.randn(2, 4, 7, 6)
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    init.dirac_(conv.weight)
    out = conv(x).numpy()
    np.testing.assert_array_equal(out[:, :4], x.numpy())
    assert not out[:, 4:].any()
    init.dirac_(conv.weight, groups=3)
    np.testing.assert_array_equal(conv(x).numpy(), np.tile(x.numpy()[:, :2], (1, 3, 1, 1)))


def test_dirac_equals_pytorchs():
    torch = pytest.importorskip("torch")
    for shape, groups in (((6, 4, 3), 2), ((4, 5, 2, 3), 1), ((4, 1, 3, 2, 4), 4)):
        expected = torch.nn.init.dirac_(torch.zeros(shape), groups)
        np.testing.assert_array_equal(init.dirac_(Tensor.zeros(*shape), groups).numpy(), expected.numpy())


@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (7, 4), (6, 2, 3, 4)], ids=str)
def test_orthogonal(shape):
    weight = init.orthogonal_(Tensor.zeros(*shape), gain=2.0).numpy().astype("f8").reshape(shape[0], -1)
    product = weight @ weight.T if shape[0] <= weight.shape[1] else weight.T @ weight
    # Each element is rounded to float32 once: rows of n elements err by some sqrt(n) roundings of 2^-24, times 4.
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=4e-6)


def test_sparse():
    values = init.sparse_(Tensor.zeros(40, 30), 0.33, std=0.5).numpy()
    assert ((values == 0).sum(0) == 14).all()  # 13.2 rounded up
    assert len({tuple(column) for column in (values == 0).T}) > 20  # other rows in other columns
    assert abs(values[values != 0].std() / 0.5 - 1) < 0.1  # of 780 numbers: 0.025 is one deviation


def test_gains_equal_pytorchs():
    torch = pytest.importorskip("torch")
    for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)


def test_leaves_that_need_gradients_are_filled_in_place():
    layer = nn.Linear(3, 4)
    weight = layer.weight
    init.ones_(layer.weight)
    assert layer.weight is weight and weight.requires_grad
    assert (layer(Tensor.ones(1, 3)) - layer.bias).tolist() == [[3.0] * 4]
    layer(Tensor.ones(1, 3)).sum().backward()
    assert weight.grad.tolist() == [[1.0] * 3] * 4


def test_the_same_seed_gives_the_same_network():
    def weights(seed):
        minigrad.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 4))
        return np.concatenate([p.numpy().ravel() for p in net.parameters()])

    np.testing.assert_array_equal(weights(5), weights(5))
    assert (weights(5) != weights(6)).any()


@pytest.mark.parametrize("make, bound", [
    (lambda: nn.Linear(400, 300), 1 / 20),
    (lambda: nn.Conv2d(16, 300, 5), 1 / 20),
    (lambda: nn.Conv2d(32, 300, 5, groups=2), 1 / 20),
    (lambda: nn.ConvTranspose2d(300, 16, 5), 1 / 20),
])  # fmt: skip
def test_default_layers_are_uniform_within_the_root_of_fan_in(make, bound):
    layer = make()
    weight = layer.weight.numpy()
    assert abs(weight).max() <= bound
    assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < SPREAD
    assert abs(layer.bias.numpy()).max() <= bound


def test_dtype_of_a_layer():
    layer = nn.Linear(2, 3, dtype=dtypes.float16)
    assert layer.weight.dtype is layer.bias.dtype is dtypes.float16


def test_bad_arguments():
    with pytest.raises(ShapeError, match="2 dimensions"):
        init.kaiming_normal_(Tensor.zeros(3))
    with pytest.raises(ArgumentError, match="mode"):
        init.kaiming_normal_(Tensor.zeros(3, 3), mode="fan")
    with pytest.raises(ArgumentError, match="softplus"):
        init.calculate_gain("softplus")
    with pytest.raises(ArgumentError, match="a < b"):
        init.trunc_normal_(Tensor.zeros(3), a=2.0, b=1.0)
    with pytest.raises(ArgumentError, match="groups that divide 4 outputs"):
        init.dirac_(Tensor.zeros(4, 2, 3), groups=3)
    for call in (init.eye_, init.orthogonal_, lambda t: init.sparse_(t, 0.5), init.dirac_):
        with pytest.raises(ShapeError, match="a matrix|dimensions"):
            call(Tensor.zeros(3))
