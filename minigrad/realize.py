"""Turn nodes into buffers: the path from a graph to launches, and the cache that makes it short the second time."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minigrad import device as devices
from minigrad import effects, kernel
from minigrad.buffer import Buffer
from minigrad.config import settings
from minigrad.device import Device
from minigrad.dtypes import DType
from minigrad.errors import CaptureError
from minigrad.graph import Node, drop, format_graph, project, set_grad_enabled, toposort, verify
from minigrad.kernel import Kernel
from minigrad.layout import lay_out
from minigrad.order import put_in_order
from minigrad.plan import in_one_buffer, plan
from minigrad.primitive import TABLE, Kind
from minigrad.schedule import schedule
from minigrad.shapes import Shape
from minigrad.simplify import Linear, linearize, simplify
from minigrad.view import Order, View

_CACHE_LIMIT = 1024
_NOT_KEPT = frozenset({Kind.CREATION, Kind.MOVEMENT, Kind.IDENTITY})  # free to have again
_LONG_CHAIN = 32  # views of views: from here on a copy, so that `x = x.reshape(..)` in a loop does not grow
_numbering = threading.RLock()  # structure numbers are shared by all devices
_cache: dict[Any, Compiled] = {}
_VALIDATOR = "minigrad.testing.validate"
Launched = tuple[Any, tuple[int, ...], Kernel]  # a program, the positions of its buffers in a table, and the kernel


class Output(NamedTuple):
    """Memory that outlives a run: what must be allocated for it."""

    shape: Shape
    dtype: DType
    order: Order


@dataclass(frozen=True)
class Compiled:
    """A graph ready to run on any inputs of the same structure.

    Memory is one table: inputs, then outputs, then temporaries; ``launches`` name their buffers by position in it.

    Attributes:
        launches: programs with the positions of their buffers, and the kernels for those who print them.
        outputs: what to allocate.
        temporaries: bytes of each temporary piece.
        where: number of a structure -> position in the table, for all that is in memory at the end.
        donated: outputs (position among them) that take over the memory of an input.
    """

    launches: tuple[Launched, ...]
    outputs: tuple[Output, ...]
    temporaries: tuple[int, ...]
    where: dict[int, int]
    donated: dict[int, int]


EMPTY = Compiled((), (), (), {}, {})


class Run(NamedTuple):
    """One execution to be: the compiled graph, the memory it is bound to, and the realized nodes it starts from."""

    device: Device
    compiled: Compiled
    table: list[Buffer]
    inputs: list[Node]

    def calls(self) -> list[tuple[Any, list[Any]]]:
        """The programs in order, each with its memory."""
        memory = [buffer.memory for buffer in self.table]
        return [(program, [memory[p] for p in positions]) for program, positions, _ in self.compiled.launches]

    def launch(self) -> None:
        """Run all kernels in order."""
        launch_all(self.device, self.compiled.launches, self.table)


def launch_all(device: Device, launches: Sequence[Launched], table: Sequence[Buffer]) -> None:
    """Run programs in order on memory of ``table``; with ``settings.validate`` each is checked when it has run.

    Raises:
        VerifyError: if one is checked and did not do what its kernel says.
    """
    if settings.validate:
        check = importlib.import_module(_VALIDATOR).check_launch  # by name: it is built on the engine
        for program, positions, k in launches:
            check(device, program, k, [table[p] for p in positions])
        return
    memory = [buffer.memory for buffer in table]
    with device.backend.session():
        if settings.debug:
            _launch_verbosely(device, launches, memory)
        else:
            for program, positions, _ in launches:
                program([memory[p] for p in positions])


def base_of(node: Node) -> tuple[Node, list[Node]]:
    """The node below ``node``'s movement that is in memory or computes, and the movement, innermost first."""
    chain = []
    while node.buffer is None and node.op.kind in (Kind.MOVEMENT, Kind.IDENTITY):
        chain.append(node)
        node = node.sources[0]
    return node, chain[::-1]


def view_of(node: Node) -> tuple[Buffer, View] | None:
    """The buffer in which a node's value is, and its view there; None if it is not in memory as it stands."""
    base, chain = base_of(node)
    if base.buffer is None:
        return None
    view: View | None = base.buffer.view(base.shape)
    for step in chain:
        if view is not None and step.op.kind is Kind.MOVEMENT:
            view = view.moved(step.op.name, step.attrs)
    if view is None or view.bounds is not None or len(chain) > _LONG_CHAIN:
        return None
    return base.buffer, view


def _target(node: Node) -> Node:
    """The node to compute so that ``node`` is a view of memory: below movement that keeps every element."""
    base, chain = base_of(node)
    if base.buffer is not None:
        return node
    view: View | None = View.of(base.shape)
    for step in chain:
        if step.op.name in ("reshape", "permute") and view is not None:
            view = view.moved(step.op.name, step.attrs)
        elif step.op.kind is not Kind.IDENTITY:
            return node
    return node if view is None or base.op.kind is Kind.CREATION else base


