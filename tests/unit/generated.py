"""What the tests of templates share: source of many kernels in one program, run on PoCL."""

import numpy as np
from interpreter import addresses

from minigrad import dtypes
from minigrad.backends.cstyle.dialect import OPENCL, OPENCL_CLANG
from minigrad.backends.cstyle.source import NAME
from minigrad.backends.cstyle.target import Target

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
