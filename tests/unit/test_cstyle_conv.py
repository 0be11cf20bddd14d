"""Convolution and its adjoints in generated C for CPUs, run by PoCL: against the oracle, with every kind of lanes."""

import dataclasses

import numpy as np
import pytest
from generated import CPU, build, kernel_of, launch, places, random_values

from minigrad import dtypes
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.conv import render_conv
from minigrad.backends.cstyle.templates.conv_tiles import preferred, tiles
from minigrad.backends.cstyle.templates.conv_weight import render_conv_weight_grad, weight_tiles
from minigrad.kernel import Kernel
from minigrad.primitive import TABLE
from minigrad.shapes import Window
from minigrad.testing.bounds import own_error
from minigrad.testing.evaluate import meaning, widen
from minigrad.view import Block, View

cl = pytest.importorskip("pyopencl")
OPS = ["conv", "conv_input_grad", "conv_weight_grad"]
NUMERIC = [d for d in dtypes.ALL if d is not dtypes.bool_]
MARGIN = 77  # what lies around outputs


@dataclasses.dataclass
class Case:
    kernel: Kernel
    tile: object = None
    target: Target = CPU

    def __post_init__(self):
        weight = self.kernel.op == "conv_weight_grad"
        self.rendered = (render_conv_weight_grad if weight else render_conv)(self.kernel, self.target, self.tile)


# Kernels -------------------------------------------------------------------------------------------------------------


def blocks(shape, axis, size):
    """A view in which an axis lies in blocks."""
    return View.of(shape, (*range(len(shape)), Block(axis, size)))


