"""``make mutants``: plant each fault, one at a time, and see which test notices it.

The test that should notice a fault runs first, then, if it does not, all tests of its suite, with the examples that
they have in ``make test``. The test that fails has to pass without the fault.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from typing import NamedTuple

from plant import FAULTS, HERE, ROOT, Fault
from rich.console import Console
from rich.markup import escape
from rich.table import Table

LIMIT = 1800  # seconds for all tests on one fault; a test that has not failed by then has not noticed


class Outcome(NamedTuple):
    """What became of a fault: the test that noticed it, or why none did."""

    fault: Fault
    killed_by: str
    problem: str
    seconds: float


def run(mutant: str, backend: str, folder: str, *selected: str) -> tuple[int | None, str]:
    """Exit code (None: it took too long) and output of some tests, with a fault or none; caches are in ``folder``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINIGRAD_")}
    paths = [str(HERE), environment.get("PYTHONPATH", "")]
    environment |= {
        "MUTANT": mutant,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MINIGRAD_CACHE": folder,  # programs are found by their source: faults may share it
    }
    options = ("-p", "plant", "-p", "minigrad.testing.plugin", "-p", "no:cacheprovider", "-x", "-q", "--tb=no")
    command = [sys.executable, "-m", "pytest", *options, "--backend", backend, *selected]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


@cache
def passes(test: str, backend: str, folder: str) -> bool:
    """Whether a test passes without a fault."""
    return run("", backend, folder, test)[0] == 0


def try_fault(fault: Fault, folder: str, everything: bool = True) -> Outcome:
    """Plant one fault and run tests until one fails: those that should notice, then, with ``everything``, all."""
    start = time.perf_counter()
    killed_by = problem = ""
    for selected in (["-k", fault.select], [])[: 1 + everything]:
        code, output = run(fault.name, fault.backend, folder, *fault.tests, *selected)
        failed = re.search(r"^FAILED (.+?)(?: - .*)?$", output, re.MULTILINE)
        if code == 1 and failed:
            killed_by = failed[1].rpartition("/")[2]
            if not passes(failed[1], fault.backend, folder):
                problem = f"{killed_by} fails without the fault too"
        elif code is None:
            problem = f"nothing failed in {LIMIT} s"
        elif code < 0:
            killed_by = f"signal {-code}"
        elif code == 5:
            problem = f"no test is selected by {fault.select!r}"
        elif code != 0:
            problem = f"pytest ends with {code}: {output[-400:]}"
        if killed_by or problem:
            break
    return Outcome(fault, "" if problem else killed_by, problem, time.perf_counter() - start)


def show(outcomes: list[Outcome], console: Console) -> int:
    """Print the table; how many faults no test noticed."""
    table = Table("area", "fault", "what is wrong then", "noticed by", "s")
    for fault, killed_by, problem, seconds in outcomes:
        noticed = escape(killed_by) or f"[red]{escape(problem) or 'nothing'}"
        table.add_row(fault.area, fault.name, fault.wrong, noticed, f"{seconds:.0f}")
    console.print(table)
    survived = [o.fault.name for o in outcomes if not o.killed_by]
    total = sum(o.seconds for o in outcomes)
    console.print(f"mutants: {len(outcomes)} faults, {len(survived)} not noticed, {total / 60:.0f} min of tests")
    return len(survived)


def main() -> int:
    """Run the faults named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="faults to plant (default: all)")
    parser.add_argument("--area", choices=sorted({f.area for f in FAULTS}), help="only faults of this part")
    parser.add_argument("--workers", type=int, default=2, help="faults at a time")
    args = parser.parse_args()
    unknown = set(args.names) - {f.name for f in FAULTS}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    chosen = [f for f in FAULTS if (not args.names or f.name in args.names) and args.area in (None, f.area)]
    console = Console(width=None if sys.stdout.isatty() else 160)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="minigrad-mutants-") as folder, ThreadPoolExecutor(args.workers) as pool:
        for done in as_completed([pool.submit(try_fault, fault, folder) for fault in chosen]):
            outcomes.append(done.result())
            fault, killed_by, problem, seconds = outcomes[-1]
            noticed = escape(killed_by) or f"[red]not noticed {escape(problem)}"
            console.print(f"{len(outcomes)}/{len(chosen)} {fault.name}: {noticed} ({seconds:.0f} s)", highlight=False)
    outcomes.sort(key=lambda outcome: chosen.index(outcome.fault))
    return 1 if show(outcomes, console) else 0


if __name__ == "__main__":
    sys.exit(main())
