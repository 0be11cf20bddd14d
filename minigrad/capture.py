"""What happens while a step is captured: what it may not do, and what it is seen to depend on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minigrad.errors import CaptureError

if TYPE_CHECKING:
    from minigrad.graph import Node
    from minigrad.tensor.base import TensorBase

_MISSING = object()
observed: list[type] = []  # classes whose attributes a captured step may read: modules, optimizers


class Recording:
    """What one capture reads from outside: attributes, gradients, random numbers.

    Attributes:
        attributes: (object, name) -> the value as :func:`snapshot` shows it.
        grads: tensors whose ``grad`` was read before the step set it, with what was there.
        graded: tensors whose ``grad`` the step set.
        drawn: how many random words the step draws.
        bases: the node on each device from which they count.
    """

    def __init__(self) -> None:
        self.attributes: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.grads: dict[int, tuple[TensorBase, Any]] = {}
        self.graded: dict[int, TensorBase] = {}
        self.drawn = 0
        self.bases: dict[str, Node] = {}

    def read_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Note that an attribute was read."""
        key = (id(owner), name)
        if key not in self.attributes:
            self.attributes[key] = (owner, name, snapshot(value))

    def read_grad(self, tensor: TensorBase, grad: Any) -> None:
        """Note that a gradient was looked at; what the step itself put there is no dependence."""
        if id(tensor) not in self.graded:
            self.grads.setdefault(id(tensor), (tensor, grad))

    def write_grad(self, tensor: TensorBase) -> None:
        """Note that the step set a gradient."""
        self.graded[id(tensor)] = tensor

    def random_base(self, device: str, words: int) -> tuple[Node, int]:
        """The node from which random numbers on ``device`` count in this step, and where the next ``words`` begin."""
        from minigrad import random

        if device not in self.bases:
            self.bases[device] = random.base_node(device)
        start, self.drawn = self.drawn, self.drawn + words
        return self.bases[device], start

    def still_holds(self) -> bool:
        """Whether everything that was read is as it was."""
        for owner, name, value in self.attributes.values():
            if snapshot(vars(owner).get(name, _MISSING)) != value:
                return False
        return all(tensor.peek_grad() is grad for tensor, grad in self.grads.values())


def snapshot(value: Any, depth: int = 4) -> Any:
    """A value to compare later: containers by content, numbers and strings by value, all else by identity."""
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        return (type(value), value)
    if depth and isinstance(value, dict):
        return [(key, snapshot(v, depth - 1)) for key, v in dict.items(value)]
    if depth and isinstance(value, (list, tuple)):
        return [snapshot(v, depth - 1) for v in value]
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


@contextmanager
def recording(into: Recording) -> Iterator[None]:
    """Within the block this thread captures: reads of observed attributes go to ``into``."""
    state.current = into
    _watch(1)
    try:
        yield
    finally:
        state.current = None
        _watch(-1)


def _watch(change: int) -> None:
    """Attribute reads are slow while watched, so classes are watched only while some thread captures."""
    global _watchers
    with _watching:
        before, _watchers = _watchers, _watchers + change
        for cls in observed:
            if before == 0:
                cls.__getattribute__ = _getattribute  # type: ignore[method-assign, assignment]
            elif _watchers == 0:
                del cls.__getattribute__


def _getattribute(self: Any, name: str) -> Any:
    value = object.__getattribute__(self, name)
    current = state.current
    if current is not None and not name.startswith("__") and name in object.__getattribute__(self, "__dict__"):
        current.read_attribute(self, name, value)
    return value


def active() -> bool:
    """Whether this thread is inside a captured step."""
    return state.current is not None


def forbid_read(node: Node) -> None:
    """Raise if a value is read inside a captured step: it would be frozen into the capture."""
    if active():
        hint = "return the tensor from the step and read it outside"
        raise CaptureError.of("jit", "no reading of values inside a captured step", repr(node), hint)


def forbid_host_data() -> None:
    """Raise if an ndarray becomes a tensor inside a captured step: its values would be frozen into the capture."""
    if active():
        hint = "pass it to the step as an argument"
        raise CaptureError.of("jit", "no ndarray made into a tensor inside a captured step", "one", hint)
