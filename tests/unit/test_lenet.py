"""LeNet-5: its shapes and parameters, its options, and that it learns."""

import numpy as np
import pytest
from images import blobs

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn import optim
from minigrad.nn.models import lenet5

LAYERS = {  # output and parameters; 5*5*1*6+6 = 156 and so on
    "c1": ((6, 28, 28), 156),
    "s2": ((6, 14, 14), 0),
    "c3": ((16, 10, 10), 2416),
    "s4": ((16, 5, 5), 0),
    "c5": ((120, 1, 1), 48120),
    "f6": ((84,), 10164),
    "out": ((10,), 850),
}


@pytest.mark.parametrize("padding, side", [(2, 28), (0, 32)])
@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "pool": "average"}], ids=["relu", "1998"])
def test_layers(padding, side, options):
    net = lenet5(padding=padding, **options)
    shapes = {}
    for layer in net.children():
        layer.register_forward_hook(lambda module, args, output: shapes.update({module: output.shape[1:]}))
    net(Tensor.zeros(2, 1, side, side))
    for name, (shape, count) in LAYERS.items():
        layer = getattr(net, name)
        assert shapes[layer] == shape
        assert sum(p.numel() for p in layer.parameters()) == count
    assert sum(p.numel() for p in net.parameters()) == 61706


def test_options():
    assert "Tanh" in repr(lenet5(activation="tanh")) and "AvgPool2d" in repr(lenet5(pool="average"))
    assert lenet5(num_classes=3)(Tensor.zeros(1, 1, 28, 28)).shape == (1, 3)
    with pytest.raises(ArgumentError, match="'relu' or 'tanh'"):
        lenet5(activation="gelu")
    with pytest.raises(ArgumentError, match="'max' or 'average'"):
        lenet5(pool="mean")


def test_initialisation():
    minigrad.manual_seed(0)
    assert abs(lenet5().c5.weight.numpy().std() / np.sqrt(1 / (3 * 400)) - 1) < 0.02
    assert abs(lenet5(activation="tanh").c5.weight.numpy().std() / np.sqrt(2 / 3400) - 1) < 0.02
    assert not lenet5(activation="tanh").out.bias.numpy().any()


def test_images_of_the_other_size():
    for padding, side, hint in ((2, 32, "padding=0 takes 32x32"), (0, 28, "padding=2 takes 28x28")):
        with pytest.raises(ShapeError, match=rf"\(N, 1, {60 - side}, {60 - side}\)(.|\n)*{hint}"):
            lenet5(padding=padding)(Tensor.zeros(2, 1, side, side))


def test_computes_what_pytorch_computes():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    net = lenet5()
    w = {n: torch.tensor(t.numpy(), requires_grad=True) for n, t in net.state_dict().items()}
    images = np.random.default_rng(0).standard_normal((4, 1, 28, 28)).astype("float32")
    labels = np.array([3, 1, 4, 1])
    x = torch.tensor(images)
    x = functional.max_pool2d(functional.conv2d(x, w["c1.weight"], w["c1.bias"], padding=2).relu(), 2)
    x = functional.max_pool2d(functional.conv2d(x, w["c3.weight"], w["c3.bias"]).relu(), 2)
    x = functional.conv2d(x, w["c5.weight"], w["c5.bias"]).relu().flatten(1)
    x = functional.linear(functional.linear(x, w["f6.weight"], w["f6.bias"]).relu(), w["out.weight"], w["out.bias"])
    expected = functional.cross_entropy(x, torch.tensor(labels))
    expected.backward()
    loss = nn.functional.cross_entropy(net(Tensor(images)), Tensor(labels))
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-5)
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), w[name].grad.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "pool": "average"}], ids=["relu", "1998"])
def test_a_few_steps_reduce_the_loss(options):
    minigrad.manual_seed(0)
    net = lenet5(num_classes=4, **options)
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    images, labels = blobs(32)
    x, y = Tensor(images, dtype="float32") / 255.0 - 0.25, Tensor(labels)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
