"""Reductions, scans, sorting and indexing in generated C, run by PoCL as a CPU and as a GPU: against the oracle."""

import dataclasses
import math

import numpy as np
import pytest
from generated import CPU, GPU, build, launch, places

from minigrad import dtypes
from minigrad.backends.cstyle.render import render
from minigrad.kernel import Instr, Kernel, Operand, verify
from minigrad.primitive import TABLE
from minigrad.testing.bounds import own_error
from minigrad.testing.evaluate import meaning, widen
from minigrad.view import Block, View

cl = pytest.importorskip("pyopencl")
FOLDS = ["sum", "prod", "max", "min"]
NUMERIC = [d for d in dtypes.ALL if d is not dtypes.bool_]
MARGIN = 77  # what lies around outputs


@pytest.fixture(params=[CPU, GPU], ids=["cpu", "gpu"])
def target(request):
    return request.param


def few(target, count):
    """How many of ``count`` kernels to build: PoCL takes long for those with many items."""
    return count // 3 if target.is_gpu else count


# Views and values ----------------------------------------------------------------------------------------------------


def inside(view):
    grid = np.indices(view.shape, sparse=True)
    found = np.ones(view.shape, bool)
    for i, (low, high) in zip(grid, view.bounds or ()):
        found &= (i >= low) & (i < high)
    return found


def layout(rng, shape, plain=0.3):
    """A view of distinct elements: axes in any order, some blocked, some backwards, every other element, a margin."""
    if rng.random() < plain:
        return View.of(shape)
    order = tuple(int(a) for a in rng.permutation(len(shape)))
    blocked = [a for a, n in enumerate(shape) if n and n % 4 == 0]
    if blocked and rng.random() < 0.5:
        axis = int(rng.choice(blocked))
        size = 8 if shape[axis] % 8 == 0 else 4
        return View.of(shape, (*order, Block(axis, size)))._replace(offset=int(rng.integers(5)))
    if rng.random() < 0.5:
        return View.of(shape, order)
    grown = tuple(n + int(rng.integers(2)) for n in shape)
    steps = tuple(int(rng.choice([1, 1, 2, -1])) for _ in shape)
    view = View.of(tuple(n * abs(s) for n, s in zip(grown, steps)), order)
    starts = tuple((n - 1) * -s if s < 0 and n else 0 for n, s in zip(shape, steps))
    return view.moved("slice", (starts, shape, steps))


def source_view(rng, shape):
    """A view to read: as :func:`layout`, broadcast along some axes, or padded."""
    kind = rng.random()
    if kind < 0.2:
        small = tuple(n if rng.random() < 0.6 else 1 for n in shape)
        return layout(rng, small).moved("expand", (shape,))
    if kind < 0.4 and 0 not in shape:
        margins = tuple((min(int(rng.integers(3)), n - 1), 0) for n in shape)
        part = tuple(n - before for n, (before, _) in zip(shape, margins))
        padded = layout(rng, part).moved("pad", (margins, float(rng.integers(2))))
        return layout(rng, shape) if padded is None else padded
    return layout(rng, shape)


def numbers(rng, shape, dtype, kind="normal"):
    if dtype is dtypes.bool_:
        return rng.random(shape) < 0.5
    if kind == "ties":
        return rng.integers(0, 4, shape).astype(dtype.numpy)
    if kind == "near 1":
        return (1 + rng.random(shape) / 8).astype(dtype.numpy)
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        return rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
    values = rng.standard_normal(shape)
    if kind == "special" and values.size:
        for special in (np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0):
            values.flat[rng.integers(values.size)] = special
    return values.astype(dtype.numpy)


# Kernels -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Case:
    kernel: Kernel
    memory: dict  # buffer -> host array
    label: str


