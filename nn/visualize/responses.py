"""What units look for: the patches of a data set to which they respond most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError, AxisError
from minigrad.mode import no_grad
from minigrad.nn.data.dataset import take
from minigrad.nn.module import Module
from minigrad.nn.visualize.probe import Array, forward
from minigrad.nn.visualize.structure import Window, receptive_field
from minigrad.tensor import Tensor


@dataclass(frozen=True, eq=False)
class Response:
    """One of the strongest responses of a unit.

    Attributes:
        index: number of the image in the data set.
        value: the response.
        position: where in the unit's map; empty where the layer has no maps.
        window: the pixels that it depends on; those beyond the edges are padding.
        patch: the pixels inside the image, (C, h, w).
    """

    index: int
    value: float
    position: tuple[int, ...]
    window: Window
    patch: Array

    def framed(self, fill: float) -> Array:
        """The whole window, (C, height, width), with ``fill`` beyond the edges of the image."""
        channels = self.patch.shape[0]
        top, bottom, left, right = self.window
        frame = np.full((channels, bottom - top, right - left), fill, self.patch.dtype)
        y, x = max(-top, 0), max(-left, 0)
        frame[:, y : y + self.patch.shape[1], x : x + self.patch.shape[2]] = self.patch
        return frame


def strongest_patches(
    model: Module,
    dataset: Any,
    layer: str,
    units: Sequence[int] | None = None,
    count: int = 9,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 128,
) -> dict[int, list[Response]]:
    """The patches to which units of a layer respond most, cut out by their receptive fields; one of each image.

    Args:
        model: any network that takes one tensor; used in evaluation mode and left as it was.
        dataset: images (C, H, W), or tuples that begin with one, as ``nn.data`` has them.
        layer: dotted name of the layer.
        units: which of its units; None is all.
        count: patches of each.
        preprocess: makes the network's input (N, C, H, W) of a batch of images; None takes them as they are.
        batch_size: images in one forward pass.

    Returns:
        For each unit its responses, the strongest first; of equal ones that of the first image, at its first position.

    Raises:
        ArgumentError: if there is no such layer, or the data set is empty.
        AxisError: if the layer has no such unit.

    >>> from minigrad import nn
    >>> net = nn.Sequential(nn.MaxPool2d(2))
    >>> (best,) = strongest_patches(net, np.eye(4, dtype="float32")[None, None], "0", count=1)[0]
    >>> best.position, best.window, best.patch.tolist()
    ((0, 0), Window(top=0, bottom=2, left=0, right=2), [[[1.0, 0.0], [0.0, 1.0]]])
    """
    if not len(dataset) or count < 1:
        raise ArgumentError.of("strongest_patches", "images, and a count of at least 1", f"{len(dataset)} and {count}")
    values, places = [], []
    for start in range(0, len(dataset), batch_size):
        pixels = _images(dataset, np.arange(start, min(start + batch_size, len(dataset))))
        x = Tensor(pixels)
        with no_grad():
            output = forward(model, x if preprocess is None else preprocess(x)).layer(layer)
            maps = output.reshape(*output.shape[:2], -1)
            best, where = maps.max(2), maps.argmax(2)
            best.realize(where)
        values.append(best.numpy())
        places.append(where.numpy())
    found, at = np.concatenate(values), np.concatenate(places)
    shape = output.shape[1:]
    wanted = range(shape[0]) if units is None else units
    if any(not 0 <= unit < shape[0] for unit in wanted):
        raise AxisError.of("strongest_patches", f"units in [0, {shape[0] - 1}]", list(wanted))
    field = receptive_field(model, layer, pixels.shape[1:])

    def response(index: int, unit: int) -> Response:
        position = tuple(int(i) for i in np.unravel_index(at[index, unit], shape[1:]))
        window = field.window((unit, *position))
        image = _images(dataset, np.array([index]))[0]
        inside = image[:, max(window.top, 0) : window.bottom, max(window.left, 0) : window.right]
        return Response(index, float(found[index, unit]), position, window, inside)

    order = np.argsort(-found, axis=0, kind="stable")[:count]
    return {unit: [response(int(index), unit) for index in order[:, unit]] for unit in wanted}


def _images(dataset: Any, indices: Array) -> Array:
    """Images of these numbers; of a data set of pairs, the first part of each."""
    batch = take(dataset, indices)
    return batch[0] if isinstance(batch, tuple) else batch
