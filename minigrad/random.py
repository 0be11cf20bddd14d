"""Random numbers: one counter-based generator, whose bits are the same on every backend.

A draw takes the next words of a stream: word ``i`` is Threefry-2x32 (Salmon et al., 2011) of the counter ``i`` under
the key that :func:`manual_seed` sets. Key and counter reach kernels as data, so drawing again compiles nothing. Uniform
numbers use the upper 24 bits (fewer for half types) and are bitwise equal everywhere, normal ones within rounding.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import NDArray

from minigrad import capture, config, dtypes
from minigrad import device as devices
from minigrad.buffer import Buffer
from minigrad.dtypes import DType
from minigrad.errors import ArgumentError
from minigrad.graph import Node, apply, constant, create, leaf

_WORD = 0xFFFFFFFF
_DIGITS = {dtypes.float16: 11, dtypes.bfloat16: 8}  # bits of a uniform number: no more, so that none rounds up to 1

State = tuple[int, int]  # seed, words drawn so far
_lock = threading.RLock()
_state: list[State] = []  # one entry, once the seed is known


def manual_seed(seed: int) -> None:
    """Start the stream of random numbers of ``seed`` from its beginning; taken modulo 2^64.

    >>> from minigrad import Tensor
    >>> manual_seed(1); first = Tensor.rand(3).tolist()
    >>> manual_seed(1); first == Tensor.rand(3).tolist()
    True
    """
    set_rng_state((seed, 0))


def get_rng_state() -> State:
    """The seed, and how many words have been drawn: what :func:`set_rng_state` takes."""
    if not _state:
        _state[:] = [(config.seed() % 2**64, 0)]
    return _state[0]


def set_rng_state(state: State) -> None:
    """Continue where :func:`get_rng_state` was called.

    Raises:
        CaptureError: inside a captured step: replays would not do it again.
    """
    capture.forbid_seed()
    seed, drawn = state
    _state[:] = [(int(seed) % 2**64, int(drawn) % 2**64)]


def advance(words: int) -> None:
    """Skip ``words`` words of the stream."""
    with _lock:
        seed, drawn = get_rng_state()
        _state[:] = [(seed, (drawn + words) % 2**64)]


def base_words() -> NDArray[np.uint32]:
    """The key and the counter, two words each, low word first."""
    seed, drawn = get_rng_state()
    return np.array([seed & _WORD, seed >> 32, drawn & _WORD, drawn >> 32], np.uint32)


def base_node(device: str) -> Node:
    """:func:`base_words` on a device."""
    return leaf(Buffer.of(devices.get(device), base_words()), (4,), dtypes.uint32, device)


def state_node(device: str, words: int) -> tuple[Node, int]:
    """Take ``words`` words: a node like :func:`base_node`, and where in the stream from there they begin.

    In a captured step the node is an input that every replay sets anew.
    """
    if capture.state.current is not None:
        return capture.state.current.random_base(device, words)
    with _lock:
        base = base_node(device)
        advance(words)
    return base, 0


def _plus(low: Node, high: Node, offset: Node) -> tuple[Node, Node]:
    """A 64-bit counter plus a word."""
    total = low + offset
    return total, high + (total < low).cast(dtypes.uint32)


def _words(base: Node, start: int, count: int) -> Node:
    """``count`` words of the stream, from ``start`` after the counter of ``base``."""
    if count >= 2**32:
        raise ArgumentError.of("random", "fewer than 2^32 numbers at once", count)
    k0, k1, low, high = (apply("slice", base, starts=(i,), sizes=(1,), steps=(1,)) for i in range(4))
    if start:
        low, high = _plus(low, high, constant(start & _WORD, dtypes.uint32, base.device))
        high = high + (start >> 32)
    low, high = _plus(low, high, create("iota", base.device, length=count, dtype=dtypes.uint32))
    return apply("threefry", k0, k1, low, high)


def bits(count: int, device: str) -> Node:
    """``count`` random words, uint32."""
    return _words(*state_node(device, count), count)


def wide_bits(count: int, device: str) -> Node:
    """``count`` random uint64, of two words each."""
    base, start = state_node(device, 2 * count)
    high, low = (_words(base, start + i * count, count).cast(dtypes.uint64) for i in (0, 1))
    return apply("bitwise_or", apply("shift_left", high, constant(32, dtypes.uint64, device)), low)


def _uniform(words: Node, dtype: DType) -> Node:
    digits = _DIGITS.get(dtype, 24)
    kept = apply("shift_right", words, constant(32 - digits, dtypes.uint32, words.device))
    return kept.cast(dtype) * 2.0**-digits


def uniform(count: int, dtype: DType, device: str) -> Node:
    """``count`` numbers uniform on [0, 1), one word each."""
    return _uniform(bits(count, device), dtype)


def normal(count: int, dtype: DType, device: str) -> Node:
    """``count`` standard normal numbers, two words each (Box and Muller, 1958)."""
    kind = dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
    base, start = state_node(device, 2 * count)
    u, v = (_uniform(_words(base, start + i * count, count), kind) for i in (0, 1))
    radius = apply("sqrt", apply("log", 1 - u) * -2.0)  # 1 - u is never 0
    return (radius * apply("cos", v * (2 * math.pi))).cast(dtype)


__all__ = ["State", "get_rng_state", "manual_seed", "set_rng_state"]
