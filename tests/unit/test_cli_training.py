"""``minigrad train``, ``evaluate`` and ``predict``, and the examples that train."""

import dataclasses
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from images import blob_data

from minigrad import cli, nn
from minigrad.cli.parser import make_parser
from minigrad.nn import serialize
from minigrad.nn.training import RECIPES, Recipe, load_training, recipe
from minigrad.nn.training.checkpoint import CHECKPOINT, WEIGHTS

pytestmark = pytest.mark.usefixtures("no_extras")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def digits(monkeypatch):
    """The sample of MNIST stands for all of it."""
    found = importlib.import_module("minigrad.nn.data.mnist").sample()
    monkeypatch.setitem(importlib.import_module("minigrad.nn.training.sources").DATA_SETS, "mnist", lambda data: found)
    monkeypatch.setattr(nn.data, "mnist", lambda data=None: found)


@pytest.fixture
def blobs(monkeypatch):
    """Images of four classes stand for MNIST."""
    found = blob_data(200, 40)
    monkeypatch.setitem(importlib.import_module("minigrad.nn.training.sources").DATA_SETS, "mnist", lambda data: found)
    return found


def final_accuracy(output):
    found = re.fullmatch(r"test accuracy: (\d+\.\d\d) %", output.splitlines()[-1])
    assert found, output
    return float(found[1])


def weights(path):
    return {name: tensor.numpy() for name, tensor in serialize.load(path).items()}


def test_train_lenet_learns_and_the_example_does_the_same(digits, monkeypatch, tmp_path, capsys):
    options = ["--epochs", "2", "--seed", "3", "--out"]
    assert cli.main(["train", "lenet", *options, str(tmp_path / "a")]) == 0
    accuracy = final_accuracy(capsys.readouterr().out)
    assert accuracy > 60
    monkeypatch.setattr(sys, "argv", ["train_lenet.py", *options, str(tmp_path / "b")])
    runpy.run_path(str(EXAMPLES / "train_lenet.py"), run_name="__main__")
    assert final_accuracy(capsys.readouterr().out) == accuracy
    a, b = (weights(tmp_path / name / WEIGHTS) for name in "ab")
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["train_lenet.py", "train_cifar.py"])
def test_examples_tell_what_they_do_not_know(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--recipe", "nonsense"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err


def test_the_loop_without_the_trainer(digits, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training_loop.py", "--epochs", "2"])
    runpy.run_path(str(EXAMPLES / "training_loop.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert float(lines[-1].split()[-2]) > 60
    source = (EXAMPLES / "training_loop.py").read_text()
    assert len([line for line in source.splitlines() if line.strip()]) < 45


def test_the_code_of_the_guide_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(nn.data, "mnist", lambda: dataclasses.replace(blob_data(400, 40), classes=tuple("0123456789")))
    monkeypatch.chdir(tmp_path)
    guide = (EXAMPLES.parent / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    exec(compile("\n".join(blocks), "docs/training.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(blocks) == 2 and 0 < float(printed[-1]) < 5
    assert all(f"`{name}`" in guide for name in RECIPES)


def test_cifar(monkeypatch, tmp_path, capsys):
    images, labels = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32)).astype(np.uint8), np.arange(24) % 10
    few = nn.data.ImageData(images, labels, images, labels, tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3, "a test")
    monkeypatch.setattr(nn.data, "cifar10", lambda data: few)
    for more in (["--out"], ["--resume"]):
        monkeypatch.setattr(sys, "argv", ["train_cifar.py", "--epochs", "1", *more, str(tmp_path)])
        runpy.run_path(str(EXAMPLES / "train_cifar.py"), run_name="__main__")
        final_accuracy(capsys.readouterr().out)
    assert load_training(tmp_path)[2].network == "resnet20"


def test_every_field_of_a_recipe_is_an_option(blobs, tmp_path):
    options = {
        "--epochs": "1", "--batch-size": "25", "--accumulate": "2", "--optimizer": "adamw", "--lr": "0.001",
        "--momentum": "0.5", "--weight-decay": "0.01", "--schedule": "milestones", "--milestones": "0.5,0.75",
        "--gamma": "0.5", "--patience": "2", "--warmup": "0.5", "--label-smoothing": "0.1", "--clip-norm": "1",
        "--ema": "0.5", "--precision": "bfloat16", "--stop-after": "3", "--validation": "20", "--augment": "shift=1",
        "--resize": "30", "--option": "activation=tanh", "--seed": "7", "--data-set": "mnist",
    }  # fmt: skip
    given = [part for pair in options.items() for part in pair] + ["--nesterov", "--checkpoint-gradients"]
    assert cli.main(["train", "lenet5", *given, "--out", str(tmp_path)]) == 0
    found = Recipe.from_json(load_training(tmp_path)[1]["recipe"])
    assert found == Recipe(
        "lenet5", {"activation": "tanh"}, "mnist", 30, (("shift", 1.0),), 20, 1, 25, 2, "adamw", 0.001, 0.5, True, 0.01,
        "milestones", (0.5, 0.75), 0.5, 2, 0.5, 0.1, 1.0, 0.5, "bfloat16", True, 3, 7,
    )  # fmt: skip
    args = vars(make_parser().parse_args(["train", "lenet"]))
    names = {field.name for field in dataclasses.fields(Recipe)} - {"options"} | {"option"}
    assert names <= args.keys() and all(args[name] is None for name in names - {"network"})


def test_it_goes_on_after_ctrl_c_or_a_kill(blobs, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyError):  # stands for what kills a process
        patch.setattr("minigrad.nn.training.trainer.Trainer._end_epoch", lambda self: {}["killed"])
        cli.main(["train", "lenet", "--epochs", "2", "--save-steps", "2"])
    assert load_training("runs/lenet5-1")[1]["steps"] == 4
    for resume in (["lenet", "--resume"], ["--resume", "runs/lenet5-1"], ["--out", "runs/lenet5-1", "--resume"]):
        capsys.readouterr()
        assert cli.main(["train", *resume]) == 0
        assert ("going on from" if resume[0] == "lenet" else "this training is over") in capsys.readouterr().out
    assert load_training("runs/lenet5-1")[1]["epoch"] == 2
    assert cli.main(["train", "lenet", "--epochs", "1"]) == 0
    assert Path("runs/lenet5-2", CHECKPOINT).exists(), "a new training gets a new folder"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], "a NETWORK, a --recipe or --resume"),
        (["train", "no-such-net"], "no-such-net"),
        (["train", "lenet", "--data", "no-such-folder"], "no-such-folder"),
        (["train", "lenet", "--data-set", "no-such-set"], "mnist, .* or a folder of images.*no-such-set"),
        (["train", "vgg16"], "folder of images, got 'imagenet'.*--data-set names another"),
        (["train", "lenet", "--backend", "abacus"], "abacus.*no backend has that name"),
        (["train", "lenet", "--recipe", "secret"], "alexnet.*secret"),
        (["train", "lenet", "--augment", "mirror=1"], "mirror"),
        (["train", "lenet", "--option", "depth=3"], "depth"),
        (["train", "--resume", "no-such-file"], "no-such-file"),
        (["train", "vgg16", "--resume"], "a checkpoint in runs/vgg16"),
        (["evaluate", "no-such-file"], "no-such-file"),
        (["predict", "no-such-file", "image.png"], "no-such-file"),
        (["train", "lenet", "--out", "file/run", "--data", "no-such-folder"], "file/run: expected a folder to write"),
    ],
)
def test_what_is_wrong_is_named(argv, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIGRAD_DATA", raising=False)
    Path("file").touch()
    assert cli.main(argv) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err, re.DOTALL)


@pytest.mark.parametrize(
    "argv", [["--augment", "shift=x"], ["--ema", "2"], ["--milestones", "1,-2"], ["--workers", "-1"]], ids=" ".join
)
def test_options_that_make_no_sense_are_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "lenet", *argv])
    assert "usage:" in capsys.readouterr().err


