"""``minigrad visualize``: the files that it writes, and what it says of arguments that make no sense."""

from __future__ import annotations

import io
import json
import re

import browser
import numpy as np
import pytest

from minigrad import nn
from minigrad.cli import main
from minigrad.errors import DataError
from minigrad.nn.data.mnist import sample
from minigrad.nn.training import ModelInfo, Preprocessing
from minigrad.nn.training.checkpoint import save_weights
from minigrad.nn.visualize.runs import curves_section, read_runs

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

EPOCHS = [
    {"event": "epoch", "epoch": 1, "loss": 2.0, "accuracy": 0.25, "held_out_loss": 2.5, "held_out_accuracy": 0.125},
    {"event": "epoch", "epoch": 2, "loss": 1.0, "accuracy": 0.5, "held_out_loss": 1.5, "held_out_accuracy": 0.5},
]


def write_log(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in [{"event": "start"}, *EPOCHS]))
    return path


@pytest.fixture(scope="module", autouse=True)
def _only_the_sample():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minigrad.nn.training.sources.DATA_SETS", {"mnist": lambda folder: sample()})
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A LeNet that never learned, as a file."""
    prepared = Preprocessing((1, 28, 28), (0.13,), (0.31,))
    info = ModelInfo("lenet5", {}, tuple("0123456789"), prepared, "mnist", 1, 0.5, images=3000)
    path = tmp_path_factory.mktemp("checkpoint") / "lenet.safetensors"
    save_weights(path, nn.models.lenet5(), info)
    return path


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The folders of two trainings."""
    return [write_log(tmp_path_factory.mktemp(name) / "log.jsonl").parent for name in ("fast", "slow")]


@pytest.fixture(scope="module")
def pictures(checkpoint, logs, tmp_path_factory):
    """A folder with all pictures of the network."""
    out = tmp_path_factory.mktemp("pictures") / "new" / "folder"
    assert run(checkpoint, "--limit", 40, "--runs", *logs, "--out", out) == 0
    return out


def run(*words):
    return main(["visualize", *map(str, words)])


IMAGES = [f"image-{number}-{kind}.png" for number in (1, 2, 3) for kind in ("why", "maps")]
FILES = ["filters.png", *IMAGES, "patches.png", "confusion.png", "curves.png", "report.html"]


def test_all_pictures_of_a_network_and_its_data(pictures, checkpoint, logs):
    assert sorted(path.name for path in pictures.iterdir()) == sorted(FILES)
    for name in FILES[:-1]:
        assert np.ptp(np.asarray(Image.open(pictures / name).convert("L"))) > 100
    report = (pictures / "report.html").read_text(encoding="utf-8")
    assert "maps of activation#2 (after c3)" in report and "<dd>mnist (3,000 images), 1 epoch</dd>" in report
    assert "What lenet5 learned" in report and "61,706" in report and "of 40 images right" in report
    assert report.count("<h3>") == report.count("data:image/png") == len(FILES) - 1
    assert f"minigrad visualize {checkpoint} --runs {logs[0]} --runs {logs[1]} --limit 40" in report


@pytest.mark.skipif(browser.found() is None, reason="no Chromium is installed")
def test_the_report_of_a_network_in_a_browser(pictures, tmp_path):
    with browser.Page(tmp_path / "profile") as page:
        page.open(pictures / "report.html")
        shown = page.value("[...document.querySelectorAll('.zoom img')].map(i => i.naturalWidth > 200 && i.alt != '')")
        assert shown == [True] * (len(FILES) - 1)
        page.click("nav li:nth-child(3) a")
        assert page.value("document.querySelector(location.hash + ' h2').textContent") == "Strongest patches"
        page.click("section:nth-of-type(3) .zoom")
        assert page.value("document.querySelector('dialog').open")
        photograph = np.asarray(Image.open(io.BytesIO(page.photograph())).convert("L"))
        assert photograph.shape == (800, 1100) and np.ptp(photograph) > 100


def test_one_image_and_a_unit_of_a_layer(checkpoint, tmp_path, capsys):
    path = tmp_path / "seven.png"
    Image.fromarray(sample().test_images[0][0]).save(path)
    out = tmp_path / "out"
    assert run(checkpoint, "--image", path, "--layer", "c3", "--unit", 5, "--out", out) == 0
    names = "filters.png image-1-why.png image-1-maps.png report.html".split()
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "seven.png: unit 5 of c3" in report and "16 maps of c3, 10x10" in report


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layer", "c33", "--limit", "5"], r"layer: expected one of c1, .*, got 'c33'\n.*did you mean 'c3'\?"),
        (["--layer", "c3", "--unit", "16", "--limit", "5"], r"units in \[0, 15\], got 16"),
        (["--unit", "3"], "--layer with --unit"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--runs", "nowhere.jsonl", "--limit", "5"], "nowhere.jsonl"),
        (["--backend", "abacus"], "abacus"),
        (["--data-set", "no-such-set"], "no-such-set"),
    ],
)
def test_arguments_that_make_no_sense(words, message, checkpoint, tmp_path, capsys):
    assert run(checkpoint, *words, "--out", tmp_path / "out") == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err, re.DOTALL)
    assert not list(tmp_path.glob("out/*"))


def test_a_file_that_does_not_say_what_network_it_is_of(tmp_path, capsys):
    path = tmp_path / "weights.safetensors"
    nn.save(path, nn.models.lenet5().state_dict())
    assert run(path) == 1
    assert re.search(
        "error: .*weights.safetensors: expected a file that `minigrad train` wrote", capsys.readouterr().err
    )
    prepared = Preprocessing((1, 28, 28), (0.13,), (0.31,))
    save_weights(path, nn.models.lenet5(), ModelInfo(None, {}, tuple("0123456789"), prepared, "mnist"))
    assert run(path) == 1
    assert "a network that nn.models.get knows" in capsys.readouterr().err


def test_without_matplotlib_the_error_names_the_extra_before_anything_is_computed(monkeypatch, capsys):
    from minigrad.errors import MissingExtra

    def missing(module, extra):
        raise MissingExtra.of(module, "an installed package", "none", f'pip install "minigrad[{extra}]"')

    monkeypatch.setattr("minigrad.extras.load", missing)
    assert run("no-such-checkpoint") == 1
    assert re.search(r"matplotlib.*\n.*minigrad\[viz\]", capsys.readouterr().err)


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    paths = [write_log(tmp_path / name) for name in ("fast/0/log.jsonl", "slow/0/log.jsonl", "slow/other.jsonl")]
    runs = read_runs([paths[0], paths[1].parent, paths[2]])
    assert list(runs) == ["fast/0", "slow/0", "slow/other"]
    assert runs["slow/0"] == EPOCHS
    assert list(read_runs(paths[2:])) == ["other"]
    with pytest.raises(DataError, match="nowhere"):
        read_runs([tmp_path / "nowhere.jsonl"])
    paths[0].write_text('{"event": "start"}\n')
    with pytest.raises(DataError, match="at least one epoch, got none"):
        read_runs(paths)


def test_curves_say_in_text_how_the_runs_ended(tmp_path):
    (picture,) = curves_section([write_log(tmp_path / name / "log.jsonl") for name in ("fast", "slow")]).pictures
    assert picture.title == "Training of fast, slow"
    assert picture.alt == "fast ended at epoch 2 with loss 1; slow ended at epoch 2 with loss 1."
    assert picture.table.rows == [(name, "2", "1", "0.5", "1.5", "0.5") for name in ("fast", "slow")]
