"""Figures of what the other modules compute. They need matplotlib, which the extra ``viz`` brings."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigrad import extras
from minigrad.errors import ArgumentError
from minigrad.nn.serialize import PathLike, write_atomically
from minigrad.nn.visualize.pixels import around_grey, as_image, enlarged, tiles
from minigrad.nn.visualize.probe import Array
from minigrad.nn.visualize.responses import Response

Figure = Any  # matplotlib.figure.Figure

MOST_MAPS = 64  # in one picture: more are too small to see
WIDTH = 8.0  # inches
# The panels of curves: the fields of an epoch's record, that of training first where there are two.
CURVES = {
    "loss": ("loss", "held_out_loss"),
    "accuracy": ("accuracy", "held_out_accuracy"),
    "learning rate": ("lr",),
}
TEXT, FAINT = "#222222", "#666666"
_LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.8}  # what numbers stand on, over a picture


def draw_filters(filters: Array, title: str = "") -> Figure:
    """Filters (K, C, h, w) as a grid: in colour for three channels, else the planes of each filter in a row.

    Each is scaled by itself: grey is 0, and black or white its largest magnitude.

    Raises:
        MissingExtra: if matplotlib is not installed, as for all functions here.
    """
    if filters.shape[1] in (1, 3):
        sheet = tiles([around_grey(weights) for weights in filters])
    else:
        planes = [around_grey(plane[None]) for weights in filters[:MOST_MAPS] for plane in weights]
        sheet = tiles(planes, filters.shape[1])
    return _sheet(sheet, title)


def draw_maps(maps: Array, title: str = "", units: Sequence[int] | None = None) -> Figure:
    """Activation maps (K, h, w) of one image on one scale of grey, black for the least; the first 64, or some units.

    Each has the number of its unit at its top left.
    """
    numbers = range(min(len(maps), MOST_MAPS)) if units is None else units
    chosen = maps[list(numbers)]
    low, high = float(chosen.min()), float(chosen.max())
    scaled = (chosen - low) / (high - low or 1.0)
    columns = len(chosen) if len(chosen) <= 8 else None
    sheet = tiles([as_image(plane[None]) for plane in scaled], columns)
    figure = _sheet(sheet, title)
    (axes,) = figure.axes
    height, width = (side + 1 for side in chosen.shape[1:])  # with the line of paper
    across = (sheet.shape[1] + 1) // width
    for place, number in enumerate(numbers):
        left, top = place % across * width - 0.5, place // across * height - 0.5
        axes.text(left, top, str(number), va="top", fontsize=6, color=TEXT, bbox=_LABEL)
    _note(figure, f"black {low:.3g}, white {high:.3g}")
    return figure


def draw_values(values: Array, title: str = "") -> Figure:
    """The values of a layer without maps, (K,), as bars."""
    figure = _figure(WIDTH, 2.6)
    axes = figure.add_subplot()
    axes.bar(range(len(values)), values, width=1.0, color="#33669a")
    axes.set_xlabel("unit", fontsize=9, color=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.margins(x=0)
    figure.suptitle(title, fontsize=10, color=TEXT)
    figure.tight_layout()
    return figure


def draw_patches(patches: Mapping[int, Sequence[Response]], fill: float = 128, title: str = "") -> Figure:
    """The strongest patches of each unit, a row for each, with ``fill`` beyond the edges of the images."""
    rows = [tiles([as_image(r.framed(fill)) for r in found], len(found)) for found in patches.values()]
    return _rows([f"unit {unit}" for unit in patches], rows, title)


def draw_patch_pairs(
    patches: Mapping[int, Sequence[Response]], projections: Mapping[int, Sequence[Array]], title: str = ""
) -> Figure:
    """Each unit's strongest patches, and below each what the unit saw in it, from projections of the whole images."""
    names, rows = [], []
    for unit, found in patches.items():
        seen = [
            Response(r.index, r.value, r.position, r.window, _inside(p, r)) for r, p in zip(found, projections[unit])
        ]
        names += [f"unit {unit}", ""]
        rows += [tiles([as_image(r.framed(128)) for r in found], len(found))]
        rows += [tiles([around_grey(r.framed(0)) for r in seen], len(seen))]
    return _rows(names, rows, title)


