"""In which order values lie best around each core on CPUs: the wishes that the layout pass is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.backends.cstyle import conv_tiles, matmul
from minigrad.backends.cstyle.layouts import activation_order
from minigrad.backends.cstyle.target import Target
from minigrad.shapes import Shape
from minigrad.view import Block, Order, View

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
        order = _like(views[0]) or activation_order(shapes, target)
        return None if order is None else [order] * len(shapes)
    return matmul.preferred(attrs, shapes, views, target) if op == "matmul" else None


def _like(view: View | None) -> Order | None:
    """The order in which an activation lies, if its blocks or its batch are innermost."""
    if view is None:
        return None
    axes = tuple(range(len(view.shape)))
    for axis in (0, 1):
        if view.blocks is not None and view.is_blocked(axis):
            return (*axes, Block(axis, view.blocks[axis][0]))
    return (*axes[1:], 0) if view.strides[0] == 1 < view.shape[0] else None