def shapes_of(op, win, groups, x, filters):
    """Attributes and source shapes of one of the three for an input ``x`` and a number of filters."""
    w = (filters, x[1] // groups, *win.kernel)
    g = TABLE["conv"].shape(TABLE["conv"].attrs(win, groups), x, w)
    if op == "conv_input_grad":
        return (win, groups, x[2:]), (g, w)
    return (win, groups), (x, w) if op == "conv" else (x, g)


def window(rng, sizes, stride=4):
    """Random attributes for an input of ``sizes``."""
    fields = []
    for size in sizes:
        k, d = int(rng.integers(1, 5)), int(rng.integers(1, 3))
        pair = (int(rng.integers(0, 3)), int(rng.integers(0, 3)))
        while size + sum(pair) < d * (k - 1) + 1:
            pair = (pair[0] + 1, pair[1])
        fields.append((k, int(rng.integers(1, stride)), pair, d))
    return Window(*(tuple(f) for f in zip(*fields)))


# Running -------------------------------------------------------------------------------------------------------------


def run(queue, rng, cases):
    """All cases in one program; gives sources, operand of the epilogue and result. Other memory must stay as it is."""
    context = queue.context
    program = build(queue, [case.rendered for case in cases], cases[0].target, ["-w"])
    for n, case in enumerate(cases):
        kernel, found, memory = case.kernel, [], {}
        for operand in kernel.inputs:
            host = random_values(rng, operand.view.span[1] + 1, operand.dtype)
            found.append(host[places(operand.view)])
            memory[operand.buffer] = host
        output = kernel.outputs[0]
        memory[output.buffer] = np.full(output.view.span[1] + 9, MARGIN, output.dtype.numpy)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        held = {b: cl.Buffer(context, flags, hostbuf=host) for b, host in memory.items()}
        launch(queue, program, n, case.rendered, held)
        read, where = np.empty_like(memory[output.buffer]), places(output.view)
        cl.enqueue_copy(queue, read, held[output.buffer])
        around = np.ones(read.shape, bool)
        around[where] = False
        assert (read[around] == MARGIN).all(), f"memory beside the output was written\n{kernel}\n{case.tile}"
        yield case, found, read[where]


def check(queue, rng, cases):
    for case, operands, result in run(queue, rng, cases):
        kernel, dtype = case.kernel, case.kernel.outputs[0].dtype
        op, sources = TABLE[kernel.op], [widen(s, dtype) for s in operands[:2]]
        expected = meaning(op, kernel.attrs, sources)
        error = own_error(op, kernel.attrs, sources, expected, dtype, np.ones(expected.shape, bool))
        if len(operands) == 3:
            with np.errstate(all="ignore"):
                expected = expected + widen(operands[2], dtype)
                expected = np.where(expected < 0, 0, expected).astype(expected.dtype)
            if dtype.is_float:
                error = error + np.abs(expected) * (2.0**-7 if dtype.is_half else 2.0**-23) + 1e-6 * dtype.is_half
        said = "\n".join([f"{kernel}\n{case.tile}", *(stage.text for stage in case.rendered.stages)])
        if not dtype.is_float:
            np.testing.assert_array_equal(result, expected, err_msg=said)
            continue
        wrong = ~(np.abs(result.astype(np.float64) - expected) <= error)
        assert not wrong.any(), f"{said}\n{np.argwhere(wrong)[:5]}: {result[wrong][:5]} not {expected[wrong][:5]}"


# Tests ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("op", OPS)
def test_any_views(queue, op, rank):
    rng = np.random.default_rng(rank)
    cases = []
    for dtype in [dtypes.float32] * 8 + NUMERIC * (rank == 2):
        spatial = tuple(int(n) for n in rng.integers(1, [0, 30, 9, 6][rank], rank))
        groups = int(rng.choice([1, 1, 2, 4]))
        x = (int(rng.integers(1, 5)), groups * int(rng.integers(1, 5)), *spatial)
        filters = groups * int(rng.integers(1, 5))
        attrs, shapes = shapes_of(op, window(rng, spatial), groups, x, filters)
        cases.append(Case(kernel_of(rng, op, attrs, shapes, dtype, epilogue=bool(rng.random() < 0.5))))
    check(queue, rng, cases)


def lying(op, lanes, width):
    """Views for which vectors run along ``lanes``."""
    weight, filters = {"conv": (1, 0), "conv_input_grad": (1, 1), "conv_weight_grad": (2, 0)}[op]

    def views(*shapes):
        found = []
        for n, shape in enumerate(shapes):
            axis = {"n": 0, "f": 1, "w": None, "": None}[lanes]
            if n == weight:
                axis = {"n": None, "f": filters}.get(lanes)
            if axis is not None and shape[axis] % width:
                axis = None
            found.append(View.of(shape) if axis is None else blocks(shape, axis, width))
        return found

    return views


def laned(rng, op, lanes, dtype=dtypes.float32, width=8):
    """A random kernel over blocks, or row-major with the last axis in vectors."""
    spatial = (int(rng.integers(1, 9)), int(rng.integers(1, 24)))
    groups = int(rng.choice([1, 1, 2]))
    depthwise = lanes == "f" and rng.random() < 0.3
    batch = width * int(rng.integers(1, 4)) if lanes == "n" else int(rng.integers(1, 5))
    channels, filters = (groups * width * int(n) if lanes == "f" else groups * int(n) for n in rng.integers(1, 4, 2))
    if depthwise:
        groups = channels = filters = 16
    win = window(rng, spatial, 2 if lanes == "w" else 4)
    attrs, shapes = shapes_of(op, win, groups, (batch, channels, *spatial), filters)
    return kernel_of(rng, op, attrs, shapes, dtype, lying(op, lanes, width), bool(rng.random() < 0.5))


def candidates(kernel, lanes):
    found = (weight_tiles if kernel.op == "conv_weight_grad" else tiles)(kernel, CPU)
    return [t for t in found if t.lanes == lanes]


@pytest.mark.parametrize("lanes", ["n", "f", "w", ""])
@pytest.mark.parametrize("op", OPS)
def test_lanes_and_tiles(queue, op, lanes):
    rng = np.random.default_rng(len(op) + len(lanes))
    cases = []
    while len(cases) < 14:
        kernel = laned(rng, op, lanes, width=int(rng.choice([4, 8, 8])))
        found = candidates(kernel, lanes)
        if found:
            tile = found[int(rng.integers(len(found)))] if len(cases) % 2 else found[0]
            cases.append(Case(kernel, tile, dataclasses.replace(CPU, cores=int(rng.choice([1, 16])))))
    check(queue, rng, cases)


@pytest.mark.parametrize("op", OPS)
def test_dtypes_in_lanes(queue, op):
    rng = np.random.default_rng(5)
    cases = [Case(laned(rng, op, "nf"[n % 2], dtype)) for n, dtype in enumerate(NUMERIC * 2)]
    check(queue, rng, cases)


def many_cores(op, x, filters, kernel, views):
    """A kernel for a machine with more cores than there are filters and channels to share out."""
    rng = np.random.default_rng(0)
    attrs, shapes = shapes_of(op, Window((kernel,) * 2, (1, 1), ((1, 1),) * 2, (1, 1)), 1, x, filters)
    return Case(kernel_of(rng, op, attrs, shapes, dtypes.float32, views), None, dataclasses.replace(CPU, cores=64))


def test_partial_sums(queue):
    """The weight gradient splits images and rows where there are too few tasks, and adds up in a second launch."""
    op = "conv_weight_grad"
    cases = [
        many_cores(op, (16, 3, 40, 40), 5, 3, lying(op, "n", 8)),
        many_cores(op, (3, 8, 50, 31), 16, 3, lying(op, "f", 8)),
        many_cores(op, (2, 2, 70, 50), 3, 5, None),
    ]
    assert all(len(case.rendered.stages) == 2 and case.rendered.scratch for case in cases)
    check(queue, np.random.default_rng(1), cases)


def test_long_kernels(queue):
    """More taps or phases of the last axis than are written out."""
    rng = np.random.default_rng(2)
    cases = []
    for op in OPS:
        for win in (Window((40,), (3,), ((7, 9),), (1,)), Window((3, 20), (1, 19), ((1, 1), (30, 2)), (1, 2))):
            spatial = (5, 60)[-win.rank :]
            attrs, shapes = shapes_of(op, win, 1, (8, 8, *spatial), 16)
            for lanes in "nf":
                cases.append(Case(kernel_of(rng, op, attrs, shapes, dtypes.float32, lying(op, lanes, 8))))
    check(queue, rng, cases)


@pytest.mark.parametrize("op", OPS)
def test_empty_axes(queue, op):
    rng = np.random.default_rng(3)
    win = Window((3, 3), (1, 1), ((1, 2), (2, 1)), (1, 1))
    cases = []
    for x, filters in [((0, 3, 4, 4), 2), ((2, 0, 4, 4), 3), ((2, 3, 4, 4), 0), ((2, 3, 0, 4), 2), ((2, 3, 4, 0), 2)]:
        attrs, shapes = shapes_of(op, win, 1, x, filters)
        cases.append(Case(kernel_of(rng, op, attrs, shapes, dtypes.float32)))
        assert bool(cases[-1].rendered.stages) == (0 not in cases[-1].kernel.core_shapes[0])
    check(queue, rng, cases)


def far(*shapes):
    """Views whose first axis takes giant steps."""
    return [View(shape, (2**30, *View.of(shape).strides[1:])) for shape in shapes]


def test_indices_of_64_bits():
    """Where a view reaches beyond an int, addresses are long."""
    for op, render in zip(OPS, [render_conv, render_conv, render_conv_weight_grad]):
        attrs, shapes = shapes_of(op, Window((3, 3), (1, 1), ((1, 1),) * 2, (1, 1)), 1, (2, 3, 4, 4), 2)
        kernel = kernel_of(np.random.default_rng(4), op, attrs, shapes, dtypes.float32, far)
        text = render(kernel, CPU).stages[0].text
        assert "const long x0" in text and "1073741824L" in text and "const int x0" not in text


def wishes(op, x, filters, kernel=3, stride=1, groups=1):
    pad = kernel // 2 if kernel > 1 and x[2] > kernel else 0
    attrs, shapes = shapes_of(op, Window((kernel,) * 2, (stride,) * 2, ((pad, pad),) * 2, (1, 1)), groups, x, filters)
    attrs = TABLE[op].attrs(*attrs)
    return preferred(op, attrs, [TABLE[op].shape(attrs, *shapes), *shapes], CPU)


def test_preferred_orders():
    images, channels = (0, 1, 2, 3, Block(0, 8)), (0, 1, 2, 3, Block(1, 8))
    # LeNet: blocks of images throughout, also where its last convolution has enough channels.
    for x, filters, kernel in [((128, 1, 28, 28), 6, 5), ((128, 6, 14, 14), 16, 5), ((128, 16, 5, 5), 120, 5)]:
        assert wishes("conv", x, filters, kernel) == [images, images, ()]
        assert wishes("conv_input_grad", x, filters, kernel) == [images, images, ()]
        assert wishes("conv_weight_grad", x, filters, kernel) == [(), images, images]
    # Many channels: blocks of them, the weights as vectors of filters.
    assert wishes("conv", (4, 64, 56, 56), 128) == [channels, channels, (0, 2, 3, 1, Block(0, 8))]
    assert wishes("conv_input_grad", (4, 64, 56, 56), 128) == [channels, channels, (1, 2, 3, 0, Block(1, 8))]
    assert wishes("conv_weight_grad", (128, 64, 56, 56), 128) == [(), channels, channels]
    assert wishes("conv", (4, 3, 224, 224), 64, 7, 2) == [channels, (), (0, 2, 3, 1, Block(0, 8))]
    assert wishes("conv", (4, 32, 14, 14), 32, groups=32) == [channels, channels, (0, 2, 3, 1, Block(0, 8))]
    # Neither: what divides best, or nothing.
    assert wishes("conv", (1, 12, 9, 9), 20) == [
        (0, 1, 2, 3, Block(1, 4)), (0, 1, 2, 3, Block(1, 4)), (0, 2, 3, 1, Block(0, 4)),
    ]  # fmt: skip
    assert wishes("conv", (1, 6, 14, 14), 16) is None
