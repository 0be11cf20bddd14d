"""Trainings that go on from a checkpoint, and trained networks from their files."""

import pytest
from images import blob_data
from trainings import QUICK, same_weights, trainer

from minigrad import nn
from minigrad.errors import DataError, StateDictError
from minigrad.nn import serialize
from minigrad.nn.training import Evaluator, Recipe, Trainer, load_model, load_training, read_log
from minigrad.nn.training.checkpoint import CHECKPOINT, WEIGHTS, save_weights
from minigrad.nn.training.evaluate import held_out_batches

pytestmark = pytest.mark.usefixtures("no_extras")


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
