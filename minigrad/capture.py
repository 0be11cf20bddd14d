"""What happens while a step is captured: what it may not do, and what it is seen to depend on."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from minigrad.errors import CaptureError

if TYPE_CHECKING:
    from minigrad.graph import Node
    from minigrad.tensor.base import TensorBase

_MISSING = object()
observed: list[type] = []  # classes whose attributes a captured step may read: modules, optimizers


class Recording:
    """What one capture reads from outside (attributes, gradients, random numbers), and the tensors it writes.

    Attributes:
        arguments: the tensors that stand for the step's arguments.
        given: the owners of the arguments themselves.
        replayed: whether the step will run again, with what it makes of host data frozen.
        attributes: (object, name) -> the value as :func:`snapshot` shows it.
        grads: tensors whose ``grad`` was read before the step set it, with what was there.
        graded: tensors whose ``grad`` the step set.
        written: tensors that the step wrote (weakly), with the node that each showed before.
        drawn: how many random words the step draws.
        bases: the node on each device from which they count.
    """

    def __init__(
        self, arguments: Sequence[TensorBase] = (), given: Sequence[TensorBase] = (), replayed: bool = True
    ) -> None:
        self.arguments, self.given, self.replayed = arguments, given, replayed
        self.attributes: dict[tuple[int, str], tuple[Any, str, Any, Any]] = {}
        self.grads: dict[int, tuple[TensorBase, Any]] = {}
        self.graded: dict[int, TensorBase] = {}
        self.written: dict[int, tuple[weakref.ReferenceType[TensorBase], Node]] = {}
        self.drawn = 0
        self.bases: dict[str, Node] = {}

    def is_argument(self, tensor: TensorBase) -> bool:
        """Whether the tensor stands for an argument."""
        return any(tensor is argument for argument in self.arguments)

    def read_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Note that an attribute was read."""
        key = (id(owner), name)
        if key not in self.attributes:
            self.attributes[key] = (owner, name, value, snapshot(value))

    def read_grad(self, tensor: TensorBase, grad: Any) -> None:
        """Note that a gradient was looked at; what the step itself put there is no dependence."""
        if id(tensor) not in self.graded:
            self.grads.setdefault(id(tensor), (tensor, grad))

    def write_grad(self, tensor: TensorBase) -> None:
        """Note that the step set a gradient."""
        if self.is_argument(tensor):
            hint = "return loss.gradient(x) from the step"
            raise CaptureError.of("jit", "no gradient left in an argument of a captured step", repr(tensor), hint)
        self.graded[id(tensor)] = tensor

    def write(self, tensor: TensorBase, before: Node) -> None:
        """Note that the step writes a tensor; one that dies takes its write along."""
        if self.is_argument(tensor) or any(tensor is given for given in self.given):
            forbid_argument_write()
        key = id(tensor)
        if key not in self.written:
            self.written[key] = (weakref.ref(tensor, lambda _: self.written.pop(key, None)), before)

    def writes(self) -> list[tuple[TensorBase, Node]]:
        """The written tensors that are alive, with what they showed before."""
        found = ((reference(), before) for reference, before in list(self.written.values()))
        return [(tensor, before) for tensor, before in found if tensor is not None]

    def release(self) -> None:
        """Let go of what only the capture itself needed."""
        self.arguments = self.given = ()
        self.written.clear()
        self.bases.clear()

    def random_base(self, device: str, words: int) -> tuple[Node, int]:
        """The node from which random numbers on ``device`` count in this step, and where the next ``words`` begin."""
        from minigrad import random

        if device not in self.bases:
            self.bases[device] = random.base_node(device)
        start, self.drawn = self.drawn, self.drawn + words
        return self.bases[device], start

    def still_holds(self) -> bool:
        """Whether everything that was read is as it was; of a gradient, whether there is one of that kind."""
        for owner, name, value, seen in self.attributes.values():
            now = _attribute(owner, name)
            if (now is not value or type(seen) is list) and snapshot(now) != seen:
                return False
        return all(_kind(tensor.peek_grad()) == _kind(grad) for tensor, grad in self.grads.values())


def _kind(grad: TensorBase | None) -> Any:
    return None if grad is None else (grad.shape, grad.dtype, grad.device, grad.requires_grad)


