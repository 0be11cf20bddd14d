"""``minigrad bisect``: the first kernel of a reproducer at which backends diverge."""

from __future__ import annotations

import argparse

from minigrad import device
from minigrad.testing.bisect import Case, Found, Row, bisect, load
from minigrad.testing.kernels import shape_of


def run(args: argparse.Namespace) -> int:
    """Run the reproducer ``args.repro`` on ``args.backends`` and print its kernels.

    Without backends, a program runs on those that its file names; a kernel of one backend runs on all the others too.

    Returns:
        1 if a backend leaves the bound of a kernel or of a result, else 0.
    """
    case, names = load(args.repro)
    if args.backends is not None:
        names = args.backends
    elif isinstance(case, Case) or not names:
        names += [name for name, reason in device.available_backends().items() if reason is None]
    backends = list(dict.fromkeys(device.canonical(name) for name in names))
    found = bisect(case, backends)
    _print_table(found, backends)
    if found.way and found.diverges and found.way != "lazy":
        print(f"This is the program run the way that is called {found.way!r}; run lazily it shows nothing.")
    first = found.first
    if first is not None:
        wrong = {name: verdict.text for name, verdict in first.verdicts.items() if verdict.share > 1}
        where = f" of the schedule for {first.schedule}" if found.way else ""
        print(f"first kernel to diverge: number {first.number}{where}, {_name(first)}")
        for name, text in wrong.items():
            print(f"  {name} is wrong: {text}")
        print(first.kernel)
    for complaint in found.complaints:
        print(("" if first else "no kernel diverges, but ") + complaint)
    if found.diverges:
        return 1
    worst = max(found.rows, key=lambda row: row.worst, default=None)
    if worst is None:
        print("no kernel diverges: nothing was launched, or no backend has what the kernel needs")
    else:
        print(f"no kernel diverges; the worst is number {worst.number}, {_name(worst)}: {worst.worst:.3g} of the bound")
    return 0


def _name(row: Row) -> str:
    return f"{row.kernel.name} {list(shape_of(row.kernel))}"


def _print_table(found: Found, backends: list[str]) -> None:
    """One line per kernel; a share above 1 is red, a dash says that the backend does not run this kernel."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="worst error as a share of its bound")
    for heading in ("scheduled for", "number", "kernel", "shape", *backends):
        table.add_column(heading, justify="right" if heading in ("number", *backends) else "left")
    for row in found.rows:
        shares = [row.verdicts[b].share if b in row.verdicts else None for b in backends]
        cells = ["-" if s is None else f"[red]{s:.3g}[/red]" if s > 1 else f"{s:.3g}" for s in shares]
        shape = " x ".join(map(str, shape_of(row.kernel)))
        table.add_row(row.schedule if found.way else "", str(row.number), row.kernel.name, shape, *cells)
    if found.rows:
        Console().print(table)
