"""`minigrad diff`: a table of every primitive's worst error, and what a faulty backend does to it."""

import json
import re

import pytest

from minigrad import extras
from minigrad.cli import main
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
    assert "declared unsupported" in out


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
        (["--backends", "numpy", "--ops", "conf"], "--ops: .*conv.*got conf"),
        (["--backends", "numpy", "--example", "3"], "--example: expected one primitive"),
        (["--backends", "numpy,planted:Nothing"], "planted:Nothing"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_before_anything_runs(options, message, capsys, monkeypatch):
    monkeypatch.setattr("minigrad.cli.diff.differences", None)
    assert main(["diff", *options]) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_without_hypothesis_the_extra_is_named(monkeypatch, capsys):
    def missing(module, extra):
        raise MissingExtra.of(module, "an installed package", "none", f'pip install "minigrad[{extra}]"')

    monkeypatch.setattr(extras, "load", missing)
    assert main(["diff", "--backends", "numpy"]) == 1
    assert "minigrad[test]" in capsys.readouterr().err


def test_an_unknown_primitive_is_an_error():
    with pytest.raises(ArgumentError, match="--ops"):
        differences.keys(["conf"])
