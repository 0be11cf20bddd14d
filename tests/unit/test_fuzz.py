"""`minigrad fuzz`: planted faults are found, shrunk and written; a campaign ends as it should."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad import dtypes, extras
from minigrad.cli import main
from minigrad.errors import MissingExtra
from minigrad.testing import fuzz_worker, fuzzing
from minigrad.testing.programs import Input, Layout, Program, Step, on
from minigrad.testing.script import definition, reproducer
from minigrad.testing.shrinking import shrunk
from minigrad.testing.strategies import fill, laid

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _plug_ins(backends):
    backends(wrong="planted:Wrong", raises="planted:Raises", dies="planted:Dies", hangs="planted:Hangs")


def fuzz(capsys, tmp_path, *options):
    """Exit code, output and reproducers of ``minigrad fuzz``."""
    code = main(["fuzz", "--workers", "1", "--out", str(tmp_path), *options])
    return code, capsys.readouterr().out, sorted(tmp_path.glob("minigrad-fuzz-*.py"))


def run_script(path, *backends):
    """A reproducer, run from another folder."""
    environment = {**os.environ, "PYTHONPATH": HERE}
    command = [sys.executable, str(path), *backends]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=path.parent)


@pytest.fixture
def only_sigmoid(monkeypatch):
    """Workers that draw nothing without what the planted backends get wrong, so that no test waits for luck."""
    monkeypatch.setattr(fuzzing, "WORKER", "planted_worker")


def test_backends_that_agree_end_in_one_line(capsys, tmp_path):
    options = "--backends", "numpy", "--what", "rows", "--seed", "5", "--chunk", "0"
    code, out, written = fuzz(capsys, tmp_path, *options)
    assert code == 0 and not written
    line = r"fuzz: (\d+) programs \(([\d,]+) steps\) on numpy in \d+ s, seed 5: \d+ inconclusive, 0 differences\n"
    found = re.fullmatch(line, out)
    assert found, out
    assert int(found[1]) > 60 and int(found[2].replace(",", "")) >= int(found[1])


def test_a_seed_is_drawn_and_shown_where_none_is_given(capsys, tmp_path):
    seeds = set()
    for _ in range(2):
        _, out, _ = fuzz(capsys, tmp_path, "--backends", "numpy", "--seconds", "0.1", "--what", "rows")
        seeds.add(re.search(r"seed (\d+)", out)[1])
    assert len(seeds) == 2


def test_a_wrong_result_is_found_shrunk_and_written(capsys, tmp_path, only_sigmoid):
    options = "--backends", "numpy,planted:Wrong", "--what", "programs", "--seed", "0", "--chunk", "0"
    code, out, (path,) = fuzz(capsys, tmp_path, *options)
    assert code == 1
    assert "1 difference\n" in out and f"written to {path}" in out
    text = path.read_text()
    assert text.count("        Step(") == 1, "shrunk"
    assert "wrong" in text and "--seed 0 --chunk 0" in text and f"numpy {np.__version__}" in text
    again = run_script(path)
    assert again.returncode == 1
    assert "numpy: agrees" in again.stdout and re.search(r"^wrong: .* expected .* got ", again.stdout, re.MULTILINE)
    agrees = run_script(path, "numpy")
    assert agrees.returncode == 0, agrees.stderr
    assert "agrees" in agrees.stdout


def test_an_exception_of_one_backend_is_a_difference(capsys, tmp_path, only_sigmoid):
    options = "--backends", "planted:Raises", "--what", "rows", "--seed", "0", "--chunk", "0"
    code, out, (path,) = fuzz(capsys, tmp_path, *options)
    assert code == 1
    assert "raises raises RuntimeError: the planted compiler error" in out
    assert run_script(path).returncode == 1


def test_a_difference_that_cannot_be_written_is_printed(capsys, tmp_path, only_sigmoid, monkeypatch):
    def full(path, text, encoding):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    options = "--backends", "planted:Raises", "--what", "rows", "--seed", "0", "--chunk", "0"
    code, out, written = fuzz(capsys, tmp_path, *options)
    assert code == 1 and not written
    assert "the planted compiler error" in out and "Step('sigmoid'" in out and "sys.exit(reproduce(" in out
    assert "1 difference\n" in out


def test_a_process_that_dies_leaves_the_program_that_it_ran(capsys, tmp_path, only_sigmoid):
    options = "--backends", "numpy,planted:Dies", "--what", "programs", "--seed", "0", "--chunk", "0"
    code, out, (path,) = fuzz(capsys, tmp_path, *options)
    assert code == 1
    assert "dies ends the process (SIGABRT)" in out and "numpy against" not in out
    assert re.findall(r"^        Step\('(\w+)'", path.read_text(), re.MULTILINE) == ["sigmoid"]
    assert run_script(path).returncode == -signal.SIGABRT
    assert run_script(path, "numpy").returncode == 0


def test_a_process_that_hangs_is_ended_and_reported(capsys, tmp_path, only_sigmoid, monkeypatch):
    monkeypatch.setattr(fuzzing, "HANGING", 15.0)  # drawing counts too
    options = "--backends", "planted:Hangs", "--what", "rows", "--seed", "0", "--chunk", "0"
    code, out, (path,) = fuzz(capsys, tmp_path, *options)
    assert code == 1
    assert "hangs hangs: no answer for 15 s" in out
    assert "Step('sigmoid'" in path.read_text()


def test_the_same_defect_is_written_once(tmp_path):
    told = []
    options = fuzzing.Options(("numpy",), 1, 0, out=tmp_path)
    campaign = fuzzing.Campaign(options, told.append, lambda count: None)
    for ops, program in [(("add",), "program = 1"), (("add",), "program = 2"), (("mul",), "program = 3")]:
        campaign._keep(fuzzing.Difference("numpy differs", ops, "by much", 0), program)
    assert [d.ops for d in told] == [("add",), ("mul",)]
    assert told[0].times == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_a_chunk_of_a_seed_is_always_the_same():
    code = (
        "import sys; from pathlib import Path; from minigrad.testing import fuzz_worker as w\n"
        "class Chunk(w.Chunk):\n"
        "    def check(self, program): print(program.script())\n"
        "w.PROGRAMS['programs'] = 5\n"
        "for s, k in [(1, 0), (1, 1), (2, 0)]:\n"
        "    print('next'); Chunk(['numpy'], s, k, ['programs'], Path(), print).run()\n"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONHASHSEED": "0"}
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    chunks = runs[0].stdout.split("next\n")[1:]
    assert len(chunks) == len(set(chunks)) == 3
    assert all(chunk.count("program = Program(") >= 5 for chunk in chunks)


def test_ctrl_c_ends_with_the_line_and_without_leftovers(tmp_path):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from minigrad.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    options = ["fuzz", "--backends", "numpy", "--seconds", "60", "--seed", "1", "--workers", "1"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *options], stdout=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not list(tmp_path.glob("*/*/program.py")):
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert re.search(r"fuzz: [\d,]+ programs .* seed 1: .* differences?, interrupted\n$", out)
    assert not list(tmp_path.iterdir())


# Shrinking -----------------------------------------------------------------------------------------------------------


def test_a_program_is_cut_to_what_fails():
    """What is computed before becomes an input, the rest goes."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    steps = [Step(op, (n + 1,)) for n, op in enumerate(["neg", "relu", "abs", "exp", "tanh", "sin", "floor", "neg"])]
    program = Program(
        (Input(array), Input(array + 1, Layout((1, 0), (1, 1), ((1, 0), (0, 1))))),
        (*steps, Step("add", (0, 1))), (9, 10), frozenset({4}), True,
    )  # fmt: skip

    def fails(candidate):
        candidate.build(on("numpy"))
        return any(step.op == "floor" for step in candidate.steps)

    found = shrunk(program, fails)
    assert [step.op for step in found.steps] == ["floor"]
    assert len(found.inputs) == 1 and not found.gradients and not found.realized
    value = np.sin(np.tanh(np.exp(0)))
    np.testing.assert_allclose(found.inputs[0].array, np.full((2, 3), value), rtol=1e-6)


