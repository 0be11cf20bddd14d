"""From a kernel to source: which template renders which core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad.backends.cstyle.conv import render_conv
from minigrad.backends.cstyle.conv_tiles import tiles as conv_tiles
from minigrad.backends.cstyle.conv_weight import render_conv_weight_grad, weight_tiles
from minigrad.backends.cstyle.elementwise import render_map
from minigrad.backends.cstyle.indexing import render_scatter, render_take
from minigrad.backends.cstyle.matmul import render_matmul
from minigrad.backends.cstyle.matmul import tiles as matmul_tiles
from minigrad.backends.cstyle.pool import render_pool
from minigrad.backends.cstyle.reduce import render_reduce
from minigrad.backends.cstyle.scan import render_scan
from minigrad.backends.cstyle.sort import render_sort
from minigrad.backends.cstyle.source import Rendered
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.tiled import render_tiled
from minigrad.backends.cstyle.tiled_choice import tiles as tiled_tiles
from minigrad.backends.cstyle.tiled_product import CORES
from minigrad.errors import Unsupported
from minigrad.kernel import MAP, Kernel

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
GPU_TILES: dict[str, Callable[[Kernel, Target], list[Any]]] = dict.fromkeys(CORES, tiled_tiles)
GPU_TEMPLATES: dict[str, Template] = {**TEMPLATES, **dict.fromkeys(CORES, render_tiled)}


def templates(target: Target) -> dict[str, Template]:
    """The templates for a device class, by primitive."""
    return GPU_TEMPLATES if target.is_gpu else TEMPLATES


def has_tiles(kernel: Kernel, target: Target) -> bool:
    """Whether there is a choice of tiles for a kernel."""
    return kernel.op in (GPU_TILES if target.is_gpu else TILES) and 0 not in kernel.core_shapes[0]


def candidates(kernel: Kernel, target: Target) -> list[Any]:
    """The tiles with which a kernel that has some can be rendered, best first by a cost model."""
    return (GPU_TILES if target.is_gpu else TILES)[kernel.op](kernel.in_core_shape(), target)


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
    return template(kernel, target) if tile is None else template(kernel, target, tile)
