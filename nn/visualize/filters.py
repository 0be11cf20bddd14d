"""What the first layer looks for: its filters, which are small images."""

from __future__ import annotations

from minigrad.errors import ArgumentTypeError
from minigrad.nn.conv import Conv2d
from minigrad.nn.module import Module
from minigrad.nn.visualize.probe import Array, chosen


def first_filters(model: Module, layer: str | None = None) -> Array:
    """The filters of the first convolution, or of another.

    Args:
        model: a network with a convolution.
        layer: the name of a ``Conv2d``; None takes the first.

    Returns:
        (K, C, h, w): K filters over the C channels that each of them reads.

    Raises:
        ArgumentTypeError: if the network has no convolution, or the layer is none.
        ArgumentError: if there is no such layer.

    >>> from minigrad import nn
    >>> first_filters(nn.models.lenet5()).shape
    (6, 1, 5, 5)
    """
    modules = dict(model.named_modules())
    if layer is not None:
        found = chosen("layer", layer, {name: module for name, module in modules.items() if name})
        if not isinstance(found, Conv2d):
            raise ArgumentTypeError.of("filters", "a Conv2d", f"{layer}, a {type(found).__name__}")
        return found.weight.numpy()
    for module in modules.values():
        if isinstance(module, Conv2d):
            return module.weight.numpy()
    raise ArgumentTypeError.of("filters", "a network with a Conv2d", type(model).__name__)
