"""``make gpu`` without a GPU, and its report."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "gpu"))
import measure
import report as gpu

from minigrad import device as devices
from minigrad.cli.parser import make_parser


def test_without_a_gpu_the_report_stays(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu.devices, "available_backends", lambda: {"cupy": "no NVIDIA driver: install one"})
    report = tmp_path / "report.md"
    report.write_text("as it was")
    assert gpu.main(["--report", str(report)]) == 1
    assert "cupy cannot run here: no NVIDIA driver: install one" in capsys.readouterr().err
    assert report.read_text() == "as it was"


def test_the_report_says_what_ran_and_how_it_went(tmp_path, capsys, monkeypatch):
    sections = {
        "good": gpu.Section("Good", "timeit -n 1 -r 1 pass"),
        "bad": gpu.Section("Bad", "minigrad diff --backends {backend},nothing"),
        "slow": gpu.Section("Slow", "timeit -n 1 -r 1 'import time; time.sleep(60)'", minutes=0.01),
    }
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    report = tmp_path / "report.md"
    assert gpu.main(["--backend", "numpy", "--only", "good,bad,slow", "--report", str(report)]) == 1
    assert "1 of 3 passed" in capsys.readouterr().out
    text = report.read_text()
    assert "(UTC), with `MINIGRAD_TUNE=1`" in text
    for row in ("| Good | passed |", "| Bad | failed (", "| Slow | given up after 0.01 minutes |"):
        assert row in text
    assert "$ python -m minigrad diff --backends numpy,nothing" in text and "no backend has that name" in text
    for name, value in devices.get("numpy").backend.fingerprint().items():
        assert f"- {name}: {value}" in text


def test_every_command_of_the_report_is_one():
    """Only their words: what they do is run where there is a GPU."""
    known = make_parser()
    for section in gpu.SECTIONS.values():
        words = section.command.format(backend="opencl", scratch="there").split()
        if words[0] == "minigrad":
            known.parse_args(words[1:])
        elif words[0] == "pytest":
            assert "opencl" in words
        else:
            assert (gpu.ROOT / words[0]).exists()


def test_measurements_run_anywhere(monkeypatch, capsys):
    options = "--backend numpy --network resnet20 --batch 2 --size 4096 --repeats 1"
    monkeypatch.setattr(sys, "argv", ["measure", *options.split()])
    assert measure.main() == 0
    out = capsys.readouterr().out
    assert "relu(a * b + c) over 4,096 floats" in out and "resnet20 training, batch 2, bfloat16: " in out
    assert out.count("minigrad ") == 2


