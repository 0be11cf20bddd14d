"""Everything that can be shown of one network, as the sections of a report: what ``minigrad visualize`` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.errors import ArgumentTypeError
from minigrad.nn.data.dataset import take
from minigrad.nn.module import Module
from minigrad.nn.visualize import drawing
from minigrad.nn.visualize.backward import Units, grad_cam, guided_backprop, input_gradient, last_maps
from minigrad.nn.visualize.confusion import confusion_matrix, predict
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
        preprocess: makes its input of images of bytes.
        classes: their names.
        input_size: (C, H, W).
    """

    model: Module
    preprocess: Callable[[Tensor], Tensor]
    classes: Sequence[str]
    input_size: tuple[int, int, int]

    def probabilities(self, images: Array) -> Array:
        """Those of the classes for images of bytes, (N, classes)."""
        return predict(self.model, [(image, 0) for image in images], self.preprocess)[1]

    def default_layer(self) -> str:
        """The last layer with maps, see :func:`last_maps`.

        Raises:
            ArgumentError: if there is none.
        """
        return last_maps(forward(self.model, Tensor.zeros(1, *self.input_size)))


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
    pictures = []
    for number, (name, image) in enumerate(images.items(), 1):
        pictures.append(_explanation(subject, number, name, image, chosen, unit))
        pictures.append(_maps(subject, number, name, image, chosen))
    text = "What each prediction rests on, and how a layer sees the image."
    if unit is not None:
        text = f"What unit {unit} of {chosen} responds to, and how the layer sees the image."
    return Section("Images", text, pictures)


