"""Kernels without a core: one loop nest over the elements, with the innermost axis in vectors."""

from __future__ import annotations

import math

from minigrad.backends.cstyle.body import At, Emitter, Lanes
from minigrad.backends.cstyle.collapse import collapsed
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.kernel import Kernel
from minigrad.shapes import Shape

GROUP = 4096  # elements that are worth a group of their own
PER_CORE = 8  # groups per core: some finish sooner than others
ITEMS = 128  # work-items of a group on GPUs


def render_map(kernel: Kernel, target: Target) -> Rendered:
    """A map in a loop nest as short as its views allow."""
    kernel = collapsed(kernel)
    if 0 in kernel.space:
        return Rendered(())
    functions = Functions(target.dialect)
    emitter = Emitter(kernel, target, functions)
    lines, groups = (_items if target.is_gpu else _loops)(emitter, kernel.space)
    local = ITEMS if target.is_gpu else 1
    text = block(target.dialect.kernel(emitter.parameters(), (local,)), lines)
    return Rendered((Stage(text, (groups,), (local,), emitter.buffers),), functions.used())


def _items(emitter: Emitter, space: Shape) -> tuple[list[str], int]:
    """One element per work-item."""
    total, index = math.prod(space), emitter.index_type
    dialect = emitter.dialect
    decode, at = decoded("i", space, index)
    lines = [f"const {index} i = {dialect.group_id(index=index)} * {ITEMS} + {dialect.local_id(0)};"]
    lines.append(block(f"if (i < {total})", decode + emitter.finish(at)))
    return lines, -(-total // ITEMS)


def decoded(flat: str, shape: Shape, index: str, name: str = "i") -> tuple[list[str], list[At]]:
    """Statements that take a row-major position apart, and the indices that they give."""
    statements, at, rest = [], [], flat
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] == 1:
            at.append(At())
            continue
        last = all(n == 1 for n in shape[:axis])
        statements.append(f"const {index} {name}{axis} = {rest if last else f'{rest} % {shape[axis]}'};")
        at.append(At(f"{name}{axis}"))
        rest = f"({rest} / {shape[axis]})" if rest != flat else f"({flat} / {shape[axis]})"
    return statements, at[::-1]


def vector_width(emitter: Emitter, length: int) -> int:
    """Lanes for an innermost axis of ``length``: as many as fit."""
    width = emitter.target.lanes
    while width > length:
        width //= 2
    return max(width, 1)


def _loops(emitter: Emitter, space: Shape) -> tuple[list[str], int]:
    """The outer axes shared out to groups; the innermost axis in vectors, its rest one by one."""
    if not space:
        return emitter.finish([]), 1
    *outer, length = space
    inner = len(outer)
    contiguous = any(o.view.strides[inner] == 1 for o in emitter.kernel.outputs)
    width = vector_width(emitter, length) if contiguous else 1
    target, index = emitter.target, emitter.index_type
    wanted = min(PER_CORE * target.cores, max(1, math.prod(space) // GROUP))
    shared = 0  # leading axes that are shared out
    while shared < inner and math.prod(outer[:shared]) < wanted:
        shared += 1
    group = target.dialect.group_id(index=index)
    variable = f"i{inner}"

    def row(at: list[At], start: str, stop: str, last: str) -> list[str]:
        """The innermost axis from ``start`` to ``stop``, both whole vectors; then the rest under ``last``."""
        lines = []
        if length >= width > 1:
            body = emitter.finish([*at, At(variable)], Lanes(inner, width))
            lines.append(loop(variable, start, stop, body, width, index))
        if width == 1 or length % width:
            begin = start if width == 1 else str(length - length % width)
            end = stop if width == 1 else str(length)
            rest = loop(variable, begin, end, emitter.finish([*at, At(variable)]), 1, index)
            lines.append(block(last, [rest]) if last and width > 1 else rest)
        return lines

    if not outer:
        each, groups = split(length // width, wanted)
        lines = [f"const {index} first = {group} * {each * width};"]
        whole = length - length % width
        stop = f"first + {each * width}"
        if each * groups * width != whole:
            lines.append(f"const {index} stop = {stop} < {whole} ? {stop} : {whole};")
            stop = "stop"
        return lines + row([], "first", stop, f"if ({group} == {groups - 1})"), groups
    rows = tuple(outer[:shared])
    each, groups = split(math.prod(rows), wanted)
    decode, at = decoded("r", rows, index)
    at += [At(f"i{axis}") for axis in range(shared, inner)]
    lines = row(at, "0", str(length - length % width), "")
    for axis in range(inner - 1, shared - 1, -1):
        lines = [loop(f"i{axis}", 0, outer[axis], lines, 1, index)]
    if not shared:
        return lines, 1
    stop = f"{group} * {each} + {each}"
    if each * groups != math.prod(rows):
        stop = f"({stop} < {math.prod(rows)} ? {stop} : {math.prod(rows)})"
    return [loop("r", f"{group} * {each}", stop, decode + lines, 1, index)], groups
