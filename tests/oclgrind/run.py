"""``make oclgrind``: the OpenCL kernels of small shapes under a simulator that reports wrong accesses and races.

Every row of the table, forward and gradient, and a training step, as rendered for CPUs and for GPUs. Memory is
allocated to the byte, so that an access beyond a tensor shows. Contractions have any of their tiles: for small shapes
the cost model mostly chooses those that share nothing. Results are compared with the oracle too.
"""

import argparse
import dataclasses
import os
import random
import sys
import tempfile
from pathlib import Path

LOG = Path(tempfile.mkdtemp(prefix="minigrad-oclgrind-")) / "log"
os.environ |= {
    "OCLGRIND_DATA_RACES": "1",
    # It lacks some functions that the optimiser introduces, and one for what restrict promises.
    "OCLGRIND_BUILD_OPTIONS": "-cl-opt-disable -Drestrict=",
    "OCLGRIND_LOG": str(LOG),
    "MINIGRAD_CACHE": str(LOG.parent),
}

import numpy as np  # noqa: E402  the simulator reads its environment when it is loaded
from hypothesis import Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from rich.console import Console  # noqa: E402

from minigrad import Tensor, jit, nn  # noqa: E402
from minigrad import device as devices  # noqa: E402
from minigrad.backends.cstyle.render import candidates, has_tiles  # noqa: E402
from minigrad.backends.opencl import OpenCLBackend  # noqa: E402
from minigrad.dtypes import FLOATS  # noqa: E402
from minigrad.testing import strategies  # noqa: E402
from minigrad.testing.checks import check_program, with_gradients  # noqa: E402

# What differs from the target that the simulator is taken for: its vectors are those of a CPU.
TARGETS = {"cpu": {"lanes": 4, "registers": 16}, "gpu": {"is_gpu": True, "lanes": 1, "registers": 64, "cores": 8}}


class AnyTile:
    """In the place of the tuner: a tile drawn from those that a kernel may have, not the one that should be fastest."""

    def __init__(self, target):
        self.target, self.rng = target, random.Random(0)

    def tile(self, kernel):
        return self.rng.choice(candidates(kernel, self.target)) if has_tiles(kernel, self.target) else None


def simulator(target):
    """The name of a device that renders for ``target``, in any tiles."""
    backend = devices.get("opencl:oclgrind").backend
    other = OpenCLBackend(backend.requested, dataclasses.replace(backend.target, **TARGETS[target]))
    other._tuner = AnyTile(other.target)
    name = f"oclgrind_{target}"
    devices._devices[name] = devices.Device(name, other)
    return name


def new_complaints(seen):
    """What the simulator has said since its log had ``seen`` characters."""
    text = LOG.read_text(encoding="utf-8", errors="replace") if LOG.exists() else ""
    return text[seen:], len(text)


def check_row(op, device, examples):
    """Some cases of one row, forward and with gradients."""

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
    @given(st.data())
    def property_(data):
        program = data.draw(strategies.cases(op, kinds=["integers", "uniform"]))
        gradients = op.vjp is not None and any(given.dtype in FLOATS for given in program.inputs)
        check_program(with_gradients(program) if gradients else program, device, what=op.name)

    property_()


def check_training(device):
    """Two captured steps of a small network."""
    with devices.backend(device):
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, stride=2, groups=2),
            nn.Tanh(), nn.Flatten(), nn.Linear(64, 5),
        )  # fmt: skip
        optimizer = nn.optim.SGD(model.parameters(), 0.1, momentum=0.9)

        @jit
        def step(x, y):
            optimizer.zero_grad()
            loss = model(x).cross_entropy(y)
            loss.backward()
            optimizer.step()
            return loss

        rng = np.random.default_rng(0)
        losses = [step(Tensor(rng.standard_normal((9, 2, 11, 11), np.float32)), Tensor(np.arange(9) % 5)).item()
                  for _ in range(2)]  # fmt: skip
    assert np.isfinite(losses).all(), losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ops", help="rows of the table, separated by commas (default: all)")
    parser.add_argument("--examples", type=int, default=12, help="cases of each row")
    args = parser.parse_args()
    chosen = args.ops.split(",") if args.ops else [op.name for op in strategies.rows()] + ["training"]
    console, wrong, seen = Console(), 0, 0
    devices.Pool.bucket = staticmethod(lambda nbytes: max(nbytes, 1))
    for target in TARGETS:
        device = simulator(target)
        for name in chosen:
            problem = ""
            try:
                check_training(device) if name == "training" else check_row(
                    next(op for op in strategies.rows() if op.name == name), device, args.examples
                )
            except Exception as error:  # the simulator gives up on some, with an error of its own
                problem = f"{type(error).__name__}: {error}\n"
            complaints, seen = new_complaints(seen)
            problem += complaints
            wrong += bool(problem)
            console.print(f"{target} {name:<20} {'[red]wrong' if problem else 'clean'}", highlight=False)
            if problem:
                console.print(problem[:2000], markup=False, highlight=False)
    console.print(f"oclgrind: {len(chosen) * len(TARGETS)} rows, {wrong} with invalid accesses, races or wrong results")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
