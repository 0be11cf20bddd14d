"""A whole backend on three pages: kernels interpreted with plain NumPy, memory as arrays of bytes."""
# ruff: noqa: D102 (the contract, minigrad.backends.base, says what the methods do)

from math import prod

import numpy as np

from minigrad import dtypes
from minigrad.backends.base import Backend, Capabilities, Program
from minigrad.errors import OutOfMemory
from minigrad.kernel import MAP


# Elementwise primitives: functions of their sources.
def _threefry(k0, k1, c0, c1):  # random bits that are the same on every backend (Salmon et al., 2011)
    keys, x, y = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA)), c0 + k0, c1 + k1
    for i, turn in enumerate(np.array([13, 15, 26, 6, 17, 29, 16, 24] * 3, np.uint32)[:20]):
        x = x + y
        y = (y << turn | y >> (np.uint32(32) - turn)) ^ x
        if i % 4 == 3:
            x, y = x + keys[(i // 4 + 1) % 3], y + keys[(i // 4 + 2) % 3] + np.uint32(i // 4 + 1)
    return x


ALIKE = """abs sign exp expm1 log log1p sqrt reciprocal sin cos tanh floor ceil trunc isnan isfinite logical_not add
mod maximum minimum bitwise_and bitwise_or bitwise_xor where"""
ELEMENTWISE = {name: getattr(np, name) for name in ALIKE.split()} | {
    "copy": np.array, "cast": np.array, "neg": np.negative, "round": np.rint, "bitwise_not": np.invert,
    "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "floordiv": np.floor_divide, "atan2": np.arctan2,
    "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal, "shift_left": np.left_shift,
    "shift_right": np.right_shift, "relu": lambda x: np.maximum(x, 0), "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "threefry": _threefry,
    "pow": lambda x, y: np.where(y < 0, (np.abs(x) == 1) * np.power(x, y & 1), np.power(x, np.maximum(y, 0)))
    if x.dtype.kind == "i" else np.power(x, np.stack(2 * np.broadcast_arrays(x, y)[1:]))[0],  # one 1/2 would be a root
}  # fmt: skip


# Cores: functions of their attributes and sources. Floats come as float64, so that sums lose nothing.
def _under(window, spatial):  # the input position under each tap of each window: (outputs, taps), -1 in the padding
    index = np.zeros((1, 1), np.int64)
    outputs = window.output_size("window", spatial)
    for n, count, kernel, stride, (before, _), dilation in zip(spatial, outputs, *window[:4]):
        p = np.add.outer(stride * np.arange(count) - before, dilation * np.arange(kernel))
        p = np.where((p >= 0) & (p < n), p, -(2**40))
        index = (index[:, None, :, None] * n + p[:, None]).reshape(len(index) * count, -1)
    return np.maximum(index, -1)


def _split(x, axis, groups=1):  # the channels, along ``axis``, in groups; the spatial axes as one
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 : 2], prod(x.shape[2:]))


def _gather(a, x, groups=1, fill=0):  # what is under each tap: (N, G, C / G, outputs, taps)
    return np.insert(_split(x, 1, groups), prod(x.shape[2:]), fill, -1)[..., _under(a.window, x.shape[2:])]


def _spread(a, values):  # the adjoint: each tap is added onto the position under it
    out = np.zeros((*values.shape[:-2], prod(a.spatial) + 1), values.dtype)
    for tap, index in enumerate(_under(a.window, a.spatial).T):
        out[..., index] += values[..., tap]  # within one tap only the padding, dropped below, comes twice
    return out[..., :-1]


def _max_pool(a, x):  # the first NaN, else the first maximum; padding never wins
    taps, inside = _gather(a, x, 1, dtypes.as_dtype(x.dtype).min), _under(a.window, x.shape[2:]) >= 0
    return taps.max(-1), np.argmax(inside & ((taps == taps.max(-1, keepdims=True)) | (taps != taps)), -1)


