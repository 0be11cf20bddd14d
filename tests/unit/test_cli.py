"""The command line: exit codes, messages, and what each subcommand prints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import minigrad
from minigrad.cli import backends as command
from minigrad.cli import main
from minigrad.config import settings
from minigrad.errors import ShapeError


@pytest.mark.parametrize(
    "argv", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["predict", "--help"], ["bench", "--help"]]
)
def test_help(argv, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(argv)
    assert "usage: minigrad" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["no-such-command"],
        ["train", "lenet", "--nonsense"],
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
    assert "usage:" in error and "error:" in error and len(error.splitlines()) == 2
    assert f"{' '.join(['minigrad', *argv[:1]])} --help" in error or len(argv) < 2


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

    monkeypatch.setattr(command, "run", fail)
    assert main(["backends"]) == 1
    assert capsys.readouterr().err == "error: matmul: expected inner sizes that agree, got (2, 3) @ (4, 5)\n"
    with settings.override(debug=1):
        assert main(["backends"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_wrong_setting_is_one_message(monkeypatch):
    monkeypatch.setenv("MINIGRAD_DEBUG", "x")
    result = subprocess.run([sys.executable, "-m", "minigrad", "backends"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: MINIGRAD_DEBUG: expected an integer, got 'x'\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_output_that_cannot_show_every_character_loses_no_figure(monkeypatch, encoding):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    result = subprocess.run([sys.executable, "-m", "minigrad", "summary", "lenet5"], capture_output=True)
    assert result.returncode == 0 and not result.stderr
    text = result.stdout.decode(encoding)
    assert "61,706 parameters" in text and "-" * 60 in text and "?" not in text


def test_ctrl_c_exits_with_130(monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupt)
    assert main(["backends"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_backends_are_listed_with_the_reason_why_one_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(minigrad.device, "available_backends", lambda: {"numpy": None, "abacus": "no beads"})
    monkeypatch.setenv("MINIGRAD_BACKEND", "numpy")
    assert main(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["abacus", "missing:", "no", "beads"]
    assert lines[1].split() == ["*", "numpy", "available"]


def test_a_backend_may_lie_in_the_current_folder(backends, tmp_path, monkeypatch, capsys):
    text = "from minigrad.backends.numpy import NumpyBackend\nclass Here(NumpyBackend):\n    name = 'here'\n"
    (tmp_path / "lying_here.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setenv("MINIGRAD_BACKEND", "lying_here:Here")
    assert main(["backends"]) == 0
    assert "* here " in capsys.readouterr().out


def test_python_dash_m_is_the_same_command():
    result = subprocess.run([sys.executable, "-m", "minigrad", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"minigrad {minigrad.__version__}\n"
