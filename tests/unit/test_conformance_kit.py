"""The conformance kit from outside: on an example backend, on wrong ones, and on none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minigrad import device as devices

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "add_a_backend"
PLAIN = "minigrad_plain:PlainBackend"

WRONG = """
import numpy as np
import minigrad_plain
from minigrad.backends.base import Capabilities
from minigrad_plain import PlainBackend, Interpreted

class Wrong(PlainBackend):
    name = "wrong"
    def lower(self, kernel):
        return Mistaken(kernel)

class Mistaken(Interpreted):
    def _lines(self, body, buffers, core=()):
        values = super()._lines(body, buffers, core)
        for number, line in enumerate(body):
            if line.op == "maximum":
                values[number] = np.minimum(*(values[a] for a in line.args))
        return values

class Crashing(PlainBackend):
    name = "crashing"
    def lower(self, kernel):
        if any(line.op == "maximum" for line in kernel.epilogue):
            raise ValueError("no way to lower this")
        return super().lower(kernel)

class Boasting(PlainBackend):
    name = "boasting"
    capabilities = Capabilities(
        PlainBackend.capabilities.dtypes, frozenset({"sum"}), unsupported=PlainBackend.unsupported | {"sqrt"})
    def check(self, op, dtype):
        pass

class Loose(PlainBackend):
    name, runs = "loose", 0
    def lower(self, kernel):
        return Flushing(kernel)

class Flushing(Interpreted):
    def _lines(self, body, buffers, core=()):
        values = super()._lines(body, buffers, core)
        if core:
            Loose.runs += 1
            values[0] = values[0] + values[0].dtype.type(Loose.runs)
        return [np.where(abs(v) < np.finfo(v.dtype).tiny, 0, v) if v.dtype.kind == "f" else v for v in values]

class Nothing:
    name = "nothing"
"""


@pytest.fixture
def kit(tmp_path):
    """Runs the kit in a folder of its own, as somebody would who has installed minigrad."""
    (tmp_path / "others.py").write_text(WRONG)

    def run(backend, *arguments):
        command = [sys.executable, "-c", "import pytest, sys; sys.exit(pytest.main())", "-p", "minigrad.testing.plugin"]
        command += ["-p", "no:cacheprovider", "--pyargs", "minigrad.testing.conformance", "--backend", backend]
        env = dict(os.environ, PYTHONPATH=str(EXAMPLE))
        result = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, env=env)
        return result.returncode, result.stdout + result.stderr

    return run


def test_the_example_is_short():
    lines = (EXAMPLE / "minigrad_plain" / "__init__.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150 and max(map(len, lines)) <= 120


def test_the_example_is_registered_by_its_entry_point():
    text = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "([\w.:]+)"', text)
    assert found is not None and found.groups() == (devices.ENTRY_POINTS, "plain", PLAIN)


def test_an_installed_package_is_found_by_name(tmp_path):
    info = tmp_path / "minigrad_plain-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: minigrad-plain\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[{devices.ENTRY_POINTS}]\nplain = {PLAIN}\n")
    code = "from minigrad import Tensor, available_backends as a; print(a()['plain'], (Tensor([1.0, 2]) * 3).tolist())"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(EXAMPLE)]), MINIGRAD_BACKEND="plain")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert result.stdout == "None [3.0, 6.0]\n"


def test_the_example_passes(kit):
    code, out = kit(PLAIN, "--level", "3", "-q", "-k", "memory or matmul or conv or cumsum or erf")
    assert code == 0, out
    assert re.search(r"^level 0 memory and copies: \d+ passed$", out, re.MULTILINE)
    assert re.search(r"^level 2 movement, .*: \d+ passed, \d+ left out as declared$", out, re.MULTILINE)
    assert re.search(r"^level 3 contractions and windows: \d+ passed", out, re.MULTILINE) and "level 4" not in out
    assert "plain does not have cumsum" in out


def test_the_header_says_what_is_tested(kit):
    code, out = kit(PLAIN, "--level", "0", "-k", "says_what")
    assert code == 0, out
    assert "backend plain: plain (minigrad_plain:PlainBackend)" in out and "levels 0 to 0" in out
    assert "unsupported: avg_pool, avg_pool_grad, cumsum, erf, scatter, sort, take" in out
    assert "float64" in out and "bfloat16" not in out


def test_a_wrong_result_is_found_and_shrunk(kit):
    code, out = kit("others:Wrong", "-k", "forward and maximum")
    assert code == 1
    assert "test_forward_matches_float64_oracle[wrong-maximum]" in out and "maximum, lazy, result 0: at [" in out
    assert "Step('maximum', (0, 1), {})" in out and "Input(array([" in out
    command = re.search(r"^pytest .*", out, re.MULTILINE)
    assert command is not None and command[0].endswith("--backend others:Wrong") and "::" in command[0]
    assert re.search(r"level 1 .*: 1 failed", out)


def test_a_crash_is_a_failure_with_its_program(kit):
    code, out = kit("others:Crashing", "-k", "forward and maximum")
    assert code == 1
    assert "no way to lower this" in out and "Step('maximum', (0, 1), {})" in out


def test_a_claim_that_does_not_hold_is_found(kit):
    code, out = kit("others:Boasting", "-k", "refused_by_name or epilogues")
    assert code == 1
    assert "FAILED" in out and "test_unsupported_primitives_are_refused_by_name[boasting]" in out
    assert "test_other_dtypes_are_refused_by_name[boasting]" in out


FAILING = """
import signal
from hypothesis import given, strategies as st

