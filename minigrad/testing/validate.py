"""Validate mode: with ``MINIGRAD_VALIDATE=1`` every kernel of any script is run again by the oracle.

The engine hands each launch to :func:`check_launch` instead of running it. The first kernel that leaves its bound stops
the script; a file that launches this kernel again lies in the current directory then.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minigrad.buffer import Buffer
from minigrad.config import settings
from minigrad.device import Device
from minigrad.errors import VerifyError
from minigrad.kernel import Kernel
from minigrad.testing import reproducer
from minigrad.testing.bounds import Comparison, OutOfBound
from minigrad.testing.evaluate import Array
from minigrad.testing.kernels import compare_stores, shape_of


class Launch(NamedTuple):
    """A kernel that has run, and the bytes of its buffers before and after."""

    device: Device
    kernel: Kernel
    before: list[Array]
    after: list[Array]

    def compare(self) -> list[Comparison]:
        """Compare with the oracle; raises as :func:`minigrad.testing.kernels.compare_stores`."""
        return compare_stores(self.kernel, self.before, self.after, self.device.name)


@dataclass
class Totals:
    """What has been validated in this process.

    Attributes:
        kernels: launches.
        wrong: those that left their bound.
        elements: that they stored, of a wrong one those of the store that showed it.
        decided: those among them that were compared with a bound that says something.
        worst: the greatest error as a share of its bound.
        where: the kernel that had it.
        seconds: spent in the oracle and in comparing.
    """

    kernels: int = 0
    wrong: int = 0
    elements: int = 0
    decided: int = 0
    worst: float = 0.0
    where: str = ""
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, launch: Launch, found: Sequence[Comparison], seconds: float) -> None:
        """Count a launch; a line about it is printed where ``MINIGRAD_DEBUG`` is set."""
        worst = max((c.worst for c in found), default=0.0)
        kernel = launch.kernel
        with self.lock:
            self.wrong += worst > 1
            self.elements += sum(c.elements for c in found)
            self.decided += sum(c.decided for c in found)
            self.seconds += seconds
            if worst > self.worst or not self.where:
                self.worst, self.where = worst, f"{kernel.name} {list(shape_of(kernel))} on {launch.device.name}"
        if settings.debug:
            line = f"{seconds * 1e3:9.1f} ms  {kernel.name:<40} {list(shape_of(kernel))}  {worst:.3g} of the bound"
            print(line, file=sys.stderr)

    def __str__(self) -> str:
        undecided = 1 - self.decided / self.elements if self.elements else 0.0
        worst = f"worst {self.worst:.3g} of the bound ({self.where}), " if self.where else ""
        return (
            f"minigrad validate: kernels {self.kernels}, wrong {self.wrong}, elements {self.elements}, "
            f"undecided {undecided:.2%}, {worst}{self.seconds:.1f} s in the oracle"
        )


totals = Totals()
_watchers: list[Callable[[Launch], None]] = []


@contextmanager
def watched(by: Callable[[Launch], None]) -> Iterator[None]:
    """Within the block, ``by`` is called with every launch of this process, and nothing else checks it."""
    _watchers.append(by)
    try:
        with settings.override(validate=True):
            yield
    finally:
        _watchers.pop()


def check_launch(device: Device, program: Any, kernel: Kernel, buffers: Sequence[Buffer]) -> None:
    """Run a program and compare what it stored with the oracle.

    Args:
        device: where it runs.
        program: the lowered kernel.
        kernel: what it should do.
        buffers: its memory.

    Raises:
        VerifyError: if a store is further from the oracle than it may be, or memory has changed to which nothing is
            stored; names the file that reproduces it.
    """
    before = _contents(device, buffers)
    with device.backend.session():
        program([buffer.memory for buffer in buffers])
    launch = Launch(device, kernel, before, _contents(device, buffers))
    if _watchers:
        _watchers[-1](launch)
        return
    with totals.lock:
        totals.kernels += 1
        number = totals.kernels
    start = time.perf_counter()
    wrong = None
    try:
        found = launch.compare()
    except OutOfBound as error:
        found, wrong = [error.found], str(error)
    totals.add(launch, found, time.perf_counter() - start)
    if wrong is not None:
        raise _complaint(launch, number, wrong)


def _contents(device: Device, buffers: Sequence[Buffer]) -> list[Array]:
    found = []
    for buffer in buffers:
        array = np.empty(buffer.nbytes, np.uint8)
        device.backend.copy_out(buffer.memory, array)
        found.append(array)
    return found


def _complaint(launch: Launch, number: int, text: str) -> VerifyError:
    device, kernel = launch.device, launch.kernel
    head = f"MINIGRAD_VALIDATE: kernel {kernel.name} {list(shape_of(kernel))}, launch {number}, on {device.name}"
    text = f"{head}, is wrong\n  {text}"
    try:
        path = reproducer.write(device, kernel, launch.before, text)
    except OSError as error:
        return VerifyError(f"{text}\n  hint: no reproducer could be written here: {error}")
    hint = f"`python {path.name}` launches it again; `minigrad bisect {path.name}` compares backends on it"
    return VerifyError(f"{text}\n  reproducer: {path}\n  hint: {hint}")


@atexit.register
def _summary() -> None:
    if settings.validate and totals.kernels:
        print(totals, file=sys.stderr)
