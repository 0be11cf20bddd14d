"""A second reading of kernels, naive on purpose: every address is computed, cores are the reference.

Memory is flat arrays, floats in float64. Nothing is shared with a backend but the definitions in ``minigrad.kernel``.
"""

import math

import numpy as np

from minigrad.kernel import MAP, verify
from minigrad.primitive import TABLE, Kind
from minigrad.testing.evaluate import meaning, stored
from minigrad.testing.kernels import addresses, shown
from minigrad.view import View


def dtype_in_memory(dtype):
    """How elements of ``dtype`` are kept here."""
    return np.dtype(np.float64) if dtype.is_float else dtype.numpy


def _lines(kernel, body, memory, core):
    values = []
    for op, args, attr, dtype in body:
        if op == "load":
            operand = kernel.inputs[attr]
            value = shown(operand.view, memory[operand.buffer])
        elif op == "const":
            value = np.array(np.copysign(*attr) if dtype.is_float else attr[0]).astype(dtype.numpy)
        elif op == "iota":
            value = addresses(attr)[0]
        elif op == "inside":
            value = addresses(attr)[1]
        elif op == "core":
            value = core[attr]
        else:
            attrs = TABLE[op].attrs(*[attr] * (op == "cast"))
            value = meaning(TABLE[op], attrs, [values[a] for a in args])
        values.append(stored(np.asarray(value, dtype_in_memory(dtype)), dtype))
    return values


def run(kernel, memory):
    """Do what ``kernel`` says on flat arrays, one for each of its buffers."""
    core = []
    if kernel.op != MAP:
        lines = _lines(kernel, kernel.prologue, memory, [])
        sources = [np.broadcast_to(lines[n], shape) for n, shape in zip(kernel.sources, kernel.source_shapes)]
        found = meaning(TABLE[kernel.op], kernel.attrs, [np.array(s, order="C") for s in sources])
        core = list(found) if isinstance(found, tuple) else [found]
        assert tuple(c.shape for c in core) == kernel.core_shapes
        core = [c.reshape(kernel.space) if c.shape == kernel.core_shapes[0] else c for c in core]
    lines = _lines(kernel, kernel.epilogue, memory, core)
    for line, output in kernel.stores:
        operand = kernel.outputs[output]
        index, inside = addresses(operand.view)
        assert inside.all() and np.unique(index).size == index.size, "an element is stored twice"
        memory[operand.buffer][index] = lines[line]


def run_all(laid, inputs, seen_as=lambda kernel: kernel):
    """The values that ``laid`` computes, by number, as row-major arrays; ``inputs`` are those given.

    Each kernel is run as ``seen_as`` turns it.
    """
    views = {v: View.of(shape, laid.orders[v]) for v, shape in laid.shapes.items()}
    memory = {}
    for v, view in views.items():
        memory[v] = np.zeros(math.prod(view.shape), dtype_in_memory(laid.dtypes[v]))
        if v in inputs:
            memory[v][addresses(view)[0]] = inputs[v]
    for kernel, values in laid.launches:
        kernel = seen_as(kernel)
        verify(kernel)
        run(kernel, [memory[v] for v in values])
    return {v: shown(view, memory[v]) for v, view in views.items()}


def folded(values, arrays):
    """The oracle's values of a simplified graph."""
    found = []
    for value in values:
        sources = [found[s] for s in value.sources]
        if value.op.name == "buffer":
            found.append(arrays[value.attrs[0]])
        elif value.op.kind is Kind.IDENTITY:
            found.append(sources[0])
        else:
            out = meaning(value.op, value.attrs, sources)
            found.append(out if isinstance(out, tuple) else np.array(stored(out, value.dtype), order="C"))
    return found
