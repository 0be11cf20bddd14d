"""How fast the loader makes batches, alone, and how long a training step waits for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from minigrad import Tensor
from minigrad.nn.data import DataLoader, TensorDataset, transforms

IMAGES = 60_000  # as many and as large as MNIST's
COUNTED = 50  # batches in a turn
UNCOUNTED = 20  # batches before, until the loader is as far ahead of the step, and the step of the device, as they go

Step = Callable[[Tensor, Tensor], Tensor]
Turn = Callable[[], tuple[float, float]]  # seconds of a batch, and how many of them went by waiting for it


def loader_rows(step: Step, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of ``minigrad bench --what loader``: a step of LeNet-5 with and without the loader, then the loader alone.

    It runs on 0, 1 and 2 threads. Augmented batches are shifted at random and normalised. All take turns, round by
    round, ``repeats`` times; medians are shown.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 1, 28, 28), np.uint8)
    data = TensorDataset(images, rng.integers(0, 10, IMAGES))
    transform = transforms.Compose([transforms.RandomShift(2), transforms.Normalize(0.1307, 0.3081)])

    def loader(threads: int, transform: transforms.Transform | None = transform) -> DataLoader:
        return DataLoader(data, batch, shuffle=True, num_workers=threads, drop_last=True, transform=transform)

    x, y = next(iter(loader(0)))
    turns: dict[str, Turn] = {"step, same batch": lambda: _fixed(step, x, y)}
    for threads, shown in enumerate(("0 threads", "1 thread", "2 threads")):
        turns[f"step, augmented batches, {shown}"] = _fed(step, loader(threads))
        turns[f"augmented batches, {shown}"] = _alone(loader(threads))
        turns[f"plain batches, {shown}"] = _alone(loader(threads, None))
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for turn in turns.values():
        turn()  # captures the step, compiles
    for _ in range(repeats):
        for name, turn in turns.items():
            measured[name].append(turn())
    rows = []
    for name, found in measured.items():
        seconds = statistics.median(s for s, _ in found)
        row = {"name": name, "ms": seconds * 1e3, "images/s": f"{batch / seconds:,.0f}"}
        if name.startswith("step"):
            row["waiting %"] = 100 * statistics.median(waited / s for s, waited in found)
        rows.append(row)
    return sorted(rows, key=lambda row: str(row["name"]).partition(" ")[0], reverse=True)


def _fixed(step: Step, x: Tensor, y: Tensor) -> tuple[float, float]:
    step(x, y).item()
    start = time.perf_counter()
    for _ in range(COUNTED):
        loss = step(x, y)
    loss.item()
    return (time.perf_counter() - start) / COUNTED, 0.0


def _fed(step: Step, loader: DataLoader) -> Turn:
    def turn() -> tuple[float, float]:
        batches = iter(loader)
        for x, y in islice(batches, UNCOUNTED):
            step(x, y)
        waited, start = loader.waited, time.perf_counter()
        for x, y in islice(batches, COUNTED):
            loss = step(x, y)
        found = (time.perf_counter() - start) / COUNTED, (loader.waited - waited) / COUNTED
        loss.item()
        return found

    return turn


def _alone(loader: DataLoader) -> Turn:
    def turn() -> tuple[float, float]:
        batches: Iterator[Any] = iter(loader)
        for _ in islice(batches, UNCOUNTED):
            pass
        start = time.perf_counter()
        for _ in islice(batches, COUNTED):
            pass
        return (time.perf_counter() - start) / COUNTED, 0.0

    return turn
