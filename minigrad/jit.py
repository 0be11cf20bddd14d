"""Capture a step once, replay its launches after: no graph, no Python per operation.

The first call with a signature runs the function as usual, on lazy tensors that stand for the arguments; what it
returned, wrote and left in ``grad`` is then compiled as one graph. Later calls copy the arguments into the captured
buffers and launch. What the step depends on besides its arguments (attributes of modules and optimizers, gradients
that were there, the tensors it reads) is recorded, and a call that finds any of it changed captures anew.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minigrad import capture, effects, random
from minigrad import device as devices
from minigrad.buffer import Buffer
from minigrad.config import settings
from minigrad.errors import CaptureError
from minigrad.graph import Node, apply, grad_enabled, leaf, next_serial, set_grad_enabled, toposort
from minigrad.kernel import MAP, Instr, Kernel, Operand
from minigrad.primitive import Kind
from minigrad.realize import EMPTY, Run, base_of, prepare, realize, view_of
from minigrad.tensor import Tensor
from minigrad.tensor.base import TensorBase

LIMIT = 16  # captures that one function keeps


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Capture ``function`` at its first call with a signature and replay it after.

    Arguments may be tensors, ndarrays (both become inputs), other Python values (part of the signature), and lists,
    tuples and dicts of them; the function returns tensors, None, or lists, tuples and dicts of those. Writes to
    tensors, optimizer updates, running statistics and random numbers happen at each call as they would without
    ``jit``. Python side effects (printing, counting) happen only while capturing.

    >>> calls = []
    >>> @jit
    ... def double(x):
    ...     calls.append("captured")
    ...     return x * 2
    >>> [double(Tensor([n])).item() for n in (1.0, 2.0, 3.0)], calls
    ([2.0, 4.0, 6.0], ['captured'])

    Raises:
        CaptureError: if the function reads a value (``item``, ``numpy``, ``bool``) or writes to an argument.
    """
    captures: dict[Any, Capture] = {}

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        if capture.active() or settings.eager:
            return function(*args, **options)
        inputs: list[Any] = []
        structure = _flatten((args, options), inputs)
        signature = (structure, tuple(map(_describe, inputs)), grad_enabled(), devices.default())
        for key in [k for k in captures if k[0] == signature]:
            found = captures.pop(key)
            if found.ready():
                captures[key] = found  # the most recently used is last
                return found.replay(inputs)
        made, result = capture_step(function, structure, inputs)
        if len(captures) >= LIMIT:
            captures.pop(next(iter(captures)))
            warnings.warn(f"jit: more than {LIMIT} captures of {function.__name__}; dropped the oldest", stacklevel=2)
        captures[(signature, len(captures), id(made))] = made
        return result

    return wrapper


class Slot:
    """The memory in which captured steps keep one tensor; captures of the same tensor share it."""

    def __init__(self, tensor: TensorBase, buffer: Buffer) -> None:
        self.move_to(tensor, buffer)

    def move_to(self, tensor: TensorBase, buffer: Buffer) -> None:
        """Keep the tensor in ``buffer`` from now on, and have it show that."""
        node = leaf(buffer, tensor.shape, tensor.dtype, tensor.device)
        if tensor.requires_grad:
            node = apply("detach", node)
            node.requires_grad = True
        self.buffer, self.node = buffer, node
        tensor.show(node)

    def is_shared(self) -> bool:
        """Whether somebody else still holds what the tensor shows, a lazy reader of the old version, say."""
        return sys.getrefcount(self.node) > _OWN_REFERENCES


class _Calibration:
    """Counts the references to a node that only a slot and its tensor hold, whatever the interpreter adds."""

    def __init__(self) -> None:
        self.node = object()
        self.tensor = [self.node]

    def count(self) -> int:
        return sys.getrefcount(self.node)


_OWN_REFERENCES = _Calibration().count()


class State(NamedTuple):
    """A tensor that the step reads or writes: its memory, and the places where that is in the table."""

    tensor: TensorBase
    slot: Slot
    places: list[int]  # two where the step writes over what it reads
    read: bool
    written: bool


