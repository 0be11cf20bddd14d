"""What is measured of a training and how it is shown: evaluation, meters, logs, tables, bars, pictures."""

import io
import json
import re
import sys

import numpy as np
import pytest
from trainings import QUICK, trainer

from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, DataError, DivergedError
from minigrad.nn.data import TensorDataset
from minigrad.nn.training import Evaluator, Meter, Recipe, plots, read_log
from minigrad.nn.training.display import Display
from minigrad.nn.training.evaluate import held_out_batches
from minigrad.nn.training.log import EventWriter, Log

pytestmark = pytest.mark.usefixtures("no_extras")


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