class Builder:
    """A kernel, and memory for what it reads."""

    def __init__(self, rng):
        self.rng, self.inputs, self.outputs, self.memory = rng, [], [], {}

    def read(self, values_of, dtype, view, body):
        """A load line at the end of ``body``."""
        buffer = len(self.memory)
        self.memory[buffer] = values_of(int(places(view).max(initial=0)) + 3, dtype).astype(dtype.numpy)
        self.inputs.append(Operand(buffer, dtype, view))
        body.append(Instr("load", (), len(self.inputs) - 1, dtype))
        return len(body) - 1

    def write(self, dtype, view):
        buffer = len(self.memory)
        self.memory[buffer] = np.full(int(places(view).max(initial=0)) + 9, MARGIN, np.int64).astype(dtype.numpy)
        self.outputs.append(Operand(buffer, dtype, view))
        return len(self.outputs) - 1

    def kernel(self, op, attrs, prologue, sources, shapes, cores, epilogue, stores):
        kernel = Kernel(
            op, attrs, tuple(prologue), tuple(sources), tuple(shapes), tuple(cores), cores[0], tuple(epilogue),
            tuple(stores), tuple(self.inputs), tuple(self.outputs), len(self.memory),
        )  # fmt: skip
        verify(kernel)
        return kernel


def interpreted(kernel, memory, body, core=()):
    """The oracle's values of the lines of a body."""
    found = []
    for line in body:
        if line.op == "load":
            operand = kernel.inputs[line.attr]
            within = inside(operand.view)
            values = memory[operand.buffer][np.where(within, places(operand.view), 0)]
            values = np.where(within, values, np.asarray(operand.view.fill).astype(operand.dtype.numpy))
            found.append(widen(values, operand.dtype))
        elif line.op == "const":
            found.append(widen(np.asarray(line.attr[0]).astype(line.dtype.numpy), line.dtype))
        elif line.op == "iota":
            found.append(np.where(inside(line.attr), places(line.attr), line.attr.fill).astype(line.dtype.numpy))
            found[-1] = widen(found[-1], line.dtype)
        elif line.op == "inside":
            found.append(inside(line.attr))
        elif line.op == "core":
            found.append(core[line.attr])
        else:
            found.append(meaning(TABLE[line.op], TABLE[line.op].attrs(), [found[a] for a in line.args]))
    return found


def expected(case):
    """The oracle's value of each store, and how far a result may be off."""
    kernel = case.kernel
    lines = interpreted(kernel, case.memory, kernel.prologue)
    sources = [np.broadcast_to(lines[s], shape) for s, shape in zip(kernel.sources, kernel.source_shapes)]
    primitive = TABLE[kernel.op]
    raw = meaning(primitive, kernel.attrs, sources)
    core = raw if isinstance(raw, tuple) else (raw,)
    dtype = kernel.prologue[kernel.sources[-1 if kernel.op == "scatter" else 0]].dtype
    error = own_error(primitive, kernel.attrs, sources, core[0], dtype, np.zeros(core[0].shape, bool))
    shapes = kernel.core_shapes
    out = interpreted(kernel, case.memory, kernel.epilogue, [c.reshape(s) for c, s in zip(core, shapes)])
    return [(np.broadcast_to(out[line], shapes[0]), error) for line, _ in kernel.stores]


# Running -------------------------------------------------------------------------------------------------------------


def run(queue, target, cases, tight=False):
    """All cases in one program; gives the greatest error as a share of what is allowed.

    ``tight``: the bound of sums of unlike terms, for all.
    """
    context, rendered = queue.context, [render(case.kernel, target) for case in cases]
    program = build(queue, rendered, target)
    worst = 0.0
    for n, (case, made) in enumerate(zip(cases, rendered)):
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        buffers = {b: cl.Buffer(context, flags, hostbuf=host) for b, host in case.memory.items()}
        launch(queue, program, n, made, buffers)
        worst = max(worst, check(queue, case, buffers, tight))
    return worst


def check(queue, case, buffers, tight):
    kernel, worst = case.kernel, 0.0
    wanted = expected(case)
    terms = math.prod(kernel.source_shapes[0]) // max(math.prod(kernel.core_shapes[0]), 1)
    for (_, number), (value, error) in zip(kernel.stores, wanted):
        operand = kernel.outputs[number]
        host = case.memory[operand.buffer]
        got, where = np.empty_like(host), places(operand.view)
        cl.enqueue_copy(queue, got, buffers[operand.buffer])
        if tight:
            error = np.abs(value) * 2.0**-24 * (4 + math.sqrt(terms))
        around = np.ones(got.shape, bool)
        around[where] = False
        assert (got[around] == host[around]).all(), f"{case.label}: memory beside output {number} was written"
        found = widen(got[where], operand.dtype)
        with np.errstate(all="ignore"):
            apart = np.abs(found.astype(np.float64) - value) if operand.dtype.is_float else found != value
            same = (found == value) | ((found != found) & (value != value))
            good = same | (apart <= error if operand.dtype.is_float else False)
            shares = np.where(same, 0, apart / error)
        worst = max(worst, float(shares.max(initial=0)) if operand.dtype.is_float else 0.0)
        if not good.all():
            at = tuple(int(i) for i in np.argwhere(~good)[0])
            raise AssertionError(
                f"{case.label}: output {number} at {at} of {value.shape}: expected {value[at]!r}, got {found[at]!r}, "
                f"{np.count_nonzero(~good)} wrong\n{kernel}"
            )
    return worst


