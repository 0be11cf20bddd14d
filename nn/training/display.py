"""What a person sees of a training: a row for each epoch, and a progress bar below where the output is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from minigrad.nn.training.metrics import Meter

REFRESH = 0.2  # seconds between two looks at the losses: often enough for a person, seldom enough for a device


class Figure(NamedTuple):
    """A column of the table of epochs.

    Attributes:
        title: its heading; {} is where accuracy is measured.
        width: characters, the space before it included; more if the heading needs them.
        form: of a value.
        rank: in terminals that are too narrow for all, those of a high rank go first.
    """

    title: str
    width: int
    form: str
    rank: int


COLUMNS = {  # by the names of an epoch's record
    "epoch": Figure("epoch", 5, "{}", 0),
    "loss": Figure("loss", 8, "{:.4f}", 2),
    "accuracy": Figure("accuracy", 9, "{:.2%}", 3),
    "held_out_loss": Figure("{} loss", 8, "{:.4f}", 5),
    "held_out_accuracy": Figure("top-1", 8, "{:.2%}", 1),
    "held_out_top5": Figure("top-5", 8, "{:.2%}", 7),
    "lr": Figure("rate", 8, "{:.2g}", 6),
    "images_per_second": Figure("images/s", 9, "{:,.0f}", 8),
    "loader_share": Figure("loader", 7, "{:.1%}", 9),
    "seconds": Figure("seconds", 8, "{:.1f}", 4),
}
LEFT, LEAST_BAR = len(" 0:00:00 left"), 6  # characters, with the space before them


class Display:
    """A context manager; everything is printed through it, so that lines stay above the bar.

    On a terminal nothing is wider than that: what matters least is left out. Elsewhere all is printed.

    Args:
        epochs: of the whole training.
        images: of an epoch.
        done: images that an earlier process has trained on.
        held_out: what images accuracy is measured on: ``test`` or ``validation``.
        top5: whether there are enough classes for that to say something.
    """

    def __init__(self, epochs: int, images: int, done: int = 0, held_out: str = "test", top5: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self._evaluating = (TextColumn("{task.description}"), TextColumn("{task.fields[state]}"))
        left = (TimeRemainingColumn(table_column=Column(no_wrap=True)), TextColumn("left"))  # only the bar gives way
        self._training = (self._evaluating[0], BarColumn(), self._evaluating[1], *left)
        console = Console(highlight=False, markup=False, soft_wrap=True)
        self._epochs, self._held_out = epochs, held_out
        self._progress = Progress(*self._training, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("first step", total=epochs * images, completed=done, state="")
        self._columns = self._fitting(console.width if console.is_terminal else None, top5)
        self._looked = 0.0
        self._headed = False

    def _fitting(self, room: int | None, top5: bool) -> dict[str, tuple[str, int, str]]:
        """Heading, width and format of the columns that fit."""
        found = {}
        for name, column in COLUMNS.items():
            title = column.title.format(self._held_out)
            least = 2 * len(str(self._epochs)) + 1 if name == "epoch" else 0
            found[name] = title, max(column.width, len(title) + (name != "epoch"), least), column.form
        if not top5:
            del found["held_out_top5"]
        for name in sorted(found, key=lambda name: -COLUMNS[name].rank):
            if room is not None and COLUMNS[name].rank > 1 and sum(width for _, width, _ in found.values()) > room:
                del found[name]
        return found

    def __enter__(self) -> Display:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away; what is printed from now on stands alone."""
        self._progress.stop()

    def advance(self, epoch: int, images: int, meter: Meter, speed: Callable[[], float | None]) -> None:
        """Move the bar on, and bring its figures up to date from time to time.

        Args:
            epoch: counted from 0.
            images: how many more there are.
            meter: of the epoch.
            speed: gives images a second, None if that is not known yet.
        """
        self._progress.advance(self._task, images)
        now = time.perf_counter()
        if now - self._looked > REFRESH:
            loss, accuracy = meter.read()
            images_per_second = speed()
            parts = [f"loss {loss:.4f}", f"accuracy {accuracy:.2%}"]
            parts += [f"{images_per_second:,.0f} images/s"] if images_per_second else []
            name = f"epoch {epoch + 1}/{self._epochs}"
            room = self._progress.console.width - len(name) - LEFT - LEAST_BAR
            while parts and len("  ".join(parts)) >= room:
                parts.pop()
            self._progress.columns = self._training
            self._progress.update(self._task, description=name, state="  ".join(parts))
            self._looked = now

    def evaluating(self, epoch: int) -> None:
        """Say so: meanwhile the bar stands still."""
        self._progress.columns = self._evaluating
        state = f"evaluating on {self._held_out} images"
        self._progress.update(self._task, description=f"epoch {epoch + 1}/{self._epochs}", state=state)

    def row(self, record: dict[str, Any]) -> None:
        """Print the row of an epoch, below the heading if it is the first."""
        if not self._headed:
            self._headed = True
            self.line("".join(f"{title:>{width}}" for title, width, _ in self._columns.values()))
        shown = {**record, "epoch": f"{record['epoch']}/{self._epochs}"}
        self.line("".join(f"{form.format(shown[name]):>{width}}" for name, (_, width, form) in self._columns.items()))

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text)
