"""What one training step does: parts of batches, clipping, averages of weights, precision, recomputation."""

from typing import NamedTuple

import numpy as np
import pytest
from images import blobs, small_net

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import ArgumentError
from minigrad.nn.amp import GradScaler
from minigrad.nn.training import ExponentialMovingAverage, Preprocessing, Recipe
from minigrad.nn.training.optimization import make_optimizer
from minigrad.nn.training.step import Step, checkpoint_children

PREPARED = Preprocessing((1, 14, 14), (0.25,), (0.26,))


def trained(steps=3, count=25, normalise=False, prepare=lambda net: None, **fields):
    """Losses, counts and weights of a few steps on batches of ``count`` images."""
    minigrad.manual_seed(0)
    net = small_net(normalise=normalise)
    prepare(net)
    recipe = Recipe("x", **{"lr": 0.1, "momentum": 0.9, **fields})
    optimizer, scaler = make_optimizer(recipe, net.parameters()), GradScaler(enabled=recipe.precision == "float16")
    step = Step(recipe, net.train(), optimizer, PREPARED, scaler, None)
    results = []
    for n in range(steps):
        images, labels = blobs(count, seed=n, side=14)
        loss, correct = step(Tensor(images), Tensor(labels))
        results.append((loss.item(), correct.item()))
    return results, [p.numpy() for p in net.parameters()]


def without_dropout(net):
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


@pytest.mark.parametrize("count, parts", [(24, 2), (25, 4), (3, 5)], ids=["even", "ragged", "fewer images than parts"])
@pytest.mark.parametrize("fields", [{}, {"clip_norm": 0.1, "label_smoothing": 0.2}], ids=["plain", "clipped"])
def test_a_batch_in_parts_is_the_same_step(count, parts, fields):
    """But for the order in which float32 sums are taken: means over parts, weighted by their sizes."""
    whole, weights = trained(count=count, prepare=without_dropout, **fields)
    found, others = trained(count=count, prepare=without_dropout, accumulate=parts, **fields)
    assert [right for _, right in found] == [right for _, right in whole]
    np.testing.assert_allclose([loss for loss, _ in found], [loss for loss, _ in whole], rtol=1e-5)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_step():
    def distance(clip):
        _, before = trained(steps=0)
        _, after = trained(steps=1, momentum=0.0, weight_decay=0.0, lr=1.0, clip_norm=clip)
        return np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, after)))

    assert distance(None) > 0.02
    assert distance(0.01) == pytest.approx(0.01, rel=1e-3)  # the norm is scaled by 0.01 / (norm + 1e-6)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_nearly_the_same_step_with_weights_of_float32(precision):
    whole, weights = trained(normalise=True)
    found, others = trained(normalise=True, precision=precision)
    assert found != whole
    np.testing.assert_allclose([loss for loss, _ in found], [loss for loss, _ in whole], rtol=0.05)
    assert {w.dtype for w in others} == {np.dtype("float32")}
    assert max(np.abs(a - b).max() for a, b in zip(weights, others)) < 0.02  # three steps of at most 0.1


def test_recomputation_changes_nothing_but_how_sums_are_rounded():
    whole, weights = trained(normalise=True)
    found, others = trained(normalise=True, prepare=checkpoint_children)
    assert [right for _, right in found] == [right for _, right in whole]
    np.testing.assert_allclose([loss for loss, _ in found], [loss for loss, _ in whole], rtol=1e-5)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


class Outputs(NamedTuple):
    logits: Tensor
    auxiliary: Tensor

    def cross_entropy(self, target, label_smoothing=0.0):
        return self.logits.cross_entropy(target) + 0.3 * self.auxiliary.cross_entropy(target)


class TwoHeads(nn.Module):
    """Gives two sets of logits in training, as GoogLeNet does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (small_net(normalise=False) for _ in range(2))

    def forward(self, x):
        return Outputs(self.first(x), self.second(x))


def test_networks_with_auxiliary_outputs_have_a_loss_of_their_own():
    net = TwoHeads()
    before = [p.numpy() for p in net.parameters()]
    step = Step(Recipe("x"), net, nn.optim.SGD(net.parameters(), lr=0.1), PREPARED, GradScaler(enabled=False), None)
    images, labels = blobs(6, side=14)
    _, correct = step(Tensor(images), Tensor(labels))
    assert 0 <= correct.item() <= 6
    assert all(np.any(a != b.numpy()) for a, b in zip(before, net.parameters()))


def test_the_moving_average_of_weights():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = ExponentialMovingAverage(net, decay=0.5)
    expected = {name: t.numpy().astype(np.float64) for name, t in net.state_dict().items()}
    rng = np.random.default_rng(0)
    for n in range(1, 8):
        for name, tensor in net.state_dict().items():
            new = rng.standard_normal(tensor.shape) if tensor.dtype.is_float else n
            with minigrad.no_grad():
                tensor.assign(Tensor(np.asarray(new, tensor.dtype.numpy)))
            d = min(0.5, (1 + n) / (10 + n))
            expected[name] = d * expected[name] + (1 - d) * np.asarray(new) if tensor.dtype.is_float else np.asarray(n)
        average.update()
    for name, tensor in average.model.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-6)
    assert average.updates.item() == 7 and not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    with pytest.raises(ArgumentError, match="decay"):
        ExponentialMovingAverage(net, 1.0)


def test_preprocessing_of_colour_and_grey():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4)).astype(np.uint8)
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.25, 0.3)
    found = Preprocessing((3, 5, 4), mean, std)(Tensor(images))
    expected = (images / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    found = Preprocessing((1, 5, 4), (0.5,), (0.25,))(Tensor(np.array([[[[0, 255]]]], np.uint8)))
    np.testing.assert_allclose(found.numpy().ravel(), [-2.0, 2.0], rtol=1e-6)


def test_what_images_go_through_on_the_host():
    names = [[type(t).__name__ for t in p.transforms((12, 10))] for p in (
        Preprocessing((3, 12, 10), (0.5,) * 3, (0.5,) * 3), Preprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3),
        Preprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3, resize=9),
    )]  # fmt: skip
    assert names == [[], ["Resize"], ["Resize", "CenterCrop"]]
    assert Preprocessing.from_json(Preprocessing((3, 8, 8), (0.5,), (0.5,), 9).to_json()).resize == 9