def epilogue_of(rng, builder, dtype, shape, outputs=1):
    """Lines after the core that add no error, and their stores."""
    lines = [Instr("core", (), 0, dtype)]
    kind = rng.random()
    if kind < 0.6 and dtype is not dtypes.bool_:
        small = tuple(n if rng.random() < 0.6 else 1 for n in shape)
        view = layout(rng, small).moved("expand", (shape,))
        other = builder.read(lambda n, d: numbers(rng, n, d), dtype, view, lines)
        lines.append(Instr("minimum", (0, other), None, dtype))
    stores = [(0, builder.write(dtype, layout(rng, shape)))]
    if len(lines) > 1:
        stores.append((len(lines) - 1, builder.write(dtype, layout(rng, shape))))
    return lines, stores


def reduction(rng, op, dtype, shape, axes, kind="normal", view=None, prologue=True):
    """A reduction with a random prologue and epilogue that add no error."""
    builder, body = Builder(rng), []
    source = builder.read(lambda n, d: numbers(rng, n, d, kind), dtype, view or source_view(rng, shape), body)
    choice = rng.random() if prologue else 1
    if choice < 0.25 and dtype is not dtypes.bool_:
        other = builder.read(lambda n, d: numbers(rng, n, d, kind), dtype, source_view(rng, shape), body)
        body.append(Instr("maximum", (source, other), None, dtype))
    elif choice < 0.4 and dtype is not dtypes.bool_:
        body.append(Instr("relu", (source,), None, dtype))
    elif choice < 0.5 and min(shape, default=0) > 1:
        bounds = tuple((1, n) if rng.random() < 0.5 else (0, n) for n in shape)
        body.append(Instr("inside", (), View((*shape,), (0,) * len(shape), 0, bounds), dtypes.bool_))
        body.append(Instr("const", (), (1, 1.0), dtype))
        body.append(Instr("where", (len(body) - 2, source, len(body) - 1), None, dtype))
    attrs = TABLE[op].attrs(axes[0]) if op.startswith("arg") else TABLE[op].attrs(tuple(axes))
    out = TABLE[op].shape(attrs, shape)
    result = dtypes.int64 if op.startswith("arg") else dtype
    epilogue, stores = epilogue_of(rng, builder, result, out)
    kernel = builder.kernel(op, attrs, body, [len(body) - 1], [shape], [out], epilogue, stores)
    return Case(kernel, builder.memory, f"{op} {dtype.name} {shape} over {axes}")


def random_shape(rng, most=4000):
    while True:
        shape = tuple(int(rng.choice([1, 2, 3, 5, 8, 9, 16, 24, 33, 70])) for _ in range(rng.integers(1, 5)))
        if math.prod(shape) <= most:
            return shape


def random_axes(rng, rank):
    return sorted(int(a) for a in rng.permutation(rank)[: rng.integers(1, rank + 1)])


# Reductions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_reductions_of_any_layout(queue, target, seed):
    rng = np.random.default_rng(seed)
    cases = []
    for n in range(few(target, 24)):
        shape = random_shape(rng)
        op = str(rng.choice([*FOLDS, "argmax", "argmin"]))
        any_dtype = NUMERIC if op in ("sum", "prod") else dtypes.ALL
        dtype = dtypes.float32 if n % 2 else any_dtype[rng.integers(len(any_dtype))]
        kind = str(rng.choice(["normal", "ties", "special"])) if op != "prod" else "near 1"
        cases.append(reduction(rng, op, dtype, shape, random_axes(rng, len(shape)), kind))
    run(queue, target, cases)


