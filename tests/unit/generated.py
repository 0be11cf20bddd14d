"""What the tests of templates share: source of many kernels in one program, run on PoCL."""

import numpy as np
from interpreter import addresses

from minigrad import dtypes
from minigrad.backends.cstyle.dialect import OPENCL, OPENCL_CLANG
from minigrad.backends.cstyle.source import NAME
from minigrad.backends.cstyle.target import Target
from minigrad.kernel import Instr, Kernel, Operand, verify
from minigrad.primitive import TABLE
from minigrad.view import Block, View

CPU = Target(OPENCL_CLANG, False, 8, 16, 2, 32768, frozenset(dtypes.ALL))
GPU = Target(OPENCL, True, 1, 64, 2, 32768, frozenset(dtypes.ALL))
OPTIONS = ("-w", "-cl-mad-enable", "-cl-denorms-are-zero")
JUNK = 170  # every byte of scratch memory before


def places(view):
    """Where the elements of a view lie, bounds aside."""
    return addresses(view._replace(bounds=None))[0]


def build(queue, rendered, target, options=OPTIONS):
    """All of ``rendered`` as one program: stage s of number n is the function ``k{n}_{s}``."""
    import pyopencl as cl

    library, texts = {}, []
    for n, one in enumerate(rendered):
        library.update(one.library)
        texts += [stage.text.replace(NAME, f"k{n}_{s}") for s, stage in enumerate(one.stages)]
    source = "\n\n".join([target.dialect.prelude(True), *library.values(), *texts])
    return cl.Program(queue.context, source).build(list(options), cache_dir=False)


def launch(queue, program, n, one, buffers):
    """Enqueue the stages of number ``n``, which is ``one``, on ``buffers`` (by their position in the kernel)."""
    import pyopencl as cl

    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    scratch = [cl.Buffer(queue.context, flags, hostbuf=np.full(max(s, 1), JUNK, np.uint8)) for s in one.scratch]
    for s, stage in enumerate(one.stages):
        function = cl.Kernel(program, f"k{n}_{s}")
        function.set_args(*(buffers[b] for b in stage.buffers), *(scratch[p] for p in stage.scratch))
        size = tuple(groups * items for groups, items in zip(stage.groups, stage.local))
        cl.enqueue_nd_range_kernel(queue, function, size, stage.local)


def any_view(rng, shape):
    """A view of distinct elements: axes in any order, some blocked, some backwards, every other element, a margin."""
    order = tuple(int(a) for a in rng.permutation(len(shape)))
    blocked = [a for a, n in enumerate(shape) if n and n % 4 == 0]
    if blocked and rng.random() < 0.4:
        view = View.of(shape, (*order, Block(int(rng.choice(blocked)), 4)))
        return view._replace(offset=int(rng.integers(5)))
    grown = tuple(n + int(rng.integers(2)) for n in shape)
    steps = tuple(int(rng.choice([1, 1, 2, -1])) for _ in shape)
    view = View.of(tuple(n * abs(s) for n, s in zip(grown, steps)), order)
    starts = tuple((n - 1) * -s if s < 0 else 0 for n, s in zip(shape, steps))
    return view.moved("slice", (tuple(max(s, 0) for s in starts), shape, steps))


def kernel_of(rng, op, attrs, shapes, dtype, views=None, epilogue=True):
    """A kernel of two sources; ``views(*shapes)`` says how they and the result lie, else that is drawn.

    Its epilogue adds an operand and keeps what is positive.
    """
    primitive = TABLE[op]
    attrs = primitive.attrs(*attrs)
    out = primitive.shape(attrs, *shapes)
    views = views(*shapes, out) if views else [any_view(rng, shape) for shape in (*shapes, out)]
    inputs = [Operand(n, dtype, view) for n, view in enumerate(views[:2])]
    lines = (Instr("core", (), 0, dtype),)
    if epilogue:
        small = tuple(n if rng.random() < 0.5 else 1 for n in out)
        inputs.append(Operand(3, dtype, View.of(small).moved("expand", (out,))))
        add, relu = Instr("add", (0, 1), None, dtype), Instr("relu", (2,), None, dtype)
        lines = (*lines, Instr("load", (), 2, dtype), add, relu)
    loads = tuple(Instr("load", (), n, dtype) for n in (0, 1))
    kernel = Kernel(
        op, attrs, loads, (0, 1), tuple(shapes), (out,), out, lines, ((len(lines) - 1, 0),),
        tuple(inputs), (Operand(2, dtype, views[2]),), 3 + epilogue,
    )  # fmt: skip
    verify(kernel)
    return kernel


def random_values(rng, shape, dtype):
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    return rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
