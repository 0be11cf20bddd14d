"""``make gpu``: everything that needs a GPU, and a report of it.

Runs the conformance kit, the tests of backends, differences from NumPy, a training of LeNet-5 and benchmarks on the
CuPy backend, and writes what they printed into one page with device, driver and versions. Without a GPU it says what is
missing and leaves the page as it is.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from minigrad import device as devices

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs/gpu-report.md"
LINES = 60  # of each output that the page shows, at most
KIT = "-p minigrad.testing.plugin --pyargs minigrad.testing.conformance"


class Section(NamedTuple):
    """What is run.

    Attributes:
        title: for people.
        command: after ``python -m``, or the path of a script; {backend} is filled in.
        minutes: after which it is given up.
    """

    title: str
    command: str
    minutes: int = 20


SECTIONS = {
    "conformance": Section("Conformance kit", f"pytest -q {KIT} --backend {{backend}}", 40),
    "backends": Section("Tests of backends", "pytest -q tests/backend -k {backend}", 40),
    "diff": Section("Differences from NumPy", "minigrad diff --backends numpy,{backend}"),
    "fuzz": Section("Random programs", "minigrad fuzz --backends numpy,{backend} --seconds 300"),
    "lenet": Section("LeNet-5 on MNIST", "minigrad train lenet --backend {backend} --out {scratch}"),
    "step": Section("Training step of LeNet-5", "minigrad bench --backend {backend} --repeats 60"),
    "kernels": Section("Its kernels", "minigrad bench --backend {backend} --what kernels --repeats 40"),
    "conv": Section("Convolutions", "minigrad bench --backend {backend} --what conv --batch-size 64 --repeats 10", 40),
    "networks": Section("Networks, float32", "minigrad bench --backend {backend} --what networks --batch-size 64", 60),
    "measure": Section("Bandwidth and reduced precision", "tests/gpu/measure.py --backend {backend}", 60),
}


class Outcome(NamedTuple):
    """How a section went.

    Attributes:
        section: it.
        command: as typed.
        status: of its end; None if it took too long.
        seconds: that it took.
        output: what it printed.
    """

    section: Section
    command: str
    status: int | None
    seconds: float
    output: str


def run(section, backend, scratch):
    """Run one section, measuring tiles and ways of convolutions as it goes."""
    command = section.command.format(backend=backend, scratch=scratch)
    words = shlex.split(command)
    start, status = time.perf_counter(), None
    environment = {**os.environ, "MINIGRAD_TUNE": "1", "COLUMNS": "160"}
    words = words if words[0].endswith(".py") else ["-m", *words]
    print(f"python {' '.join(words)}", flush=True)
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, text=True, errors="replace",
            timeout=60 * section.minutes, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
    return Outcome(section, f"python {' '.join(words)}", status, time.perf_counter() - start, output)


def verdict(outcome):
    if outcome.status is None:
        return f"given up after {outcome.section.minutes} minutes"
    return "passed" if outcome.status == 0 else f"failed ({outcome.status})"


def page(outcomes, fingerprint, now):
    """The report."""
    lines = [
        "# Report of a GPU",
        "",
        f"What `make gpu` printed on {now:%Y-%m-%d} (UTC), with `MINIGRAD_TUNE=1`. How it works: [cupy.md](cupy.md).",
        "",
        *(f"- {name}: {value}" for name, value in fingerprint.items()),
        "",
        "| | | s |",
        "| --- | --- | --- |",
        *(f"| {outcome.section.title} | {verdict(outcome)} | {outcome.seconds:.0f} |" for outcome in outcomes),
    ]
    for outcome in outcomes:
        shown = outcome.output.strip().split("\n")
        cut = [f"... {len(shown) - LINES} lines before"] if len(shown) > LINES else []
        lines += ["", f"## {outcome.section.title}", "", "```", f"$ {outcome.command}", *cut, *shown[-LINES:], "```"]
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--only", default=",".join(SECTIONS), type=lambda text: text.split(","), help="some sections")
    parser.add_argument("--report", default=REPORT, type=Path)
    args = parser.parse_args(arguments)
    reason = devices.available_backends().get(args.backend, "no backend has that name")
    if reason is not None:
        print(f"make gpu: {args.backend} cannot run here: {reason}\nThe report stays as it is.", file=sys.stderr)
        return 1
    fingerprint = devices.get(args.backend).backend.fingerprint()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = [run(SECTIONS[name], args.backend, scratch) for name in args.only]
    args.report.write_text(page(outcomes, fingerprint, datetime.now(timezone.utc)), encoding="utf-8")
    failed = [outcome.section.title for outcome in outcomes if outcome.status != 0]
    print(f"{args.report}: {len(outcomes) - len(failed)} of {len(outcomes)} passed", *failed, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