def test_reductions_that_groups_share(queue, target):
    """Long rows, many rows, few results: split, gathered by rows, by a second launch."""
    rng = np.random.default_rng(5)
    channels = View.of((40, 8, 20, 21), (0, 1, 2, 3, Block(1, 8)))
    samples = View.of((40, 6, 20, 21), (0, 1, 2, 3, Block(0, 8)))
    cases = [
        reduction(rng, "sum", dtypes.float32, (100_003,), [0]),
        reduction(rng, "max", dtypes.float32, (70_000,), [0], "special"),
        reduction(rng, "argmin", dtypes.int16, (90_001,), [0], "ties"),
        reduction(rng, "argmax", dtypes.float32, (70_001,), [0], "special"),
        reduction(rng, "sum", dtypes.float32, (700, 301), [0], prologue=False, view=View.of((700, 301))),
        reduction(rng, "argmax", dtypes.float64, (700, 301), [0], "ties", View.of((700, 301)), prologue=False),
        reduction(rng, "max", dtypes.bool_, (301, 700), [1], prologue=False, view=View.of((301, 700), (1, 0))),
        reduction(rng, "sum", dtypes.float32, (40, 8, 20, 21), [0, 2, 3], view=channels),
        reduction(rng, "sum", dtypes.float16, (40, 6, 20, 21), [0, 2, 3], view=samples),
        reduction(rng, "sum", dtypes.float32, (9000, 10), [0], view=View.of((9000, 10))),
    ]
    run(queue, target, cases[:: 2 if target.is_gpu else 1])


def test_long_sums_of_equal_terms(queue, target):
    """The worst that can happen to a sum: every rounding errs to the same side."""
    rng, cases = np.random.default_rng(6), []
    shapes = [((1 << 19,), [0]), ((1 << 15, 9), [0]), ((900, 400), [0]), ((20_000, 5), [0, 1]), ((64, 3, 400), [0, 2])]
    for shape, axes in shapes:
        case = reduction(rng, "sum", dtypes.float32, shape, axes, prologue=False, view=View.of(shape))
        case.memory[0][:] = np.float32(0.1)
        plain = dataclasses.replace(
            case.kernel, epilogue=case.kernel.epilogue[:1], stores=case.kernel.stores[:1],
            inputs=case.kernel.inputs[:1], outputs=case.kernel.outputs[:1],
        )  # fmt: skip
        cases.append(dataclasses.replace(case, kernel=plain))
    assert run(queue, target, cases, tight=True) < 1


def test_nothing_to_reduce(queue, target):
    rng = np.random.default_rng(7)
    cases = [
        reduction(rng, "sum", dtypes.float32, (0, 3), [0]),
        reduction(rng, "prod", dtypes.int32, (4, 0), [1]),
        reduction(rng, "sum", dtypes.float16, (0, 3), [1]),
        indexed(rng, "scatter", dtypes.float32, (0,), 5, (3,)),
        indexed(rng, "scatter", dtypes.int8, (0,), 5, (3,), "max"),
        indexed(rng, "scatter", dtypes.float16, (0,), 5, (3,), "max"),
        indexed(rng, "take", dtypes.float32, (0, 2), 5, (3,)),
        scanned(rng, "cumsum", {"axis": 0, "reverse": False}, dtypes.float32, (0, 3)),
        scanned(rng, "sort", {"axis": 1, "descending": True}, dtypes.float32, (2, 0)),
    ]
    run(queue, target, cases)


# Scans ---------------------------------------------------------------------------------------------------------------


def scanned(rng, op, attrs, dtype, shape, kind="normal"):
    """cumsum or sort, with a random epilogue."""
    builder, body = Builder(rng), []
    builder.read(lambda n, d: numbers(rng, n, d, kind), dtype, layout(rng, shape), body)
    attrs = TABLE[op].attrs(**attrs)
    epilogue, stores = epilogue_of(rng, builder, dtype, shape)
    cores = [shape]
    if op == "sort":
        cores = [shape, shape]
        epilogue.append(Instr("core", (), 1, dtypes.int64))
        stores.append((len(epilogue) - 1, builder.write(dtypes.int64, layout(rng, shape))))
    kernel = builder.kernel(op, attrs, body, [0], [shape], cores, epilogue, stores)
    return Case(kernel, builder.memory, f"{op} {dtype.name} {shape} {attrs}")


