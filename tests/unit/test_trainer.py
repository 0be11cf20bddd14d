"""The training loop: what it prints and writes, when it stops, what it keeps when something goes wrong."""

import dataclasses
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from images import blob_data, blobs, small_net

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, DataError, DivergedError, StateDictError
from minigrad.interrupt import Interrupts
from minigrad.nn import serialize
from minigrad.nn.data import ImageData, TensorDataset
from minigrad.nn.training import Evaluator, Meter, Recipe, Trainer, load_model, load_training, plots, read_log
from minigrad.nn.training.checkpoint import CHECKPOINT, WEIGHTS, save_weights
from minigrad.nn.training.command import command
from minigrad.nn.training.display import Display
from minigrad.nn.training.evaluate import held_out_batches
from minigrad.nn.training.log import EventWriter, Log

QUICK = Recipe("small", epochs=2, batch_size=32, lr=0.1, weight_decay=0.0, seed=1)


@pytest.fixture(autouse=True)
def no_extras(monkeypatch):
    """Importing matplotlib and tensorboard takes a second each; tests of their own use them."""
    monkeypatch.setattr("minigrad.nn.training.trainer.has_tensorboard", lambda: False)
    monkeypatch.setattr("minigrad.nn.training.plots.has_matplotlib", lambda: False)


def trainer(recipe=QUICK, data=None, net=None, **options):
    minigrad.manual_seed(recipe.seed)
    return Trainer(recipe, data or blob_data(side=14), net or small_net(), **options)


def weights(made):
    return {name: tensor.numpy() for name, tensor in made.model.state_dict().items()}


def same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


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


# Going on -------------------------------------------------------------------------------------------------------------

EVERYTHING = QUICK.replace(
    augment=(("shift", 2),), ema=0.9, clip_norm=1.0, accumulate=2, precision="float16", warmup=0.5, validation=40,
    label_smoothing=0.1, nesterov=True,
)  # fmt: skip


class Killed(Exception):
    """Stands for the death of the process."""


def killed_at(made, step):
    """Run ``made`` until it has taken ``step`` steps; nothing more is written then."""
    schedule = made.schedule.after_step

    def after_step():
        schedule()
        if made.steps + 1 == step:
            raise Killed

    made.schedule.after_step = after_step
    with pytest.raises(Killed):
        made.fit()


@pytest.mark.parametrize(
    "recipe, step",
    [
        *[(EVERYTHING, step) for step in (1, 9, 14)],
        *[(QUICK.replace(optimizer="adam", lr=0.01, schedule="one-cycle"), step) for step in (10, 12)],
        (QUICK.replace(schedule="plateau", patience=0), 11),
    ],
)
def test_a_training_that_went_on_is_one_that_never_stopped(tmp_path, recipe, step):
    """Nine batches an epoch (of 260 images) or ten (of 300): also killed where an epoch ends."""
    whole = trainer(recipe, out=tmp_path / "whole")
    whole.fit()
    killed_at(trainer(recipe, out=tmp_path / "killed", save_steps=3), step)
    again = trainer(recipe, out=tmp_path / "killed")
    again.resume(tmp_path / "killed")
    again.fit()
    (tensors, state, _), (others, state2, _) = load_training(tmp_path / "whole"), load_training(tmp_path / "killed")
    same_weights(*[{name: t.numpy() for name, t in found.items()} for found in (tensors, others)])
    timed = {"seconds", "waited", "log", "history"}
    assert {k: v for k, v in state.items() if k not in timed} == {k: v for k, v in state2.items() if k not in timed}
    for a, b in zip(state["history"], state2["history"], strict=True):
        assert all(a[name] == b[name] for name in a if name not in ("seconds", "images_per_second", "loader_share"))
    logs = [[(e["event"], e.get("steps"), e.get("loss")) for e in read_log(tmp_path / run / "log.jsonl")]
            for run in ("whole", "killed")]  # fmt: skip
    assert logs[0] == logs[1]


