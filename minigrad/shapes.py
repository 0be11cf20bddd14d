"""Shapes: broadcasting, axes, and the output sizes of windows (convolution and pooling)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError, ShapeError

Shape = tuple[int, ...]
Axes = int | Sequence[int] | None


@lru_cache(maxsize=8192)
def broadcast(op: str, *shapes: Shape) -> Shape:
    """The shape that ``shapes`` broadcast to, by NumPy's rule.

    >>> broadcast("add", (3, 1), (4,))
    (3, 4)

    Raises:
        ShapeError: if two sizes differ and neither is 1.
    """
    rank = max(map(len, shapes))
    out = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if size != 1:
                if out[axis] not in (1, size):
                    got = " and ".join(map(str, shapes))
                    raise ShapeError.of(op, "shapes that broadcast together", got, f"axis {axis - rank} differs")
                out[axis] = size
    return tuple(out)


def normalize_axis(op: str, axis: int, rank: int) -> int:
    """``axis`` as a number in ``range(rank)``; negative axes count from the end. A 0-d tensor accepts 0 and -1."""
    if not hasattr(axis, "__index__"):
        raise ArgumentTypeError.of(op, "an integer axis", repr(axis))
    limit = max(rank, 1)
    if not -limit <= axis < limit:
        raise AxisError.of(op, f"an axis in [{-limit}, {limit - 1}] for a {rank}-d tensor", axis)
    return axis.__index__() % limit


def normalize_axes(op: str, axes: Axes, rank: int) -> tuple[int, ...]:
    """``axes`` (None: all) as sorted numbers in ``range(rank)``; a repeated axis raises."""
    if axes is None:
        return tuple(range(rank))
    given = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    out = sorted(normalize_axis(op, a, rank) for a in given)
    if len(set(out)) != len(out):
        raise ArgumentError.of(op, "axes that differ", given)
    return tuple(out) if rank else ()


def as_shape(op: str, shape: int | Sequence[int]) -> Shape:
    """``shape`` as a tuple of non-negative Python ints."""
    given = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    for size in given:
        if not hasattr(size, "__index__"):
            raise ArgumentTypeError.of(op, "a shape of integers", repr(shape))
        if size < 0:
            raise ShapeError.of(op, "sizes of at least 0", given)
    return tuple(size.__index__() for size in given)


def infer_reshape(op: str, old: Shape, new: Sequence[int]) -> Shape:
    """``new`` with its one ``-1`` replaced by the size that keeps the number of elements of ``old``."""
    sizes = tuple(int(s) for s in new)
    if sizes.count(-1) > 1 or any(s < -1 for s in sizes):
        raise ShapeError.of(op, "at most one -1 and otherwise sizes of at least 0", sizes)
    count = math.prod(old)
    if -1 in sizes:
        rest = math.prod(s for s in sizes if s != -1)
        if rest == 0 or count % rest:
            raise ShapeError.of(op, f"a shape of {count} elements to reshape {old}", sizes)
        sizes = tuple(count // rest if s == -1 else s for s in sizes)
    if math.prod(sizes) != count:
        raise ShapeError.of(op, f"a shape of {count} elements to reshape {old}", f"{sizes} ({math.prod(sizes)})")
    return sizes


def row_major(shape: Shape) -> tuple[int, ...]:
    """Strides, in elements, of a row-major array of ``shape``.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [1] * len(shape), 1
    for axis in range(len(shape) - 1, -1, -1):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


class Window(NamedTuple):
    """A sliding window over 1 to 3 spatial dimensions; every field but ``ceil_mode`` has one entry per dimension.

    The window at output position ``o`` covers input positions ``o * stride - padding[0] + tap * dilation`` for
    ``tap in range(kernel)``; positions outside the input are padding.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]  # (before, after)
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    @property
    def rank(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    def extent(self, axis: int) -> int:
        """Input positions that the window spans along ``axis``: ``dilation * (kernel - 1) + 1``."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def output_size(self, op: str, spatial: Shape) -> Shape:
        """Sizes of the output over an input of ``spatial`` sizes: (N - F + 2P)/S + 1, rounded down.

        With ``ceil_mode`` rounded up, but a window must start inside the input or its left padding (PyTorch's rule).

        >>> Window((3,), (2,), ((0, 0),), (1,)).output_size("conv", (7,))
        (3,)

        Raises:
            ShapeError: if an output would be empty, with the formula and its numbers.
        """
        out = []
        for axis, size in enumerate(spatial):
            (before, after), stride, extent = self.padding[axis], self.stride[axis], self.extent(axis)
            room = size + before + after - extent
            count = (-(-room // stride) if self.ceil_mode else room // stride) + 1
            if self.ceil_mode and (count - 1) * stride >= size + before:
                count -= 1
            if count < 1 or room < 0:
                formula = "(N - F + P)/S + 1 of at least 1"
                numbers = f"({size} - {extent} + {before + after})/{stride} + 1 along spatial axis {axis}"
                hint = f"the window spans {extent} positions, the padded input has {size + before + after}"
                raise ShapeError.of(op, f"an output size {formula}", numbers, hint)
            out.append(count)
        return tuple(out)


def per_axis(op: str, name: str, value: int | Sequence[int], rank: int, least: int) -> tuple[int, ...]:
    """An attribute given as one int or one per spatial dimension, checked against its least value."""
    given = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if any(isinstance(v, bool) or not hasattr(v, "__index__") for v in given):
        raise ArgumentTypeError.of(op, f"{name} of integers", repr(value))
    if len(given) != rank:
        raise ArgumentError.of(op, f"{name} as one integer or {rank}", repr(value))
    if min(given, default=least) < least:
        raise ArgumentError.of(op, f"{name} of at least {least}", repr(value))
    return tuple(v.__index__() for v in given)


def per_axis_padding(op: str, value: int | Sequence[int | Sequence[int]], rank: int) -> tuple[tuple[int, int], ...]:
    """Padding as ``((before, after), ...)`` from one int, one per dimension, or one pair per dimension."""
    if isinstance(value, Sequence) and any(isinstance(v, Sequence) for v in value):
        pairs = [tuple(v) if isinstance(v, Sequence) else (v, v) for v in value]
        if len(pairs) != rank or any(len(p) != 2 for p in pairs):
            raise ArgumentError.of(op, f"padding as {rank} pairs (before, after)", repr(value))
        flat = per_axis(op, "padding", [v for p in pairs for v in p], 2 * rank, 0)
        return tuple((flat[2 * i], flat[2 * i + 1]) for i in range(rank))
    return tuple((p, p) for p in per_axis(op, "padding", value, rank, 0))  # type: ignore[arg-type]