class Capture:
    """One captured step, bound to its memory."""

    def __init__(self, run: Run, recording: capture.Recording) -> None:
        self.run, self.recording = run, recording
        self.inputs: list[int | None] = []  # place of each argument in the table; None where it is not used
        self.staged: list[Buffer | None] = []  # where ndarray arguments are copied
        self.bases: list[int] = []  # places of the random counters
        self.states: list[State] = []
        self.copies: list[tuple[Any, int, int]] = []  # (program, from, to): writes that could not be done in place
        self.grads: list[tuple[TensorBase, TensorBase | None, Node | None]] = []
        self.results: list[tuple[int, Node]] = []
        self.template: Any = None

    def ready(self) -> bool:
        """Whether what the step was seen to depend on is as it was."""
        return self.recording.still_holds()

    def replay(self, inputs: list[Any]) -> Any:
        """Run the step on other inputs of the same signature."""
        run, table = self.run, self.run.table
        device = run.device
        _flush(device.name)
        with device.lock:
            for state in self.states:
                self._sync(state)
            written = {id(state.slot.buffer) for state in self.states if state.written}
            for value, position, staged in zip(inputs, self.inputs, self.staged):
                if position is not None:
                    table[position] = _bring(device, value, staged, written)
            for position in self.bases:
                device.backend.copy_in(table[position].memory, random.base_words())
            random.advance(self.recording.drawn)
            for position, _ in self.results:
                table[position] = Buffer(device, table[position].nbytes, table[position].order)
            self._launch()
        return self._finish()

    def _sync(self, state: State) -> None:
        tensor, slot, places, read, written = state
        if not read:
            if tensor.current_node() is not slot.node or slot.is_shared():
                slot.move_to(tensor, Buffer(slot.buffer.device, slot.buffer.nbytes, slot.buffer.order))
        elif tensor.current_node() is not slot.node:  # written outside since
            found = _contents(tensor)
            slot.move_to(tensor, _in_order(found, tensor, slot.buffer.order))
        elif written and slot.is_shared():
            slot.move_to(tensor, slot.buffer.clone())
        for place in places:
            self.run.table[place] = slot.buffer

    def _launch(self) -> None:
        self.run.launch()
        table = self.run.table
        for program, source, target in self.copies:
            program([table[source].memory, table[target].memory])

    def _finish(self) -> Any:
        for state in self.states:
            if state.written:
                state.tensor.show(state.slot.node)
        for tensor, grad, node in self.grads:
            tensor.grad = grad
            if grad is not None and node is not None:
                grad.show(node)
        made = []
        for position, node in self.results:
            fresh = leaf(self.run.table[position], node.shape, node.dtype, node.device)
            made.append(Tensor.wrap(fresh))
        return _unflatten(self.template, iter(made))


def capture_step(function: Callable[..., Any], structure: Any, inputs: list[Any]) -> tuple[Capture, Any]:
    """Run ``function`` on stand-ins for ``inputs``, compile what it did, execute that, and return both."""
    device = devices.canonical(None)
    _flush(device)
    stand_ins = [_stand_in(value, device) for value in inputs]
    entry = next_serial()
    args, options = _unflatten(structure, iter(stand_ins))
    recording = capture.Recording()
    with capture.recording(recording):
        returned = function(*args, **options)
    if any(s._version for s in stand_ins):
        raise CaptureError.of("jit", "arguments that are not written", "an assignment to one", "return a new tensor")
    random.advance(recording.drawn)
    outputs: list[Any] = []
    template = _flatten(returned, outputs, results=True)
    writes = effects.tensors(device)
    effects.take(device)
    graded = [(tensor, tensor.peek_grad()) for tensor in recording.graded.values()]
    _settle([t.node for t in (*outputs, *writes, *[g for _, g in graded if g is not None])], entry)
    with set_grad_enabled(False):
        results = [apply("copy", tensor.node) for tensor in outputs]
        for tensor in writes:
            base, chain = base_of(tensor.node)
            if base.buffer is not None or any(step.op.kind is Kind.MOVEMENT for step in chain):
                tensor.write(apply("copy", tensor.node))  # another tensor's memory: a copy of its own
    effects.take(device)
    del returned, outputs  # what nobody else holds need not be kept
    nodes = [*results, *[t.node for t in writes], *[g.node for _, g in graded if g is not None]]
    _separate(nodes)
    owners = _owners(nodes)
    donations = [(t.node, owners[id(t)][1]) for t in writes if id(t) in owners]
    run = prepare(nodes, donations, captured=True) or Run(devices.get(device), EMPTY, [], [])
    del nodes, donations
    made = Capture(run, recording)
    made.template = template
    _bind(made, stand_ins, inputs, writes, owners)
    made.results = [(_place(run, node), node) for node in results]
    made.grads = [(t, g, None if g is None else g.node) for t, g in graded]
    run.inputs.clear()
    owners.clear()
    for state in made.states:
        if state.read and state.written and state.slot.is_shared():
            before = state.slot.buffer
            state.slot.move_to(state.tensor, before.clone())
            run.table[:] = [state.slot.buffer if buffer is before else buffer for buffer in run.table]
    made._launch()
    return made, made._finish()