def test_in_another_folder(tmp_path):
    killed_at(trainer(out=tmp_path / "one", save_steps=3), 13)
    again = trainer(out=tmp_path / "other")
    again.resume(tmp_path / "one")
    again.fit()
    assert [entry["event"] for entry in read_log(tmp_path / "other" / "log.jsonl")] == ["start", "epoch"]
    assert load_training(tmp_path / "other")[1]["steps"] == 20 and load_training(tmp_path / "one")[1]["steps"] == 12


def test_more_epochs_than_before(tmp_path):
    trainer(QUICK.replace(schedule="constant"), out=tmp_path).fit()
    longer = trainer(QUICK.replace(schedule="milestones", milestones=(1.0,), epochs=3), out=tmp_path)
    longer.resume(tmp_path)
    assert longer.epoch == 2 and longer.schedule.rates == pytest.approx([0.01])
    longer.fit()
    assert len(longer.history) == 3


def test_a_training_that_is_over_is_evaluated_again(tmp_path, capsys):
    made = trainer(out=tmp_path)
    accuracy = made.fit().top1
    capsys.readouterr()
    again = trainer(out=tmp_path)
    again.resume(tmp_path)
    assert again.fit().top1 == accuracy and again.steps == made.steps
    assert capsys.readouterr().out.splitlines()[-1].startswith("test accuracy: ")


def test_another_environment_warns(tmp_path, monkeypatch):
    trainer(out=tmp_path).save()
    monkeypatch.setattr("minigrad.backends.numpy.backend.thread_count", lambda: 63)
    with pytest.warns(UserWarning, match=r"last bits[^$]*threads: \d+ -> 63"):
        trainer().resume(tmp_path)


def test_what_cannot_be_resumed(tmp_path):
    made = trainer(out=tmp_path)
    made.save()
    with pytest.raises(StateDictError, match="batch_size 32"):
        trainer(QUICK.replace(batch_size=16)).resume(tmp_path)
    with pytest.raises(StateDictError, match="unexpected: 0.bias"):
        trainer(net=nn.Sequential(nn.Flatten(), nn.Linear(196, 4))).resume(tmp_path)
    save_weights(tmp_path / WEIGHTS, made.model, made.info)
    with pytest.raises(DataError, match="weights alone[^$]*checkpoint.safetensors"):
        trainer().resume(tmp_path / WEIGHTS)
    serialize.save(tmp_path / "other.safetensors", made.model.state_dict())
    with pytest.raises(DataError, match="`minigrad train` wrote"):
        trainer().resume(tmp_path / "other.safetensors")
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(DataError, match="`minigrad train` wrote, got one of PyTorch\n.*nn.load"):
        load_model(tmp_path / "weights.pth")
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="complete safetensors"):
        trainer().resume(tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(DataError, match="no such file"):
        trainer().resume(tmp_path)


def test_a_file_that_was_damaged_is_not_used(tmp_path):
    made = Trainer(Recipe("lenet5", epochs=1, batch_size=50), blob_data(100, 20), out=tmp_path)
    made.fit()
    for name, load in ((WEIGHTS, load_model), (CHECKPOINT, load_model), (CHECKPOINT, load_training)):
        path = tmp_path / name
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name}: .*checksum"):
            load(path)
        path.write_bytes(whole.replace(b'\\"num_classes\\": 4', b'\\"num_classes\\": 5'))
        with pytest.raises(DataError, match=f"{name}: .*checksum"):
            load(path)
        path.write_bytes(whole)
        load(path)


# Trained networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CHECKPOINT, WEIGHTS, ""])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_trained_network_from_its_file(tmp_path, name, ema):
    recipe = Recipe("lenet5", {"activation": "tanh"}, epochs=1, batch_size=50, ema=ema)
    made = Trainer(recipe, blob_data(100, 20), out=tmp_path)
    made.fit()
    model, info = load_model(tmp_path / name)
    assert "Tanh" in repr(model) and not model.training
    assert info.classes == ("north-west", "north-east", "south-west", "south-east")
    assert (info.network, info.data_set, info.epoch, info.preprocessing) == ("lenet5", "mnist", 1, made.preprocessing)
    found = Evaluator([model], info.preprocessing)(held_out_batches(made.images.test, info.preprocessing))
    assert found.top1 == info.accuracy == made.evaluation.top1