def test_training_that_diverges_stops_with_a_message(blobs, tmp_path, capsys):
    assert cli.main(["train", "lenet", "--lr", "1e20", "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "a finite loss" in captured.err and "last good checkpoint" in captured.err
    assert "test accuracy" not in captured.out


# Evaluation and prediction --------------------------------------------------------------------------------------------


@pytest.fixture
def two(blobs, tmp_path, capsys):
    """The folders of two trained networks."""
    for seed in ("0", "1"):
        cli.main(["train", "lenet", "--epochs", "4", "--seed", seed, "--out", str(tmp_path / seed), "--lr", "0.1"])
    capsys.readouterr()
    return [str(tmp_path / seed) for seed in ("0", "1")]


def test_evaluate_one_and_the_average_of_several(two, tmp_path, capsys):
    assert cli.main(["evaluate", two[0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "40 images from a test" and len(lines) == 3
    accuracy = json.loads(serialize.read_metadata(Path(two[0], WEIGHTS))["info"])["accuracy"]
    assert lines[2].split()[:2] == [two[0], f"{accuracy:.2%}"]
    assert lines[1].split() == ["top-1", "loss"], "all four classes are among the first five"
    assert cli.main(["evaluate", *two, str(Path(two[0], CHECKPOINT)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["networks"]] == [*two, str(Path(two[0], CHECKPOINT)), "average of 3"]
    losses = [row["loss"] for row in found["networks"]]
    assert losses[3] <= max(losses[:3]) and found["images"] == 40


def test_networks_of_other_classes_are_not_averaged(two, tmp_path, monkeypatch, capsys):
    other = dataclasses.replace(blob_data(100, 20), classes=tuple("abcd"))
    monkeypatch.setitem(importlib.import_module("minigrad.nn.training.sources").DATA_SETS, "mnist", lambda data: other)
    cli.main(["train", "lenet", "--epochs", "1", "--out", str(tmp_path / "c")])
    assert cli.main(["evaluate", two[0], str(tmp_path / "c")]) == 1
    assert "the classes of" in capsys.readouterr().err
    assert cli.main(["evaluate", two[0]]) == 1, "nor compared with images of others"


def test_pictures_of_an_evaluation(two, tmp_path):
    pytest.importorskip("matplotlib")
    pictures = [str(tmp_path / "mistakes.png"), str(tmp_path / "confusion.png")]
    assert cli.main(["evaluate", two[0], "--mistakes", pictures[0], "--confusion", pictures[1]]) == 0
    assert all(Path(picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_predict(two, blobs, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    label = int(blobs.test_labels[0])
    image.fromarray(blobs.test_images[0, 0]).save(tmp_path / "grey.png")
    image.fromarray(blobs.test_images[0, 0]).resize((90, 80)).convert("RGB").save(tmp_path / "colour.png")
    image.fromarray(255 - blobs.test_images[0, 0]).save(tmp_path / "negative.png")
    grey, colour, negative = (str(tmp_path / f"{name}.png") for name in ("grey", "colour", "negative"))
    assert cli.main(["predict", two[0], grey, colour, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[3]] == [grey, colour] and len(lines) == 6
    assert lines[1].split()[0] == lines[4].split()[0] == blobs.classes[label]
    shares = [float(line.split()[1].rstrip("%")) for line in (lines[1], lines[2])]
    assert shares[0] > shares[1] > 0
    assert cli.main(["predict", two[0], grey, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[grey]
    assert list(found) == list(blobs.classes) and sum(found.values()) == pytest.approx(1, rel=1e-5)
    assert cli.main(["predict", two[0], negative]) == 0
    assert "--invert?" in capsys.readouterr().err
    assert cli.main(["predict", two[0], negative, "--invert", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)[negative] == pytest.approx(found, rel=1e-4) and not captured.err


def test_predict_names_files_that_are_no_images_and_predicts_the_rest(two, blobs, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    good, text, none = (str(tmp_path / name) for name in ("good.png", "text.png", "none.png"))
    image.fromarray(blobs.test_images[0, 0]).save(good)
    Path(text).write_text("no image")
    assert cli.main(["predict", two[0], none, good, text, "--json"]) == 1
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)) == [good]
    assert f"{none}: expected an image file, got No such file or directory\n" in captured.err
    assert captured.err.count("error: ") == 2 and text in captured.err and "ImageFolder" not in captured.err
    assert cli.main(["predict", two[0], none]) == 1


def test_resuming_says_what_is_not_as_before(blobs, tmp_path, capsys):
    run, options = str(tmp_path), ["--epochs", "1", "--out"]
    assert cli.main(["train", "lenet", *options, run]) == 0
    assert cli.main(["train", "--resume", run, "--epochs", "2", "--optimizer", "adam", "--lr", "0.001"]) == 0
    printed = capsys.readouterr().out
    changes = "epochs 1 -> 2, optimizer sgd -> adam, lr 0.02 -> 0.001; the optimizer's state begins anew"
    assert f"another recipe than before: {changes}" in printed
    assert cli.main(["train", "--resume", run]) == 0
    assert "another recipe" not in capsys.readouterr().out
    assert cli.main(["train", "resnet20", "--resume", run]) == 1
    assert "expected a training of resnet20, got one of lenet5" in capsys.readouterr().err
    assert cli.main(["train", run]) == 1
    assert f"--resume {run}" in capsys.readouterr().err


def test_a_folder_of_images(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    found = blob_data(48, 12)
    parts = {"train": (found.train_images, found.train_labels), "val": (found.test_images, found.test_labels)}
    for part, (images, labels) in parts.items():
        for n, (pixels, label) in enumerate(zip(images, labels)):
            folder = tmp_path / "photos" / part / found.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels[0]).save(folder / f"{n}.png")
    options = ["--data-set", str(tmp_path / "photos"), "--epochs", "1", "--out"]
    assert cli.main(["train", "lenet", *options, str(tmp_path / "run")]) == 0
    assert "48 training and 12 test images" in capsys.readouterr().out
    assert load_training(tmp_path / "run")[2].classes == tuple(sorted(found.classes))
    options[1] = str(tmp_path / "photos" / "train")
    assert cli.main(["train", "lenet", *options, str(tmp_path / "split")]) == 0
    assert "44 training and 4 test images" in capsys.readouterr().out, "a tenth is held out"
    options[1] = str(tmp_path / "one")
    (tmp_path / "one").mkdir()
    (tmp_path / "photos" / "train" / "north-east").rename(tmp_path / "one" / "north-east")
    assert cli.main(["train", "lenet", *options, str(tmp_path / "single")]) == 1
    assert "at least two classes, got only north-east" in capsys.readouterr().err
    (tmp_path / "photos" / "val" / "north-west").rename(tmp_path / "photos" / "val" / "up")
    options[1] = str(tmp_path / "photos")
    assert cli.main(["train", "lenet", *options, str(tmp_path / "wrong")]) == 1
    assert "the classes of" in capsys.readouterr().err


def test_recipes_by_name(blobs, tmp_path):
    options = ["--epochs", "1", "--warmup", "0", "--out", str(tmp_path)]
    assert cli.main(["train", "--recipe", "lenet-augmented", *options]) == 0
    found = Recipe.from_json(load_training(tmp_path)[1]["recipe"])
    assert found == recipe("lenet-augmented").replace(epochs=1, warmup=0.0)
