"""Contractions in tiles of local memory, as for GPUs, run by PoCL: against the oracle, and the text of the kernels."""

import dataclasses
import re

import numpy as np
import pytest
from generated import GPU as TARGET
from generated import build, kernel_of, launch, places, random_values

from minigrad import dtypes
from minigrad.backends.cstyle.dialect import OPENCL
from minigrad.backends.cstyle.render import render
from minigrad.backends.cstyle.source import Rendered
from minigrad.backends.cstyle.templates import tiled_choice
from minigrad.backends.cstyle.templates.tiled import render_tiled
from minigrad.backends.cstyle.templates.tiled_choice import DIRECT, TILES, Tile, tiles
from minigrad.kernel import Kernel
from minigrad.primitive import TABLE
from minigrad.shapes import Window
from minigrad.testing.bounds import own_error
from minigrad.testing.evaluate import meaning, widen
from minigrad.view import View

cl = pytest.importorskip("pyopencl")
SMALL = [
    DIRECT,
    Tile(4, 4, 2, 2, 4),
    Tile(2, 8, 4, 1, 8),
    Tile(1, 16, 1, 2, 4),
    Tile(16, 1, 2, 1, 8),
    Tile(8, 2, 1, 1, 2),
]


@dataclasses.dataclass
class Case:
    kernel: Kernel
    sources: list
    extra: np.ndarray | None  # what the epilogue adds before its relu
    rendered: Rendered


def row_major(*shapes):
    return [View.of(shape) for shape in shapes]


def case_of(rng, kernel, target, tile):
    sources = [random_values(rng, shape, kernel.outputs[0].dtype) for shape in kernel.source_shapes]
    extra = None
    if kernel.buffers == 4:
        view = kernel.inputs[2].view
        extra = np.empty(view.shape, kernel.inputs[2].dtype.numpy)
        bits = random_values(rng, int(places(view).max(initial=-1)) + 1, kernel.inputs[2].dtype)
        extra[...] = bits[places(view)] if bits.size else 0
    return Case(kernel, sources, extra, render_tiled(kernel, target, tile))


def run(queue, cases):
    """The outputs of cases. Memory around what is written must stay as it is."""
    context, results = queue.context, []
    # Without optimisation: several times as fast to compile.
    program = build(queue, [case.rendered for case in cases], TARGET, ["-w", "-cl-opt-disable"])
    for n, case in enumerate(cases):
        kernel = case.kernel
        operands = [(o, v) for o, v in zip(kernel.inputs, [*case.sources, case.extra])]
        memory = {}
        for operand, values in [*operands, (kernel.outputs[0], None)]:
            where = places(operand.view)
            host = np.full(int(where.max(initial=0)) + 9, 77, operand.dtype.numpy)
            if values is not None:
                host[where] = values
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
            memory[operand.buffer] = (host, cl.Buffer(context, flags, hostbuf=host))
        launch(queue, program, n, case.rendered, {b: buffer for b, (_, buffer) in memory.items()})
        host, buffer = memory[kernel.outputs[0].buffer]
        read, where = np.empty_like(host), places(kernel.outputs[0].view)
        cl.enqueue_copy(queue, read, buffer)
        around = np.ones(read.shape, bool)
        around[where] = False
        assert (read[around] == 77).all(), "memory beside the output was written"
        results.append(read[where])
    return results


def verify_case(case, result):
    kernel, dtype = case.kernel, case.kernel.outputs[0].dtype
    op, sources = TABLE[kernel.op], [widen(s, dtype) for s in case.sources]
    expected = meaning(op, kernel.attrs, sources)
    error = own_error(op, kernel.attrs, sources, expected, dtype, np.ones(expected.shape, bool))
    if case.extra is not None:
        with np.errstate(all="ignore"):
            expected = expected + widen(case.extra, dtype)
            expected = np.where(expected < 0, 0, expected).astype(expected.dtype)
        if dtype.is_float:
            error = error + np.abs(expected) * (2.0**-7 if dtype.is_half else 2.0**-23) + 1e-6 * dtype.is_half
    if not dtype.is_float:
        np.testing.assert_array_equal(result, expected, err_msg=str(kernel))
        return
    got = result.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected), err_msg=str(kernel))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite], err_msg=str(kernel))
    with np.errstate(invalid="ignore"):
        wrong = finite & ~(np.abs(got - expected) <= error)
    assert not wrong.any(), f"{kernel}\n{got[wrong][:5]} instead of {expected[wrong][:5]} +- {error[wrong][:5]}"


def check(queue, cases):
    for case, result in zip(cases, run(queue, cases)):
        verify_case(case, result)
        for stage in case.rendered.stages:
            check_text(stage.text)