def _bind(
    made: Capture,
    stand_ins: list[Any],
    inputs: list[Any],
    writes: list[TensorBase],
    owners: dict[int, tuple[TensorBase, Node]],
) -> None:
    """Find arguments, random counters and outside tensors among the inputs of the compiled graph."""
    run, table = made.run, made.run.table
    places = {id(node): position for position, node in enumerate(run.inputs)}
    arguments = [base_of(s.node)[0] for s in stand_ins]
    for node, value in zip(arguments, inputs):
        position = places.get(id(node))
        made.inputs.append(position)
        made.staged.append(table[position] if position is not None and isinstance(value, np.ndarray) else None)
    made.bases = [places[id(node)] for node in made.recording.bases.values() if id(node) in places]
    outputs = {id(t): _place(run, t.node) for t in writes}  # before the memory below moves
    known = {places[id(n)] for n in (*arguments, *made.recording.bases.values()) if id(n) in places}
    for tensor, node in owners.values():
        position = places.get(id(node))
        if position is None or position in known:
            continue
        before = table[position]
        slot = _slot(tensor, before, id(tensor) in outputs)
        shared = [index for index, buffer in enumerate(table) if buffer is before]
        for index in shared:  # the input, and the output that is written over it
            table[index] = slot.buffer
        made.states.append(State(tensor, slot, shared, True, id(tensor) in outputs))
        target = outputs.pop(id(tensor), None)
        if target is not None and table[target] is not slot.buffer:
            made.copies.append((_copier(run, target, position, tensor), target, position))
    taken = {id(state.slot.buffer) for state in made.states}
    for tensor in writes:  # written, never read
        if id(tensor) not in outputs:
            continue
        source = position = outputs[id(tensor)]
        if id(table[position]) in taken:  # two tensors of one value: memory for each
            table.append(Buffer(run.device, table[source].nbytes, table[source].order))
            position = len(table) - 1
            made.copies.append((_copier(run, source, position, tensor), source, position))
        taken.add(id(table[position]))
        slot = Slot(tensor, table[position])
        tensor.slot = slot
        made.states.append(State(tensor, slot, [position], False, True))


def _slot(tensor: TensorBase, buffer: Buffer, written: bool) -> Slot:
    """The tensor's slot; its first one gets a copy of the memory, which others may still be reading."""
    slot: Slot | None = tensor.slot
    if slot is None or slot.buffer is not buffer:
        slot = Slot(tensor, buffer.clone())
        tensor.slot = slot
    return slot


def _settle(nodes: list[Node], entry: int) -> None:
    """Compute what the step uses and was made before it: that is input, not part of the launch list."""
    older: dict[int, Node] = {}
    for node in toposort(nodes):
        for source in node.sources if node.serial > entry else ():
            if source.serial < entry and source.buffer is None and source.op.outputs == 1:
                held = source.handle is not None and source.handle() is not None
                if held or source.op.kind is not Kind.CREATION:
                    older[id(source)] = source
    if older:
        realize(list(older.values()))


def _separate(nodes: list[Node]) -> None:
    """Give each realized leaf memory of its own: equal values that were computed once share theirs."""
    seen: set[int] = set()
    for node in toposort(nodes):
        if node.buffer is not None:
            if id(node.buffer) in seen:
                node.buffer = node.buffer.clone()
            seen.add(id(node.buffer))


def _owners(nodes: list[Node]) -> dict[int, tuple[TensorBase, Node]]:
    """Tensors that own realized leaves of a graph: id -> (tensor, leaf)."""
    owners: dict[int, tuple[TensorBase, Node]] = {}
    for node in toposort(nodes):
        tensor = None if node.handle is None else node.handle()
        if tensor is None or tensor.is_view:
            continue
        base, chain = base_of(node)
        if base.buffer is not None and all(step.op.kind is Kind.IDENTITY for step in chain):
            owners[id(tensor)] = (tensor, base)
    return owners


