"""Plan memory: which values share a piece, because one is dead before the other is written."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from minigrad.kernel import Operand
from minigrad.layout import Laid, Launch


@dataclass(frozen=True)
class Plan:
    """Where each value that has memory is.

    Attributes:
        slots: number of temporary pieces; ``sizes`` their bytes.
        sizes: as said.
        slot: piece of each temporary value.
        donated: outputs that are written over the input they replace.
    """

    sizes: tuple[int, ...]
    slot: dict[int, int]
    donated: dict[int, int]


def nbytes(laid: Laid, v: int) -> int:
    """Bytes of a value."""
    return math.prod(laid.shapes[v]) * laid.dtypes[v].itemsize


def plan(laid: Laid, inputs: frozenset[int], outputs: frozenset[int], donations: dict[int, int]) -> Plan:
    """Assign temporaries to as few pieces as a greedy best fit finds.

    Args:
        laid: kernels in their order.
        inputs: values that are given.
        outputs: values that outlive the run: each has memory of its own.
        donations: outputs and the inputs that they may overwrite, if no kernel reads an input after or in another
            place than it is written.
    """
    last: dict[int, int] = {}
    for index, launch in enumerate(laid.launches):
        for v in launch.values:
            last[v] = index
    sizes: list[int] = []
    free: list[int] = []
    slot: dict[int, int] = {}
    for index, launch in enumerate(laid.launches):
        for v in launch.values:
            if v not in inputs and v not in outputs and v not in slot:
                slot[v] = _best_fit(free, sizes, nbytes(laid, v))
        free += [slot[v] for v in launch.values if v in slot and last[v] == index]
    taken = {out: into for out, into in donations.items() if _may_overwrite(laid, out, into)}
    return Plan(tuple(sizes), slot, taken)


def _best_fit(free: list[int], sizes: list[int], size: int) -> int:
    fitting = [s for s in free if sizes[s] >= size]
    if fitting:
        best = min(fitting, key=sizes.__getitem__)
    elif free:
        best = max(free, key=sizes.__getitem__)
        sizes[best] = size
    else:
        sizes.append(size)
        return len(sizes) - 1
    free.remove(best)
    return best


def _may_overwrite(laid: Laid, out: int, into: int) -> bool:
    """Whether ``out`` may be written over ``into``: its one writer reads it last, and each element in its place."""
    if laid.shapes[out] != laid.shapes[into] or laid.dtypes[out] is not laid.dtypes[into]:
        return False
    if laid.orders[out] != laid.orders[into]:
        return False
    readers = [i for i, launch in enumerate(laid.launches) if into in launch.values]
    writers = [i for i, launch in enumerate(laid.launches) if out in launch.values and _writes(launch, out)]
    if len(writers) != 1 or any(r > writers[0] for r in readers):
        return False
    kernel, values = laid.launches[writers[0]]
    if into not in values:
        return True
    loaded = {kernel.inputs[line.attr].buffer for line in kernel.prologue if line.op == "load"}
    if values.index(into) in loaded:  # the core reads all of it
        return False
    stored = [o.view for o in kernel.outputs if values[o.buffer] == out]
    return all(o.view == stored[0] for o in kernel.inputs if values[o.buffer] == into)


def in_one_buffer(launch: Launch, donated: dict[int, int]) -> Launch:
    """The launch with one buffer where it had two for an output and the input that this is written over."""
    kernel, values = launch
    taken = {out: donated[out] for out in values if donated.get(out) in values}
    if not taken:
        return launch
    kept = tuple(v for v in values if v not in taken)
    place = [kept.index(taken.get(v, v)) for v in values]

    def moved(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(operand._replace(buffer=place[operand.buffer]) for operand in operands)

    inputs, outputs = moved(kernel.inputs), moved(kernel.outputs)
    return Launch(dataclasses.replace(kernel, inputs=inputs, outputs=outputs, buffers=len(kept)), kept)


def _writes(launch: Launch, v: int) -> bool:
    return any(launch.values[o.buffer] == v for o in launch.kernel.outputs)