def test_a_network_that_no_name_gives_is_not_rebuilt(tmp_path):
    trainer(out=tmp_path).fit()
    with pytest.raises(DataError, match="nn.models.get"):
        load_model(tmp_path)


# Evaluation -----------------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Gives rows of logits, whatever it sees: the first pixel of an image is the number of its row."""

    def __init__(self, logits):
        super().__init__()
        self.logits = Tensor(logits)

    def forward(self, x):
        return self.logits[x[:, 0, 0, 0].cast("int64")]


PLAIN = ((1, 1, 1), (0.0,), (1 / 255,))  # pixels as they are


def judged(*logits, labels):
    from minigrad.nn.training import Preprocessing

    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    prepared = Preprocessing(*PLAIN)
    evaluator = Evaluator([Fixed(one) for one in logits], prepared)
    return evaluator(held_out_batches(TensorDataset(images, np.asarray(labels)), prepared)), evaluator.predict(images)


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_evaluation_of_one_and_of_several():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 40, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 40)
    for logits in ((first,), (first, second)):
        found, probabilities = judged(*logits, labels=labels)
        expected = np.mean([softmax(one) for one in logits], 0)
        np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
        ranks = (expected > expected[np.arange(40), labels][:, None]).sum(1)
        assert found.top1 == (ranks < 1).mean() and found.top5 == (ranks < 5).mean()
        np.testing.assert_allclose(found.loss, -np.log(expected[np.arange(40), labels]).mean(), rtol=1e-5)
        np.testing.assert_array_equal(found.predicted, expected.argmax(1))
        np.testing.assert_allclose(found.confidence, expected.max(1), rtol=1e-5)
        matrix = np.zeros((7, 7), np.int64)
        np.add.at(matrix, (labels, expected.argmax(1)), 1)
        np.testing.assert_array_equal(found.confusion(7), matrix)
        wrong = found.wrong()
        assert set(wrong) == set(np.flatnonzero(expected.argmax(1) != labels))
        assert list(found.confidence[wrong]) == sorted(found.confidence[wrong], reverse=True)


def test_an_ensemble_can_be_right_where_each_is_wrong():
    found, _ = judged([[0.0, 1.9, 2.0]], [[2.0, 1.9, 0.0]], labels=[1])
    assert found.top1 == 1.0 and found.confidence[0] < 0.5


def test_logits_that_are_no_numbers_are_not_right():
    found, _ = judged([[np.nan] * 7, [0.0] * 6 + [1.0]], labels=[0, 6])
    assert found.top1 == 0.5 and found.top5 == 0.5


def test_evaluators_need_models():
    with pytest.raises(ArgumentError, match="at least one model"):
        Evaluator([], [])


# Meters, logs, displays -----------------------------------------------------------------------------------------------


def test_a_meter_weighs_batches_by_their_size():
    meter = Meter()
    meter.add(Tensor(2.0), Tensor(3), 4)
    meter.add(Tensor(5.0), Tensor(0), 2)
    assert meter.read() == (3.0, 0.5) and meter.pending == []
    other = Meter()
    other.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    assert other.read() == (3.0, 0.5)
    meter.add(Tensor(float("inf")), Tensor(0), 1)
    with pytest.raises(DivergedError, match="inf"):
        meter.read()


def test_the_log_has_what_was_done(tmp_path):
    made = trainer(QUICK.replace(epochs=12, batch_size=50), out=tmp_path)
    made.fit()
    entries = list(read_log(tmp_path / "log.jsonl"))
    assert [entry["event"] for entry in entries][:2] == ["start", "epoch"]
    assert Recipe.from_json(entries[0]["recipe"]) == made.recipe
    assert entries[0]["environment"]["backend"] == "numpy"
    steps = [entry for entry in entries if entry["event"] == "steps"]
    epochs = [entry for entry in entries if entry["event"] == "epoch"]
    assert [entry["steps"] for entry in steps] == [50] and len(epochs) == 12
    assert {k: v for k, v in epochs[-1].items() if k != "event"} == made.history[-1]
    assert all(0 <= entry["loader_share"] <= 1 for entry in epochs)


