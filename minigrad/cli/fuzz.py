"""``minigrad fuzz``: random programs on several backends, for some time."""

from __future__ import annotations

import argparse
import secrets

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from minigrad import extras
from minigrad.errors import ArgumentError
from minigrad.testing.fuzzing import WHAT, Campaign, Count, Difference, Options


def run(args: argparse.Namespace) -> int:
    """Run a campaign; 0 if nothing differs, 1 if something does, 130 after Ctrl-C: the last line says what was done."""
    extras.load("hypothesis", "test")
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    chosen = {"workers": args.workers} if args.workers else {}
    options = Options(
        args.backends, args.seconds, seed, what=_what(args.what), out=args.out, chunk=args.chunk, **chosen
    )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task(f"seed {seed}", total=options.seconds, done="")

    def told(difference: Difference) -> None:
        console.print(f"{difference.what}: {difference.message}")
        console.print(f"  written to {difference.path}" if difference.path else difference.script)

    def tick(count: Count) -> None:
        bar.update(task, completed=min(count.seconds, options.seconds), done=_done(count, options.seconds))

    campaign = Campaign(options, told, tick)
    code = 0
    try:
        with bar:
            campaign.run()
    except KeyboardInterrupt:
        code = 130
    count = campaign.count
    console.print(
        f"fuzz: {count.programs:,} programs ({count.steps:,} steps) on {', '.join(campaign.names)} "
        f"in {count.seconds:.0f} s, seed {seed}: {count.inconclusive:,} inconclusive, "
        f"{len(count.differences)} difference{'s' * (len(count.differences) != 1)}" + (", interrupted" if code else "")
    )
    return code or int(bool(count.differences))


def _done(count: Count, seconds: float) -> str:
    rate = count.programs / max(count.seconds, 1e-3)
    return (
        f"{count.seconds:.0f} of {seconds:.0f} s, {count.programs:,} programs, {rate:.1f}/s, "
        f"{count.inconclusive:,} inconclusive, {len(count.differences)} differences"
    )


def _what(names: tuple[str, ...] | None) -> tuple[str, ...]:
    for name in names or ():
        if name not in WHAT:
            raise ArgumentError.of("--what", f"some of {', '.join(WHAT)}", name)
    return names or WHAT
