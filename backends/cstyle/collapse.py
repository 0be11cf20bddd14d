"""Fewer, longer loops: axes that all views of a body walk through alike become one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from minigrad.kernel import Instr, Kernel
from minigrad.shapes import Shape
from minigrad.view import View


def without_blocks(shape: Shape, views: Sequence[View]) -> tuple[Shape, list[View]] | None:
    """The same elements in a space where each blocked axis is two axes, so that no view has blocks.

    None if views disagree about the size of a block, or one has bounds within a blocked axis.
    """
    if all(view.blocks is None for view in views):
        return shape, list(views)
    sizes: list[int] = []
    for axis in range(len(shape)):
        found = {view.blocks[axis][0] for view in views if view.blocks is not None} - {0}
        if len(found) > 1:
            return None
        sizes.append(found.pop() if found else 0)
        full = (0, shape[axis])
        if sizes[-1] and any(view.bounds is not None and view.bounds[axis] != full for view in views):
            return None
    split: list[int] = []
    for length, size in zip(shape, sizes):
        split += [length // size, size] if size else [length]
    return tuple(split), [_split(view, sizes) for view in views]


def _split(view: View, sizes: Sequence[int]) -> View:
    shape: list[int] = []
    strides: list[int] = []
    bounds: list[tuple[int, int]] = []
    for axis, (length, stride, size) in enumerate(zip(view.shape, view.strides, sizes)):
        if not size:
            shape.append(length)
            strides.append(stride)
            bounds.append(view.bounds[axis] if view.bounds is not None else (0, length))
            continue
        own, outer = view.blocks[axis] if view.blocks is not None else (0, 0)
        shape += [length // size, size]
        strides += [outer if own else stride * size, stride]
        bounds += [(0, length // size), (0, size)]
    return View(tuple(shape), tuple(strides), view.offset, view.bounds and tuple(bounds), view.fill)


def merged(shape: Shape, views: Sequence[View], order: Sequence[int]) -> tuple[Shape, list[View]]:
    """The same elements with the axes in ``order``, outermost first, those of size 1 left out and neighbours joined."""
    axes = [axis for axis in order if shape[axis] != 1]
    groups: list[list[int]] = []
    for axis in axes:
        if groups and all(_continues(view, groups[-1][-1], axis) for view in views):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    sizes = tuple(math.prod(shape[axis] for axis in group) for group in groups)
    return sizes, [_joined(view, groups, sizes) for view in views]


def _continues(view: View, outer: int, inner: int) -> bool:
    """Whether the last index of ``inner`` is followed in memory by the next index of ``outer``."""
    if view.blocks is not None and (view.blocks[outer][0] or view.blocks[inner][0]):
        return False
    if view.bounds is not None and view.bounds[inner] != (0, view.shape[inner]):
        return False
    return view.strides[outer] == view.strides[inner] * view.shape[inner]


def _joined(view: View, groups: list[list[int]], sizes: Shape) -> View:
    strides = tuple(view.strides[group[-1]] for group in groups)
    bounds = None
    if view.bounds is not None:
        scales = [math.prod(view.shape[axis] for axis in group[1:]) for group in groups]
        first = [view.bounds[group[0]] for group in groups]
        bounds = tuple((low * scale, high * scale) for (low, high), scale in zip(first, scales))
    blocks = None if view.blocks is None else tuple(view.blocks[group[-1]] for group in groups)
    return view._replace(shape=sizes, strides=strides, bounds=bounds, blocks=blocks)


def memory_order(view: View) -> list[int]:
    """Axes by how far apart neighbours lie, farthest first."""
    return sorted(range(len(view.shape)), key=lambda axis: (-abs(view.strides[axis]), axis))


def collapsed(kernel: Kernel) -> Kernel:
    """A map over as few axes as its views allow, in the order in which its first output lies in memory."""
    given = [line.attr for line in kernel.epilogue if isinstance(line.attr, View)]
    views = [operand.view for operand in (*kernel.inputs, *kernel.outputs)] + given
    if 0 in kernel.space or any(view.shape != kernel.space for view in views):
        return kernel
    shape, views = without_blocks(kernel.space, views) or (kernel.space, views)
    # An axis of one element may carry bounds: that its only index is outside cannot be left out.
    if any(low == high for view in views for low, high in view.bounds or ()):
        return kernel
    first = kernel.stores[0][1] + len(kernel.inputs)
    shape, views = merged(shape, views, memory_order(views[first]))
    found = iter(views)
    inputs = tuple(operand._replace(view=next(found)) for operand in kernel.inputs)
    outputs = tuple(operand._replace(view=next(found)) for operand in kernel.outputs)

    def moved(line: Instr) -> Instr:
        return line._replace(attr=next(found)) if isinstance(line.attr, View) else line

    epilogue = tuple(map(moved, kernel.epilogue))
    return dataclasses.replace(kernel, space=shape, inputs=inputs, outputs=outputs, epilogue=epilogue)
