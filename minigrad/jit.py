"""Capture a step once, replay its launches after: no graph, no Python per operation.

The first call with a signature runs the function as usual, on lazy tensors that stand for the arguments; what it
returned, wrote and left in ``grad`` is then compiled as one graph. Later calls copy the arguments into the captured
buffers and launch. What the step depends on besides its arguments (attributes of modules and optimizers, gradients
that were there, the tensors it reads) is recorded, and a call that finds any of it changed captures anew.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad import capture, effects, random
from minigrad import device as devices
from minigrad.buffer import Buffer
from minigrad.config import settings
from minigrad.errors import CaptureError
from minigrad.graph import Node, apply, grad_enabled, leaf, next_serial, set_grad_enabled, toposort
from minigrad.kernel import MAP, Instr, Kernel, Operand
from minigrad.mode import autocast_dtype
from minigrad.primitive import Kind
from minigrad.realize import EMPTY, Launched, Run, base_of, launch_all, prepare, realize, view_of
from minigrad.tensor import Tensor
from minigrad.tensor.base import TensorBase
from minigrad.view import Order

LIMIT = 16  # captures that one function keeps
SETTING = 64  # bytes of a tensor that may be written between any two steps: it is copied, and memory stays bound


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

    What the function reads from elsewhere, such as a global number, is frozen into the capture.

    Raises:
        CaptureError: if the function reads a value (``item``, ``numpy``, ``bool``), writes to an argument or leaves a
            gradient in one, seeds random numbers, or works on several devices.
    """
    captures: list[tuple[Any, Capture]] = []  # the most recently used is last
    lock = threading.RLock()

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        if capture.active() or settings.eager:
            return function(*args, **options)
        inputs: list[Any] = []
        structure = _flatten((args, options), inputs)
        modes = (grad_enabled(), autocast_dtype(), settings.matmul_precision, devices.default())
        signature = (structure, tuple(map(_describe, inputs)), modes)
        with lock:
            for position, (known, found) in enumerate(captures):
                if known == signature and found.ready():
                    captures.append(captures.pop(position))
                    return found.replay(inputs)
            made, result = capture_step(function, structure, inputs)
            captures.append((signature, made))
            if len(captures) > LIMIT:
                captures.pop(0)
                text = f"jit: more than {LIMIT} captures of {function.__name__}; dropped the least recently used"
                warnings.warn(text, stacklevel=2)
            return result

    return wrapper


class Slot:
    """The memory in which captured steps keep one tensor; captures of the same tensor share it."""

    def __init__(self, tensor: TensorBase, buffer: Buffer, owned: bool, base: Node, steps: Sequence[Node] = ()) -> None:
        """``steps`` is the movement by which ``tensor`` shows a buffer of the shape of ``base``."""
        self.shape = base.shape
        self.steps = [(step.op.name, step.attrs._asdict()) for step in steps if step.op.kind is Kind.MOVEMENT]
        self.move_to(tensor, buffer, owned)
        tensor.slot = weakref.ref(self)

    def move_to(self, tensor: TensorBase, buffer: Buffer, owned: bool = True) -> None:
        """Keep the tensor in ``buffer`` from now on, and have it show that; who writes must own it."""
        self.owned = owned
        node = leaf(buffer, self.shape, tensor.dtype, tensor.device)
        for name, attrs in self.steps:
            node = apply(name, node, **attrs)
        if tensor.requires_grad:
            node = apply("detach", node)
            node.requires_grad = True
        self.buffer, self.node = buffer, node
        tensor.show(node)

    def is_shared(self, tensor: TensorBase) -> bool:
        """Whether others than this and ``tensor`` hold the node, a lazy reader of the old version, say."""
        return sys.getrefcount(self.node) > _OWN_REFERENCES - (tensor.current_node() is not self.node)


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
    requires_grad: bool  # at entry


