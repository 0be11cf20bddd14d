"""Generated CUDA, executed by the CPU: every row of the table, forward and gradient, against the oracle.

Many kernels share a program, as each costs a compiler's start.
"""

import cuda_on_cpu
import numpy as np
import pytest
import test_in_place
from hypothesis import given, settings
from hypothesis import strategies as st
from test_opencl_variants import train

from minigrad import device as devices
from minigrad import dtypes
from minigrad.backends.cstyle.cuda import CUDA
from minigrad.backends.cstyle.source import Stage
from minigrad.testing import strategies
from minigrad.testing.bounds import SIGNED_ZERO, bounded, compare
from minigrad.testing.evaluate import run
from minigrad.testing.programs import on, outcomes

ROWS = strategies.rows()
PARTS = 6


@pytest.fixture(scope="module")
def cuda():
    """The name of a device that executes generated CUDA."""
    return cuda_on_cpu.CudaOnCpu().opened()


@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=2)
@given(data=st.data())
def test_every_row(cuda, part, data):
    wanted = []
    for op in ROWS[part::PARTS]:
        program = data.draw(strategies.cases(op, only=list(dtypes.ALL)))
        nodes = outcomes(program, program.build(on(cuda)))
        wanted += [(op, node, value) for node, value in zip(nodes, bounded(nodes))]
    found = run([node for _, node, _ in wanted])
    for got, (op, node, value) in zip(found, wanted):
        compare(got, value, node.dtype, repr(op), op.name in SIGNED_ZERO)


@pytest.mark.parametrize("core", test_in_place.CORES)
def test_updates_in_place(cuda, core):
    test_in_place.check(cuda, core)


def test_training_is_numpys(cuda):
    losses = {}
    for name in ("numpy", cuda):
        with devices.backend(name):
            losses[name] = train()
    np.testing.assert_allclose(losses[cuda], losses["numpy"], rtol=1e-5)


# What executes it ----------------------------------------------------------------------------------------------------


def executed(body, *arrays, items=64, groups=1, parameters="float *a"):
    """Run a kernel with a body on arrays; gives the error."""
    text = f'extern "C" __global__ void one({parameters}) {{ {body} }}'
    functions = cuda_on_cpu.Functions(f"{CUDA.prelude(True)}\n{text}", ["one"])
    try:
        functions.launch("one", Stage(text, (groups,), (items,), ()), arrays)
    except RuntimeError as error:
        return str(error)
    return None


REVERSED = "__shared__ float s[64]; s[threadIdx.x] = a[threadIdx.x]; {} a[threadIdx.x] = s[63 - threadIdx.x];"


def test_items_meet_at_barriers():
    array = np.arange(64, dtype=np.float32)
    assert executed(REVERSED.format("__syncthreads();"), array) is None
    np.testing.assert_array_equal(array, np.arange(64)[::-1])


def test_a_missing_barrier_shows():
    array = np.arange(64, dtype=np.float32)
    executed(REVERSED.format("if (a[0] < 0.0f) __syncthreads();"), array)
    assert (array != np.arange(64)[::-1]).any()


@pytest.mark.parametrize(
    "body",
    [
        "if (threadIdx.x < 32) __syncthreads();",
        "if (threadIdx.x < 32) __syncthreads();\n else\n __syncthreads();",
        "if (threadIdx.x % 32) a[0] = __shfl_xor_sync(~0u, a[0], 1);",
        "if (threadIdx.x == 5) return; __syncwarp();",
    ],
)
def test_barriers_that_some_do_not_reach_are_errors(body):
    error = executed(body, np.zeros(64, np.float32))
    assert error is not None and "some threads do not reach" in error
    assert executed("__syncthreads();", np.zeros(64, np.float32)) is None, "the next launch is as good as any"


def test_halves_are_rounded_as_numpy_does_it():
    bits = np.arange(1 << 16, dtype=np.uint16)
    wide = np.zeros(bits.size, np.float32)
    body = "const int i = blockIdx.x * 64 + threadIdx.x; a[i] = half_to_float(h[i]);"
    assert executed(body, wide, bits, groups=1024, parameters="float *a, const ushort *h") is None
    np.testing.assert_array_equal(wide, bits.view(np.float16).astype(np.float32))

    rng = np.random.default_rng(0)
    between = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32).view(np.float32)
    between[: 1 << 15] = (wide[: 1 << 15] + wide[1 : (1 << 15) + 1]) / 2  # ties
    halves, brains = np.zeros(bits.size, np.uint16), np.zeros(bits.size, np.uint16)
    body = "const int i = blockIdx.x * 64 + threadIdx.x; h[i] = float_to_half(a[i]); b[i] = float_to_bfloat(a[i]);"
    parameters = "const float *a, ushort *h, ushort *b"
    assert executed(body, between, halves, brains, groups=1024, parameters=parameters) is None
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(halves.view(np.float16), between.astype(np.float16))
        found, wanted = brains.view(dtypes.bfloat16.numpy), between.astype(dtypes.bfloat16.numpy)
    np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))
