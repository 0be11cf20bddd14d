"""The logs of trainings, to be seen side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigrad.errors import DataError
from minigrad.nn.serialize import PathLike
from minigrad.nn.training.log import read_log
from minigrad.nn.visualize import drawing
from minigrad.nn.visualize.report import Picture, Section, Table

LOG = "log.jsonl"  # its name in the folder of a run


def read_runs(paths: Sequence[PathLike]) -> dict[str, list[dict[str, Any]]]:
    """The records of the epochs of several runs, by the names of the runs.

    Args:
        paths: logs that a training wrote, one JSON object a line; or the folders of the runs. A run is called by what
            of its folder's path tells it from the others.

    Raises:
        DataError: if there is no such file, or it is no log, or has no epochs.
    """
    files = [Path(path) / LOG if os.path.isdir(path) else Path(path) for path in paths]
    runs = {}
    for name, file in zip(_names(files), files):
        runs[name] = [record for record in read_log(file) if record.get("event") == "epoch"]
        if not runs[name]:
            raise DataError.of(str(file), "the log of a training, with at least one epoch", "none")
    return runs


def _names(files: Sequence[Path]) -> list[str]:
    """For each file, the shortest end of its path, without what all have in common, that is its own."""
    parts = [file.absolute().with_suffix("").parts for file in files]
    parts = [part[:-1] if file.name == LOG else part for part, file in zip(parts, files)]
    longest = max(map(len, parts), default=0)
    for length in range(1, longest + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


def curves_section(paths: Sequence[PathLike]) -> Section:
    """How trainings went, from their logs."""
    runs = read_runs(paths)
    title = f"Training of {', '.join(runs)}"
    ends = [(name, *(_number(records[-1], field) for field in ("epoch", *_ENDS))) for name, records in runs.items()]
    figures = [f"{name} ended at epoch {epoch} with loss {loss}" for name, epoch, loss, *_ in ends]
    picture = Picture(
        "curves",
        title,
        f"{'; '.join(figures)}.",
        "Dashed: on training images, while they were trained on. Solid: on images held out, after each epoch.",
        drawing.png(drawing.draw_curves(runs, title)),
        Table("The last epoch of each run", ("run", "epoch", *_ENDS.values()), ends),
    )
    return Section("Curves", "Losses and accuracies, epoch by epoch.", [picture])


_ENDS = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "held_out_loss": "held-out loss",
    "held_out_accuracy": "held-out accuracy",
}


def _number(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    return "-" if value is None else f"{value:.4g}"