class Capture:
    """One captured step, bound to memory that stays where it is: a backend may record its launches once."""

    def __init__(self, run: Run, recording: capture.Recording) -> None:
        self.run, self.recording = run, recording
        self.inputs: list[int | None] = []  # place of each argument in the table; None where it is not used
        self.bases: list[int] = []  # places of the random counters
        self.states: list[State] = []
        self.copies: list[Launched] = []  # writes that could not be done in place
        self.grads: list[tuple[TensorBase, TensorBase | None]] = []  # what the step leaves in ``grad``
        self.results: list[tuple[int, Node]] = []
        self.template: Any = None
        self.made = range(len(run.inputs), len(run.inputs) + len(run.compiled.outputs))  # places of computed values
        self.bound: Callable[[], None] | None = None  # the launches; None after memory has moved

    def ready(self) -> bool:
        """Whether what the step was seen to depend on is as it was."""
        return self.recording.still_holds() and all(s.tensor.requires_grad == s.requires_grad for s in self.states)

    def replay(self, inputs: list[Any]) -> Any:
        """Run the step on other inputs of the same signature."""
        table, device = self.run.table, self.run.device
        given = [value for value in inputs if isinstance(value, TensorBase)]
        owners = {id(value.owner) for value in given}
        if any(state.written and id(state.tensor) in owners for state in self.states):
            capture.forbid_argument_write()
        realize([value.node for value in given])  # takes locks of other devices
        _flush(device.name)
        with device.lock:
            self._adopt_grads()
            for value, position in zip(inputs, self.inputs):
                if position is not None:
                    _bring(device, value, table[position])
            for state in self.states:
                self._sync(state)
            if self.bases:
                words = random.base_words()
                for position in self.bases:
                    device.backend.copy_in(table[position].memory, words)
            random.advance(self.recording.drawn)
            return self.execute()

    def _adopt_grads(self) -> None:
        """Have the gradients that the step was captured with show those that are there now."""
        for tensor, grad in self.recording.grads.values():
            now = tensor.peek_grad()
            if grad is not None and now is not None and now is not grad:
                grad.show(apply("detach", now.current_node()))

    def _sync(self, state: State) -> None:
        """Have the table hold what a tensor shows now, in memory that nobody else looks at if the step writes it."""
        tensor, slot, places, read, written, _ = state
        current = tensor.current_node() is slot.node
        if not read:
            if not current or slot.is_shared(tensor):
                slot.move_to(tensor, Buffer(slot.buffer.device, slot.buffer.nbytes, slot.buffer.order))
        elif not current:  # written outside since
            found = _contents(tensor)
            small, alike = found.nbytes <= SETTING, found.order == slot.buffer.order
            if small and alike and slot.owned and not slot.is_shared(tensor):
                self.run.device.backend.copy(found.memory, slot.buffer.memory, found.nbytes)
                tensor.show(slot.node)
            elif small or written or not alike:
                slot.move_to(tensor, _in_order(found, tensor, slot.buffer.order))
            else:
                slot.move_to(tensor, found, owned=False)
        elif written and (not slot.owned or slot.is_shared(tensor)):
            slot.move_to(tensor, slot.buffer.clone())
        for place in places:
            if self.run.table[place] is not slot.buffer:
                self.run.table[place] = slot.buffer
                self.bound = None

    def execute(self) -> Any:
        """Launch, show what was written, and return the results in memory of their own."""
        if settings.debug or settings.validate:
            self._launch()
        else:
            device, table = self.run.device, self.run.table
            if self.bound is None:
                copies = [(program, [table[p].memory for p in places]) for program, places, _ in self.copies]
                self.bound = device.backend.bind([*self.run.calls(), *copies])
            with device.backend.session():
                self.bound()
        return self._finish()

    def execute_first(self) -> Any:
        """The same in the memory that nodes have got; tensors that the function left elsewhere may keep it."""
        with self.run.device.lock:
            self._launch()
            result = self._finish()
            table, kept = self.run.table, {place for state in self.states for place in state.places}
            for place in self.made:
                if place not in kept:
                    table[place] = Buffer(self.run.device, table[place].nbytes, table[place].order)
        return result

    def _launch(self) -> None:
        self.run.launch()
        if self.copies:
            launch_all(self.run.device, self.copies, self.run.table)

    def _finish(self) -> Any:
        for state in self.states:
            if state.written:
                state.tensor.show(state.slot.node)
        for tensor, grad in self.grads:
            tensor.grad = grad
        made = []
        for position, node in self.results:
            made.append(Tensor.wrap(leaf(self.run.table[position].clone(), node.shape, node.dtype, node.device)))
        return _unflatten(self.template, iter(made))


def capture_step(function: Callable[..., Any], structure: Any, inputs: list[Any]) -> tuple[Capture, Any]:
    """Run ``function`` on stand-ins for ``inputs``, compile what it did, execute that, and return both."""
    for name in effects.devices():
        _flush(name)
    stand_ins = [_stand_in(value) for value in inputs]
    args, options = _unflatten(structure, iter(stand_ins))
    recording = capture.Recording(stand_ins, [v.owner for v in inputs if isinstance(v, TensorBase)])
    entry = next_serial()
    try:
        with capture.recording(recording):
            returned = [function(*args, **options)]
        made = _compile(recording, entry, returned)
    except BaseException:
        for tensor, _ in recording.writes():  # what was written until then stays written
            effects.add(tensor)
        raise
    finally:
        random.advance(recording.drawn)
    return made, made.execute_first()


