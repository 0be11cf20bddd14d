"""The command line: exit codes, messages, and what each subcommand prints."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import minigrad
from minigrad.cli import backends, main
from minigrad.config import settings
from minigrad.errors import ShapeError
from minigrad.nn.serialize import load


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["train", "lenet", "--help"], ["bench", "--help"]])
def test_help(argv, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(argv)
    assert "usage: minigrad" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["no-such-command"],
        ["train"],
        ["train", "no-such-net"],
        ["train", "lenet", "--epochs", "0"],
        ["train", "lenet", "--batch-size", "1.5"],
        ["train", "lenet", "--lr", "-1"],
        ["train", "lenet", "--lr", "nan"],
        ["train", "lenet", "--optimizer", "newton"],
        ["bench", "--what", "everything"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    error = capsys.readouterr().err
    assert "usage:" in error and "error:" in error


def test_bench_measures_the_loader_and_what_a_step_waits_for_it(monkeypatch, tmp_path, capsys):
    for name, value in {"IMAGES": 400, "COUNTED": 2, "UNCOUNTED": 1}.items():
        monkeypatch.setattr(f"minigrad.cli.bench_loader.{name}", value)
    report = tmp_path / "report.json"
    assert main(["bench", "--what", "loader", "--batch-size", "8", "--repeats", "1", "--json", str(report)]) == 0
    assert "batch 8" in capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(report.read_text())["rows"]}
    assert len(rows) == 10 and all(row["ms"] > 0 for row in rows.values())
    assert rows["step, same batch"]["waiting %"] == 0
    assert 0 < rows["step, augmented batches, 0 threads"]["waiting %"] < 100


def test_an_error_of_minigrad_is_one_message_and_exit_code_1(monkeypatch, capsys):
    def fail(args):
        raise ShapeError.of("matmul", "inner sizes that agree", "(2, 3) @ (4, 5)")

    monkeypatch.setattr(backends, "run", fail)
    assert main(["backends"]) == 1
    assert capsys.readouterr().err == "error: matmul: expected inner sizes that agree, got (2, 3) @ (4, 5)\n"
    with settings.override(debug=1):
        assert main(["backends"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(backends, "run", interrupt)
    assert main(["backends"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_backends_are_listed_with_the_reason_why_one_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(minigrad.device, "available_backends", lambda: {"numpy": None, "abacus": "no beads"})
    monkeypatch.setenv("MINIGRAD_BACKEND", "numpy")
    assert main(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["abacus", "missing:", "no", "beads"]
    assert lines[1].split() == ["*", "numpy", "available"]


@pytest.fixture
def only_the_sample(monkeypatch):
    sample = importlib.import_module("minigrad.nn.data.mnist").sample
    monkeypatch.setattr("minigrad.nn.data.mnist", lambda data=None: sample())


def final_accuracy(output: str) -> float:
    found = re.fullmatch(r"test accuracy: (\d+\.\d\d) %", output.splitlines()[-1])
    assert found, output
    return float(found[1])


def test_train_lenet_learns_and_the_example_does_the_same(only_the_sample, monkeypatch, tmp_path, capsys):
    out = tmp_path / "lenet.safetensors"
    options = ["--epochs", "2", "--batch-size", "64", "--seed", "3", "--out", str(out)]
    assert main(["train", "lenet", *options]) == 0
    accuracy, weights = final_accuracy(capsys.readouterr().out), load(out)
    assert accuracy > 80
    example = Path(__file__).parents[2] / "examples" / "train_lenet.py"
    monkeypatch.setattr(sys, "argv", [str(example), *options])
    runpy.run_path(str(example), run_name="__main__")
    assert final_accuracy(capsys.readouterr().out) == accuracy
    again = load(out)
    assert again.keys() == weights.keys()
    assert all(again[name].tolist() == weights[name].tolist() for name in weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--data", "no-such-folder"], "no-such-folder"), (["--backend", "abacus"], "abacus.*no backend has that name")],
)
def test_train_names_what_is_wrong_with_an_option(options, message, capsys):
    assert main(["train", "lenet", *options]) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_training_that_diverges_stops_with_a_message(only_the_sample, capsys):
    assert main(["train", "lenet", "--optimizer", "sgd", "--lr", "1e20"]) == 1
    captured = capsys.readouterr()
    assert "a finite loss" in captured.err and "test accuracy" not in captured.out


def test_python_dash_m_is_the_same_command():
    result = subprocess.run([sys.executable, "-m", "minigrad", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"minigrad {minigrad.__version__}\n"
