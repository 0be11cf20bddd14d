"""`minigrad diff`: a table of every primitive's worst error, and what a faulty backend does to it."""

import io
import json
import re

import pytest
from rich.console import Console

from minigrad import extras
from minigrad.cli import main
from minigrad.cli.diff import _print_table
from minigrad.cli.parser import make_parser
from minigrad.errors import ArgumentError, MissingExtra
from minigrad.testing import differences
from minigrad.testing.strategies import rows


@pytest.fixture(autouse=True)
def _plug_ins(backends):
    backends(wrong="planted:Wrong", raises="planted:Raises", dies="planted:Dies", lacks="planted:Lacks")


def diff(capsys, *options):
    """Exit code and output of ``minigrad diff``."""
    code = main(["diff", *options])
    return code, capsys.readouterr().out


def test_backends_that_agree(capsys, tmp_path):
    path = tmp_path / "found.json"
    code, out = diff(capsys, "--backends", "numpy", "--ops", "exp,matmul", "--examples", "6", "--json", str(path))
    assert code == 0
    assert re.search(r"diff: 4 rows, 24 examples on numpy, seed 0: \d+ inconclusive, 0 rows with violations", out)
    found = {(row["op"], row["gradient"]): row for row in json.loads(path.read_text())["rows"]}
    assert set(found) == {(op, gradient) for op in ("exp", "matmul") for gradient in (False, True)}
    exp = found["exp", False]["worst"]["numpy"]
    assert 0 < exp["share"] <= 1 and 0 < exp["ulps"] < 4
    assert found["matmul", False]["worst"]["numpy"]["ulps"] is None, "sums are not measured in ulps"


def test_a_wrong_backend_is_a_violation_and_its_example_shows_it_alone(capsys):
    options = "--backends", "numpy,planted:Wrong", "--ops", "sigmoid", "--examples", "4"
    code, out = diff(capsys, *options)
    assert code == 1
    assert re.search(r"[12] rows? with violations", out)
    numbers = re.findall(r"--ops sigmoid --seed 0 --example (\d+)", out)
    code, out = diff(capsys, *options[:4], "--example", numbers[0])
    assert code == 1
    assert "Step('sigmoid'" in out and "wrong is wrong: " in out and "numpy/wrong is wrong: " in out


@pytest.mark.parametrize(("name", "why"), [("raises", "the planted compiler error"), ("dies", "SIGABRT")])
def test_a_backend_that_fails_is_a_violation_and_the_other_rows_are_run(capsys, name, why):
    names = f"numpy,planted:{name.capitalize()}"
    code, out = diff(capsys, "--backends", names, "--ops", "sigmoid,neg", "--examples", "1")
    assert code == 1
    assert why in " ".join(out.split())
    assert re.search(r"4 rows, 4 examples", out)
    assert not re.search(rf"neg.*{why}", out)


def test_what_a_backend_declares_that_it_lacks_is_no_violation(capsys):
    code, out = diff(capsys, "--backends", "numpy,planted:Lacks", "--ops", "sigmoid,neg", "--examples", "2")
    assert code == 0
    assert "unsupported" in out


def test_an_example_is_the_same_alone_and_in_a_row():
    key = differences.Key("conv", True)
    scripts = [differences.example(key, ["numpy"], 0, 3).script() for _ in range(2)]
    assert scripts[0] == scripts[1]
    assert scripts[0] != differences.example(key, ["numpy"], 1, 3).script()
    assert scripts[0] != differences.example(key, ["numpy"], 0, 4).script()


def test_all_means_every_row_of_the_table():
    assert {key.op for key in differences.keys(["all"])} == {op.name for op in rows()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backends", "abacus"], "abacus.*no backend has that name"),
        (["--backends", "numpy", "--ops", "conf"], "--ops: .*got 'conf'\n  hint: did you mean 'conv'\\?"),
        (["--backends", "numpy", "--ops", "qqqq"], "--ops: .*got 'qqqq'\n  hint: there are .*conv"),
        (["--backends", "numpy", "--example", "3"], "--example: expected one primitive"),
        (["--backends", "numpy,planted:Nothing"], "planted:Nothing"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_before_anything_runs(options, message, capsys, monkeypatch):
    monkeypatch.setattr("minigrad.cli.diff.differences", None)
    assert main(["diff", *options]) == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backends", "numpy,numpy"], "different names separated by commas, got 'numpy,numpy'"),
        (["--json", "nowhere/found.json"], "a file to write, got 'nowhere/found.json': No such file"),
        (["--json", "."], "a file to write, got '.': Is a directory"),
    ],
)
def test_wrong_usage(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["diff", *options])
    assert f"error: argument {options[0]}: expected {message}" in capsys.readouterr().err


def test_that_a_file_can_be_written_is_tried_without_leaving_one(tmp_path):
    (tmp_path / "old.json").write_text("kept")
    for name in ("old.json", "new.json"):
        assert make_parser().parse_args(["diff", "--json", str(tmp_path / name)]).json == tmp_path / name
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_ctrl_c_prints_what_was_compared(capsys, monkeypatch):
    def interrupted(keys, *_):
        yield differences.Row(keys[0], {"numpy": differences.Worst(0.25, dtype="float32", shapes=((2, 3),))}, 5)
        raise KeyboardInterrupt

    monkeypatch.setattr("minigrad.cli.diff.differences", interrupted)
    code, out = diff(capsys, "--backends", "numpy", "--ops", "exp,neg")
    assert code == 130
    assert re.search(r"^ exp +0\.25 ", out, re.MULTILINE)
    assert "diff: 1 rows, 5 examples" in out and out.endswith("interrupted after 1 of 4 rows\n")


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (200, "numpy opencl numpy/opencl dtype inputs example n unclear"),
        (80, "numpy opencl numpy/opencl dtype"),
        (30, "numpy opencl"),
    ],
)
def test_the_errors_of_backends_are_shown_in_a_narrow_terminal(width, headings):
    names = ("numpy", "opencl", "numpy/opencl")
    worst = {name: differences.Worst(0.125, 1.5, "bfloat16", ((2, 3, 4, 5), (3, 4, 5, 6)), 4) for name in names}
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    _print_table(console, [differences.Row(differences.Key("conv_weight_grad", True), worst, 5)], list(names[:2]))
    lines = console.file.getvalue().splitlines()
    assert [line.split() for line in lines if "primitive" in line] == [["primitive", *headings.split()]]
    (line,) = [line for line in lines if "conv_weight_grad, gradient" in line]
    assert line.count("0.12 (1.5)") == len(names[: len(headings.split())])


def test_without_hypothesis_the_extra_is_named(monkeypatch, capsys):
    def missing(module, extra):
        raise MissingExtra.of(module, "an installed package", "none", f'pip install "minigrad[{extra}]"')

    monkeypatch.setattr(extras, "load", missing)
    assert main(["diff", "--backends", "numpy"]) == 2
    assert "minigrad[test]" in capsys.readouterr().err


def test_an_unknown_primitive_is_an_error():
    with pytest.raises(ArgumentError, match="--ops"):
        differences.keys(["conf"])
