"""Kernels without a core on GPUs that read 16 bytes at once: an item has a pack of neighbours, or two."""

from __future__ import annotations

import math

from minigrad.backends.cstyle.body import At
from minigrad.backends.cstyle.collapse import collapsed
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import ITEMS, decoded, render_map
from minigrad.backends.cstyle.templates.packs import MOST, UNROLLED, PackEmitter, Packs, in_packs, pack_width
from minigrad.backends.cstyle.templates.transposed import render_transposed, transposed_axis
from minigrad.kernel import Kernel

MANY = 8192  # packs per core from which on an item has two: both are on their way before one is used


def render_wide(kernel: Kernel, target: Target) -> Rendered:
    """A map in packs along the axis that is innermost in its output; by elements where that does not lie in packs."""
    kernel = collapsed(kernel)
    if 0 in kernel.space or not kernel.space:
        return render_map(kernel, target)
    turned = transposed_axis(kernel)
    if turned is not None:
        return render_transposed(kernel, target, turned)
    axis, length = len(kernel.space) - 1, kernel.space[-1]
    whole = length - length % MOST if axis == 0 else length
    operands = [*kernel.inputs, *kernel.outputs]
    width = pack_width(target.dialect.wide, whole, operands, kernel.outputs, axis)
    if width == 1 or width > length:
        return render_map(kernel, target)
    functions, dialect, rest = Functions(target.dialect), target.dialect, length % width
    emitter = PackEmitter(kernel, target, functions)
    packs, index = Packs(emitter, axis, width), emitter.index_type
    space = in_packs((*kernel.space[:-1], length - rest), axis, width)
    total = math.prod(space)
    many = 2 if total >= MANY * target.cores else 1
    decode, at = decoded("i", space, index)
    here, each = [*at[:-1], At("x")], [*at[:-1], At("e")]

    def share(body: list[str]) -> str:
        """What an item does for each of its packs."""
        inner = block(f"if (i < {total})", [*decode, f"const {index} x = {at[-1].expr} * {width};", *body])
        if many == 1:
            return block("", [f"const {index} i = first;", inner])
        return UNROLLED + loop("u", 0, many, [f"const {index} i = first + u * {ITEMS};", inner])

    read, written = packs.names(kernel.inputs, "p"), packs.names(kernel.outputs, "q")
    lines = [f"const {index} first = {dialect.group_id(index=index)} * {ITEMS * many} + {dialect.local_id(0)};"]
    if many > 1:
        lines += [f"{packs.type(operand)} {name}[{many}];" for operand, name in read.items()]
        read = {operand: f"{name}[u]" for operand, name in read.items()}
        lines.append(share([f"{name} = {packs.load(operand, here)};" for operand, name in read.items()]))
        loads = []
    else:
        loads = packs.loads(read, here)
    with emitter.using(read, written):
        body = packs.each(emitter.finish(each), index, "x")
    lines.append(share([*loads, *packs.made(written), body, *packs.stores(written, here)]))
    if rest:
        lines.append(block("if (first == 0)", [loop("e", length - rest, length, emitter.finish([At("e")]), 1, index)]))
    text = block(dialect.kernel(emitter.parameters(), (ITEMS,)), lines)
    return Rendered((Stage(text, (-(-total // (ITEMS * many)),), (ITEMS,), emitter.buffers),), functions.used())