def _attribute(owner: Any, name: str) -> Any:
    own = vars(owner)
    if name == "__dict__":
        return own
    return own[name] if name in own else getattr(type(owner), name, _MISSING)


def snapshot(value: Any, depth: int = 4) -> Any:
    """A value to compare later: numbers by value, containers and records by content, others by identity.

    It is a list where the value may change and stay the same object.
    """
    if isinstance(value, float):
        return (type(value), value.hex())  # -0.0 == 0.0 and NaN != NaN, but a step sees it the other way round
    if isinstance(value, (int, str, bytes, type(None))):
        return (type(value), value)
    if depth and isinstance(value, dict):
        return [(snapshot(key, 0), snapshot(v, depth - 1)) for key, v in dict.items(value)]
    if depth and isinstance(value, (list, tuple)):
        parts = [snapshot(v, depth - 1) for v in value]
        fixed = isinstance(value, tuple) and not any(type(part) is list for part in parts)
        return (type(value), *parts) if fixed else parts
    if isinstance(value, frozenset):
        return (frozenset, value)
    if isinstance(value, set):
        return [frozenset(value)]
    if depth and isinstance(value, SimpleNamespace):
        return [snapshot(vars(value), depth - 1)]
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [type(value), *[snapshot(getattr(value, f.name, _MISSING), depth - 1) for f in fields]]
    return _Same(value)


class _Same:
    """Equal to itself only; keeps the value alive, so that its identity is not given to another."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


class _State(threading.local):
    current: Recording | None = None


state = _State()
_watching = threading.RLock()
_watchers = 0
_watched: list[type] = []


@contextmanager
def recording(into: Recording) -> Iterator[None]:
    """Within the block this thread captures: reads of observed attributes go to ``into``."""
    before, state.current = state.current, into
    _watch(1)
    try:
        yield
    finally:
        state.current = before
        _watch(-1)


def _watch(change: int) -> None:
    """Attribute reads are slow while watched, so classes are watched only while some thread captures."""
    global _watchers
    with _watching:
        _watchers += change
        if _watchers and not _watched:
            _watched.extend(observed)
            for cls in _watched:
                cls.__getattribute__ = _getattribute  # type: ignore[method-assign, assignment]
        elif not _watchers:
            for cls in _watched:
                del cls.__getattribute__
            _watched.clear()


def _getattribute(self: Any, name: str) -> Any:
    current = state.current
    if current is None or name.startswith("__") and name != "__dict__":
        return object.__getattribute__(self, name)
    own = object.__getattribute__(self, "__dict__")
    if name == "__dict__" and own:  # `vars(self)` is empty while the object is made
        current.read_attribute(self, name, own)
    elif name in own:
        current.read_attribute(self, name, own[name])
    elif not hasattr(getattr(type(self), name, None), "__get__"):  # methods and properties read what they need
        current.read_attribute(self, name, getattr(type(self), name, _MISSING))
    return object.__getattribute__(self, name)


def active() -> bool:
    """Whether this thread is inside a captured step."""
    return state.current is not None


def forbid_argument_write() -> None:
    """Raise because an argument is written, maybe by another name: the step has a copy of what it was at entry."""
    hint = "return a new tensor, or do not pass what the step writes"
    raise CaptureError.of("jit", "arguments that are not written", "an assignment to one", hint)


def forbid_read(node: Node) -> None:
    """Raise if a value is read inside a captured step: it would be frozen into the capture."""
    if active():
        hint = "return the tensor from the step and read it outside"
        raise CaptureError.of("jit", "no reading of values inside a captured step", repr(node), hint)


def forbid_host_data() -> None:
    """Raise if an ndarray becomes a tensor inside a captured step: its values would be frozen into the capture."""
    if state.current is not None and state.current.replayed:
        hint = "pass it to the step as an argument"
        raise CaptureError.of("jit", "no ndarray made into a tensor inside a captured step", "one", hint)


def forbid_seed() -> None:
    """Raise if random numbers are seeded inside a captured step: replays would not do it again."""
    if active():
        raise CaptureError.of("jit", "no seeding inside a captured step", "one", "call manual_seed outside the step")
