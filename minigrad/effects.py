"""Pending writes: assignments and gradients that nobody has read yet, and that the next realize does all the same."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minigrad.graph import Node
    from minigrad.tensor.base import TensorBase

LIMIT = 1024  # more pending writes than this flush by themselves
_pending: dict[int, weakref.ReferenceType[TensorBase]] = {}
_lock = threading.Lock()


def add(tensor: TensorBase) -> bool:
    """Note that ``tensor`` was written; True if it is time to flush. A tensor that dies takes its write along."""
    key = id(tensor)
    with _lock:
        if key not in _pending:
            _pending[key] = weakref.ref(tensor, partial(_forget, key))
        return len(_pending) > LIMIT


def _forget(key: int, _: weakref.ReferenceType[TensorBase]) -> None:
    _pending.pop(key, None)


def pending() -> bool:
    """Whether any tensor has a write that was not done yet."""
    return bool(_pending)


def take(device: str) -> list[Node]:
    """The nodes of all written tensors on ``device``; they are pending no more."""
    with _lock:
        found = []
        for key, reference in list(_pending.items()):
            tensor = reference()
            if tensor is not None and tensor.device == device:
                found.append(tensor.current_node())
                del _pending[key]
        return found


def devices() -> list[str]:
    """The devices that have pending writes."""
    alive = (reference() for reference in list(_pending.values()))
    return list(dict.fromkeys(t.device for t in alive if t is not None))
