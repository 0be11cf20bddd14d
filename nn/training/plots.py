"""Pictures of a training, with matplotlib: curves, mistakes, confusion."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from minigrad import extras
from minigrad.nn.serialize import PathLike
from minigrad.nn.training.evaluate import Evaluation

PICTURES = ("curves.png", "mistakes.png", "confusion.png")  # of a training, in the folder of its run
_BLUE, _ORANGE, _GREY, _RED = "#1f77b4", "#ff7f0e", "#888888", "#b22222"


def has_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def announce(folder: Path) -> bool:
    """Say where the pictures of :func:`draw` go, or what is missing for them; gives whether there will be any."""
    found = has_matplotlib()
    missing = 'no pictures of this training without matplotlib: pip install "minigrad[viz]"'
    print(f"{', '.join(PICTURES)} go to {folder}" if found else missing)
    return found


def draw(
    folder: Path, log: Iterable[Mapping[str, Any]], evaluation: Evaluation, images: Any, classes: Sequence[str]
) -> None:
    """Draw all of them into the folder of a run.

    Args:
        folder: where the :data:`PICTURES` go.
        log: the entries of the training's log.
        evaluation: of ``images``.
        images: the data set with the images that were evaluated.
        classes: names of the classes.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    curves, mistakes, confusion = (folder / name for name in PICTURES)
    plot_curves(log, curves)
    plot_wrong(evaluation, images, classes, mistakes)
    plot_confusion(evaluation.confusion(len(classes)), classes, confusion)


def plot_curves(log: Iterable[Mapping[str, Any]], path: PathLike) -> None:
    """Draw loss, error and learning rate over the epochs.

    Args:
        log: the entries of a training's log.
        path: the picture, ``curves.png``.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    entries = list(log)
    epochs = [entry for entry in entries if entry["event"] == "epoch"]
    steps = [entry for entry in entries if entry["event"] == "steps"]
    recipes = [entry["recipe"] for entry in entries if entry["event"] == "start"]
    others = "validation" if recipes and recipes[-1]["validation"] else "test"
    best = max((entry["held_out_accuracy"] for entry in epochs), default=0.0)
    length = epochs[-1]["steps"] / epochs[-1]["epoch"] if epochs else 1
    at = [entry["steps"] / length for entry in steps]
    ends = [entry["epoch"] for entry in epochs]
    middles = [end - 0.5 for end in ends]  # where the mean of an epoch belongs
    ticker = extras.load("matplotlib.ticker", "viz")
    figure, (left, middle, right) = _figure(1, 3, (13, 3.8))
    for axes, title, training, held_out, shown, name in (
        (left, "Loss", "loss", "held_out_loss", _above_zero, others),
        (middle, "Error, %", "accuracy", "held_out_accuracy", _error, f"{others}, at best {100 - 100 * best:.2f} %"),
    ):
        axes.plot(at, [shown(entry[training]) for entry in steps], color=_BLUE, alpha=0.3, linewidth=1)
        axes.plot(middles, [shown(e[training]) for e in epochs], color=_BLUE, marker="o", ms=4, label="training")
        axes.plot(ends, [shown(e[held_out]) for e in epochs], color=_ORANGE, marker="o", ms=4, label=name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()
        within = ticker.ScalarFormatter(useOffset=False) if high < 10 * low else ticker.NullFormatter()
        axes.yaxis.set_minor_formatter(within)
        axes.set(title=title, xlabel="epoch")
        axes.legend(frameon=False)
    rates = sorted((entry["steps"] / length, entry["lr"]) for entry in [*steps, *epochs])
    right.plot(*zip(*rates), color=_GREY, marker="" if rates[1:] else "o", ms=4)
    right.set(title="Learning rate", xlabel="epoch")
    right.set_ylim(bottom=0)
    for axes in (left, middle, right):
        axes.grid(True, which="both", alpha=0.2)
        axes.set_xlim(0, ends[-1] + 0.3 if ends else None)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=120)


def _above_zero(value: float) -> float:
    """A logarithmic axis has no place for 0: the line has a gap there."""
    return value or math.nan


def _error(accuracy: float) -> float:
    """In percent."""
    return _above_zero(100 * (1 - accuracy))


def plot_wrong(evaluation: Evaluation, images: Any, classes: Sequence[str], path: PathLike, most: int = 40) -> None:
    """Draw the images that were taken for something else, those with the most confidence first; see below."""
    chosen = evaluation.wrong()[:most]
    shown = [np.asarray(images[int(n)][0]) for n in chosen]
    found = (evaluation.labels[chosen], evaluation.predicted[chosen], evaluation.confidence[chosen])
    plot_mistakes(shown, *found, classes, path)


def plot_mistakes(
    images: Sequence[npt.NDArray[np.uint8]],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float32],
    classes: Sequence[str],
    path: PathLike,
) -> None:
    """Draw images that a network got wrong, with what they are and what it said.

    Args:
        images: (C, H, W), grey or colour.
        labels: what they show.
        predicted: what the network said.
        confidence: how probable it said that was.
        classes: names of the classes.
        path: the picture, ``mistakes.png``.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    columns = min(max(len(images), 1), 8)
    rows = max(-(-len(images) // columns), 1)
    figure, grid = _figure(rows, columns, (1.6 * columns, 1.95 * rows + 0.5))
    cells = np.atleast_1d(grid).ravel()
    for cell in cells:
        cell.set_axis_off()
    for cell, image, label, said, sure in zip(cells, images, labels, predicted, confidence):
        cell.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray_r", vmin=0, vmax=255)
        cell.set_title(f"{classes[said]} ({sure:.0%})\nis {classes[label]}", fontsize=9, color=_RED)
    figure.suptitle("What it said (how surely), and what it is" if len(images) else "No mistakes", fontsize=11)
    figure.savefig(path, dpi=120)


def plot_confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str], path: PathLike | IO[bytes]) -> None:
    """Draw how many images of each class (row) were taken for each class (column), shaded by their share of the row.

    Args:
        matrix: as ``Evaluation.confusion`` gives it.
        classes: names of the classes.
        path: the picture, ``confusion.png``, or where its bytes go.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    count = len(classes)
    side = min(max(4.5, 0.55 * count + 1.5), 16)
    figure, axes = _figure(1, 1, (side, side))
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    off = share * (1 - np.eye(count))
    most = max(float(off.max()), 1e-9)
    axes.imshow(off / most, cmap="Reds", vmin=0, vmax=1.4)  # the diagonal would outshine the mistakes
    if count <= 25:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                weight = "bold" if row == column else "normal"
                axes.text(column, row, str(number), ha="center", va="center", fontsize=8, fontweight=weight)
    ticks = range(count) if count <= 50 else range(0, count, -(-count // 50))
    long = any(len(name) > 2 for name in classes)
    axes.set_xticks(ticks, [classes[n] for n in ticks], rotation=60 if long else 0, ha="right" if long else "center")
    axes.set_yticks(ticks, [classes[n] for n in ticks])
    axes.set(xlabel="said", ylabel="is", title=f"{np.trace(matrix) / max(matrix.sum(), 1):.2%} right")
    figure.savefig(path, dpi=120)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> Any:
    """A figure with axes that is drawn into a file alone: no window, no state of pyplot's."""
    figure = extras.load("matplotlib.figure", "viz").Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)