def _compile(recording: capture.Recording, entry: int, returned: list[Any]) -> Capture:
    """What a function did, as a capture; empties ``returned``, as what nobody else holds need not be kept."""
    outputs: list[Any] = []
    template = _flatten(returned.pop(), outputs, results=True)
    writes = [tensor for tensor, _ in recording.writes()]
    before = {id(tensor): node for tensor, node in recording.writes()}
    with set_grad_enabled(False):
        graded = _graded(recording, entry, before)
        fresh = {id(g): g for _, g in graded if g is not None and id(g) not in before and g.node.serial > entry}
        _settle([t.node for t in (*outputs, *writes, *fresh.values())], entry, before)
        results = [apply("copy", tensor.node) for tensor in outputs]
        for tensor in (*writes, *fresh.values()):
            base, steps = base_of(tensor.node)
            moved = id(tensor) in before and any(step.op.kind is Kind.MOVEMENT for step in steps)
            if base.buffer is not None or moved:
                tensor.supersede(apply("copy", tensor.node))  # another tensor's memory: a copy of its own
    writes += fresh.values()
    outputs.clear()
    fresh.clear()
    nodes = [*results, *[t.node for t in writes]]
    places = sorted({node.device for node in nodes}) or [devices.canonical(None)]
    if len(places) > 1:
        raise CaptureError.of("jit", "a step on one device", " and ".join(places))
    _separate(nodes)
    owners = _owners(nodes, before, entry)
    donations = [(t.node, owners[id(t)][1]) for t in writes if id(t) in owners]
    run = prepare(nodes, donations) or Run(devices.get(places[0]), EMPTY, [], [])
    del nodes, donations
    made = Capture(run, recording)
    made.template, made.grads = template, graded
    made.results = [(_place(run, node), node) for node in results]
    _bind(made, writes, owners, before)
    run.inputs.clear()
    owners.clear()
    before.clear()
    recording.release()
    for state in made.states:
        if state.read and state.written and state.slot.is_shared(state.tensor):
            old = state.slot.buffer
            state.slot.move_to(state.tensor, old.clone())
            run.table[:] = [state.slot.buffer if buffer is old else buffer for buffer in run.table]
    return made


def _graded(
    recording: capture.Recording, entry: int, written: dict[int, Node]
) -> list[tuple[TensorBase, TensorBase | None]]:
    """Tensors whose ``grad`` the step set or wrote to, with what it left there."""
    found: list[tuple[TensorBase, TensorBase | None]] = []
    for tensor in recording.graded.values():
        grad = tensor.peek_grad()
        if grad is not None and grad.is_view and grad.current_node().serial > entry:
            tensor.grad = grad = Tensor.wrap(apply("copy", grad.current_node()))
        found.append((tensor, grad))
    found += [(t, g) for i, (t, g) in recording.grads.items() if id(g) in written and i not in recording.graded]
    return found


def _bind(
    made: Capture,
    writes: list[TensorBase],
    owners: dict[int, tuple[TensorBase, Node]],
    before: dict[int, Node],
) -> None:
    """Find arguments, random counters and outside tensors among the inputs of the compiled graph."""
    run, table = made.run, made.run.table
    places = {id(node): position for position, node in enumerate(run.inputs)}
    arguments = [base_of(s.node)[0] for s in made.recording.arguments]
    made.inputs = [places.get(id(node)) for node in arguments]
    made.bases = [places[id(node)] for node in made.recording.bases.values() if id(node) in places]
    outputs = {id(t): _place(run, t.node) for t in writes}  # before the memory below moves
    known = {places[id(n)] for n in (*arguments, *made.recording.bases.values()) if id(n) in places}

    def required(tensor: TensorBase) -> bool:
        return before.get(id(tensor), tensor.node).requires_grad

    for tensor, node in owners.values():
        position = places.get(id(node))
        if position is None or position in known:
            continue
        old = table[position]
        slot = _slot(tensor, old, id(tensor) in outputs)
        shared = [index for index, buffer in enumerate(table) if buffer is old]
        for index in shared:  # the input, and the output that is written over it
            table[index] = slot.buffer
        made.states.append(State(tensor, slot, shared, True, id(tensor) in outputs, required(tensor)))
        target = outputs.pop(id(tensor), None)
        if target is not None and table[target] is not slot.buffer:
            made.copies.append(_copier(run, target, position, tensor.node))
    taken = {id(state.slot.buffer) for state in made.states}
    for tensor in writes:  # written, never read
        if id(tensor) not in outputs:
            continue
        source = position = outputs[id(tensor)]
        base, steps = base_of(tensor.node)
        if id(table[position]) in taken or position not in made.made:  # the value of another tensor: memory for each
            table.append(Buffer(run.device, table[source].nbytes, table[source].order))
            position = len(table) - 1
            made.copies.append(_copier(run, source, position, base))
        taken.add(id(table[position]))
        slot = Slot(tensor, table[position], True, base, steps)
        made.states.append(State(tensor, slot, [position], False, True, required(tensor)))


