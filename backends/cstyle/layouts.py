"""Which order activations lie best in on CPUs: one rule for convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.backends.cstyle.target import Target
from minigrad.shapes import Shape
from minigrad.view import Block, Order

BATCH = 16  # images from which the batch goes into the lanes


def activation_order(shapes: Sequence[Shape], target: Target) -> Order | None:
    """The order for activations of ``shapes`` around one core; None where row-major is as good.

    Blocks of images, or for few of them blocks of channels, each a vector: then every window works in whole vectors.
    Where neither divides, many images still lie innermost.
    """
    if target.is_gpu or target.lanes == 1:
        return None
    images, axes = shapes[0][0], tuple(range(len(shapes[0])))
    if images >= BATCH and images % target.lanes == 0:
        return (*axes, Block(0, target.lanes))
    if all(shape[1] % target.lanes == 0 for shape in shapes):
        return (*axes, Block(1, target.lanes))
    return (*axes[1:], 0) if images >= BATCH else None
