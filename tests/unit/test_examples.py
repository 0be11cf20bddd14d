"""The examples run, and print what they promise."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

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
