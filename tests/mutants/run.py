"""``make mutants``: plant each fault, one at a time, and see which test of the conformance suite notices it.

The test that should notice a fault runs first, then, if it does not, the whole suite. The test that fails has to pass
without the fault.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from plant import FAULTS, HERE, ROOT, Fault
from rich.console import Console
from rich.markup import escape
from rich.table import Table

LIMIT = 900  # seconds for the whole suite on one fault
SUITE = ("--pyargs", "minigrad.testing.conformance")


class Outcome(NamedTuple):
    """What became of a fault: the test that noticed it, or why none did."""

    fault: Fault
    killed_by: str
    problem: str
    seconds: float


def suite(mutant: str, backend: str, cache: str, *selected: str) -> tuple[int | None, str]:
    """Exit code (None: it took too long) and output of some tests, with a fault or none."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINIGRAD_")}
    paths = [str(HERE), environment.get("PYTHONPATH", "")]
    environment |= {
        "MUTANT": mutant,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MINIGRAD_CACHE": cache,  # programs are found by their source: faults may share it
    }
    options = ("-p", "plant", "-p", "minigrad.testing.plugin", "-p", "no:cacheprovider", "-x", "-q", "--tb=no")
    command = [sys.executable, "-m", "pytest", *options, "--backend", backend, *selected]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def try_fault(fault: Fault, cache: str) -> Outcome:
    """Plant one fault and run the suite until a test fails."""
    start = time.perf_counter()
    killed_by = problem = ""
    for selected in (["-k", fault.expression], []):
        code, output = suite(fault.name, fault.backend, cache, *SUITE, *selected)
        failed = re.search(r"^FAILED (\S+?)(?: - .*)?$", output, re.MULTILINE)
        if code == 1 and failed:
            killed_by = failed[1].rpartition("/")[2]
            code, _ = suite("", fault.backend, cache, failed[1])
            problem = "" if code == 0 else f"{killed_by} fails without the fault too"
        elif code is None:
            killed_by = "the time limit"
        elif code < 0:
            killed_by = f"signal {-code}"
        elif code == 5:
            problem = f"no test is selected by {fault.expression!r}"
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
    with tempfile.TemporaryDirectory(prefix="minigrad-mutants-") as cache, ThreadPoolExecutor(args.workers) as pool:
        outcomes = []
        for outcome in pool.map(lambda fault: try_fault(fault, cache), chosen):
            outcomes.append(outcome)
            noticed = escape(outcome.killed_by) or f"[red]not noticed {escape(outcome.problem)}"
            console.print(f"{len(outcomes)}/{len(chosen)} {outcome.fault.name}: {noticed}", highlight=False)
    return 1 if show(outcomes, console) else 0


if __name__ == "__main__":
    sys.exit(main())