def draw_explanation(image: Array, pictures: Mapping[str, Array], title: str = "") -> Figure:
    """One image (C, H, W) and what explains a decision about it, side by side, under their names.

    Args:
        image: as :func:`~minigrad.nn.visualize.pixels.as_image` takes it.
        pictures: signals of both signs (C, H, W), drawn around grey; or maps (h, w), laid over the image: heat where
            they are not negative, else red above 0 and blue below.
        title: above all.
    """
    shown = as_image(image)
    size = (image.shape[1], image.shape[2])
    columns = len(pictures) + 1
    figure = _figure(WIDTH, WIDTH / columns * size[0] / size[1] + 0.55)
    for i, (name, values) in enumerate({"image": None, **pictures}.items()):
        axes = figure.add_subplot(1, columns, i + 1)
        axes.set_title(name, fontsize=9, color=TEXT)
        axes.axis("off")
        if values is None:
            axes.imshow(shown, interpolation="nearest")
        elif values.ndim == 3:
            axes.imshow(around_grey(values), interpolation="nearest")
        else:
            _lay_over(axes, shown, enlarged(values, size))
    figure.suptitle(title, fontsize=10, color=TEXT, y=1 - 0.06 / figure.get_figheight(), va="top")
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.5 / figure.get_figheight(), wspace=0.06)
    return figure


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], title: str = "") -> Figure:
    """Curves of several runs side by side: a panel for each quantity, a colour for each run; training is dashed.

    Args:
        runs: for each run the records of its epochs, as a training's log has them: ``epoch``, ``loss``, ``accuracy``
            (of training), ``held_out_loss``, ``held_out_accuracy``, ``lr``. What a record lacks is left out.
        title: above all.

    Raises:
        ArgumentError: if there is nothing to draw.
    """
    logged = {name for records in runs.values() for record in records for name in record}
    panels = {title: fields for title, fields in CURVES.items() if logged & set(fields)}
    if not panels:
        known = ", ".join(name for fields in CURVES.values() for name in fields)
        raise ArgumentError.of("draw_curves", f"records with some of {known}", f"{len(runs)} runs without")
    figure = _figure(WIDTH, 2.7 * (len(panels) + 1) // 2 + 0.7)
    for place, (quantity, fields) in enumerate(panels.items(), 1):
        axes = figure.add_subplot((len(panels) + 1) // 2, min(len(panels), 2), place)
        for number, (run, records) in enumerate(runs.items()):
            for name in fields:
                points = [(record["epoch"], record[name]) for record in records if record.get(name) is not None]
                training = name in fields[:1] and len(fields) > 1
                if points:
                    axes.plot(
                        *zip(*points), color=f"C{number % 10}", linestyle="--" if training else "-", linewidth=1.5,
                        marker="." if len(points) == 1 else "", label=f"{run}, training" if training else run,
                    )  # fmt: skip
        axes.set_title(quantity, fontsize=10, color=TEXT)
        axes.set_xlabel("epoch", fontsize=9, color=TEXT)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, color=TEXT)
    figure.tight_layout()
    return figure


def png(figure: Figure, dpi: int = 120) -> bytes:
    """The bytes of a PNG file with a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: PathLike, dpi: int = 120) -> None:
    """Write a figure to a PNG file, whole or not at all.

    Raises:
        DataError: if the file cannot be written.
    """
    write_atomically(path, png(figure, dpi))


def _figure(width: float, height: float) -> Figure:
    module = extras.load("matplotlib.figure", "viz")
    return module.Figure(figsize=(width, height), facecolor="white")


def _sheet(sheet: Array, title: str) -> Figure:
    """One picture under a title, as wide as the page or, where that would be too high, less."""
    ratio = sheet.shape[0] / sheet.shape[1]
    width = max(min(WIDTH, 5.0 / ratio, sheet.shape[1] * 0.14 + 0.4), 3.0)
    height = (width - 0.2) * ratio + 0.65
    figure = _figure(width, height)
    axes = figure.add_axes((0.1 / width, 0.25 / height, 1 - 0.2 / width, 1 - 0.65 / height))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    axes.axis("off")
    figure.suptitle(title, fontsize=10, color=TEXT, y=1 - 0.08 / height, va="top")
    return figure


def _rows(names: list[str], rows: list[Array], title: str) -> Figure:
    """Pictures below one another, each with a name to its left."""
    label = 0.75
    inner = min(WIDTH - label - 0.1, rows[0].shape[1] * 0.08)
    heights = [inner * row.shape[0] / row.shape[1] for row in rows]
    gap = 0.06
    height = sum(heights) + gap * len(rows) + 0.5
    figure = _figure(inner + label + 0.1, height)
    width = figure.get_figwidth()
    top = height - 0.42
    for name, row, extent in zip(names, rows, heights):
        axes = figure.add_axes((label / width, (top - extent) / height, inner / width, extent / height))
        axes.imshow(row, interpolation="nearest", aspect="auto")
        axes.axis("off")
        figure.text((label - 0.1) / width, (top - extent / 2) / height, name, ha="right", va="center", fontsize=8)
        top -= extent + gap
    figure.suptitle(title, fontsize=10, color=TEXT, y=1 - 0.08 / height, va="top")
    return figure


def _note(figure: Figure, text: str) -> None:
    figure.text(0.5, 0.06 / figure.get_figheight(), text, ha="center", va="bottom", fontsize=8, color=FAINT)


def _lay_over(axes: Any, image: Array, values: Array) -> None:
    """A map over a faded image."""
    axes.imshow(0.4 + 0.6 * image.mean(2), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    largest = np.abs(values).max() or 1.0
    if values.min() < 0:
        axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=0.65)
    else:
        axes.imshow(values, cmap="inferno", vmin=0, vmax=largest, alpha=0.65)


def _inside(picture: Array, response: Response) -> Array:
    """The part of a picture of the whole image where a patch was cut out."""
    top, bottom, left, right = response.window
    part: Array = picture[:, max(top, 0) : bottom, max(left, 0) : right]
    return part
