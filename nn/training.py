"""The training loop that ``examples/train_lenet.py`` and ``minigrad train`` share."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from minigrad.dtypes import float32
from minigrad.errors import DataError, DivergedError
from minigrad.jit import jit
from minigrad.mode import no_grad
from minigrad.nn.data import batches
from minigrad.nn.module import Module
from minigrad.nn.optim import Optimizer
from minigrad.nn.serialize import PathLike, save
from minigrad.tensor import Tensor

Array = npt.NDArray[Any]
REFRESH = 0.2  # seconds between two looks at the losses: often enough for a person, seldom enough for a device


@dataclass(frozen=True)
class Preprocessing:
    """How bytes become the input of a network: (pixel / 255 - mean) / std; grey images get an axis of one channel.

    The defaults are the mean and the standard deviation of MNIST's training images.
    """

    mean: float = 0.1307
    std: float = 0.3081

    def __call__(self, images: Tensor) -> Tensor:
        """(N, H, W) or (N, C, H, W), uint8, to (N, C, H, W), float32."""
        if images.ndim == 3:
            images = images.unsqueeze(1)
        return images.cast(float32) * (1 / (255 * self.std)) - self.mean / self.std


@dataclass
class Meter:
    """Mean loss and accuracy of what was added; the device is asked only when they are read."""

    loss: float = 0.0
    correct: float = 0.0
    count: int = 0
    pending: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """Note the mean loss of ``count`` images and how many of them were right."""
        self.pending.append((loss, correct, count))

    def read(self) -> tuple[float, float]:
        """Mean loss and accuracy so far.

        Raises:
            DivergedError: if a loss is infinite or NaN.
        """
        for loss, correct, count in self.pending:
            value = loss.item()
            if not math.isfinite(value):
                hint = "try a smaller learning rate; look for broken images or labels"
                raise DivergedError.of("training", "a finite loss", value, hint)
            self.loss += value * count
            self.correct += correct.item()
            self.count += count
        self.pending.clear()
        return self.loss / max(self.count, 1), self.correct / max(self.count, 1)


def cosine(progress: float) -> float:
    """The factor of the learning rate after a share of the training: half a cosine from 1 to 0 (Loshchilov, 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def train_classifier(
    model: Module,
    optimizer: Optimizer,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    schedule: Callable[[float], float] = cosine,
    out: PathLike | None = None,
    metadata: dict[str, str] | None = None,
) -> float:
    """Train a network to tell classes of images apart, and show how it goes.

    Prints a line per epoch and at last ``test accuracy: 99.12 %``; on a terminal there is a progress bar below.

    Args:
        model: images (N, C, H, W) to logits (N, classes).
        optimizer: of the model's parameters; the schedule multiplies its learning rates as they are now.
        train: images (uint8) and labels to learn from.
        test: images and labels to measure the accuracy on, after every epoch.
        epochs: passes over the training images.
        batch_size: images per step.
        seed: draws the order of the images.
        preprocessing: from bytes to the network's input; by default, MNIST's.
        schedule: a factor of the learning rate for the share of the epochs that is over.
        out: where to save the weights, with metadata that says what they are of and how images were preprocessed.
        metadata: more to save with them.

    Returns:
        The accuracy on the test images after the last epoch, between 0 and 1.

    Raises:
        DivergedError: if the loss is infinite or NaN; nothing is saved.
        SystemExit: on Ctrl-C, with code 130, after a message; nothing is saved.
    """
    if out is not None and not Path(out).parent.is_dir():  # now, not after the last epoch
        raise DataError.of(str(out), "a folder that exists to save into", f"no {Path(out).parent}")
    preprocessing = preprocessing or Preprocessing()
    base_rates = [group["lr"] for group in optimizer.param_groups]

    @jit
    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        logits = model(preprocessing(images))
        loss = logits.cross_entropy(labels)
        loss.backward()
        optimizer.step()
        return loss, (logits.argmax(1) == labels).sum()

    accuracy, epoch = 0.0, 0
    images, labels = train[0], train[1].astype("int64")
    try:
        with Display(epochs, len(images)) as display:
            for epoch in range(epochs):
                for group, rate in zip(optimizer.param_groups, base_rates):
                    group["lr"] = rate * schedule(epoch / epochs)
                model.train()
                meter, start = Meter(), time.perf_counter()
                for x, y in batches(images, labels, batch_size, seed=seed, epoch=epoch):
                    loss, correct = step(x, y)
                    meter.add(loss, correct, len(x))
                    display.advance(epoch, len(x), meter)
                mean_loss, train_accuracy = meter.read()
                speed = len(images) / (time.perf_counter() - start)
                accuracy = evaluate(model, *test, preprocessing)
                display.line(
                    f"epoch {epoch + 1}/{epochs}: loss {mean_loss:.4f}, accuracy {100 * train_accuracy:.2f} %, "
                    f"on test images {100 * accuracy:.2f} %; {speed:,.0f} images/s"
                )
    except KeyboardInterrupt:
        print(f"stopped by Ctrl-C in epoch {epoch + 1} of {epochs}; nothing was saved", file=sys.stderr)
        raise SystemExit(130) from None
    if out is not None:
        about = {"model": type(model).__name__, "preprocessing": json.dumps(asdict(preprocessing))}
        save(out, model.state_dict(), {**about, "test_accuracy": f"{accuracy:.4f}", **(metadata or {})})
        print(f"weights saved to {out}")
    print(f"test accuracy: {100 * accuracy:.2f} %")
    return accuracy


def evaluate(
    model: Module, images: Array, labels: Array, preprocessing: Callable[[Tensor], Tensor], batch_size: int = 1000
) -> float:
    """The share of images whose largest logit is that of their label; leaves the model in evaluation mode."""
    model.eval()

    @jit
    def count_correct(images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = model(preprocessing(images))
        return (logits.argmax(1) == labels).sum()

    correct = 0
    with no_grad():
        for x, y in batches(images, labels.astype("int64"), batch_size, shuffle=False):
            correct += count_correct(x, y).item()
    return correct / max(len(images), 1)


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
