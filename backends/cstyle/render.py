"""From a kernel to source: which template renders which core."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from minigrad.backends.cstyle.source import Rendered, Stage
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.conv import render_conv
from minigrad.backends.cstyle.templates.conv_tiles import tiles as conv_tiles
from minigrad.backends.cstyle.templates.conv_weight import render_conv_weight_grad, weight_tiles
from minigrad.backends.cstyle.templates.elementwise import render_map
from minigrad.backends.cstyle.templates.indexing import render_scatter, render_take
from minigrad.backends.cstyle.templates.matmul import render_matmul
from minigrad.backends.cstyle.templates.matmul import tiles as matmul_tiles
from minigrad.backends.cstyle.templates.pool import render_pool
from minigrad.backends.cstyle.templates.reduce import render_reduce
from minigrad.backends.cstyle.templates.scan import render_scan
from minigrad.backends.cstyle.templates.sort import render_sort
from minigrad.backends.cstyle.templates.tensor import render_tensor
from minigrad.backends.cstyle.templates.tensor_choice import TensorTile, suits, tensor_tiles
from minigrad.backends.cstyle.templates.tiled import render_tiled
from minigrad.backends.cstyle.templates.tiled_choice import tiles as tiled_tiles
from minigrad.backends.cstyle.templates.tiled_product import CORES
from minigrad.backends.cstyle.templates.wide import render_wide
from minigrad.errors import Unsupported
from minigrad.kernel import MAP, Instr, Kernel, Operand
from minigrad.view import Order, View

Template = Callable[..., Rendered]  # of a kernel, a target, and where there is a choice a tile
TEMPLATES: dict[str, Template] = {
    MAP: render_map,
    **dict.fromkeys(("sum", "prod", "max", "min", "argmax", "argmin"), render_reduce),
    "cumsum": render_scan,
    "sort": render_sort,
    "take": render_take,
    "scatter": render_scatter,
    **dict.fromkeys(("max_pool", "window_gather", "window_scatter", "avg_pool", "avg_pool_grad"), render_pool),
    "matmul": render_matmul,
    "conv": render_conv,
    "conv_input_grad": render_conv,
    "conv_weight_grad": render_conv_weight_grad,
}
TILES: dict[str, Callable[[Kernel, Target], list[Any]]] = {
    "matmul": matmul_tiles,
    "conv": conv_tiles,
    "conv_input_grad": conv_tiles,
    "conv_weight_grad": weight_tiles,
}
# Templates that finish each element once. Vectors of the others may reach back at the end of an axis, over elements
# that are there already.
_ONCE = frozenset({MAP, "matmul", "conv_weight_grad"})
GPU_TILES: dict[str, Callable[[Kernel, Target], list[Any]]] = dict.fromkeys(CORES, tiled_tiles)
GPU_TEMPLATES: dict[str, Template] = {**TEMPLATES, **dict.fromkeys(CORES, render_tiled)}


def _contraction(kernel: Kernel, target: Target, tile: Any = None) -> Rendered:
    """On tensor cores where they may and should compute it."""
    tile = tile or _contraction_tiles(kernel, target)[0]
    return (render_tensor if isinstance(tile, TensorTile) else render_tiled)(kernel, target, tile)


def _contraction_tiles(kernel: Kernel, target: Target) -> list[Any]:
    if 0 in kernel.core_shapes[0]:
        return [None]
    return [*(tensor_tiles(kernel, target) if suits(kernel, target) else ()), *tiled_tiles(kernel, target)]


WIDE_TEMPLATES: dict[str, Template] = {**GPU_TEMPLATES, MAP: render_wide, **dict.fromkeys(CORES, _contraction)}
WIDE_TILES: dict[str, Callable[[Kernel, Target], list[Any]]] = dict.fromkeys(CORES, _contraction_tiles)


def templates(target: Target) -> dict[str, Template]:
    """The templates for a device class, by primitive."""
    return WIDE_TEMPLATES if target.dialect.wide else GPU_TEMPLATES if target.is_gpu else TEMPLATES


def _tiles(target: Target) -> dict[str, Callable[[Kernel, Target], list[Any]]]:
    return WIDE_TILES if target.dialect.wide else GPU_TILES if target.is_gpu else TILES


def has_tiles(kernel: Kernel, target: Target) -> bool:
    """Whether there is a choice of tiles for a kernel."""
    return kernel.op in _tiles(target) and 0 not in kernel.core_shapes[0]


def candidates(kernel: Kernel, target: Target) -> list[Any]:
    """The tiles with which a kernel that has some can be rendered, best first by a cost model."""
    return _tiles(target)[kernel.op](kernel.in_core_shape(), target)


def render(kernel: Kernel, target: Target, tile: Any = None) -> Rendered:
    """Source for ``kernel`` on ``target``.

    Args:
        kernel: what to render.
        target: the device.
        tile: one of :func:`candidates`; None for the first.

    Raises:
        Unsupported: for a primitive that has no template.
    """
    known = templates(target)
    template = known.get(kernel.op)
    if template is None:
        raise Unsupported.of(kernel.op, f"a primitive with a template ({', '.join(sorted(known))})", kernel.op)
    kernel = kernel.in_core_shape()
    if kernel.op not in _ONCE and kernel.writes_in_place and not target.is_gpu:
        return _in_two(kernel, target, template, tile)
    return template(kernel, target) if tile is None else template(kernel, target, tile)


def _in_two(kernel: Kernel, target: Target, template: Template, tile: Any) -> Rendered:
    """The core into scratch memory, then the epilogue as a map: for templates that may run it twice on an element."""
    first, second = separated(kernel)
    computed = template(first, target) if tile is None else template(first, target, tile)
    mapped = render_map(second, target)
    pieces = (*computed.scratch, *(math.prod(o.view.shape) * o.dtype.itemsize for o in first.outputs))

    def moved(stage: Stage) -> Stage:
        return with_scratch(stage, kernel.buffers, len(computed.scratch))

    stages = (*map(moved, computed.stages), *map(moved, mapped.stages))
    return Rendered(stages, tuple(dict([*computed.library, *mapped.library]).items()), pieces)


def separated(kernel: Kernel, order: Order = ()) -> tuple[Kernel, Kernel]:
    """A kernel's core, which stores its outputs with their axes in ``order``, and its epilogue as a map of them.

    They are in buffers after those of the kernel, one each.
    """
    between = kernel.buffers
    operands: list[Operand] = []
    lines: list[Instr] = []
    for number, shape in enumerate(kernel.core_shapes):
        dtype = next((line.dtype for line in kernel.epilogue if line.op == "core" and line.attr == number), None)
        if dtype is not None:
            operands.append(Operand(between + len(lines), dtype, View.of(shape, order)))
            lines.append(Instr("core", (), number, dtype))
    numbers = [line.attr for line in lines]
    first = dataclasses.replace(
        kernel,
        epilogue=tuple(lines),
        stores=tuple((n, n) for n in range(len(lines))),
        outputs=tuple(operands),
        buffers=between + len(lines),
    )
    start = len(kernel.inputs)

    def loaded(line: Instr) -> Instr:
        return line._replace(op="load", attr=start + numbers.index(line.attr)) if line.op == "core" else line

    second = dataclasses.replace(
        kernel, op=MAP, attrs=None, prologue=(), sources=(), source_shapes=(), core_shapes=(),
        epilogue=tuple(map(loaded, kernel.epilogue)), inputs=(*kernel.inputs, *operands), buffers=first.buffers,
    )  # fmt: skip
    return first, second


def with_scratch(stage: Stage, buffers: int, pieces: int) -> Stage:
    """A stage whose buffers beyond ``buffers`` are scratch memory after ``pieces`` others, before the stage's own."""
    own = tuple(b for b in stage.buffers if b < buffers)
    new = tuple(pieces + b - buffers for b in stage.buffers if b >= buffers)
    return stage._replace(buffers=own, scratch=(*new, *stage.scratch))
