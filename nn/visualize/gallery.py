"""Everything that can be shown of one network, as the sections of a report: what ``minigrad visualize`` makes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.errors import ArgumentTypeError, DataError
from minigrad.nn.data.dataset import Dataset, take
from minigrad.nn.data.transforms import Compose
from minigrad.nn.module import Module
from minigrad.nn.pool import MaxPool2d
from minigrad.nn.training.evaluate import Evaluator, held_out_batches
from minigrad.nn.training.plots import plot_confusion
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.nn.visualize import drawing
from minigrad.nn.visualize.backward import Units, grad_cam, guided_backprop, last_maps, saliency
from minigrad.nn.visualize.deconvnet import deconvnet
from minigrad.nn.visualize.filters import first_filters
from minigrad.nn.visualize.occlusion import occlusion
from minigrad.nn.visualize.probe import Array, activations, forward
from minigrad.nn.visualize.report import Picture, Section, Table
from minigrad.nn.visualize.responses import strongest_patches
from minigrad.tensor import Tensor

MOST_UNITS = 8  # with rows of patches, unless one is named
PATCHES = 9
# How to read the pictures of an image.
DECISION = (
    "Saliency: how much each pixel changes the score of the predicted class. Guided backpropagation and deconvnet: "
    "what in the pixels speaks for it. Grad-CAM: where the layer sees it. Occlusion: how far its probability falls "
    "when a square covers the place, red where it is needed and blue where it is in the way."
)
RESPONSE = (
    "Saliency: how much each pixel changes the unit's strongest response. Guided backpropagation and deconvnet: what "
    "in the pixels it responds to."
)


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and what it was trained on.

    Attributes:
        model: images (N, C, H, W) to logits (N, classes).
        preprocessing: makes its input of images of bytes.
        classes: their names.
    """

    model: Module
    preprocessing: Preprocessing
    classes: Sequence[str]

    def default_layer(self) -> str:
        """The last layer with maps, see :func:`last_maps`.

        Raises:
            ArgumentError: if there is none.
        """
        return last_maps(forward(self.model, Tensor.zeros(1, *self.preprocessing.shape)))

    def described(self, layer: str) -> str:
        """A layer for people: of one without weights, such as ``activation#2``, the layer before that has some."""
        modules = forward(self.model, Tensor.zeros(1, *self.preprocessing.shape)).modules
        weighty = ""
        for name, module in modules.items():
            if any(True for _ in module.parameters()):
                weighty = name
            if name == layer:
                break
        return layer if weighty in ("", layer) else f"{layer} (after {weighty})"


class Fitted(Dataset):
    """A data set whose images are scaled and cut as a network needs them.

    Args:
        dataset: pairs of an image of bytes, (C, H, W), and a label.
        preprocessing: that of the network.

    Raises:
        DataError: if the images have another number of channels.
    """

    def __init__(self, dataset: Any, preprocessing: Preprocessing) -> None:
        channels, *size = np.shape(dataset[0][0])
        if channels != preprocessing.shape[0]:
            expected = f"images of {preprocessing.shape[0]} channels, as the network takes"
            raise DataError.of("data set", expected, f"some of {channels}")
        self._dataset = dataset
        self._fit = Compose(preprocessing.transforms((size[0], size[1])))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Array, int]:
        images, labels = self.take(np.array([index]))
        return images[0], int(labels[0])

    def take(self, indices: Array) -> tuple[Array, Array]:
        """The examples of these numbers."""
        images, labels, *_ = take(self._dataset, indices)
        return self._fit(images), labels


def filters_section(subject: Subject) -> Section:
    """The filters of the first layer."""
    filters = first_filters(subject.model)
    count, channels, height, width = filters.shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    what = f"{count} {kind} filters of {height}x{width}"
    each = "a square in colour" if channels == 3 else "a square of grey" if channels == 1 else "a row of planes"
    picture = Picture(
        "filters",
        f"First layer: {what}",
        f"A grid of {count} filters, each {each}.",
        "Each filter is scaled by itself: the middle grey is 0. Smooth edges and spots of colour are what a trained "
        "network has here; noise is a network that has learned little.",
        drawing.png(drawing.draw_filters(filters, what)),
    )
    return Section("Filters", "What the first layer looks for in the pixels.", [picture])