def test_a_log_that_is_cut_off(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write("one", {"n": 1})
    size = log.size
    log.write("two", {"n": 2})
    log.close()
    with open(tmp_path / "log.jsonl", "ab") as file:
        file.write(b'{"event": "thr')
    assert [entry["event"] for entry in read_log(tmp_path / "log.jsonl")] == ["one", "two"]
    log = Log(tmp_path / "log.jsonl", size)
    log.write("three", {})
    log.close()
    assert [entry["event"] for entry in read_log(tmp_path / "log.jsonl")] == ["one", "three"]
    (tmp_path / "log.jsonl").write_text("no json\n{}\n")
    with pytest.raises(DataError, match="line 1"):
        list(read_log(tmp_path / "log.jsonl"))
    with pytest.raises(DataError, match="a log"):
        list(read_log(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="can be written"):
        Log(tmp_path / "nowhere" / "log.jsonl")


@pytest.fixture
def terminal(monkeypatch):
    """Displays on a terminal of a width; what they write."""
    from rich import console

    make = console.Console

    def opened(width, **options):
        screen = io.StringIO()
        settings = dict(file=screen, force_terminal=True, color_system=None, width=width)
        monkeypatch.setattr(console, "Console", lambda **more: make(**settings, **more))
        return screen, Display(**options)

    return opened


@pytest.mark.parametrize(
    "width, missing", [(120, ()), (80, ()), (40, ("accuracy", "images/s")), (30, ("loss", "accuracy", "images/s"))]
)
def test_the_bar_on_a_terminal(terminal, width, missing):
    screen, display = terminal(width, epochs=2, images=100)
    with display:
        meter = Meter(loss=50.0, correct=90.0, count=100)
        for _ in range(10):
            display.advance(1, 10, meter, lambda: 12345.0)
        display.line("above the bar")
    shown = screen.getvalue()
    for expected in ("epoch 2/2", "loss 0.5000", "accuracy 90.00%", "12,345 images/s", "left", "above the bar"):
        assert (expected in shown) == (not any(word in expected for word in missing)), expected
    bars = [line for line in re.split(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]", shown) if "left" in line]
    assert bars and all(len(line) <= width and "…" not in line for line in bars) and "━" in bars[-1]


def test_the_bar_makes_room_while_it_evaluates(terminal):
    screen, display = terminal(80, epochs=2, images=100)
    with display:
        display.evaluating(1)
    assert "epoch 2/2 evaluating on test images" in screen.getvalue() and "━" not in screen.getvalue().splitlines()[-2]


RECORD = {
    "epoch": 9, "loss": 2.3026, "accuracy": 1.0, "held_out_loss": 0.5, "held_out_accuracy": 1.0, "held_out_top5": 1.0,
    "lr": 1.2e-5, "images_per_second": 12345.6, "loader_share": 1.0, "seconds": 1234.5,
}  # fmt: skip


@pytest.mark.parametrize(
    "width, options, columns",
    [
        (80, {}, 11),
        (80, {"held_out": "validation"}, 10),
        (80, {"epochs": 164}, 10),
        (80, {"top5": False}, 10),
        (40, {}, 5),
        (10, {}, 2),
    ],
)
def test_the_table_on_a_terminal(terminal, width, options, columns):
    screen, display = terminal(width, **{"epochs": 15, "images": 1, **options})
    display.row(RECORD)
    heading, row = screen.getvalue().splitlines()
    assert len(heading) == len(row) <= max(width, 13) and len(heading.split()) == columns
    assert row.split()[0].startswith("9/") and "100.00%" in row


def test_the_table_in_a_pipe_has_everything(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    Display(epochs=164, images=1, held_out="validation").row(RECORD)
    heading, row = capsys.readouterr().out.splitlines()
    shown = ["9/164", "2.3026", "100.00%", "0.5000", "100.00%", "100.00%", "1.2e-05", "12,346", "100.0%", "1234.5"]
    assert row.split() == shown and len(row) == len(heading)


def test_the_first_step_does_not_count_as_speed(tmp_path, capsys):
    made = trainer(QUICK.replace(epochs=1))
    now, step = [0.0], made.step

    def slow(*batch):
        now[0] += 100.0 if not made.steps else 0.5
        return step(*batch)

    made.step = slow
    made._clock = lambda: (now[0], 0.0)
    made.fit()
    assert made.history[0]["images_per_second"] == pytest.approx((300 - 32) / 4.5)


def test_the_figures_of_an_epoch_are_seen_before_they_are_written(tmp_path, monkeypatch, capsys):
    made = trainer(out=tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    made._log_epoch = full
    with pytest.raises(OSError, match="No space"):
        made.fit()
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "1/2"


def test_event_files(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.undo()
    monkeypatch.setattr("minigrad.nn.training.plots.has_matplotlib", lambda: False)
    made = trainer(out=tmp_path)
    made.fit()
    found = EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(found.Tags()["scalars"]) == {"loss/test", "accuracy/test", "top5/test"}
    values = [(event.step, event.value) for event in found.Scalars("accuracy/test")]
    assert values == [(r["steps"], pytest.approx(r["held_out_accuracy"], rel=1e-6)) for r in made.history]


def test_what_event_files_say_of_steps_that_come_again_does_not_count(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, steps in ((0, (1, 2, 3)), (2, (2, 3))):
        writer = EventWriter(tmp_path, first)
        for step in steps:
            writer.write(step, {"loss/train": first + step / 8})
        writer.close()
        for path in tmp_path.iterdir():  # files are read in the order of their names, which have seconds in them
            if not path.name.startswith("events.0"):
                path.rename(path.with_name(f"events.0{first}.tfevents.{path.name}"))
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("loss/train")
    assert [(event.step, event.value) for event in found] == [(1, 0.125), (2, 2.25), (3, 2.375)]


def test_pictures(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    monkeypatch.undo()
    monkeypatch.setattr("minigrad.nn.training.trainer.has_tensorboard", lambda: False)
    trainer(QUICK.replace(epochs=1), out=tmp_path).fit()
    assert f"go to {tmp_path}" in capsys.readouterr().out
    for name in ("curves.png", "mistakes.png", "confusion.png"):
        pixels = np.asarray(image.open(tmp_path / name).convert("L"))
        assert pixels.shape[0] > 200 and pixels.std() > 5


@pytest.mark.parametrize("loss", [2.282, 1.3, 0.0])
def test_curves_of_one_epoch(tmp_path, monkeypatch, loss):
    pytest.importorskip("matplotlib")
    figure, make = [], plots._figure
    monkeypatch.setattr(plots, "_figure", lambda *options: figure.append(make(*options)) or figure[0])
    entry = {"event": "epoch", "epoch": 1, "steps": 3, "loss": loss, "held_out_loss": 2.2765, "lr": 0.1}
    plots.plot_curves([{**entry, "accuracy": 0.1, "held_out_accuracy": 1.0}], tmp_path / "curves.png")
    left, _, right = figure[0][1]
    assert [line.get_xydata().tolist() for line in right.lines] == [[[1.0, 0.1]]] and right.lines[0].get_marker() == "o"
    low, high = left.get_ylim()
    assert low > 1e-3
    labels = [tick.label1.get_text() for tick in left.yaxis.get_minor_ticks() if low <= tick.get_loc() <= high]
    assert len({len(label) for label in labels}) == 1, "rounded evenly"


class _Missing:
    """Finds no extra, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name in ("matplotlib", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_extras_that_are_missing_are_named(monkeypatch, tmp_path):
    from minigrad.errors import MissingExtra
    from minigrad.nn.training.plots import plot_confusion

    for name in [name for name in sys.modules if name.partition(".")[0] in ("matplotlib", "tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])
    with pytest.raises(MissingExtra, match=r"minigrad\[viz\]"):
        plot_confusion(np.eye(2, dtype=np.int64), ("a", "b"), tmp_path / "x.png")
    with pytest.raises(MissingExtra, match=r"minigrad\[tensorboard\]"):
        EventWriter(tmp_path)
