"""LeNet-5: its shapes and parameters, its options, and that it learns."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, cli, dtypes, nn
from minigrad.errors import ArgumentError, DataError, DivergedError, ShapeError
from minigrad.nn import optim, serialize
from minigrad.nn.models import lenet5
from minigrad.nn.training import Preprocessing, evaluate, train_classifier

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


def blobs(count, seed=0):
    """Images of 28x28 bytes whose class, 0 to 3, is the quarter that is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels):
        row, column = divmod(int(label), 2)
        image[14 * row : 14 * row + 14, 14 * column : 14 * column + 14] += 150
    return images, labels


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "pool": "average"}], ids=["relu", "1998"])
def test_a_few_steps_reduce_the_loss(options):
    minigrad.manual_seed(0)
    net = lenet5(num_classes=4, **options)
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    images, labels = blobs(32)
    x, y = Preprocessing()(Tensor(images)), Tensor(labels.astype(np.int64))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_preprocessing():
    images = Tensor(np.array([[[0, 255]]], np.uint8))
    result = Preprocessing(mean=0.5, std=0.25)(images)
    assert result.shape == (1, 1, 1, 2) and result.dtype is dtypes.float32
    np.testing.assert_allclose(result.numpy().ravel(), [-2.0, 2.0], rtol=1e-6)


def test_training_prints_saves_and_reaches_the_goal(tmp_path, capsys):
    minigrad.manual_seed(0)
    net = lenet5(num_classes=4)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    out = tmp_path / "lenet.safetensors"
    accuracy = train_classifier(net, optimizer, blobs(400), blobs(50, seed=1), epochs=2, batch_size=32, out=out)
    assert accuracy == 1.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch 1/2: loss ") and lines[1].startswith("epoch 2/2: loss ")
    assert "images/s" in lines[0]
    assert lines[-1] == "test accuracy: 100.00 %"
    assert len(lines) == 4
    assert serialize.read_metadata(out)["model"] == "LeNet5"
    twin = lenet5(num_classes=4)
    twin.load_state_dict(serialize.load(out))
    assert evaluate(twin, *blobs(50, seed=1), Preprocessing()) == 1.0


def test_training_is_reproducible():
    def run():
        minigrad.manual_seed(3)
        net = lenet5(num_classes=4)
        optimizer = optim.Adam(net.parameters())
        train_classifier(net, optimizer, blobs(64), blobs(8, seed=1), epochs=1, batch_size=32, seed=3)
        return np.concatenate([p.numpy().ravel() for p in net.parameters()])

    np.testing.assert_array_equal(run(), run())


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    net = lenet5(num_classes=4)
    optimizer = optim.SGD(net.parameters(), lr=1e30)
    out = tmp_path / "w.safetensors"
    with pytest.raises(DivergedError, match="smaller learning rate"):
        train_classifier(net, optimizer, blobs(64), blobs(8), epochs=3, batch_size=16, out=out)
    assert not out.exists()


def test_ctrl_c_ends_with_a_message(capsys):
    net = lenet5(num_classes=4)

    def interrupt(module, args):
        raise KeyboardInterrupt

    net.register_forward_pre_hook(interrupt)
    with pytest.raises(SystemExit) as stopped:
        train_classifier(net, optim.SGD(net.parameters()), blobs(8), blobs(8), epochs=3, batch_size=4)
    assert stopped.value.code == 130
    assert "stopped by Ctrl-C in epoch 1 of 3" in capsys.readouterr().err


def test_an_out_folder_that_does_not_exist_is_told_before_training(tmp_path):
    net = lenet5(num_classes=4)
    with pytest.raises(DataError, match="nowhere"):
        train_classifier(
            net, optim.SGD(net.parameters()), blobs(8), blobs(8), epochs=10**9, batch_size=4,
            out=tmp_path / "nowhere" / "w.safetensors",
        )  # fmt: skip


def test_the_example_and_the_command_train_the_same_network(tmp_path, monkeypatch, capsys):
    (train_images, train_labels), (test_images, test_labels) = blobs(300), blobs(50, seed=1)
    digits = nn.data.ImageData(
        train_images, train_labels, test_images, test_labels, tuple("0123"), (0.1,), (0.3,), "a test", True
    )
    monkeypatch.setattr(nn.data, "mnist", lambda data: digits)
    example = Path(__file__).parents[2] / "examples" / "train_lenet.py"
    options = ["--epochs", "1", "--batch-size", "16", "--seed", "1", "--out"]
    monkeypatch.setattr(sys, "argv", [str(example), *options, str(tmp_path / "a.safetensors")])
    runpy.run_path(str(example), run_name="__main__")
    first = capsys.readouterr().out.splitlines()
    assert cli.main(["train", "lenet", *options, str(tmp_path / "b.safetensors")]) == 0
    second = capsys.readouterr().out.splitlines()
    assert first[-1] == second[-1] and first[-1].startswith("test accuracy: ")
    a, b = (serialize.load(tmp_path / f"{name}.safetensors") for name in "ab")
    for name, tensor in a.items():
        np.testing.assert_array_equal(tensor.numpy(), b[name].numpy())
