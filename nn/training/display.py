"""What a person sees of a training: a row for each epoch, and a progress bar below where the output is a terminal."""

from __future__ import annotations

import time
from typing import Any

from minigrad.nn.training.metrics import Meter

REFRESH = 0.2  # seconds between two looks at the losses: often enough for a person, seldom enough for a device
# Heading, width and format of each column, by the names of an epoch's record; {} is where accuracy is measured.
COLUMNS = {
    "epoch": ("epoch", 7, "{}"),
    "loss": ("loss", 8, "{:.4f}"),
    "accuracy": ("accuracy", 10, "{:.2%}"),
    "held_out_loss": ("{} loss", 17, "{:.4f}"),
    "held_out_accuracy": ("top-1", 9, "{:.2%}"),
    "held_out_top5": ("top-5", 9, "{:.2%}"),
    "lr": ("rate", 9, "{:.2g}"),
    "images_per_second": ("images/s", 10, "{:,.0f}"),
    "loader_share": ("loader", 8, "{:.1%}"),
    "seconds": ("seconds", 9, "{:.1f}"),
}


class Display:
    """A context manager; everything is printed through it, so that lines stay above the bar.

    Args:
        epochs: of the whole training.
        images: of an epoch.
        done: images that an earlier process has trained on.
        held_out: what images accuracy is measured on: ``test`` or ``validation``.
    """

    def __init__(self, epochs: int, images: int, done: int = 0, held_out: str = "test") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"),
                   TimeRemainingColumn(), TextColumn("left"))  # fmt: skip
        console = Console(highlight=False, markup=False, soft_wrap=True)
        self._epochs, self._done, self._held_out = epochs, done, held_out
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("first step", total=epochs * images, completed=done, state="")
        self._looked = 0.0
        self._headed = False

    def __enter__(self) -> Display:
        """Show the bar."""
        self._start = time.perf_counter()
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away; what is printed from now on stands alone."""
        self._progress.stop()

    def advance(self, epoch: int, images: int, meter: Meter) -> None:
        """Move the bar on, and bring its figures up to date from time to time."""
        self._progress.advance(self._task, images)
        now = time.perf_counter()
        if now - self._looked > REFRESH:
            loss, accuracy = meter.read()
            speed = (self._progress.tasks[0].completed - self._done) / (now - self._start)
            state = f"loss {loss:.4f}  accuracy {accuracy:.2%}  {speed:,.0f} images/s"
            self._progress.update(self._task, description=f"epoch {epoch + 1}/{self._epochs}", state=state)
            self._looked = now

    def row(self, record: dict[str, Any]) -> None:
        """Print the row of an epoch, below the heading if it is the first."""
        if not self._headed:
            self._headed = True
            titles = [(title.format(self._held_out), width) for title, width, _ in COLUMNS.values()]
            self.line("".join(f"{title:>{width}}" for title, width in titles))
        shown = {**record, "epoch": f"{record['epoch']}/{self._epochs}"}
        self.line("".join(f"{form.format(shown[name]):>{width}}" for name, (_, width, form) in COLUMNS.items()))

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text)