def check_text(text):
    """A barrier stands at the top of the loop over rounds, which all items of a group go through alike."""
    kernel = text[text.index("__kernel") :]
    assert "return" not in kernel
    around = []  # blocks that are open
    for line in kernel.split("\n"):
        if line.strip() == OPENCL.barrier:
            rounds = r"for \((int|long) next = (first|0); next < (last|\d+) \+ \d+; next \+= \d+\) {"
            assert len(around) == 2 and re.fullmatch(rounds, around[1]), around
        if line.endswith("{"):
            around.append(line.strip())
        if line.strip().startswith("}"):
            around.pop()
    assert not around


def window(rng, rank, sizes):
    """Random attributes for an input of ``sizes``."""
    kernel, stride, padding, dilation = [], [], [], []
    for size in sizes:
        k, d = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        pair = (int(rng.integers(0, 3)), int(rng.integers(0, 3)))
        while size + sum(pair) < d * (k - 1) + 1:
            pair = (pair[0] + 1, pair[1])
        kernel.append(k)
        dilation.append(d)
        padding.append(pair)
        stride.append(int(rng.integers(1, 4)))
    return Window(tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))


def random_conv(rng, op):
    rank = int(rng.choice([1, 2, 2, 3]))
    spatial = tuple(int(n) for n in rng.integers(1, [0, 30, 9, 6][rank], rank))
    win, groups = window(rng, rank, spatial), int(rng.choice([1, 1, 2, 4]))
    c, k = groups * int(rng.integers(1, 5)), groups * int(rng.integers(1, 5))
    x, w = (int(rng.integers(1, 4)), c, *spatial), (k, c // groups, *win.kernel)
    g = TABLE["conv"].shape(TABLE["conv"].attrs(win, groups), x, w)
    if op == "conv_input_grad":
        return (win, groups, spatial), (g, w)
    return (win, groups), (x, w) if op == "conv" else (x, g)


def random_matmul(rng):
    m, n, k = (int(i) for i in rng.integers(1, 20, 3))
    lead = tuple(int(i) for i in rng.integers(1, 4, int(rng.integers(0, 3))))
    mine = [tuple(i if rng.random() < 0.6 else 1 for i in lead)[int(rng.integers(0, len(lead) + 1)) :] for _ in "ab"]
    return (), ((*mine[0], m, k), (*mine[1], k, n))


def attributes(rng, op):
    return random_matmul(rng) if op == "matmul" else random_conv(rng, op)


OPS = ("matmul", "conv", "conv_input_grad", "conv_weight_grad")
SOME = [dtypes.float32] * 5 + [dtypes.float16, dtypes.bfloat16, dtypes.float64]


@pytest.fixture
def short_shares(monkeypatch):
    """Few terms are worth a group of their own."""
    monkeypatch.setattr(tiled_choice, "SHARE", 8)


@pytest.mark.parametrize("op", OPS)
def test_random(queue, short_shares, op):
    """Shapes, windows, groups, layouts, dtypes and tiles; on many cores sums are shared."""
    rng = np.random.default_rng(sum(map(ord, op)))
    cases = []
    for n, dtype in enumerate([*SOME, *SOME, *dtypes.INTEGERS[OPS.index(op) :: 4]]):
        kernel = kernel_of(rng, op, *attributes(rng, op), dtype, epilogue=n % 2 == 0)
        target = dataclasses.replace(TARGET, cores=64 if n % 3 else 1)
        cases.append(case_of(rng, kernel, target, SMALL[n % len(SMALL)]))
    check(queue, cases)
    assert any(len(case.rendered.stages) == 2 for case in cases)


WINDOW = Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 2))
NAMED = {
    "matmul": ((), ((3, 1, 5, 7), (2, 7, 6))),
    "conv": ((WINDOW, 2), ((2, 4, 7, 6), (6, 2, 3, 2))),
    "conv_input_grad": ((WINDOW, 2, (7, 6)), ((2, 6, 4, 5), (6, 2, 3, 2))),
    "conv_weight_grad": ((WINDOW, 2), ((2, 4, 7, 6), (2, 6, 4, 5))),
}


def test_infinities_and_nans(queue, short_shares):
    """Zeros stand for elements in the padding as in the oracle; terms that do not exist are no terms."""
    rng, cases = np.random.default_rng(0), []
    for op in (*NAMED, "conv_input_grad", "conv_input_grad"):
        kernel = kernel_of(rng, op, *NAMED[op], dtypes.float32)
        target = dataclasses.replace(TARGET, cores=64 if len(cases) == 5 else 1)
        case = case_of(rng, kernel, target, DIRECT if len(cases) == 4 else SMALL[1])
        for source in case.sources:
            flat = source.reshape(-1)
            flat[rng.choice(flat.size, 3, replace=False)] = [np.inf, -np.inf, np.nan]
        cases.append(case)
    check(queue, cases)


