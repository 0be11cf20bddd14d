"""``make nvrtc``: the training steps of whole networks, as the CuPy backend builds them, compiled for GPUs without one.

Each step goes through the backend on the recorder of CuPy's functions (``cupy_recorder.py``), on which nothing runs;
NVRTC compiles the source of its programs down to machine code. A warning is an error, and so is a register that spills.
"""

import argparse
import re
import sys
import tempfile
import time
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import nvrtc
import pytest
from cupy_recorder import Recorder

import minigrad
from minigrad import Tensor, jit, nn
from minigrad import device as devices

NETWORKS = ("lenet5", "alexnet", "vgg16", "googlenet", "resnet18", "resnet50", "resnet20")
ARCHITECTURES = {"sm_80": (8, 0), "sm_90": (9, 0)}
MEMORY = 1 << 40
_CONTRACTION = re.compile(r"k\d+_(?:matmul|conv)")


def programs(run, capability=ARCHITECTURES[nvrtc.ARCH]):
    """The source of the programs that the CuPy backend builds while ``run()`` computes on it."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as cache:
        patch.setenv("MINIGRAD_CACHE", cache)
        recorder = Recorder(capability=capability, virtual=True).installed(patch)
        recorder.limit = MEMORY
        with devices.backend(recorder.opened(patch).name):
            run()
        return recorder.sources


def training_step(network, dtype, batch):
    """Runs a step of a network, in mixed precision if ``dtype`` is a half type."""
    model = nn.models.get(network)
    optimizer = nn.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    half = dtype != "float32"

    def step(x, y):
        optimizer.zero_grad()
        with minigrad.autocast(dtype if half else "bfloat16", enabled=half):
            out = model(x)
            outputs = out if isinstance(out, tuple) else (out,)  # with the auxiliary classifiers of GoogLeNet
            losses = [o.cross_entropy(y) for o in outputs if o is not None]
            loss = sum(losses[1:], losses[0])
        loss.backward()
        optimizer.step()
        return loss

    jit(step)(Tensor(np.zeros((batch, *model.input_size), np.float32)), Tensor(np.zeros(batch, np.int64)))


class Outcome(NamedTuple):
    """What the functions of a step became.

    Attributes:
        functions: how many there are.
        contractions: how many of them are.
        registers: of the function that has most.
        saved: functions that save registers around calls.
        spilling: bytes by name.
    """

    functions: int
    contractions: int
    registers: int
    saved: int
    spilling: dict[str, int]


def compiled(found, arch=nvrtc.ARCH):
    """All functions of some programs, compiled."""
    functions, spilling = [], {}
    for source in found:
        made = nvrtc.compiled(source, arch)
        functions += made.functions.items()
        spilling |= nvrtc.spilling(made)
    return Outcome(
        len(functions),
        sum(bool(_CONTRACTION.match(name)) for name, _ in functions),
        max(function.registers for _, function in functions),
        sum(function.spilled > 0 for _, function in functions) - len(spilling),
        spilling,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS), type=lambda text: text.split(","))
    parser.add_argument("--arch", default="sm_80", type=lambda text: text.split(","), help="sm_80,sm_90")
    parser.add_argument("--dtypes", default="float32,bfloat16", type=lambda text: text.split(","))
    parser.add_argument("--batch", default=32, type=int)
    args = parser.parse_args()
    head = ("network", "GPU", "", "functions", "contractions", "most registers", "save some", "spill", "s")
    print(f"| {' | '.join(head)} |", "| --- " * len(head) + "|", sep="\n", flush=True)
    failed = False
    for network in args.networks:
        for arch, dtype in product(args.arch, args.dtypes):
            start = time.perf_counter()
            step = partial(training_step, network, dtype, args.batch)
            found = compiled(programs(step, ARCHITECTURES[arch]), arch)
            cells = (network, arch, dtype, *found[:4], len(found.spilling), round(time.perf_counter() - start))
            print("|", " | ".join(map(str, cells)), "|", flush=True)
            for name, count in found.spilling.items():
                print(f"  {name}: {count} bytes spilled", file=sys.stderr, flush=True)
            failed |= bool(found.spilling)
    return failed


if __name__ == "__main__":
    sys.exit(main())