def _slot(tensor: TensorBase, buffer: Buffer, written: bool) -> Slot:
    """The tensor's slot; one that is written gets a copy of the memory, which others may still be reading."""
    slot: Slot | None = None if tensor.slot is None else tensor.slot()
    if slot is None or slot.buffer is not buffer:
        return Slot(tensor, buffer.clone() if written else buffer, written, tensor.node)
    if written and not slot.owned:
        slot.move_to(tensor, buffer.clone())
    return slot


def _settle(nodes: list[Node], entry: int, before: dict[int, Node]) -> None:
    """Compute what the step uses and was made before it: that is input, not part of the launch list."""
    overwritten = {id(node) for node in before.values()}
    used = [source for node in toposort(nodes) if node.serial > entry for source in node.sources]
    older: dict[int, Node] = {}
    for node in (*nodes, *used):
        if node.serial < entry and node.buffer is None and node.op.outputs == 1:
            if node.is_shown or id(node) in overwritten or node.op.kind is not Kind.CREATION:
                older[id(node)] = node
    realize(list(older.values()))


def _separate(nodes: list[Node]) -> None:
    """Give each realized leaf memory of its own: equal values that were computed once share theirs."""
    seen: set[int] = set()
    for node in toposort(nodes):
        if node.buffer is not None:
            if id(node.buffer) in seen:
                node.buffer = node.buffer.clone()
            seen.add(id(node.buffer))


def _owners(nodes: list[Node], before: dict[int, Node], entry: int) -> dict[int, tuple[TensorBase, Node]]:
    """The tensors whose value at entry the graph reads: id -> (tensor, leaf). Each gets a leaf that is its alone.

    Args:
        nodes: of the graph.
        before: what written tensors showed at entry.
        entry: the serial number from which on nodes belong to the step.
    """
    owners: dict[int, tuple[TensorBase, Node]] = {}
    owned: set[int] = set()
    for node in toposort(nodes):
        tensor = None if node.handle is None else node.handle()
        if tensor is None or tensor.is_view or before.get(id(tensor), tensor.current_node()) is not node:
            continue
        found = view_of(node)
        if node.serial > entry or found is None:
            continue
        leaf_node, steps = base_of(node)
        if id(leaf_node) in owned or any(step.op.kind is Kind.MOVEMENT for step in steps):
            buffer, view = found
            node.buffer = Buffer.of(buffer.device, buffer.read(view, node.dtype))
            leaf_node = node
        owned.add(id(leaf_node))
        owners[id(tensor)] = (tensor, leaf_node)
    return owners


def _place(run: Run, node: Node) -> int:
    """Where the memory of a computed node is in the table."""
    buffer = base_of(node)[0].buffer
    return next(i for i in range(len(run.table) - 1, -1, -1) if run.table[i] is buffer)


def _copier(run: Run, source: int, target: int, node: Node) -> Launched:
    """A launch that copies one place of the table to another."""
    shape, dtype = node.shape, node.dtype
    operands = [Operand(n, dtype, run.table[p].view(shape)) for n, p in enumerate((source, target))]
    body = (Instr("load", (), 0, dtype),)
    kernel = Kernel(MAP, None, (), (), (), (), shape, body, ((0, 0),), (operands[0],), (operands[1],), 2)
    return run.device.compile([kernel])[0], (source, target), kernel


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


def _in_order(buffer: Buffer, tensor: TensorBase, order: Order) -> Buffer:
    """A copy of a tensor's buffer with its axes in ``order``."""
    if buffer.order == order:
        return buffer.clone()
    return Buffer.of(buffer.device, buffer.read(buffer.view(tensor.shape), tensor.dtype), order)


def _bring(device: devices.Device, value: Any, target: Buffer) -> None:
    """Copy an argument to where the captured step reads it."""
    if isinstance(value, np.ndarray):
        device.backend.copy_in(target.memory, np.ascontiguousarray(value))
        return
    found = _contents(value)
    if found.order:
        found = _in_order(found, value, ())
    device.backend.copy(found.memory, target.memory, target.nbytes)


def _stand_in(value: Any) -> Tensor:
    """A tensor in memory of its own that stands for an argument while a step is captured."""
    if isinstance(value, TensorBase):
        return Tensor(value.numpy(), value.dtype, value.device, value.requires_grad)
    return Tensor(value)


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
    if isinstance(value, float):
        return ("float", type(value), value.hex())  # a step can tell 0.0 from -0.0
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
    if kind == "float":
        return rest[0](float.fromhex(rest[1]))
    if kind is dict:
        return {key: _unflatten(v, leaves) for key, v in rest[0]}
    items = [_unflatten(v, leaves) for v in rest[0]]
    if hasattr(kind, "_fields"):  # a named tuple
        return kind(*items)
    return kind(items)