def realize(nodes: Sequence[Node]) -> None:
    """Compute ``nodes`` and all pending writes of their devices.

    Raises:
        OutOfMemory: before anything has run; every tensor is as it was.
    """
    for name in dict.fromkeys(node.device for node in nodes):
        device = devices.get(name)
        here = [*[node for node in nodes if node.device == name], *effects.take(name)]
        while True:  # a second time where a value got an order in which no view says the movement above it
            targets, order = _gather(here)
            if not targets:
                break
            with device.lock:
                run, made = _prepare(device, targets, order)
                run.launch()
                _commit(made, order)  # only now: other threads take what has a buffer for computed


def prepare(nodes: Sequence[Node], donations: Sequence[tuple[Node, Node]]) -> Run | None:
    """A whole step, ready to run on memory of its own; the nodes have the buffers that it will fill.

    Args:
        nodes: what to compute, all on one device.
        donations: pairs (node to compute, realized node whose memory it may take over).

    Raises:
        CaptureError: if a value comes from another device on the way: replays would not bring it again.
    """
    targets, order = _gather(nodes, captured=True)
    if not targets:
        return None
    device = devices.get(nodes[0].device)
    with device.lock:
        run, made = _prepare(device, targets, order, donations, True)
        _commit(made, order)
    return run


def _gather(nodes: Sequence[Node], captured: bool = False) -> tuple[list[Node], list[Node]]:
    """What has to be computed for ``nodes``, and the sorted graph of that; values from other devices are copied here.

    No lock is held: copies take those of the other devices. Another thread may compute nodes meanwhile.
    """
    targets = [_target(n) for n in nodes if view_of(n) is None]
    targets = [t for t in targets if t.buffer is None]
    while True:
        order = toposort(targets)
        arriving = next((n for n in order if n.op.kind is Kind.TRANSFER and n.buffer is None), None)
        if arriving is None:
            return targets, order
        if captured:
            hint = "call .to(device) before the step"
            raise CaptureError.of("jit", "a step on one device", f"{arriving!r} on {arriving.device}", hint)
        _bring(arriving)


def _bring(node: Node) -> None:
    """Copy a value from another device."""
    sources = node.sources
    if not sources:  # another thread was faster
        return
    realize(sources)
    found = view_of(sources[0])
    assert found is not None
    device = devices.get(node.device)
    device.backend.check("to", node.dtype)
    buffer = Buffer.of(device, found[0].read(found[1], node.dtype))
    _commit([(node, buffer)], toposort(sources))


def _prepare(
    device: Device,
    targets: list[Node],
    order: list[Node],
    donations: Sequence[tuple[Node, Node]] = (),
    captured: bool = False,
) -> tuple[Run, list[tuple[Node, Buffer]]]:
    """A run that computes ``targets``, and the buffers that nodes have when it is done.

    Of a captured step nothing is kept for a later backward pass.
    """
    if settings.verify:
        verify(targets)
    wanted = {id(t): t for t in targets}
    retained: list[Node] = []
    others: list[Node] = []
    for node in order:
        if node.buffer is None:
            if node.is_shown and node.sources:
                live = _target(node)
                if live.buffer is None and live.op.kind not in _NOT_KEPT and live.op.outputs == 1:
                    wanted.setdefault(id(live), live)
            recorded = node.requires_grad and not node.consumed and not captured
            if recorded and node.op.outputs > 1:  # derivatives read the other outputs
                others += [project(node, index) for index in range(1, node.op.outputs)]
            elif recorded and node.op.vjp is not None:
                retained.append(node)
    order = [*order, *others]
    wanted.update((id(node), node) for node in others)
    with _numbering:
        linear = linearize(order)
        numbers = linear.numbers
        kept = {numbers[id(n)] for n in retained}
        donated = {numbers[id(_target(new))]: numbers[id(old)] for new, old in donations if id(old) in numbers}
        key = (
            device.name,
            tuple(sorted({numbers[i] for i in wanted})),
            tuple(sorted(kept)),
            tuple(sorted(donated.items())),
            (settings.fuse, settings.layouts, settings.matmul_precision),
        )
        compiled = _cache.get(key)
        if compiled is None:
            if settings.debug >= 3:
                print(format_graph(targets), file=sys.stderr)
            reads = _vjp_reads(retained, numbers)
            compiled = _compile(device, linear, key[1], frozenset(kept), reads, donated)
            if len(_cache) >= _CACHE_LIMIT:
                _cache.pop(next(iter(_cache)))
            _cache[key] = compiled
    table = _bind(device, compiled, linear.inputs)
    made = []
    for node in (*wanted.values(), *retained):
        position = compiled.where.get(numbers[id(node)])
        if position is not None:
            made.append((node, table[position]))
    return Run(device, compiled, table, linear.inputs), made


def _commit(made: list[tuple[Node, Buffer]], order: list[Node]) -> None:
    """Give nodes their values; they drop their sources unless a backward pass may come through."""
    for node, buffer in made:
        node.buffer = buffer
        if node.op.kind is Kind.PROJECTION and node.attrs.index and node.sources:
            computed = node.sources[0]
            computed.others = {**(computed.others or {}), node.attrs.index: buffer}
    drop([node for node, _ in made if not node.requires_grad or node.consumed], order)


