"""How many floats a vector of a CPU has and how many vectors it keeps in registers, as the driver's compiler sees it.

What the driver says is not to be trusted: a compiler that is older than the CPU uses half of it, and vectors that do
not fit spill to memory, at half the rate and less.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from minigrad.backends.cache import digest
from minigrad.backends.opencl.compiler import Compiler
from minigrad.backends.opencl.driver import Place

# Macros that a Clang-based compiler sets for the CPU it compiles for, and the vectors and registers that there may be,
# best first. With AVX-512 some compilers still split vectors of 16; others than Clang tell nothing. Then time tells.
_SETS = {
    "__AVX512F__": ((16, 32), (8, 32)),
    "__AVX__": ((8, 16),),
    "__SSE2__": ((4, 16),),
    "__ARM_NEON": ((4, 32),),
    "1": ((16, 32), (8, 16)),
}
ROUNDS = 20_000  # of multiply-adds in one launch: a tenth of a millisecond and more
REPEATS = 12
FITS = 0.85  # of the best rate


def vectors(place: Place, compiler: Compiler, context: Any, queue: Any) -> tuple[int, int]:
    """Floats in a vector, and vectors in registers. Remembered on disk."""
    key = digest("vectors", *place.identity)
    known = compiler.cache.get(key)
    if known is None:
        found = _candidates(place, compiler)
        best = found[0] if len(found) == 1 else _first_that_fits(found, place, compiler, context, queue)
        known = {"vectors": json.dumps(best).encode()}
        compiler.cache.put(key, known)
    lanes, registers = json.loads(known["vectors"])
    return lanes, registers


def _candidates(place: Place, compiler: Compiler) -> tuple[tuple[int, int], ...]:
    """The vectors that there may be: a program tells by the name of its function what its compiler was told."""
    text = "#if 0\n"
    for number, macro in enumerate(_SETS):
        condition = macro if macro.isdigit() else f"defined({macro})"
        text += f"#elif {condition}\n__kernel void set_{number}(__global float *b) {{ b[0] = 0.0f; }}\n"
    program = compiler.build(f"{text}#endif\n", ()).program
    name = program.get_info(place.cl.program_info.KERNEL_NAMES)
    return list(_SETS.values())[int(name.removeprefix("set_"))]


def _first_that_fits(
    candidates: tuple[tuple[int, int], ...], place: Place, compiler: Compiler, context: Any, queue: Any
) -> tuple[int, int]:
    """The first of ``candidates`` that computes about as fast as the best with three quarters of its registers."""
    cl = place.cl
    cases = [(lanes, registers * 3 // 4) for lanes, registers in candidates]
    names = [f"multiply_add_{lanes}_{count}" for lanes, count in cases]
    built = compiler.build("\n".join(_source(name, *case) for name, case in zip(names, cases)), names)
    buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=np.ones(64, np.float32))
    kernels = [cl.Kernel(built.program, name) for name in names]
    seconds = [float("inf")] * len(cases)
    for kernel in kernels:
        kernel.set_arg(0, buffer)
    for _ in range(REPEATS):  # the first compiles; in turns, so that a busy spell of the machine meets them all
        for n, kernel in enumerate(kernels):
            start = time.process_time()  # other processes do not count
            cl.enqueue_nd_range_kernel(queue, kernel, (1,), (1,)).wait()
            seconds[n] = min(seconds[n], time.process_time() - start)
    rates = [lanes * count / s for (lanes, count), s in zip(cases, seconds)]
    return next(c for c, rate in zip(candidates, rates) if rate >= FITS * max(rates))


def _source(name: str, lanes: int, count: int) -> str:
    """A kernel that multiplies and adds to ``count`` vectors over and over."""
    accumulators = ", ".join(f"a{n} = b[{n + 2}]" for n in range(count))
    steps = " ".join(f"a{n} = a{n} * x + y;" for n in range(count))
    return f"""\
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void {name}(__global float *b) {{
    float{lanes} x = b[0] * 0.5f, y = b[1], {accumulators};
    for (int i = 0; i < {ROUNDS}; ++i) {{ {steps} }}
    *(__global float{lanes} *)(b + 32) = {" + ".join(f"a{n}" for n in range(count))};
}}
"""
