"""``minigrad diff``: how far each primitive is from the oracle on several backends, in a table."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import track
from rich.table import Table
from rich.text import Text

from minigrad import device, extras
from minigrad.errors import ArgumentError
from minigrad.testing.differences import Key, Row, Worst, compared, differences, example, keys
from minigrad.testing.fuzzing import described


def run(args: argparse.Namespace) -> int:
    """Print the table, after Ctrl-C of what was compared.

    Returns:
        1 if a backend is further from the oracle, or from another backend, than it may be, else 0; 130 after Ctrl-C.
    """
    extras.load("hypothesis", "test")
    names = [device.canonical(name) for name in args.backends]
    wanted = keys(args.ops)
    if args.example is not None:
        if "all" in args.ops or len(args.ops) != 1:
            raise ArgumentError.of("--example", "one primitive after --ops", ",".join(args.ops))
        return max([_alone(key, names, args.seed, args.example) for key in wanted])
    console = Console()
    console.width = max(console.width, 100 + 10 * len(names)) if not console.is_terminal else console.width
    found = differences(wanted, args.backends, args.examples, args.seed)
    shown = track(found, "comparing", len(wanted), console=console, transient=True, disable=not console.is_terminal)
    rows: list[Row] = []
    interrupted = False
    try:
        for row in shown:
            rows.append(row)  # noqa: PERF402 (what was compared before Ctrl-C is kept)
    except KeyboardInterrupt:
        interrupted = True
    _print_table(console, rows, names)
    wrong = [row for row in rows if row.violations]
    for row in wrong:
        for who, number, text in row.violations[:3]:
            where = f"--ops {row.key.op} --seed {args.seed} --example {number}"
            console.print(f"{row.key}: {text if text.startswith(who) else f'{who}: {text}'}", style="red", markup=False)
            console.print(f"  minigrad diff --backends {','.join(args.backends)} {where}", markup=False, soft_wrap=True)
    if args.json:
        _write(args.json, args, names, rows)
    examples, unclear = sum(row.examples for row in rows), sum(row.inconclusive for row in rows)
    print(
        f"diff: {len(rows)} rows, {examples:,} examples on {', '.join(names)}, seed {args.seed}: "
        f"{unclear} inconclusive, {len(wrong)} row{'s' * (len(wrong) != 1)} with violations"
        + (f", interrupted after {len(rows)} of {len(wanted)} rows" if interrupted else "")
    )
    return 130 if interrupted else int(bool(wrong))


def _print_table(console: Console, rows: list[Row], names: list[str]) -> None:
    """Without the last columns where they do not fit; the errors of backends are always there."""
    others = [*("/".join(pair) for pair in combinations(names, 2)), *_DETAILS]
    while True:
        table = _table(rows, [*names, *others])
        least = Measurement.get(console, console.options.update(width=10_000), table).minimum
        if least <= console.width or not others:
            break
        others.pop()
    console.width = max(console.width, least)
    console.print(table)


# Columns beside the errors, the most important first. The worst has dtype, inputs and number; unclear is inconclusive.
_DETAILS: dict[str, Callable[[Row], object]] = {
    "dtype": lambda row: row.overall.dtype,
    "inputs": lambda row: " ".join("x".join(map(str, shape)) or "0-d" for shape in row.overall.shapes),
    "example": lambda row: row.overall.example if row.overall.dtype else "",
    "n": lambda row: row.examples,
    "unclear": lambda row: row.inconclusive,
}


def _table(rows: list[Row], headings: list[str]) -> Table:
    """One line per row; errors as a share of the bound, and in ulps where the bound is."""
    table = Table(title="worst error as a share of its bound (and in ulps)", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    lines = [
        [str(row.key), *(str(_DETAILS[h](row)) if h in _DETAILS else _cell(row, h) for h in headings)] for row in rows
    ]
    for heading, *cells in zip(["primitive", *headings], *lines):
        left, folds = heading in ("primitive", "dtype", "inputs"), heading == "inputs"
        width = None if folds else max(map(len, (heading, *cells)))
        table.add_column(heading, justify="left" if left else "right", no_wrap=not folds, min_width=width)
    for row, line in zip(rows, lines):
        table.add_row(*map(Text, line), style="red" if row.violations else None)
    return table


def _cell(row: Row, who: str) -> str:
    if who in row.unsupported:
        return "unsupported"
    if who not in row.worst:
        return "-"
    worst: Worst = row.worst[who]
    return f"{worst.share:.2g}" + (f" ({worst.ulps:.2g})" if worst.ulps is not None else "")


def _alone(key: Key, names: list[str], seed: int, number: int) -> int:
    """Print one example and what each backend makes of it; 1 if one is wrong, else 0."""
    program = example(key, names, seed, number)
    print(f"# {key}, seed {seed}, example {number}")
    print(program.script())
    row = compared(key, program, names, number)
    for who, worst in row.worst.items():
        ulps = f", {worst.ulps:.3g} ulps" if worst.ulps is not None else ""
        print(f"# {who}: {worst.share:.3g} of the bound{ulps}, {worst.dtype}")
    for who, _, text in row.violations:
        print(f"# {who} is wrong: {text}")
    return int(bool(row.violations))


def _write(path: Path, args: argparse.Namespace, names: list[str], rows: list[Row]) -> None:
    def finite(value: float | None) -> float | None:
        return value if value is None or math.isfinite(value) else None  # JSON has no infinity

    def figures(row: Row) -> dict[str, Any]:
        worst = {w: {**asdict(v), "share": finite(v.share), "ulps": finite(v.ulps)} for w, v in row.worst.items()}
        return {
            "op": row.key.op,
            "gradient": row.key.gradient,
            "worst": worst,
            "examples": row.examples,
            "inconclusive": row.inconclusive,
            "unsupported": row.unsupported,
            "violations": [{"who": w, "example": n, "message": text} for w, n, text in row.violations],
        }

    report = {
        "versions": list(described(names)),
        "backends": names,
        "seed": args.seed,
        "examples": args.examples,
        "rows": [figures(row) for row in rows],
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
