"""What a person sees of a training."""

from __future__ import annotations

import time

from minigrad.nn.training.metrics import Meter

REFRESH = 0.2  # seconds between two looks at the losses: often enough for a person, seldom enough for a device


class Display:
    """Lines of text, with a progress bar below them where the output is a terminal; a context manager."""

    def __init__(self, epochs: int, images: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"),
                   TimeRemainingColumn())  # fmt: skip
        console = Console(highlight=False, markup=False, soft_wrap=True)
        self._epochs, self._images = epochs, images
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=epochs * images, state="")
        self._looked = 0.0

    def __enter__(self) -> Display:
        """Show the bar."""
        self._start = time.perf_counter()
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self._progress.stop()

    def advance(self, epoch: int, images: int, meter: Meter) -> None:
        """Move the bar on, and bring its figures up to date from time to time."""
        self._progress.advance(self._task, images)
        now = time.perf_counter()
        if now - self._looked > REFRESH:
            loss, accuracy = meter.read()
            state = f"loss {loss:.4f}  accuracy {100 * accuracy:.2f} %  {self._speed(now):,.0f} images/s"
            self._progress.update(self._task, description=f"epoch {epoch + 1}/{self._epochs}", state=state)
            self._looked = now

    def _speed(self, now: float) -> float:
        return self._progress.tasks[0].completed / (now - self._start)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text)