def image_section(
    subject: Subject, images: Mapping[str, Array], layer: str | None = None, unit: int | None = None
) -> Section:
    """What the network sees in some images: why it decided as it did, and the maps of a layer.

    Args:
        subject: the network.
        images: bytes (C, H, W), by name.
        layer: whose maps are shown; default the last with maps.
        unit: show what this unit of the layer responds to, in place of what the prediction rests on.
    """
    chosen = layer or subject.default_layer()
    called = subject.described(chosen)
    pictures = []
    for number, (name, image) in enumerate(images.items(), 1):
        pictures.append(_explanation(subject, number, name, image, chosen, called, unit))
        pictures.append(_maps(subject, number, name, image, chosen, called))
    text = "What each prediction rests on, and how a layer sees the image."
    if unit is not None:
        text = f"What unit {unit} of {called} responds to, and how the layer sees the image."
    return Section("Images", text, pictures)


def _explanation(
    subject: Subject, number: int, name: str, image: Array, layer: str, called: str, unit: int | None
) -> Picture:
    model = subject.model
    x = subject.preprocessing(Tensor(image[None]))
    seen = forward(model, x)
    (chances,) = seen.output.softmax(1).numpy()
    best = int(chances.argmax())
    target, of = (best, None) if unit is None else (unit, layer)
    said = f"{subject.classes[best]} ({chances[best]:.1%})"
    signals: dict[str, Array] = {"saliency": saliency(model, x, target, of)[0]}
    missing = []
    for label, way in (("guided backprop", guided_backprop), ("deconvnet", deconvnet)):
        try:
            signals[label] = way(model, x, target, of)[0]
        except ArgumentTypeError as error:  # not defined for this network
            missing.append(f"No {label}: {_first_line(error)}.")
    if unit is None:
        signals["Grad-CAM"] = grad_cam(model, x, best, layer if seen.layer(layer).ndim == 4 else None)[0]
        size = max(min(image.shape[1:]) // 4, 1)
        signals["occlusion"] = occlusion(model, x, best, size, max(size // 3, 1))[0]
    title = f"{name}: it says {said}" if unit is None else f"{name}: unit {unit} of {called}"
    order = np.argsort(-chances, kind="stable")[:5]
    rows = [(subject.classes[i], f"{chances[i]:.2%}") for i in order]
    where = [f"{label} is greatest at {_place(values)}" for label, values in signals.items()]
    return Picture(
        f"image-{number}-why",
        title,
        f"{name}, taken for {said}. {'; '.join(where)}.",
        " ".join([DECISION if unit is None else RESPONSE, *missing]),
        drawing.png(drawing.draw_explanation(image, signals, title)),
        Table(f"{name}: most likely classes", ("class", "probability"), rows),
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _place(values: Array) -> str:
    """Where the largest magnitude is."""
    flat = np.abs(values if values.ndim == 2 else np.abs(values).max(0))
    row, column = np.unravel_index(flat.argmax(), flat.shape)
    return f"row {row + 1} of {flat.shape[0]} from the top, column {column + 1} of {flat.shape[1]} from the left"


def _maps(subject: Subject, number: int, name: str, image: Array, layer: str, called: str) -> Picture:
    found = activations(subject.model, subject.preprocessing(Tensor(image[None])), layer)[layer][0]
    strongest = np.argsort(-found.reshape(len(found), -1).max(1), kind="stable")[:5]
    alt = f"{len(found)} units of {called}; the strongest are {', '.join(map(str, strongest))}."
    if found.ndim == 3 and found[0].size > 1:
        title = f"{name}: {len(found)} maps of {called}, {found.shape[1]}x{found.shape[2]}"
        most = drawing.MOST_MAPS
        caption = f"All on one scale, with their numbers{f'; the first {most}' if len(found) > most else ''}."
        figure = drawing.draw_maps(found, title)
    else:
        title = f"{name}: {len(found.reshape(-1))} values of {called}"
        caption = "One bar for each unit."
        figure = drawing.draw_values(found.reshape(-1), title)
    return Picture(f"image-{number}-maps", title, alt, caption, drawing.png(figure))


def patches_section(
    subject: Subject, dataset: Any, layer: str | None = None, unit: int | None = None, batch_size: int = 128
) -> Section:
    """What a unit of a layer looks for, or the eight that respond most: the patches of a data set that it likes best.

    Args:
        subject: the network.
        dataset: pairs of an image of bytes, as the network takes them, and a label; see :class:`Fitted`.
        layer: default the last with maps.
        unit: default those with the strongest responses.
        batch_size: images in one forward pass.
    """
    chosen = layer or subject.default_layer()
    called = subject.described(chosen)
    units = None if unit is None else [unit]
    found = strongest_patches(subject.model, dataset, chosen, units, PATCHES, subject.preprocessing, batch_size)
    shown = sorted(sorted(found, key=lambda unit: -found[unit][0].value)[:MOST_UNITS])
    best = {unit: found[unit] for unit in shown}
    count = len(best[shown[0]])
    title = f"{called}: the {count} strongest patches of {len(shown)} of its {len(found)} units"
    if unit is not None:
        title = f"{called}, unit {unit}: its {count} strongest patches"
    caption = "Each patch is what the unit can see, cut out of a different image; grey is beyond the image's edge."
    try:
        seen = {unit: _projections(subject, dataset, chosen, unit, [r.index for r in best[unit]]) for unit in best}
        figure = drawing.draw_patch_pairs(best, seen, title)
        caption += f" Below each, what in it caused the response, by {projection_of(subject.model).__name__}."
    except ArgumentTypeError as error:
        caption += f" No projections: {_first_line(error)}."
        figure = drawing.draw_patches(best, title=title)
    rows = [(f"unit {unit}", *(f"{r.value:.3g} (image {r.index})" for r in best[unit])) for unit in best]
    columns = ("unit", *(f"{rank + 1}." for rank in range(count)))
    alt = f"Rows of patches for units {', '.join(map(str, shown))} of {called}."
    table = Table("The responses, and the images that they are in", columns, rows)
    picture = Picture("patches", title, alt, caption, drawing.png(figure), table)
    return Section("Strongest patches", f"What units of {called} look for, in {len(dataset):,} images.", [picture])


def _projections(subject: Subject, dataset: Any, layer: str, unit: Units, indices: list[int]) -> list[Array]:
    images, _ = take(dataset, np.array(indices))
    x = subject.preprocessing(Tensor(images))
    return list(projection_of(subject.model)(subject.model, x, unit, layer))


def projection_of(model: Module) -> Callable[..., Array]:
    """What shows best what a unit responds to: the deconvnet where there are maxima to put values back to.

    Without pools its picture hardly depends on the image; guided backpropagation's does (Springenberg et al., 2014).
    """
    pools = any(isinstance(module, MaxPool2d) for module in model.modules())
    return deconvnet if pools else guided_backprop


def confusion_section(subject: Subject, dataset: Any) -> Section:
    """Which classes of a data set are taken for which."""
    evaluate = Evaluator([subject.model], subject.preprocessing)
    matrix = evaluate(held_out_batches(dataset, subject.preprocessing)).confusion(len(subject.classes))
    right, count = int(np.trace(matrix)), int(matrix.sum())
    title = f"{right:,} of {count:,} images right: {right / count:.2%}"
    wrong = matrix - np.diag(np.diag(matrix))
    pairs = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    names = subject.classes
    worst = [f"{names[a]} taken for {names[b]} ({wrong[a, b]})" for a, b in pairs if wrong[a, b]]
    buffer = io.BytesIO()
    plot_confusion(matrix, names, buffer)
    rows = [(names[i], *map(str, row)) for i, row in enumerate(matrix.tolist())]
    picture = Picture(
        "confusion",
        title,
        f"{title}. Most frequent mistakes: {', '.join(worst) or 'none'}.",
        "What the images are, down, and what it said, across; mistakes are shaded by their share of the row.",
        buffer.getvalue(),
        Table("The confusion matrix in numbers", ("is \\ said", *names), rows),
    )
    return Section("Mistakes", "Which classes are taken for which.", [picture])
