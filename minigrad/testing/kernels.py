"""Kernels as graphs for the oracle: what a launch should make of its buffers, and how far it may be from that.

A kernel is read naively: every address is computed, loads become leaves of given value, and each line of the bodies and
the core becomes a node. :func:`minigrad.testing.bounds.bounded` then says what is right, as for any other graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from minigrad.dtypes import DType
from minigrad.errors import VerifyError
from minigrad.graph import Node, apply, create, project, set_grad_enabled
from minigrad.kernel import MAP, Body, Instr, Kernel, Operand
from minigrad.primitive import TABLE
from minigrad.shapes import Shape
from minigrad.testing.bounds import Bounded, Comparison, OutOfBound, bounded, compare, exact
from minigrad.testing.evaluate import Array
from minigrad.view import View


def addresses(view: View) -> tuple[Array, Array]:
    """The buffer element that each element of ``view`` is, and whether it is inside the bounds."""
    index, inside = np.array(view.offset), np.array(True)
    for axis, (n, stride) in enumerate(zip(view.shape, view.strides)):
        i = np.arange(n)
        size, outer = (0, 0) if view.blocks is None else view.blocks[axis]
        low, high = (0, n) if view.bounds is None else view.bounds[axis]
        index = np.add.outer(index, i // size * outer + i % size * stride if size else i * stride)
        inside = np.logical_and.outer(inside, (low <= i) & (i < high))
    return index, inside


def shown(view: View, flat: Array) -> Array:
    """What ``view`` shows of a buffer, element by element.

    Raises:
        VerifyError: if that is more than the buffer has.
    """
    index, inside = addresses(view)
    out = np.full(view.shape, view.fill).astype(flat.dtype)
    if inside.any():
        used = index[inside]
        if used.min() < 0 or used.max() >= flat.size:
            raise VerifyError.of("load", f"elements 0 to {flat.size - 1}", f"{used.min()} to {used.max()} of {view}")
        out[inside] = flat[used]
    return out


def elements(memory: Array, dtype: DType) -> Array:
    """A buffer, of any dtype, seen as elements of ``dtype``."""
    data = memory.view(np.uint8)
    return data[: data.size // dtype.itemsize * dtype.itemsize].view(dtype.numpy)


class _Reader:
    """Makes the nodes of one launch."""

    def __init__(self, kernel: Kernel, memory: Sequence[Array], device: str) -> None:
        self.kernel, self.memory, self.device = kernel, memory, device
        self.given: dict[Node, Bounded] = {}

    def leaf(self, array: Array, dtype: DType) -> Node:
        """A node of known value; ``array`` has ``dtype``."""
        op = TABLE["buffer"]
        node = Node(op, (), op.attrs(), array.shape, dtype, self.device)
        self.given[node] = exact(array, node)
        return node

    def line(self, line: Instr, before: Sequence[Node], core: Sequence[Node]) -> Node:
        op, args, attr, dtype = line
        if op == "load":
            operand: Operand = self.kernel.inputs[attr]
            return self.leaf(shown(operand.view, elements(self.memory[operand.buffer], dtype)), dtype)
        if op == "const":
            value = math.copysign(*attr) if dtype.is_float else attr[0]
            return create("const", self.device, value=value, sign=attr[1], dtype=dtype)
        if op in ("iota", "inside"):
            return self.leaf(addresses(attr)[op == "inside"].astype(dtype.numpy), dtype)
        if op == "core":
            output: Node = core[attr]
            return output
        return apply(op, *(before[a] for a in args), **({"dtype": attr} if op == "cast" else {}))

    def body(self, body: Body, core: Sequence[Node] = ()) -> list[Node]:
        nodes: list[Node] = []
        for line in body:
            nodes.append(self.line(line, nodes, core))
        return nodes

    def core(self) -> list[Node]:
        """Its outputs, the first in the shape of the epilogue."""
        kernel = self.kernel
        if kernel.op == MAP:
            return []
        lines = self.body(kernel.prologue)
        sources = [lines[n].expand(shape) for n, shape in zip(kernel.sources, kernel.source_shapes)]
        node = apply(kernel.op, *sources, **kernel.attrs._asdict())
        outputs = [project(node, n) for n in range(node.op.outputs)] if node.op.outputs > 1 else [node]
        shapes = tuple(output.shape for output in outputs)
        if shapes != kernel.core_shapes:
            raise VerifyError.of(f"kernel {kernel.name}", f"outputs of shape {shapes}", kernel.core_shapes)
        return [o.reshape(kernel.space) if o.shape == kernel.core_shapes[0] else o for o in outputs]

    def stores(self) -> list[Node]:
        """What goes to each output view."""
        lines = self.body(self.kernel.epilogue, self.core())
        return [lines[line].expand(self.kernel.outputs[output].view.shape) for line, output in self.kernel.stores]


def expected(kernel: Kernel, memory: Sequence[Array], device: str) -> list[Bounded]:
    """What ``kernel`` should store, and how far from it a correct device may be: one entry per store.

    Args:
        kernel: what is launched.
        memory: the contents of its buffers before, each as a flat array.
        device: the name of the device that runs it: whether denormal numbers may count as 0 depends on it.

    Raises:
        VerifyError: if the kernel contradicts itself, or reads beyond its buffers.
    """
    with set_grad_enabled(False):
        reader = _Reader(kernel, memory, device)
        return bounded(reader.stores(), reader.given)


def compare_stores(kernel: Kernel, before: Sequence[Array], after: Sequence[Array], device: str) -> list[Comparison]:
    """Compare what a launch stored with the oracle, one comparison per store, and look at what it should leave alone.

    Args:
        kernel: what was launched.
        before: the contents of its buffers before, each as a flat array.
        after: the contents after.
        device: where it ran.

    Raises:
        OutOfBound: if a store is further from the oracle than it may be, or memory that is not stored to has changed.
        VerifyError: as :func:`expected`.
    """
    found = []
    written = [np.zeros(memory.nbytes, np.bool_) for memory in before]
    for (line, output), bound in zip(kernel.stores, expected(kernel, before, device)):
        buffer, dtype, view = kernel.outputs[output]
        what = _stored(kernel, line)
        got = shown(view, elements(after[buffer], dtype))
        found.append(compare(got, bound, dtype, what))
        size = dtype.itemsize
        stored = written[buffer][: before[buffer].nbytes // size * size].reshape(-1, size)
        stored[addresses(view)[0].ravel()] = True
    for buffer, mask in enumerate(written):
        changed = (before[buffer].view(np.uint8) != after[buffer].view(np.uint8)) & ~mask
        if changed.any():
            where = f"byte {np.flatnonzero(changed)[0]} of {mask.size} of buffer {buffer}"
            text = f"{kernel.name}: {where} has changed, to which nothing is stored ({np.count_nonzero(changed)} have)"
            raise OutOfBound(text, Comparison(math.inf, 0, 0))
    return found


def _stored(kernel: Kernel, line: int) -> str:
    """What a store is called: the kernel, and the operation that made the value if that is not the last one."""
    op = kernel.epilogue[line].op
    made = kernel.op if op == "core" else op
    return kernel.name if len(kernel.stores) == 1 or made == kernel.name else f"{kernel.name}, the store of {made}"


def extent(kernel: Kernel, buffer: int) -> tuple[DType, int]:
    """The dtype of a buffer's elements, and how many of them the kernel knows of."""
    operands = [o for o in (*kernel.inputs, *kernel.outputs) if o.buffer == buffer]
    last = 0
    for operand in operands:
        index, inside = addresses(operand.view)
        last = max(last, int(index[inside].max(initial=-1)) + 1)
    return operands[0].dtype, last


def without_blocks(kernel: Kernel, memory: Sequence[Array]) -> tuple[Kernel, list[Array]]:
    """The same kernel for backends that know no blocks: its operands lie row-major, each in a buffer of its own.

    Returns:
        The kernel and the contents of its buffers; both as they are where nothing lies in blocks.
    """
    operands = [*kernel.inputs, *kernel.outputs]
    if all(operand.view.blocks is None for operand in operands):
        return kernel, list(memory)
    arrays = [shown(o.view, elements(memory[o.buffer], o.dtype)).ravel() for o in operands]
    plain = [Operand(n, o.dtype, View.of(o.view.shape)) for n, o in enumerate(operands)]
    inputs, outputs = tuple(plain[: len(kernel.inputs)]), tuple(plain[len(kernel.inputs) :])
    return replace(kernel, inputs=inputs, outputs=outputs, buffers=len(plain)), arrays


def shape_of(kernel: Kernel) -> Shape:
    """The shape that stands for a kernel in a table: that of what it stores first."""
    return kernel.outputs[kernel.stores[0][1]].view.shape
