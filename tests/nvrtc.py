"""NVIDIA's compiler without a device: what generated CUDA becomes on GPUs of one kind, and what it says of it."""

import itertools
import os
import re
from functools import cache
from typing import NamedTuple

import pytest

from minigrad import device as devices
from minigrad import dtypes
from minigrad.backends.base import Backend, Capabilities, Program
from minigrad.backends.cstyle.cuda import CUDA, OPTIONS
from minigrad.backends.cstyle.render import render, templates
from minigrad.backends.cstyle.source import assembled
from minigrad.backends.cstyle.target import Target

H200 = Target(CUDA, True, 1, 64, 132, 48 << 10, frozenset(dtypes.ALL))
ARCH = os.environ.get("NVRTC_ARCH", "sm_90")  # what the tests compile for
_numbers = itertools.count()
_FUNCTION = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


class Function(NamedTuple):
    """What a kernel needs.

    Attributes:
        registers: per thread.
        spilled: bytes that do not fit into registers, written and read.
        stack: bytes of memory of its own: those, and arrays whose indices are not known.
    """

    registers: int
    spilled: int
    stack: int


class Compiled(NamedTuple):
    """A program for one kind of GPU."""

    cubin: bytes
    ptx: str
    functions: dict[str, Function]


@cache
def _library():
    """The module, or a skip that says what is missing."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed: pip install minigrad[test]")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:  # the binding is there, the compiler is not
        pytest.skip(f"no NVRTC: {error}")
    return nvrtc


def compiled(source, arch=ARCH):
    """``source`` compiled down to machine code; warnings are errors."""
    nvrtc = _library()

    def call(name, *arguments):
        error, *found = getattr(nvrtc, name)(*arguments)
        assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, f"{name}: {error}"
        return found[0] if found else None

    def content(name):
        text = b" " * call(f"nvrtcGet{name}Size", program)
        call(f"nvrtcGet{name}", program, text)
        return text

    program = call("nvrtcCreateProgram", source.encode(), b"generated.cu", 0, [], [])
    options = [f"--gpu-architecture={arch}", "--ptxas-options=-v", *OPTIONS]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = content("ProgramLog").decode().strip("\0\n")
    said = "\n".join(line for line in log.split("\n") if not line.startswith("ptxas ")).strip()
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, f"{arch}: {said}"
    assert said == "", f"{arch}: {said}"
    found = {}
    for name, *numbers in _FUNCTION.findall(log):
        stack, stored, loaded, registers = map(int, numbers)
        found[name] = Function(registers, stored + loaded, stack)
    made = Compiled(content("CUBIN"), content("PTX").decode(), found)
    call("nvrtcDestroyProgram", program)
    return made


_ENTRY = re.compile(r"\.entry (\w+)\(.*?\n}", re.DOTALL)
_CALL = re.compile(r"\bcall\b|\b(?:div|sqrt)\.rn\.f|\brem\.")
SAVED = 512  # bytes: half of all registers


def spilling(made):
    """Functions whose sums, or whatever they work with, do not fit into registers: bytes by name.

    One that calls another (to compute a doubtful sum again, or in the rare cases of a division) has to save what it is
    at for that time; this counts as spilled, but nothing of it happens where there is no call.
    """
    calls = {entry[1] for entry in _ENTRY.finditer(made.ptx) if _CALL.search(entry[0])}
    most = {name: SAVED * (name in calls) for name in made.functions}
    return {name: function.spilled for name, function in made.functions.items() if function.spilled > most[name]}


class Launch(Program):
    """Runs nothing."""

    def __init__(self, kernel, rendered):
        self.kernel, self.rendered = kernel, rendered

    def __call__(self, buffers):
        pass


class Sources(Backend):
    """A device on which nothing runs: it keeps what was rendered, with the kernels."""

    def __init__(self, target=H200):
        super().__init__()
        self.name = f"sources_{next(_numbers)}"  # what was compiled is remembered by name
        self.target, self.launches = target, []
        self.capabilities = Capabilities(target.dtypes, frozenset(templates(target)), contracts_fma=True)

    def opened(self, monkeypatch):
        """The device, known by its name for the rest of a test."""
        device = devices.Device(self.name, self)
        monkeypatch.setitem(devices._devices, self.name, device)
        return device

    def allocate(self, nbytes):
        return nbytes

    def copy_in(self, memory, array):
        pass

    def copy_out(self, memory, array, offset=0):
        array[...] = 0

    def copy(self, source, target, nbytes):
        pass

    def lower(self, kernel):
        self.launches.append(Launch(kernel, render(kernel, self.target)))
        return self.launches[-1]


def source(launches):
    """One program of many kernels: stage s of number n is the function ``k{n}_{s}``."""
    rendered = dict.fromkeys(launch.rendered for launch in launches)
    names = {one: [f"k{n}_{s}" for s in range(len(one.stages))] for n, one in enumerate(rendered)}
    return assembled(CUDA.prelude(True), names)
