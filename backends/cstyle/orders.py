"""In which order values lie best around each core on CPUs: the wishes that the layout pass is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates import conv_tiles, matmul_tiles
from minigrad.shapes import Shape
from minigrad.view import Block, Order, View

BATCH = 16  # images from which the batch goes into the lanes
_POOLS = frozenset({"max_pool", "window_gather", "window_scatter", "avg_pool", "avg_pool_grad"})
_CONVS = frozenset({"conv", "conv_input_grad", "conv_weight_grad"})


def preferred_orders(
    op: str, attrs: Any, shapes: Sequence[Shape], views: Sequence[View | None], target: Target
) -> list[Order | None] | None:
    """The contract of :meth:`minigrad.backends.base.Backend.preferred_orders` for a target."""
    if target.lanes == 1:
        return None
    if op in _CONVS:
        return conv_tiles.preferred(op, attrs, shapes, target)
    if op in _POOLS:
        order = _like(views[0]) or _activations(shapes, target)
        return None if order is None else [order] * len(shapes)
    return matmul_tiles.preferred(attrs, shapes, views, target) if op == "matmul" else None


def _like(view: View | None) -> Order | None:
    """The order in which an activation lies, if its blocks or its batch are innermost."""
    if view is None:
        return None
    axes = tuple(range(len(view.shape)))
    for axis in (0, 1):
        if view.blocks is not None and view.is_blocked(axis):
            return (*axes, Block(axis, view.blocks[axis][0]))
    return (*axes[1:], 0) if view.strides[0] == 1 < view.shape[0] else None


def _activations(shapes: Sequence[Shape], target: Target) -> Order | None:
    """The order for activations of ``shapes`` around one core; None where row-major is as good.

    Blocks of images, or for few of them blocks of channels, each a vector: then every window works in whole vectors.
    Where neither divides, many images still lie innermost.
    """
    images, axes = shapes[0][0], tuple(range(len(shapes[0])))
    if images >= BATCH and images % target.lanes == 0:
        return (*axes, Block(0, target.lanes))
    if all(shape[1] % target.lanes == 0 for shape in shapes):
        return (*axes, Block(1, target.lanes))
    return (*axes[1:], 0) if images >= BATCH else None
