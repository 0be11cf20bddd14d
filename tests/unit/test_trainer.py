"""The training loop: what it prints and writes, when it stops, what it keeps when something goes wrong."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from images import blob_data, blobs
from trainings import QUICK, same_weights, trainer, weights

import minigrad
from minigrad import Tensor
from minigrad.errors import ArgumentError, DataError, DivergedError
from minigrad.interrupt import Interrupts
from minigrad.nn import serialize
from minigrad.nn.data import ImageData
from minigrad.nn.training import Evaluator, Recipe, Trainer, load_training, read_log
from minigrad.nn.training.checkpoint import CHECKPOINT, WEIGHTS
from minigrad.nn.training.command import command
from minigrad.nn.training.display import Display
from minigrad.nn.training.evaluate import held_out_batches
from minigrad.nn.training.log import Log

pytestmark = pytest.mark.usefixtures("no_extras")


# A training that goes well --------------------------------------------------------------------------------------------


def test_it_learns_and_says_so(tmp_path, capsys):
    made = trainer(QUICK.replace(epochs=4), out=tmp_path)
    evaluation = made.fit()
    lines = capsys.readouterr().out.splitlines()
    assert evaluation.top1 == made.history[-1]["held_out_accuracy"] > 0.9
    assert lines[-1] == f"test accuracy: {100 * evaluation.top1:.2f} %"
    assert lines[0].split()[:5] == ["epoch", "loss", "accuracy", "test", "loss"]
    rows = lines[1:5]
    assert [row.split()[0] for row in rows] == ["1/4", "2/4", "3/4", "4/4"]
    assert len({len(row) for row in lines[:5]}) == 1, "columns are aligned"
    assert "pip install" in lines[5] and len(lines) == 7
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, WEIGHTS, "log.jsonl"}


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer(QUICK.replace(epochs=1)).fit()
    assert not list(tmp_path.iterdir())


def test_the_same_seed_the_same_weights():
    recipe = QUICK.replace(augment=(("shift", 2),), ema=0.9)
    found = []
    for seed in (1, 1, 2):
        made = trainer(recipe.replace(seed=seed))
        made.fit()
        found.append(weights(made))
    same_weights(*found[:2])
    assert any(np.any(found[0][name] != found[2][name]) for name in found[0])


def test_threads_of_the_loader_change_nothing():
    recipe = QUICK.replace(augment=(("shift", 2), ("rotate", 5)))
    found = []
    for workers in (0, 3):
        made = trainer(recipe, workers=workers)
        made.fit()
        found.append(weights(made))
    same_weights(*found)


def test_the_network_of_the_recipe_has_the_classes_of_the_images(capsys):
    made = Trainer(Recipe("lenet5", epochs=1, batch_size=50), blob_data(100, 20))
    assert made.model.out.weight.shape == (4, 84)
    made.fit()
    assert "test accuracy: " in capsys.readouterr().out


def test_images_that_do_not_fit_the_network():
    images, labels = blobs(8)
    images = np.repeat(images, 3, 1)
    colour = ImageData(images, labels, images, labels, tuple("abcd"), (0.5,) * 3, (0.5,) * 3, "x")
    with pytest.raises(ArgumentError, match="1 channels for lenet5"):
        Trainer(Recipe("lenet5"), colour)


def test_images_of_another_size_are_scaled_and_cut():
    images, labels = blobs(60, side=20)
    made = Trainer(
        Recipe("lenet5", epochs=1, resize=32, augment=(("crop", 1), ("flip", 0.5))),
        ImageData(images, labels, images, labels, tuple("abcd"), (0.5,), (0.5,), "x"),
    )
    (batch, _), *_ = made.loader
    assert batch.shape[1:] == (1, 28, 28)
    assert next(iter(held_out_batches(made.held_out, made.preprocessing)))[0].shape[1:] == (1, 28, 28)
    made.fit()


def test_validation_images_are_held_out(tmp_path, capsys):
    made = trainer(QUICK.replace(validation=60), out=tmp_path)
    training, held = (set(part.indices.tolist()) for part in (made.loader.dataset, made.held_out))
    assert len(held) == 60 and len(training) == 240 and not training & held
    made.fit()
    lines = capsys.readouterr().out.splitlines()
    assert "validation loss" in lines[0]
    test = Evaluator([made.model], made.preprocessing)(held_out_batches(made.images.test, made.preprocessing))
    assert lines[-1] == f"test accuracy: {100 * test.top1:.2f} %", "of the test images, which decided nothing"
    with pytest.raises(ArgumentError, match="fewer than 300"):
        trainer(QUICK.replace(validation=300))


def test_it_stops_early_when_accuracy_no_longer_grows():
    made = trainer(QUICK.replace(epochs=50, stop_after=3))
    accuracies, evaluate = iter([0.5, 0.6, 0.4, 0.6, 0.5, 0.7]), made.evaluate
    made.evaluate = lambda dataset: dataclasses.replace(evaluate(dataset), top1=next(accuracies))
    made.fit()
    assert len(made.history) == 5, "the second epoch is the best; three more are no better"


@pytest.mark.parametrize("validation, chosen", [(60, 1), (0, 2)])
def test_the_weights_that_are_kept_are_the_best_if_validation_images_tell(tmp_path, validation, chosen):
    made = trainer(QUICK.replace(epochs=3, validation=validation), out=tmp_path)
    kept, evaluate = [], made.evaluate

    def judged(dataset):
        """As if the second epoch had been the best."""
        kept.append(weights(made))
        return dataclasses.replace(evaluate(dataset), top1=(0.5, 0.75, 0.6, 0.7)[len(kept) - 1])

    made.evaluate = judged
    made.fit()
    best = {name: tensor.numpy() for name, tensor in serialize.load(tmp_path / WEIGHTS).items()}
    same_weights(best, kept[chosen])
    assert json.loads(serialize.read_metadata(tmp_path / WEIGHTS)["info"])["accuracy"] == (0.5, 0.75, 0.6)[chosen]


def test_with_an_average_that_is_what_is_evaluated_and_saved(tmp_path):
    made = trainer(QUICK.replace(ema=0.9), out=tmp_path)
    made.fit()
    average = {name: tensor.numpy() for name, tensor in made.ema.model.state_dict().items()}
    assert any(np.any(average[name] != value) for name, value in weights(made).items())
    found = Evaluator([made.ema.model], made.preprocessing)(held_out_batches(made.images.test, made.preprocessing))
    assert found.top1 == made.evaluation.top1 and found.loss == made.evaluation.loss
    best = {name: tensor.numpy() for name, tensor in serialize.load(tmp_path / WEIGHTS).items()}
    assert best.keys() == average.keys()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision(precision):
    made = trainer(QUICK.replace(precision=precision, epochs=4))
    assert made.fit().top1 > 0.9
    assert made.scaler.enabled == (precision == "float16")


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_it_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    made = trainer(QUICK.replace(epochs=5), out=tmp_path, save_steps=4)
    after = made.schedule.after_step

    def explode():
        if made.steps == 13:
            made.optimizer.param_groups[0]["lr"] = 1e30
        else:
            after()

    made.schedule.after_step = explode
    with pytest.raises(DivergedError, match=r"smaller learning rate[^$]*after 12 steps, is .*checkpoint.safetensors"):
        made.fit()
    assert "test accuracy" not in capsys.readouterr().out
    tensors, state, _ = load_training(tmp_path)
    assert state["steps"] == 12 and all(np.isfinite(t.numpy()).all() for t in tensors.values())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    made = trainer(out=tmp_path)
    made.save()
    before = (tmp_path / CHECKPOINT).read_bytes()
    with minigrad.no_grad():
        made.model[0].bias.assign(Tensor([1.0, 2.0, np.nan, 0.0, 0.0]))
    with pytest.raises(DivergedError, match="0.bias"):
        made.save()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_without_a_folder_a_loss_that_is_no_number_says_that_nothing_was_saved():
    with pytest.raises(DivergedError, match="nothing was saved"):
        trainer(QUICK.replace(lr=1e30)).fit()


def test_a_folder_that_cannot_be_made_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("no folder")
    made = trainer(QUICK.replace(epochs=10**6), out=tmp_path / "file" / "run")
    with pytest.raises(DataError, match="a folder to write into"):
        made.fit()


def test_the_checkpoint_of_another_training_is_not_overwritten(tmp_path):
    trainer(out=tmp_path).save()
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(DataError, match="--resume .*name another folder"):
        trainer(out=tmp_path).fit()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_folder_has_one_training_at_a_time(tmp_path):
    first, second = trainer(out=tmp_path), trainer(out=tmp_path)
    first.fit()
    second.resume(tmp_path)
    first._open()
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(DataError, match="log.jsonl: .*a training under way"):
        second.fit()
    assert (tmp_path / "log.jsonl").read_bytes() == before and list(read_log(tmp_path / "log.jsonl"))
    first._close()
    second.fit()


def test_a_training_that_came_too_late_does_not_take_the_folder_afterwards(tmp_path):
    first, second = trainer(out=tmp_path), trainer(out=tmp_path)
    log = Log(tmp_path / "log.jsonl")
    with pytest.raises(DataError, match="a training under way"):
        second.fit()
    first.save()
    log.close()
    with pytest.raises(DataError, match="without the checkpoint of another training"):
        second.fit()


def test_a_disk_that_is_full_at_the_start_is_told_before_training(tmp_path, monkeypatch):
    made = trainer(QUICK.replace(epochs=10**6), out=tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device"):
        made.fit()
    assert made.steps == 0 and not (tmp_path / CHECKPOINT).exists()


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    made = trainer(out=tmp_path, save_steps=4)
    fsync, calls = os.fsync, []

    def failing(file):
        calls.append(file)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DataError, match="No space left on device[^$]*is intact"):
        made.fit()
    monkeypatch.setattr(os, "fsync", fsync)
    assert load_training(tmp_path)[1]["steps"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, "log.jsonl"], "nothing half-written stays"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_files_that_may_not_grow_leave_the_last_checkpoint_intact(tmp_path):
    """A limit of the system, not a pretended one."""
    worker = Path(__file__).parents[1] / "resume" / "worker.py"
    trainer(out=tmp_path).save()
    before = (tmp_path / CHECKPOINT).read_bytes()
    code = (
        "import resource, runpy, sys; from minigrad.nn import training; "  # what importing writes may grow
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); sys.argv = ['w', {str(tmp_path)!r}]; "
        f"sys.path.insert(0, {str(worker.parent)!r}); import worker; worker.make({str(tmp_path)!r}).save()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr and "DataError" in done.stderr
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys, number, code):
    whole = trainer()
    whole.fit()
    made = trainer(out=tmp_path / "a run")
    step = made.step

    def interrupted(*batch):
        if made.steps == 12:
            signal.raise_signal(number)
        return step(*batch)

    made.step = interrupted
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        made.fit()
    assert stopped.value.code == code and signal.getsignal(number) is before
    error = capsys.readouterr().err
    assert "stopped in epoch 2 of 2, after 13 steps" in error
    assert f"resume('{tmp_path / 'a run'}') and fit()" in error, "no name gives this network"
    again = trainer(out=tmp_path / "a run")
    again.resume(tmp_path / "a run")
    again.fit()
    same_weights(weights(again), weights(whole))


def test_the_command_that_goes_on_with_a_network_of_a_name(tmp_path, capsys):
    made = Trainer(Recipe("lenet5", epochs=1, batch_size=50), blob_data(100, 20), out=tmp_path / "a run")
    made.loader.transform = lambda images: (signal.raise_signal(signal.SIGINT), images)[1]
    made.loader.num_workers = 0
    with pytest.raises(SystemExit):
        made.fit()
    assert f"minigrad train --resume '{tmp_path / 'a run'}'" in capsys.readouterr().err


def test_the_command_runs_as_it_is_written(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "minigrad"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bin/minigrad", "train"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command() == "bin/minigrad", "as it was called: the shell would not find it"
    monkeypatch.setenv("PATH", str(script.parent))
    assert command() == "minigrad"
    monkeypatch.setattr(sys, "argv", ["train_lenet.py"])
    assert command() == f"{shlex.quote(sys.executable)} -m minigrad"


def test_an_interrupt_that_python_has_dropped_is_not_lost(tmp_path, monkeypatch, capsys):
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: dropped.append(what.exc_type))

    class Dropping:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    made = trainer(QUICK.replace(epochs=10**6), out=tmp_path)
    with Interrupts(raising=True):
        Dropping()
        assert dropped == [KeyboardInterrupt]
        with pytest.raises(SystemExit):
            made.fit()
    assert made.steps == 0 and "stopped in epoch 1" in capsys.readouterr().err


def test_ctrl_c_before_the_first_step_is_saved_too(tmp_path, capsys):
    made = trainer(QUICK.replace(epochs=10**6), out=tmp_path)
    start = made._open
    made._open = lambda: (signal.raise_signal(signal.SIGINT), start())
    with pytest.raises(SystemExit):
        made.fit()
    assert load_training(tmp_path)[1]["steps"] == 0 and "to go on: " in capsys.readouterr().err


def test_ctrl_c_in_the_last_evaluation(tmp_path, capsys):
    made = trainer(QUICK.replace(epochs=1), out=tmp_path)
    evaluate = made.evaluate
    made.evaluate = lambda dataset: (signal.raise_signal(signal.SIGINT), evaluate(dataset))[1]
    with pytest.raises(SystemExit):
        made.fit()
    assert "stopped after the last epoch, after 10 steps" in capsys.readouterr().err
    assert load_training(tmp_path)[1]["epoch"] == 1


def test_ctrl_c_while_drawing_comes_after_the_accuracy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minigrad.nn.training.plots.has_matplotlib", lambda: True)
    monkeypatch.setattr("minigrad.nn.training.trainer.draw", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trainer(QUICK.replace(epochs=1), out=tmp_path).fit()
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith("test accuracy: ")
    assert f"is over and saved in {tmp_path}" in captured.err


def test_the_bar_is_gone_when_a_training_is_stopped(monkeypatch, capsys):
    made = trainer()
    made.loader.transform = lambda images: (signal.raise_signal(signal.SIGINT), images)[1]
    made.loader.num_workers = 0
    stop, shown = Display.stop, []
    monkeypatch.setattr(Display, "stop", lambda self: (shown.append(capsys.readouterr().err), stop(self)))
    with pytest.raises(SystemExit):
        made.fit()
    assert "stopped" not in shown[0]


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    made = trainer(out=tmp_path)

    def impatient(*batch):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    made.step = impatient
    with pytest.raises(KeyboardInterrupt):
        made.fit()


def test_without_a_folder_ctrl_c_says_that_nothing_was_saved(capsys):
    made = trainer()
    made.loader.transform = lambda images: (signal.raise_signal(signal.SIGINT), images)[1]
    made.loader.num_workers = 0
    with pytest.raises(SystemExit):
        made.fit()
    assert "nothing was saved" in capsys.readouterr().err