@given(st.integers(1000, 10**6))
def test_large(n):
    tried.append(n)
    if len(tried) == LAST:
        signal.raise_signal(signal.SIGINT)
    assert n < 1000, f"failed with {n}"

def test_next():
    pass

tried = []
"""


@pytest.mark.parametrize(
    "last, seconds, code, words",
    [
        (0, -1, 1, "1 failed, 1 passed"),  # time is up with the first failure
        (3, 1000, 2, "Interrupted: Ctrl-C"),
    ],
)
def test_a_failure_is_shown_where_shrinking_is_cut_short(tmp_path, last, seconds, code, words):
    (tmp_path / "test_failing.py").write_text(FAILING.replace("LAST", str(last)))
    run = f"import pytest, sys, minigrad.testing.plugin as kit; kit.SHRINKING = {seconds}; sys.exit(pytest.main())"
    options = "-p", "minigrad.testing.plugin", "-p", "no:cacheprovider", "--backend", "numpy"
    result = subprocess.run([sys.executable, "-c", run, *options], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert re.search(r"^E +AssertionError: failed with \d+$", result.stdout, re.MULTILINE)
    assert "shrinking was cut short" in result.stdout and words in result.stdout


def test_a_device_that_is_other_than_declared_is_told_what_it_declares(kit):
    code, out = kit("others:Loose", "-k", "denormals_as_declared or same_bits")
    assert code == 1
    assert "copy() float32[5, 7]> where flush_denormals=False is declared: at [0, 0]" in out
    assert "sum: expected the same bits 4 times, as deterministic=True declares" in out


def test_there_is_no_level_above_the_last(kit):
    code, out = kit("numpy", "--level", "9")
    assert code == 4 and "argument --level: invalid choice: 9" in out


@pytest.mark.parametrize(
    "name, words",
    [
        ("nonsense", "one that can run here (numpy"),
        ("no.such.module:Thing", "no.such.module:Thing"),
        ("others:Nothing", "a subclass of minigrad.backends.base.Backend"),
        ("minigrad.backends.base:Backend", "minigrad.backends.base:Backend"),
    ],
)
def test_what_is_no_backend_is_a_usage_error(kit, name, words):
    code, out = kit(name)
    assert code == 4 and "ERROR" in out and words in out and "Traceback" not in out


def test_the_code_of_the_guide_runs(monkeypatch, capsys):
    monkeypatch.setattr(devices, "_devices", dict(devices._devices))
    text = (ROOT / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")
    exec(compile("".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), "writing-a-backend.md", "exec"), {})
    assert capsys.readouterr().out == "exp: expected a primitive that backend adder has, got exp of float32\n"


def test_the_links_of_the_guide_lead_somewhere():
    text = (ROOT / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []
