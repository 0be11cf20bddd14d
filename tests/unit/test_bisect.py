"""Bisecting: the first kernel that a backend gets wrong, of a program or of one kernel from validate mode."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad import Tensor, config, device
from minigrad.cli import bisect as command
from minigrad.errors import DataError, VerifyError
from minigrad.kernel import MAP, Instr, Kernel, Operand
from minigrad.testing.bisect import Case, bisect, load, lowers
from minigrad.testing.checks import with_gradients
from minigrad.testing.programs import Input, Program, Step
from minigrad.testing.script import definition, reproducer
from minigrad.view import Block, View


@pytest.fixture
def faulty(backends):
    backends(faulty="faulty:FaultyBackend")
    return "faulty"


X = Input(np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4))
WRONG = Program(  # tanh of more than 0.9 is wrong; its sum is right, given what it gets
    (X,),
    (
        Step("sum", (0,), {"axes": (1,)}),
        Step("expand", (1,), {"shape": (3, 4)}),
        Step("add", (2, 0)),
        Step("tanh", (3,)),
        Step("sum", (4,), {"axes": (0,)}),
    ),
    (4, 5),
)
RIGHT = Program((X,), WRONG.steps[:3], (3,))


def written(folder, text):
    path = folder / "repro.py"
    imports = "from numpy import array\nfrom minigrad.testing.programs import Input, Layout, Program, Step\n"
    path.write_text(imports + text + "\n")
    return path


def run(path, backends):
    return command.run(argparse.Namespace(repro=str(path), backends=backends))


def test_the_first_wrong_kernel_is_found_and_later_ones_are_judged_by_what_they_got(faulty):
    found = bisect(WRONG, ["numpy", faulty])
    first = found.first
    assert (first.schedule, first.kernel.name, found.way) == ("numpy", "add_tanh", "lazy")
    assert first.verdicts["numpy"].share <= 1 < first.verdicts[faulty].share
    assert [row.kernel.name for row in found.rows if row.schedule == faulty and row.worst > 1] == ["add_tanh"]
    assert [row.number for row in found.rows] == [1, 2, 3, 1, 2, 3]
    assert [c.partition(": at ")[0] for c in found.complaints] == ["result 0 on faulty", "result 1 on faulty"]


def test_a_program_that_every_backend_runs_right_shows_nothing(faulty):
    found = bisect(RIGHT, ["numpy", faulty])
    assert not found.diverges and found.first is None and len(found.rows) == 4


def test_a_fault_that_shows_in_gradients_only(faulty):
    """The derivative of tanh is computed from another tanh of what is stored for it."""
    steps = (Step("mul", (0, 0)), Step("log1p", (1,)), Step("sin", (2,)), Step("cos", (3,)))
    program = with_gradients(Program((Input(np.array([0.25, 0.5], np.float32)),), steps, (4,)))
    assert not bisect(program, ["numpy", faulty]).diverges
    x = Input(np.array([0.625, 0.5], np.float32))
    program = Program((x,), (Step("cos", (0,)),), (1,))
    assert not bisect(program, ["numpy", faulty]).diverges
    first = bisect(with_gradients(program), ["numpy", faulty]).first  # the derivative of cos is a sine
    assert "sin" in str(first.kernel) and first.verdicts[faulty].share > 1


def test_a_fault_that_shows_only_in_kernels_of_their_own_is_found_in_another_way(faulty, monkeypatch):
    """Fused with what comes before, nothing is stored that the planted fault changes."""
    steps = (Step("tanh", (0,)), Step("neg", (1,)))
    program = Program((Input(np.array([2, 3], np.float32)),), steps, (2,))
    found = bisect(program, ["numpy", faulty])
    assert found.way == "unfused" and found.first.kernel.name == "tanh"


def test_an_exception_is_named_with_the_kernels_before_it(faulty, monkeypatch):
    def lower(self, kernel):
        raise RuntimeError("no code for it")

    monkeypatch.setattr("faulty.FaultyBackend.lower", lower)
    other = Program((Input(np.ones((2, 3, 5), np.float32)),), (Step("neg", (0,)),), (1,))
    found = bisect(other, ["numpy", faulty])
    assert found.complaints == ["faulty raised RuntimeError after 0 kernels: no code for it"]
    assert found.first.verdicts[faulty].text == "RuntimeError: no code for it"


def test_a_kernel_of_validate_mode(faulty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with config.settings.override(validate=True), pytest.raises(VerifyError):
        Tensor(np.array([0.5, 2.0], np.float32), device=faulty).tanh().numpy()
    (path,) = tmp_path.glob("*.py")
    assert isinstance(load(path)[0], Case)
    assert run(path, ("numpy", faulty)) == 1
    assert "faulty is wrong: tanh: at [1] of [2]" in capsys.readouterr().out
    assert run(path, ("numpy",)) == 0
    assert "no kernel diverges; the worst is number 1, tanh [2]" in capsys.readouterr().out


def test_the_command_prints_a_table_and_the_kernel(faulty, tmp_path, capsys):
    assert run(written(tmp_path, definition(WRONG, literal=True)), ("numpy", "faulty")) == 1
    out = capsys.readouterr().out
    assert "first kernel to diverge: number 2 of the schedule for numpy, add_tanh [3, 4]" in out
    assert "faulty is wrong: add_tanh: at [" in out
    (line,) = [line for line in out.splitlines() if "numpy" in line and "add_tanh" in line and "3 x 4" in line]
    shares = [float(word) for word in line.replace("│", " ").split()[-2:]]
    assert shares[0] <= 1 < shares[1]
    assert run(written(tmp_path, definition(RIGHT, literal=True)), ("numpy", faulty)) == 0
    assert "no kernel diverges; the worst is number" in capsys.readouterr().out


def call(folder, *command):
    """Run Python from another folder, with the module of the planted fault in reach."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, *map(str, command)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    return found.returncode, found.stdout, found.stderr