def _explanation(subject: Subject, number: int, name: str, image: Array, layer: str, unit: int | None) -> Picture:
    model = subject.model
    x = subject.preprocess(Tensor(image[None]))
    (chances,) = subject.probabilities(image[None])
    best = int(chances.argmax())
    target, of = (best, None) if unit is None else (unit, layer)
    seen = f"{subject.classes[best]} ({100 * chances[best]:.1f} %)"
    signals: dict[str, Array] = {"saliency": np.abs(input_gradient(model, x, target, of)[0]).max(0)}
    missing = []
    for label, way in (("guided backprop", guided_backprop), ("deconvnet", deconvnet)):
        try:
            signals[label] = way(model, x, target, of)[0]
        except ArgumentTypeError as error:  # not defined for this network
            missing.append(f"No {label}: {str(error).partition(chr(10))[0]}.")
    if unit is None:
        signals["Grad-CAM"] = grad_cam(model, x, best, None if forward(model, x).layer(layer).ndim != 4 else layer)[0]
        size = max(min(image.shape[1:]) // 4, 1)
        signals["occlusion"] = occlusion(model, x, best, size, max(size // 3, 1))[0]
    title = f"{name}: {seen}" if unit is None else f"{name}: unit {unit} of {layer}"
    order = np.argsort(-chances, kind="stable")[:5]
    rows = [(subject.classes[i], f"{100 * chances[i]:.2f} %") for i in order]
    where = [f"{label} is greatest at {_place(values)}" for label, values in signals.items()]
    return Picture(
        f"image-{number}-why",
        title,
        f"{name}, seen as {seen}. {'; '.join(where)}.",
        " ".join([DECISION if unit is None else RESPONSE, *missing]),
        drawing.png(drawing.draw_explanation(image, signals, title)),
        Table(f"{name}: most likely classes", ("class", "probability"), rows),
    )


def _place(values: Array) -> str:
    """Where the largest magnitude is."""
    flat = np.abs(values if values.ndim == 2 else np.abs(values).max(0))
    row, column = np.unravel_index(flat.argmax(), flat.shape)
    return f"row {row + 1} of {flat.shape[0]}, column {column + 1} of {flat.shape[1]}"


def _maps(subject: Subject, number: int, name: str, image: Array, layer: str) -> Picture:
    found = activations(subject.model, subject.preprocess(Tensor(image[None])), layer)[layer][0]
    strongest = np.argsort(-found.reshape(len(found), -1).max(1), kind="stable")[:5]
    alt = f"{len(found)} units of {layer}; the strongest are {', '.join(map(str, strongest))}."
    if found.ndim == 3:
        title = f"{name}: {len(found)} maps of {layer}, {found.shape[1]}x{found.shape[2]}"
        most = drawing.MOST_MAPS
        caption = f"All on one scale{f'; the first {most}' if len(found) > most else ''}."
        figure = drawing.draw_maps(found, title)
    else:
        title = f"{name}: {len(found.reshape(-1))} values of {layer}"
        caption = "One bar for each unit."
        figure = drawing.draw_values(found.reshape(-1), title)
    return Picture(f"image-{number}-maps", title, alt, caption, drawing.png(figure))


def patches_section(
    subject: Subject, dataset: Any, layer: str | None = None, unit: int | None = None, batch_size: int = 128
) -> Section:
    """What a unit of a layer looks for, or the eight that respond most: the patches of a data set that it likes best.

    Args:
        subject: the network.
        dataset: tuples that begin with an image of bytes.
        layer: default the last with maps.
        unit: default those with the strongest responses.
        batch_size: images in one forward pass.
    """
    chosen = layer or subject.default_layer()
    units = None if unit is None else [unit]
    found = strongest_patches(subject.model, dataset, chosen, units, PATCHES, subject.preprocess, batch_size)
    shown = sorted(sorted(found, key=lambda unit: -found[unit][0].value)[:MOST_UNITS])
    best = {unit: found[unit] for unit in shown}
    count = len(best[shown[0]])
    title = f"{chosen}: the {count} strongest patches of {len(shown)} of its {len(found)} units"
    if unit is not None:
        title = f"{chosen}, unit {unit}: its {count} strongest patches"
    caption = (
        "Each patch is what the unit can see, cut out of a different image; grey is beyond the image's edge. "
        "Below each, what the deconvnet projects from the response: what in the patch caused it."
    )
    try:
        projections = {
            unit: _projections(subject, dataset, chosen, unit, [r.index for r in best[unit]]) for unit in best
        }
        figure = drawing.draw_patch_pairs(best, projections, title)
    except ArgumentTypeError as error:
        caption = f"{caption.partition(' Below')[0]} No deconvnet: {str(error).partition(chr(10))[0]}."
        figure = drawing.draw_patches(best, title=title)
    rows = [(f"unit {unit}", *(f"{r.value:.3g} (image {r.index})" for r in best[unit])) for unit in best]
    columns = ("unit", *(f"{rank + 1}." for rank in range(count)))
    alt = f"Rows of patches for units {', '.join(map(str, shown))} of {chosen}."
    table = Table("The responses, and the images that they are in", columns, rows)
    picture = Picture("patches", title, alt, caption, drawing.png(figure), table)
    return Section("Strongest patches", f"What units of {chosen} look for, in {len(dataset):,} images.", [picture])


def _projections(subject: Subject, dataset: Any, layer: str, unit: Units, indices: list[int]) -> list[Array]:
    images = take(dataset, np.array(indices))
    x = subject.preprocess(Tensor(images[0] if isinstance(images, tuple) else images))
    return list(deconvnet(subject.model, x, unit, layer))


def confusion_section(subject: Subject, dataset: Any, batch_size: int = 128) -> Section:
    """Which classes of a data set are taken for which."""
    labels, chances = predict(subject.model, dataset, subject.preprocess, batch_size)
    said = chances.argmax(1)
    matrix = confusion_matrix(labels, said, len(subject.classes))
    right = int(np.trace(matrix))
    title = f"{right:,} of {len(labels):,} images right: {100 * right / len(labels):.2f} %"
    wrong = matrix - np.diag(np.diag(matrix))
    pairs = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    names = subject.classes
    worst = [f"{names[a]} taken for {names[b]} ({wrong[a, b]})" for a, b in pairs if wrong[a, b]]
    rows = [(names[i], *map(str, row)) for i, row in enumerate(matrix.tolist())]
    picture = Picture(
        "confusion",
        title,
        f"{title}. Most frequent mistakes: {', '.join(worst) or 'none'}.",
        "True classes down, predicted ones across; the darker, the larger the share of the row.",
        drawing.png(drawing.draw_confusion(matrix, names, title)),
        Table("The confusion matrix in numbers", ("true \\ predicted", *names), rows),
    )
    return Section("Mistakes", "Which classes are taken for which.", [picture])
