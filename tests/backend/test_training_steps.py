"""Training steps with all that a recipe can ask for, and training that goes on, on every backend."""

import numpy as np
import pytest
from images import blob_data, blobs, small_net

import minigrad
from minigrad import Tensor
from minigrad.nn.amp import GradScaler
from minigrad.nn.training import ExponentialMovingAverage, Preprocessing, Recipe, Trainer
from minigrad.nn.training.checkpoint import load_training
from minigrad.nn.training.optimization import make_optimizer
from minigrad.nn.training.step import Step, checkpoint_children

RECIPE = Recipe("small", epochs=2, batch_size=24, lr=0.05, clip_norm=1.0, label_smoothing=0.1, ema=0.9)


def steps(device, **fields):
    """Losses of three steps, the weights and their averages after them, and the scale of the loss."""
    with minigrad.backend(device):
        minigrad.manual_seed(0)
        net, recipe = small_net(), RECIPE.replace(**fields)
        if recipe.checkpoint_gradients:
            checkpoint_children(net)
        average = ExponentialMovingAverage(net, recipe.ema)
        scaler = GradScaler(init_scale=2.0**20, enabled=recipe.precision == "float16")
        optimizer, prepared = make_optimizer(recipe, net.parameters()), Preprocessing((1, 14, 14), (0.25,), (0.26,))
        step, losses = Step(recipe, net, optimizer, prepared, scaler, average), []
        for n in range(3):
            images, labels = blobs(24, seed=n, side=14)
            losses.append(step(Tensor(images), Tensor(labels))[0].item())
        return losses, [p.numpy() for p in (*net.parameters(), *average.model.parameters())], scaler.get_scale()


def test_steps_with_recomputation_are_those_of_numpy_without(device):
    """Up to the rounding of float32 sums, which backends take in other orders; three steps of a rate of 0.05."""
    (losses, weights, _), (expected, others, _) = steps(device, checkpoint_gradients=True), steps("numpy")
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_half_precision_skips_what_overflows(device):
    """A scale of 2^20 is more than float16 holds: the scale halves, and the step is as if it had not been."""
    losses, weights, scale = steps(device, precision="float16")
    assert scale < 2.0**20
    plain, _, _ = steps("numpy")
    assert abs(losses[0] - plain[0]) < 0.01  # float16 has 11 bits, activations are about 1
    assert all(np.isfinite(w).all() and w.dtype == np.float32 for w in weights)


def test_a_training_goes_on_bit_for_bit(device, tmp_path, monkeypatch):
    monkeypatch.setattr("minigrad.nn.training.trainer.has_tensorboard", lambda: False)
    monkeypatch.setattr("minigrad.nn.training.plots.has_matplotlib", lambda: False)

    def make(name):
        minigrad.manual_seed(1)
        return Trainer(RECIPE, blob_data(100, 20, side=14), small_net(), out=tmp_path / name, save_steps=2)

    class Killed(Exception):
        """Stands for the death of the process."""

    def die():
        if killed.steps == 6:
            raise Killed

    with minigrad.backend(device):
        make("whole").fit()
        killed = make("killed")
        killed.schedule.after_step, after = die, killed.schedule.after_step
        killed.schedule.after_step = lambda: (after(), die())
        with pytest.raises(Killed):
            killed.fit()
        again = make("killed")
        again.resume(tmp_path / "killed")
        assert again.steps == 6
        again.fit()
    (found, state, _), (expected, whole, _) = (load_training(tmp_path / name) for name in ("killed", "whole"))
    assert state["environment"]["device"] == device and state["random"] == whole["random"]
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name].numpy(), expected[name].numpy(), err_msg=name)
