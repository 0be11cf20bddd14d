"""The examples run, and print what they promise."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad import nn
from minigrad.nn.data.mnist import sample
from minigrad.nn.training.checkpoint import save_weights

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_tour(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tour.py"])
    runpy.run_path(str(EXAMPLES / "tour.py"), run_name="__main__")
    printed = capsys.readouterr().out
    visited = [line.split()[1] for line in printed.splitlines() if line.startswith("=== ")]
    assert visited[0] == "numpy" and printed.count("--- ") == 10 * len(visited)
    assert len(visited) == 1 or "numpy and opencl differ by" in printed


def test_tour_notices_a_wrong_result(monkeypatch):
    tour = runpy.run_path(str(EXAMPLES / "tour.py"))
    monkeypatch.setitem(tour["visit"].__globals__, "oracle", lambda *given: 1.01 * tour["oracle"](*given))
    with pytest.raises(AssertionError):
        tour["visit"]("numpy")


def test_adding_an_op():
    """In a process of its own: the table of primitives of this one stays as it is."""
    command = [sys.executable, str(EXAMPLES / "add_an_op.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    visited = [line.split()[1] for line in printed.splitlines() if line.startswith("=== ")]
    assert visited[0] == "numpy"
    for promised in ("within ", "as the oracle has them", "check_grads: "):
        assert printed.count(promised) == len(visited)


def test_universal_approximation(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["universal_approximation.py", "--widths", "2", "8", "--steps", "150"])
    runpy.run_path(str(EXAMPLES / "universal_approximation.py"), run_name="__main__")
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split()[0] == "parameters"
    narrow, wide = (float(row.split()[3]) for row in rows)
    assert 0 < wide < narrow


@pytest.fixture
def draws(monkeypatch, tmp_path, capsys):
    """Runs examples/visualize.py with arguments; gives what it printed, and checks that the pictures are there."""
    pytest.importorskip("matplotlib")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["visualize.py", *map(str, words), "--out", str(tmp_path)])
        runpy.run_path(str(EXAMPLES / "visualize.py"), run_name="__main__")
        names = ["filters.png", "maps.png", "patches.png", "why-0.png", "why-1.png", "why-2.png"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        assert all(path.read_bytes()[:4] == b"\x89PNG" for path in tmp_path.iterdir())
        return capsys.readouterr().out

    return run


def test_visualize_trains_lenet_and_draws_it(draws, monkeypatch):
    monkeypatch.setattr("minigrad.nn.data.mnist", lambda data=None: sample())
    printed = draws("--images", 30)
    assert printed.startswith("LeNet, trained on 3000 digits; loss of the last batch ") and printed.count(".png\n") == 6


def test_visualize_draws_the_resnet_of_a_checkpoint(draws, monkeypatch, tmp_path_factory):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10, 3, 32, 32), "uint8"), np.arange(10)
    names = tuple("abcdefghij")
    data = nn.data.ImageData(images, labels, images, labels, names, (0.5,) * 3, (0.25,) * 3, "noise")
    monkeypatch.setattr("minigrad.nn.training.sources.DATA_SETS", {"cifar10": lambda folder: data})
    path = tmp_path_factory.mktemp("checkpoint") / "resnet20.safetensors"
    prepared = nn.training.Preprocessing((3, 32, 32), data.mean, data.std)
    save_weights(path, nn.models.get("resnet20"), nn.training.ModelInfo("resnet20", {}, names, prepared, "cifar10"))
    assert draws(path).count(".png\n") == 6