# Scripts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("count", [40, 3000])
def test_a_reproducer_holds_every_element_exactly(dtype, count):
    rng = np.random.default_rng(0)
    given = laid(fill("special", fuzz_worker.TABLE["add"].domain, rng, (count,), dtype), Input(np.zeros(3)).layout)
    program = Program((given._replace(made="nothing that exists"),), (Step("copy", (0,)),), (1,))
    scope: dict = {"__name__": "script"}
    exec(reproducer(definition(program, literal=True), ["numpy"], "said\nin two lines"), scope)
    (found,) = scope["program"].inputs
    assert found.array.dtype == given.array.dtype
    same = found.array == given.array
    assert np.all(same | (found.array != found.array) & (given.array != given.array))
    if dtype.is_float:
        zeros = given.array == 0
        assert np.array_equal(np.signbit(found.array[zeros]), np.signbit(given.array[zeros]))


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [["--seconds", "0"], ["--seconds", "-1"], ["--seed", "x"], ["--backends", ","], ["--out", __file__]],
    ids=lambda options: options[0],
)
def test_wrong_usage(options, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fuzz", *options])
    assert f"argument {options[0]}: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backends", "abacus"], "abacus.*no backend has that name"),
        (["--backends", "numpy", "--what", "poems"], "--what: expected some of programs, .*got poems"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_before_anything_runs(options, message, capsys):
    assert main(["fuzz", *options]) == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_without_hypothesis_the_extra_is_named(monkeypatch, capsys):
    def missing(module, extra):
        raise MissingExtra.of(module, "an installed package", "none", f'pip install "minigrad[{extra}]"')

    monkeypatch.setattr(extras, "load", missing)
    assert main(["fuzz", "--backends", "numpy"]) == 2
    assert "minigrad[test]" in capsys.readouterr().err


def test_a_worker_that_cannot_start_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr(fuzzing, "WORKER", "no_such_module")
    assert main(["fuzz", "--backends", "numpy", "--seconds", "1"]) == 2
    assert re.search(
        r"error: fuzz: expected a worker process that starts, got (.|\n)*no_such_module", capsys.readouterr().err
    )