def _place(run: Run, node: Node) -> int:
    """Where the memory of a computed node is in the table."""
    buffer = base_of(node)[0].buffer
    return next(i for i in range(len(run.table) - 1, -1, -1) if run.table[i] is buffer)


def _copier(run: Run, source: int, target: int, tensor: TensorBase) -> Any:
    """A program that copies one place of the table to another."""
    shape, dtype = tensor.shape, tensor.dtype
    operands = [Operand(n, dtype, run.table[p].view(shape)) for n, p in enumerate((source, target))]
    body = (Instr("load", (), 0, dtype),)
    kernel = Kernel(MAP, None, (), (), (), (), shape, body, ((0, 0),), (operands[0],), (operands[1],), 2)
    return run.device.compile([kernel])[0]


def _flush(device: str) -> None:
    """Do every pending write."""
    pending = effects.take(device)
    if pending:
        realize(pending)


def _contents(tensor: TensorBase) -> Buffer:
    """The tensor's value as a buffer of its own shape."""
    node = tensor.current_node()
    if view_of(node) is None:
        realize([node])
    found = view_of(node)
    assert found is not None
    buffer, view = found
    if view == buffer.view(tensor.shape):
        return buffer
    return Buffer.of(buffer.device, buffer.read(view, tensor.dtype))


def _in_order(buffer: Buffer, tensor: TensorBase, order: tuple[int, ...]) -> Buffer:
    """A copy of a tensor's buffer with its axes in ``order``."""
    if buffer.order == order:
        return buffer.clone()
    return Buffer.of(buffer.device, buffer.read(buffer.view(tensor.shape), tensor.dtype), order)


def _bring(device: devices.Device, value: Any, staged: Buffer | None, written: set[int]) -> Buffer:
    """The memory of an argument: an ndarray is copied where it was when captured, a tensor's is used as it is."""
    if staged is not None:
        device.backend.copy_in(staged.memory, np.ascontiguousarray(value))
        return staged
    buffer = _contents(value)
    return _in_order(buffer, value, ()) if buffer.order or id(buffer) in written else buffer


def _stand_in(value: Any, device: str) -> Tensor:
    """A tensor in memory of its own that stands for an argument while a step is captured."""
    array = value.numpy() if isinstance(value, TensorBase) else value
    dtype = value.dtype if isinstance(value, TensorBase) else None
    place = value.device if isinstance(value, TensorBase) else device
    return Tensor(array, dtype, place, requires_grad=isinstance(value, TensorBase) and value.requires_grad)


def _describe(value: Any) -> tuple[Any, ...]:
    """What about an argument makes another capture necessary."""
    if isinstance(value, TensorBase):
        return (value.shape, value.dtype, value.device, value.requires_grad)
    return (value.shape, value.dtype.str)


def _flatten(value: Any, leaves: list[Any], results: bool = False) -> Any:
    """The structure of nested arguments or results, hashable; tensors (and ndarrays) go to ``leaves``."""
    if isinstance(value, TensorBase) or isinstance(value, np.ndarray) and not results:
        leaves.append(value)
        return "leaf"
    if isinstance(value, (list, tuple)):
        return (type(value), tuple(_flatten(v, leaves, results) for v in value))
    if isinstance(value, dict):
        return (dict, tuple((key, _flatten(v, leaves, results)) for key, v in value.items()))
    if results and value is not None:
        hint = "return tensors; Python values would be frozen into the capture"
        expected = "a step that returns tensors, None, or lists, tuples and dicts of them"
        raise CaptureError.of("jit", expected, repr(value), hint)
    try:
        hash(value)
    except TypeError:
        raise CaptureError.of("jit", "arguments that are tensors, arrays or hashable", repr(value)) from None
    return ("value", type(value), value)


def _unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    """The inverse of :func:`_flatten`."""
    if structure == "leaf":
        return next(leaves)
    kind, *rest = structure
    if kind == "value":
        return rest[1]
    if kind is dict:
        return {key: _unflatten(v, leaves) for key, v in rest[0]}
    items = [_unflatten(v, leaves) for v in rest[0]]
    if hasattr(kind, "_fields"):  # a named tuple
        return kind(*items)
    return kind(items)