def test_chosen_tiles(queue):
    """What `render` gives for a GPU, with row-major operands. Sums of no terms are zeros."""
    rng, cases = np.random.default_rng(0), []
    shapes = {op: ((), given) if op == "matmul" else (attrs, given) for op, (attrs, given) in NAMED.items()}
    for op, (attrs, given) in shapes.items():
        kernel = kernel_of(rng, op, attrs, given, dtypes.float32, row_major)
        case = case_of(rng, kernel, TARGET, TILES[5])
        case.rendered = render(kernel, TARGET)
        cases.append(case)
    cases.append(case_of(rng, kernel_of(rng, "matmul", (), ((3, 0), (0, 4)), dtypes.float32), TARGET, TILES[5]))
    check(queue, cases)
    nothing = kernel_of(rng, "matmul", (), ((0, 3), (3, 4)), dtypes.float32)
    assert render(nothing, TARGET).stages == ()


def test_source_of_the_shape_of_the_output_without_its_axes_of_size_1(queue):
    """The epilogue's space is (4, 4), and so is the shape of one source: it stays as it is."""
    rng = np.random.default_rng(0)
    kernel = kernel_of(rng, "matmul", (), ((4, 4), (1, 4, 4)), dtypes.float32, epilogue=False)
    case = case_of(rng, kernel, TARGET, SMALL[1])
    squeezed = kernel.outputs[0].view.moved("reshape", ((4, 4),))
    output = kernel.outputs[0]._replace(view=squeezed)
    case.rendered = render(dataclasses.replace(kernel, space=(4, 4), outputs=(output,)), TARGET)
    check(queue, [case])


def test_wide_addresses_compile(queue):
    """Views beyond 2**31 elements: all positions are 64 bits wide."""
    rng = np.random.default_rng(0)
    cases = []
    for op, (attrs, given) in NAMED.items():
        views = row_major(*given, TABLE[op].shape(TABLE[op].attrs(*attrs), *given))
        views[0] = views[0]._replace(strides=(2**30, *views[0].strides[1:]))
        kernel = kernel_of(rng, op, attrs, given, dtypes.int8, lambda *_, views=views: views, epilogue=False)
        rendered = render_tiled(kernel, TARGET, SMALL[1])
        assert "const long group" in rendered.stages[0].text
        assert re.search(r"\* 1073741824L", rendered.stages[0].text)
        cases.append(Case(kernel, [], None, rendered))
    build(queue, [case.rendered for case in cases], TARGET, ["-w", "-cl-opt-disable"])


def test_tiles_fit_and_are_ordered_by_need():
    rng = np.random.default_rng(0)

    def best(op, attrs, *given, target=TARGET):
        return tiles(kernel_of(rng, op, attrs, given, dtypes.float32, row_major), target)

    many = dataclasses.replace(TARGET, cores=64)
    square = best("matmul", (), (2048, 2048), (2048, 2048), target=many)
    assert square[0].m * square[0].n >= 64 * 64
    assert sorted(square) == sorted(TILES)
    assert best("matmul", (), (64, 64), (64, 64), target=many)[0].m <= 32
    depthwise = best("conv", (Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), 32), (8, 32, 28, 28), (32, 1, 3, 3))
    assert depthwise[0] is DIRECT
    little = dataclasses.replace(TARGET, local_bytes=4096)
    assert all(tile.local_bytes(4) <= 4096 for tile in best("matmul", (), (256, 256), (256, 256), target=little))


def test_local_memory_is_within_its_bound():
    rng = np.random.default_rng(0)
    kernel = kernel_of(rng, "matmul", (), ((300, 300), (300, 300)), dtypes.float64)
    for tile in TILES:
        sizes = re.findall(r"__local double \w+\[(\d+)\]", render_tiled(kernel, TARGET, tile).stages[0].text)
        assert sum(map(int, sizes)) * 8 <= tile.local_bytes(8)


@pytest.mark.parametrize("size, reads_again", [(30, True), (32, False)])
def test_items_beyond_the_last_row_read_that_row_again(size, reads_again):
    rng, tile = np.random.default_rng(0), Tile(4, 4, 2, 2, 4)
    kernel = kernel_of(rng, "matmul", (), ((size, 8), (8, size)), dtypes.float32)
    text = render_tiled(kernel, TARGET, tile).stages[0].text
    for side in ("left", "right"):
        assert (f"{side}_at0_ < {size} ? {side}_at0_ : {size - 1};" in text) is reads_again