def test_running_sums(queue, target, seed=0):
    rng = np.random.default_rng(seed)
    cases = []
    for n in range(few(target, 12)):
        shape = random_shape(rng, 2000)
        attrs = {"axis": int(rng.integers(len(shape))), "reverse": bool(rng.integers(2))}
        dtype = dtypes.float32 if n % 2 else NUMERIC[rng.integers(len(NUMERIC))]
        cases.append(scanned(rng, "cumsum", attrs, dtype, shape))
    run(queue, target, cases)


def test_sorting(queue, target, seed=0):
    rng = np.random.default_rng(seed)
    cases = []
    for n in range(few(target, 12)):
        shape = random_shape(rng, 2000)
        if n < 2:
            shape = (int(rng.integers(200, 1500)),)
        attrs = {"axis": int(rng.integers(len(shape))), "descending": bool(rng.integers(2))}
        dtype = dtypes.float32 if n % 2 else dtypes.ALL[rng.integers(len(dtypes.ALL))]
        cases.append(scanned(rng, "sort", attrs, dtype, shape, str(rng.choice(["normal", "ties", "special"]))))
    run(queue, target, cases)


# Indexing ------------------------------------------------------------------------------------------------------------


def indexed(rng, op, dtype, index, rows, rest, reduce="sum", kind="normal"):
    """take or scatter, with a random epilogue; positions out of range for take, which clamps."""
    builder, body = Builder(rng), []
    reach = 3 if op == "take" else 0

    def positions():
        def values(count, _):
            return rng.integers(-reach, rows + reach, count)

        builder.read(values, dtypes.int64, layout(rng, index), body)

    def source(shape):
        builder.read(lambda n, d: numbers(rng, n, d, kind), dtype, layout(rng, shape), body)

    if op == "take":
        source((rows, *rest))
        positions()
        attrs, shapes = TABLE[op].attrs(), [(rows, *rest), index]
    else:
        positions()
        source((*index, *rest))
        attrs, shapes = TABLE[op].attrs(rows, reduce), [index, (*index, *rest)]
    out = TABLE[op].shape(attrs, *shapes)
    epilogue, stores = epilogue_of(rng, builder, dtype, out)
    kernel = builder.kernel(op, attrs, body, [0, 1], shapes, [out], epilogue, stores)
    return Case(kernel, builder.memory, f"{op} {dtype.name} {index} of {rows} x {rest} {reduce}")


def random_indexing(rng, op, dtype):
    index = random_shape(rng, 300)[:2] if rng.random() < 0.9 else ()
    rest = random_shape(rng, 100)[:2] if rng.random() < 0.7 else ()
    kind, reduce = str(rng.choice(["normal", "ties", "special"])), str(rng.choice(["sum", "max"]))
    return indexed(rng, op, dtype, index, int(rng.choice([1, 2, 7, 16, 40])), rest, reduce, kind)


@pytest.mark.parametrize("seed", range(2))
def test_take_and_scatter(queue, target, seed):
    rng = np.random.default_rng(seed)
    cases = []
    for n in range(12):
        dtype = dtypes.float32 if n % 3 else dtypes.ALL[rng.integers(len(dtypes.ALL))]
        cases.append(random_indexing(rng, ["take", "scatter"][n % 2], dtype))
    run(queue, target, cases)


def test_scans_and_indexing_that_groups_share(queue, target):
    rng = np.random.default_rng(8)
    cases = [
        scanned(rng, "cumsum", {"axis": 0, "reverse": False}, dtypes.float32, (70_001,)),
        scanned(rng, "cumsum", {"axis": 0, "reverse": True}, dtypes.int16, (30_001, 3)),
        scanned(rng, "sort", {"axis": 1, "descending": True}, dtypes.float32, (40, 100), "ties"),
        indexed(rng, "scatter", dtypes.float32, (500,), 3, (10, 33)),
        indexed(rng, "scatter", dtypes.bfloat16, (40, 40), 2000, (5,), "max", "special"),
        indexed(rng, "take", dtypes.float32, (9,), 5, (2, 1500)),
        indexed(rng, "take", dtypes.uint8, (3000,), 50, ()),
    ]
    run(queue, target, cases[:: 2 if target.is_gpu else 1])