@pytest.fixture
def beside(tmp_path):
    """A folder with a reproducer and the backend that it names, and one to stand in."""
    (tmp_path / "aside.py").write_text("import faulty\nclass Off(faulty.FaultyBackend):\n    name = 'off'\n")
    path, elsewhere = tmp_path / "repro.py", tmp_path / "elsewhere"
    path.write_text(reproducer(definition(WRONG, literal=True), ["numpy", "aside:Off"], "said"))
    elsewhere.mkdir()
    return path, elsewhere


def test_a_reproducer_is_bisected_on_the_backends_that_it_names_and_that_lie_beside_it(beside):
    path, elsewhere = beside
    code, out, err = call(elsewhere, "-m", "minigrad", "bisect", path)
    assert code == 1 and "off is wrong: add_tanh: at [" in out and "numpy is wrong" not in out, err
    code, out, err = call(elsewhere, "-m", "minigrad", "bisect", path, "--backends", "numpy")
    assert code == 0 and "no kernel diverges" in out, err
    code, out, err = call(elsewhere, "-m", "minigrad", "bisect", "none.py")
    assert code == 2 and err.startswith("error: bisect: expected a reproducer") and not out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 1, "off: "),
        (["numpy,aside:Off"], 1, "numpy: agrees"),
        (["numpy"], 0, "numpy: agrees"),
        (["--help"], 0, "pkg.mod:Class (default: numpy aside:Off)"),
        (["numpy,abacus"], 2, "error: backend: expected one that can run here (numpy"),
        (["nowhere:Off"], 2, "got 'nowhere:Off': ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_what_a_reproducer_does_as_a_command(beside, arguments, code, words):
    path, elsewhere = beside
    found, out, err = call(elsewhere, path, *arguments)
    assert found == code and words in " ".join((err if code == 2 else out).split()), out + err
    assert code != 2 or ("Traceback" not in err and not out)


def test_a_file_that_names_no_backends_runs_on_all(tmp_path, capsys):
    assert run(written(tmp_path, definition(RIGHT, literal=True)), None) == 0
    names = [name for name, reason in device.available_backends().items() if reason is None]
    assert all(name in capsys.readouterr().out.replace("\n", " ") for name in names[:1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "neither"),
        ("program = 5", "neither"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("kernel =", "SyntaxError"),
    ],
)
def test_a_file_that_is_no_reproducer_is_an_error(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load(written(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no file"):
        load(tmp_path / "none.py")
    with pytest.raises(DataError, match="no file"):
        load(tmp_path)


def test_a_kernel_with_blocks_is_laid_out_anew_for_other_backends(backends):
    backends(wishing="minigrad.backends.numpy:NumpyBackend")
    view = View.of((2, 8), (0, 1, Block(0, 2)))._replace(strides=(1, 2), blocks=None)
    blocked = View.of((4, 8), (0, 1, Block(0, 2)))
    body = (Instr("load", (), 0, X.dtype),)
    kernel = Kernel(
        MAP, None, (), (), (), (), (4, 8), body, ((0, 0),),
        (Operand(0, X.dtype, blocked),), (Operand(1, X.dtype, View.of((4, 8))),), 2,
    )  # fmt: skip
    arrays = [np.arange(32, dtype=np.float32), np.zeros(32, np.float32)]
    assert blocked.blocks is not None and view.blocks is None
    assert not bisect(Case(kernel, arrays, "opencl"), ["numpy", "wishing"]).diverges


def test_what_a_backend_does_not_declare_is_not_asked_of_it(faulty, monkeypatch):
    body = (Instr("load", (), 0, X.dtype), Instr("tanh", (0,), None, X.dtype))
    operand = Operand(0, X.dtype, View.of((4,)))
    kernel = Kernel(MAP, None, (), (), (), (), (4,), body, ((1, 0),), (operand,), (operand._replace(buffer=1),), 2)
    assert lowers(faulty, kernel)
    able = device.get(faulty).backend.capabilities
    lacking = type(able)(unsupported=frozenset({"tanh"}))
    monkeypatch.setattr(device.get(faulty).backend, "capabilities", lacking)
    assert not lowers(faulty, kernel)
    found = bisect(Case(kernel, [np.full(4, 2, np.float32)] * 2, "numpy"), ["numpy", faulty])
    assert list(found.rows[0].verdicts) == ["numpy"] and not found.diverges


def test_a_program_that_a_backend_declares_it_cannot_run_is_not_run_there(faulty, monkeypatch):
    able = device.get(faulty).backend.capabilities
    monkeypatch.setattr(device.get(faulty).backend, "capabilities", type(able)(unsupported=frozenset({"tanh"})))
    found = bisect(WRONG, ["numpy", faulty])
    assert not found.diverges and {row.schedule for row in found.rows} == {"numpy"}
    assert any(faulty in row.verdicts for row in found.rows), "kernels that it has are compared all the same"