REDUCTIONS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
CORES = {n: lambda a, x, f=f: f.reduce(x, a.axes, x.dtype, keepdims=True) for n, f in REDUCTIONS.items()} | {
    "argmax": lambda a, x: np.argmax(x, a.axis), "argmin": lambda a, x: np.argmin(x, a.axis),
    "matmul": lambda a, x, y: x @ y, "max_pool": _max_pool,
    "window_gather": lambda a, x, tap: np.take_along_axis(_gather(a, x), _split(tap, 1)[..., None].astype(int), -1),
    "window_scatter": lambda a, g, tap: _spread(
        a, np.where(_split(tap, 1)[..., None] == np.arange(prod(a.window.kernel)), _split(g, 1)[..., None], 0)),
    "conv": lambda a, x, w: np.einsum("ngcpt,gkct->ngkp", _gather(a, x, a.groups), _split(w, 0, a.groups)),
    "conv_weight_grad": lambda a, x, g: np.einsum("ngcpt,ngkp->gkct", _gather(a, x, a.groups), _split(g, 1, a.groups)),
    "conv_input_grad": lambda a, g, w: _spread(
        a, np.einsum("ngkp,gkct->ngcpt", _split(g, 1, a.groups), _split(w, 0, a.groups))),
}  # fmt: skip


def _addresses(view):  # where in memory each element of a view is, and whether that is within the view's bounds
    axes = np.indices(view.shape, sparse=True)
    inside = np.ones(view.shape, bool)
    for i, (low, high) in zip(axes, view.bounds or ()):
        inside &= (low <= i) & (i < high)
    return view.offset + sum((i * stride for i, stride in zip(axes, view.strides)), np.zeros(view.shape, int)), inside


class Interpreted(Program):
    """A kernel: the lines of its prologue, its core, the lines of its epilogue, its stores."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __call__(self, buffers):
        kernel, core = self.kernel, ()
        with np.errstate(all="ignore"):
            if kernel.op != MAP:
                lines = self._lines(kernel.prologue, buffers)
                sources = [np.broadcast_to(lines[n], shape) for n, shape in zip(kernel.sources, kernel.source_shapes)]
                sources = [s.astype(np.float64) if s.dtype == np.float32 else s for s in sources]
                core = CORES[kernel.op](kernel.attrs, *sources)
            lines = self._lines(kernel.epilogue, buffers, core if isinstance(core, tuple) else (core,))
        for line, output in kernel.stores:
            operand = kernel.outputs[output]
            buffers[operand.buffer].view(operand.dtype.numpy)[_addresses(operand.view)[0]] = lines[line]

    def _lines(self, body, buffers, core=()):
        values = []
        for op, args, attr, dtype in body:
            if op == "load":
                buffer, _, view = self.kernel.inputs[attr]
                address, inside = _addresses(view)
                flat = buffers[buffer].view(dtype.numpy)
                value = np.where(inside, flat[address * inside], dtype.numpy.type(view.fill))
            elif op in ("iota", "inside"):
                address, inside = _addresses(attr)
                value = inside if op == "inside" else np.where(inside, address, attr.fill)
            elif op == "core":
                value = core[attr].reshape(self.kernel.space)
            else:
                value = attr[0] if op == "const" else ELEMENTWISE[op](*(values[a] for a in args))
            values.append(np.asarray(value).astype(dtype.numpy))
        return values


class PlainBackend(Backend):
    """It says what it does not have, half types and some primitives: the engine then refuses them by name."""

    name, survives_fork = "plain", True
    unsupported = frozenset(("erf", "sort", "cumsum", "take", "scatter", "avg_pool", "avg_pool_grad"))
    capabilities = Capabilities(frozenset(dtypes.ALL) - {dtypes.float16, dtypes.bfloat16}, unsupported=unsupported)

    def allocate(self, nbytes):
        try:
            return np.empty(nbytes, np.uint8)
        except MemoryError as error:
            raise OutOfMemory.of("allocate", f"{nbytes} bytes of free memory", "none left") from error

    def copy_in(self, memory, array):
        memory[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def copy_out(self, memory, array, offset=0):
        array.reshape(-1).view(np.uint8)[:] = memory[offset : offset + array.nbytes]

    def lower(self, kernel):
        return Interpreted(kernel)
