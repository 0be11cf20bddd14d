"""Generated CUDA that runs on a CPU: compiled as C++ with definitions of what a GPU does, for tests only."""

import ctypes
import itertools
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from minigrad import device as devices
from minigrad import dtypes
from minigrad.backends.base import Backend, Capabilities, Program
from minigrad.backends.cstyle.cuda import CUDA, MACHINE
from minigrad.backends.cstyle.render import render, templates
from minigrad.backends.cstyle.source import Rendered, assembled
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.matrices import Products

HERE = Path(__file__).parent / "cuda"
TARGET = Target(CUDA, True, 1, 64, 8, 48 << 10, frozenset(dtypes.ALL))
OPTIONS = (
    *("-std=c++17", "-fPIC", "-shared", "-fno-strict-aliasing", "-Werror=uninitialized", f"-I{HERE}"),
    "-U_FORTIFY_SOURCE",  # it takes jumps between stacks for mistakes
    *("-march=native", "-ffp-contract=fast"),  # products and sums in one, as GPUs do it
)
MARGIN, JUNK = 64, 170  # bytes around memory, and what they hold
_WAITS = re.compile(r"__sync|__shfl|\bload_matrices|\bcopy_later|\bmultiply_")
_numbers = itertools.count()


@cache
def _compiler():
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler: install g++ or clang++")
    return found


@cache
def _directory():
    return tempfile.TemporaryDirectory(prefix="minigrad-cuda-")


def built(*sources, level="-O1"):
    """A library; its name is never used again."""
    path = Path(_directory().name) / f"{next(_numbers)}.so"
    done = subprocess.run([_compiler(), level, *OPTIONS, *sources, "-o", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
    return path


@cache
def machine():
    """The part that runs blocks, which all programs share."""
    library = ctypes.CDLL(str(built(HERE / "machine.cpp")), ctypes.RTLD_GLOBAL)
    library.launch.restype = ctypes.c_char_p
    return library


class Functions:
    """A compiled program. Without optimisation (``-O0``) long ones compile in a third of the time."""

    def __init__(self, source, names, level="-O1"):
        machine()
        path = Path(_directory().name) / f"{next(_numbers)}.cpp"
        calls = "\n".join(f"CALLABLE({name})" for name in names)
        path.write_text(f'#include "machine.h"\n{source.replace(MACHINE, "")}\n{calls}\n')
        self.library = ctypes.CDLL(str(built(path, level=level)))

    def launch(self, name, stage, memory):
        """Run one stage on arrays."""
        places = (ctypes.c_void_p * len(memory))(*(array.ctypes.data for array in memory))
        grid, block = ((ctypes.c_int * 3)(*(*size, 1, 1)[:3]) for size in (stage.groups, stage.local))
        waits = bool(_WAITS.search(stage.text))
        error = machine().launch(getattr(self.library, f"call_{name}"), places, grid, block, stage.dynamic, waits)
        if error:
            raise RuntimeError(f"{name}: {error.decode()}\n{stage.text}")


class Memory:
    """Aligned bytes with a margin around them."""

    def __init__(self, nbytes):
        around = np.full(nbytes + 2 * MARGIN + 256, JUNK, np.uint8)
        start = MARGIN + -(around.ctypes.data + MARGIN) % 256
        self.array = around[start : start + nbytes]
        self.margins = around[start - MARGIN : start], around[start + nbytes : start + nbytes + MARGIN]

    def is_whole(self):
        """Whether nothing was written beside it."""
        return all((margin == JUNK).all() for margin in self.margins)


def multiply(products, buffers, pieces):
    """What a library of matrix products is asked for, by NumPy."""
    m, n, k, batch = products.sizes

    def matrices(matrix, start, rows, columns):
        memory = pieces[matrix.piece] if matrix.buffer is None else buffers[matrix.buffer]
        flat = memory.array[: memory.array.size // products.dtype.itemsize * products.dtype.itemsize]
        flat = flat.view(products.dtype.numpy)[start:]
        steps = (matrix.batch, matrix.row, matrix.column)
        assert sum((size - 1) * s for size, s in zip((batch, rows, columns), steps)) < flat.size
        return as_strided(flat, (batch, rows, columns), [s * flat.itemsize for s in steps])

    for starts in zip(products.left.starts, products.right.starts, products.out.starts):
        left, right = matrices(products.left, starts[0], m, k), matrices(products.right, starts[1], k, n)
        wide = np.float64 if products.dtype.itemsize == 8 else np.float32
        with np.errstate(all="ignore"):
            found = left.astype(wide) @ right.astype(wide)
            matrices(products.out, starts[2], m, n)[...] = found.astype(products.dtype.numpy)


class OnCpu(Program):
    """A kernel as stages, and maybe products of matrices between some of them."""

    def __init__(self, parts, functions, names):
        self.parts, self.functions, self.names = parts, functions, names

    def __call__(self, buffers):
        pieces = [Memory(size) for size in self.parts[0].scratch]
        for part in self.parts:
            if isinstance(part, Products):
                multiply(part, buffers, pieces)
                continue
            for name, stage in zip(self.names[part], part.stages):
                used = [*(buffers[b] for b in stage.buffers), *(pieces[p] for p in stage.scratch)]
                self.functions.launch(name, stage, [memory.array for memory in used])
                assert all(memory.is_whole() for memory in used), f"{name} writes beside its memory\n{stage.text}"


def programs(kernels, level="-O1"):
    """Programs of what each kernel became: rendered, or that around products of matrices."""
    parts = [(k,) if isinstance(k, Rendered) else (k.before, k.products, k.after) for k in kernels]
    rendered = dict.fromkeys(part for each in parts for part in each if isinstance(part, Rendered))
    names = {one: [f"k{n}_{s}" for s in range(len(one.stages))] for n, one in enumerate(rendered)}
    functions = Functions(assembled(CUDA.prelude(True), names), sum(names.values(), []), level)
    return [OnCpu(each, functions, names) for each in parts]


class CudaOnCpu(Backend):
    """The CUDA backend's kernels, executed by the CPU."""

    survives_fork = True

    def __init__(self, target=TARGET):
        super().__init__()
        _compiler()
        self.name, self.target = f"cuda_on_cpu_{next(_numbers)}", target
        self.capabilities = Capabilities(target.dtypes, frozenset(templates(target)), contracts_fma=True)

    def opened(self):
        """The name of the device, which stays known."""
        devices._devices[self.name] = devices.Device(self.name, self)
        return self.name

    def allocate(self, nbytes):
        return Memory(nbytes)

    def copy_in(self, memory, array):
        data = array.reshape(-1).view(np.uint8)
        memory.array[: data.size] = data

    def copy_out(self, memory, array, offset=0):
        data = array.reshape(-1).view(np.uint8)
        data[:] = memory.array[offset : offset + data.size]

    def lower(self, kernel):
        return self.compile([kernel])[0]

    def compile(self, kernels):
        return programs([render(kernel, self.target) for kernel in kernels])