def _bind(device: Device, compiled: Compiled, inputs: list[Node]) -> list[Buffer]:
    """All memory of a run, acquired before anything is launched."""
    table: list[Buffer] = [node.buffer for node in inputs]  # type: ignore[misc]
    for position, output in enumerate(compiled.outputs):
        if position in compiled.donated:
            table.append(table[compiled.donated[position]])
        else:
            size = output.dtype.itemsize
            for n in output.shape:
                size *= n
            table.append(Buffer(device, size, output.order))
    table += [Buffer(device, size) for size in compiled.temporaries]
    return table


def _vjp_reads(retained: list[Node], numbers: dict[int, int]) -> frozenset[int]:
    """Numbers of the values that the derivatives of ``retained`` nodes read: found by writing the derivatives down."""
    reads: set[int] = set()
    with set_grad_enabled(False):
        for node in retained:
            seed = Node(TABLE["buffer"], (), TABLE["buffer"].attrs(), node.shape, node.dtype, node.device)
            stack = [*node.sources, *node.attrs.function.saved()] if node.op.name == "custom" else []
            for index, source in enumerate(() if stack else node.sources):  # not a user's rule: it may do anything
                rule = node.op.vjp_of(index)
                if rule is not None and source.requires_grad:
                    stack.append(rule(seed, node, *node.sources))
            while stack:
                found = stack.pop()
                if id(found) in numbers:
                    reads.add(numbers[id(found)])
                else:
                    stack.extend(found.sources)
    return frozenset(reads)


def _compile(
    device: Device,
    linear: Linear,
    roots: tuple[int, ...],
    retained: frozenset[int],
    reads: frozenset[int],
    donated: dict[int, int],
) -> Compiled:
    backend = device.backend
    values, renamed = simplify(roots)
    outputs = {renamed[r] for r in roots}
    kept = frozenset(renamed[r] for r in reads if r in renamed)
    epilogues = backend.capabilities.epilogues
    scheduled = schedule(values, outputs, epilogues, settings.fuse, kept)
    outputs |= {renamed[r] for r in retained if r in renamed and renamed[r] in scheduled.stored}
    preference = backend.preferred_orders if settings.layouts else None
    inputs = {v: value.attrs[0] for v, value in enumerate(values) if value.op.name == "buffer"}
    made = sorted(outputs - inputs.keys())
    taken = {renamed[new]: renamed[old] for new, old in donated.items() if renamed.get(new) in made and old in renamed}
    laid = lay_out(put_in_order(scheduled, outputs, taken), preference, taken)
    for v, dtype in laid.dtypes.items():
        if v < len(values):
            backend.check(values[v].op.name, dtype)
    memory = plan(laid, frozenset(inputs), frozenset(made), taken)
    launches = [in_one_buffer(launch, memory.donated) for launch in laid.launches]
    kernels = [launch.kernel for launch in launches]
    for k in kernels:
        for op, dtype in k.computes():
            backend.check(op, dtype)
    if settings.verify:
        for k in kernels:
            kernel.verify(k)
    if settings.debug >= 3:
        print("\n".join(map(str, kernels)), file=sys.stderr)
    count = len(linear.inputs)
    position = dict(inputs)
    position.update({v: count + i for i, v in enumerate(made)})
    position.update({v: count + len(made) + s for v, s in memory.slot.items()})
    programs = device.compile(kernels)
    if settings.debug >= 4:
        print("\n".join(p.source for p in programs if p.source), file=sys.stderr)
    return Compiled(
        tuple(
            (program, tuple(position[v] for v in launch.values), launch.kernel)
            for program, launch in zip(programs, launches)
        ),
        tuple(Output(laid.shapes[v], laid.dtypes[v], laid.orders[v]) for v in made),
        tuple(max(size, 1) for size in memory.sizes),
        {r: position[v] for r, v in renamed.items() if v in inputs or v in outputs},
        {made.index(out): inputs[into] for out, into in memory.donated.items()},
    )


def _launch_verbosely(device: Device, launches: Sequence[Launched], memory: list[Any]) -> None:
    total = time.perf_counter()
    for program, positions, k in launches:
        start = time.perf_counter()
        program([memory[p] for p in positions])
        device.backend.synchronize()
        seconds = time.perf_counter() - start
        line = f"{seconds * 1e6:9.1f} us  {k.name:<40} {list(k.space)}"
        if settings.debug >= 2:
            moved = k.bytes_moved
            line += f"  {moved / 1e6:.3f} MB {moved / seconds / 1e9:.1f} GB/s"
            line += f"  {k.flops / 1e6:.2f} MFLOP {k.flops / seconds / 1e9:.1f} GFLOP/s"
        print(line, file=sys.stderr)
    count = len(launches)
    print(f"{(time.perf_counter() - total) * 1e6:9.1f} us  {count} kernels on {device.name}", file=sys.stderr)


def cache_size() -> int:
    """Number of compiled graphs that are remembered."""
    return len(_cache)


__all__ = ["Compiled", "Launched", "Run", "base_of", "cache_size", "launch_all", "prepare", "realize", "view_of"]
