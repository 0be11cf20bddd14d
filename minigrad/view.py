"""Views: how a tensor's elements are found in a buffer, and what movement primitives do to that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from minigrad.shapes import Shape, row_major


class Block(NamedTuple):
    """Entry of an order: ``size`` neighbours along ``axis`` lie here, their blocks where the axis stands."""

    axis: int
    size: int


Order = tuple[int | Block, ...]  # outermost first; empty: row-major


def fits(order: Order, shape: Shape) -> bool:
    """Whether a value of ``shape`` can lie in ``order``: it has these axes, and blocks divide them."""
    blocks = [entry for entry in order if isinstance(entry, Block)]
    return not order or len(order) - len(blocks) == len(shape) and all(shape[a] % size == 0 for a, size in blocks)


_WHOLE = (0, 0)  # the entry in ``View.blocks`` of an axis that is not blocked


class View(NamedTuple):
    """Element ``i`` of a tensor is buffer element ``offset + sum(i * strides)``, or ``fill`` where out of ``bounds``.

    ``bounds`` is None where everything is inside, else one ``(first, past_last)`` of valid indices per axis. Strides
    and offset count elements. ``blocks`` is None where no axis is blocked, else one ``(size, outer)`` per axis, with
    size 0 where it is not: index ``i`` of a blocked axis adds ``i // size * outer + i % size * stride``. A blocked axis
    has several whole blocks and no bounds.
    """

    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0
    bounds: tuple[tuple[int, int], ...] | None = None
    fill: float = 0.0
    blocks: tuple[tuple[int, int], ...] | None = None

    @classmethod
    @lru_cache(maxsize=16384)
    def of(cls, shape: Shape, order: Order = ()) -> View:
        """The view of a whole buffer whose axes lie in ``order``, outermost first (default: row-major).

        An axis of which there is one block, or whose blocks follow each other, counts as not blocked.

        >>> View.of((2, 3, 4), (1, 2, 0)).strides
        (1, 8, 2)
        >>> View.of((2, 12), (0, 1, Block(0, 2))) == View.of((2, 12), (1, 0))
        True
        """
        if not order:
            return cls(shape, row_major(shape))
        strides, blocks = [1] * len(shape), [_WHOLE] * len(shape)
        step = 1
        for entry in reversed(order):
            if isinstance(entry, Block):
                axis, size = entry
                assert shape[axis] % size == 0, f"blocks of {size} along an axis of {shape[axis]}"
                strides[axis], blocks[axis] = step, (size, 0)
                step *= size
                continue
            size, _ = blocks[entry]
            if not size:
                strides[entry] = step
            elif shape[entry] <= size or step == size * strides[entry]:
                blocks[entry] = _WHOLE
            else:
                blocks[entry] = (size, step)
            step *= max(shape[entry] // (size or 1), 1)
        return cls(shape, tuple(strides), blocks=_some(blocks))

    @property
    def is_row_major(self) -> bool:
        """Whether elements lie one after the other in row-major order."""
        if self.bounds is not None or self.blocks is not None:
            return False
        return all(n <= 1 or s == e for n, s, e in zip(self.shape, self.strides, row_major(self.shape)))

    @property
    def span(self) -> tuple[int, int]:
        """The buffer elements that a view without bounds reads lie in ``range(*span)``."""
        if 0 in self.shape:
            return (self.offset, self.offset)
        view = self.split()
        ends = [(n - 1) * s for n, s in zip(view.shape, view.strides)]
        return (view.offset + sum(e for e in ends if e < 0), view.offset + sum(e for e in ends if e > 0) + 1)

    def split(self) -> View:
        """The same elements with each blocked axis as two: its blocks, and the places in a block."""
        if self.blocks is None:
            return self
        assert self.bounds is None
        shape: list[int] = []
        strides: list[int] = []
        for n, stride, (size, outer) in zip(self.shape, self.strides, self.blocks):
            shape += [n // size, size] if size else [n]
            strides += [outer, stride] if size else [stride]
        return View(tuple(shape), tuple(strides), self.offset)

    def is_blocked(self, axis: int) -> bool:
        """Whether ``axis`` lies in blocks."""
        return self.blocks is not None and self.blocks[axis] != _WHOLE

    def moved(self, op: str, attrs: Any) -> View | None:
        """This view after a movement primitive, or None where no single view says it."""
        if op == "pad" or self.bounds is not None:  # not remembered: as a key, a fill of -0 equals 0
            return getattr(self, f"_{op}")(*attrs)  # type: ignore[no-any-return]
        return _moved(self, op, attrs)

    def through(self, chain: Iterable[tuple[str, Any]]) -> View | None:
        """This view after several movement primitives, first one first."""
        view: View | None = self
        for op, attrs in chain:
            if view is None:
                return None
            view = view.moved(op, attrs)
        return view

    def _permute(self, axes: tuple[int, ...]) -> View:
        bounds = None if self.bounds is None else tuple(self.bounds[a] for a in axes)
        blocks = None if self.blocks is None else tuple(self.blocks[a] for a in axes)
        shape, strides = tuple(self.shape[a] for a in axes), tuple(self.strides[a] for a in axes)
        return View(shape, strides, self.offset, bounds, self.fill, blocks)

    def _expand(self, shape: Shape) -> View | None:
        lead = len(shape) - len(self.shape)
        strides, bounds = [0] * lead, [(0, n) for n in shape[:lead]]
        for axis, size in enumerate(shape[lead:]):
            grown = self.shape[axis] != size
            valid = (0, self.shape[axis]) if self.bounds is None else self.bounds[axis]
            if grown and valid != (0, 1):
                return None
            strides.append(0 if grown else self.strides[axis])
            bounds.append((0, size) if grown else valid)
        blocks = self.blocks and (_WHOLE,) * lead + self.blocks  # a blocked axis is longer than 1: it never grows
        return self._replace(shape=shape, strides=tuple(strides), bounds=self.bounds and tuple(bounds), blocks=blocks)

    def _slice(self, starts: tuple[int, ...], sizes: Shape, steps: tuple[int, ...]) -> View | None:
        offset, strides, blocks = self.offset, [], []
        for axis, cut in enumerate(zip(starts, sizes, steps)):
            found = self._slice_axis(axis, *cut)
            if found is None:
                return None
            offset += found[0]
            strides.append(found[1])
            blocks.append(found[2])
        bounds = None
        if self.bounds is not None:
            bounds = tuple(
                _valid_steps(start, size, step, *valid)
                for start, size, step, valid in zip(starts, sizes, steps, self.bounds)
            )
            if all(valid == (0, n) for valid, n in zip(bounds, sizes)):
                bounds = None
        return View(sizes, tuple(strides), offset, bounds, self.fill, _some(blocks))

    def _slice_axis(self, axis: int, start: int, size: int, step: int) -> tuple[int, int, tuple[int, int]] | None:
        """Where a slice of an axis starts, its stride and its blocks."""
        stride, (block, outer) = self.strides[axis], self.blocks[axis] if self.blocks else _WHOLE
        if not block:
            return start * stride, step * stride, _WHOLE
        offset = start // block * outer + start % block * stride
        if size == 0 or start // block == (start + (size - 1) * step) // block:
            return offset, step * stride, _WHOLE
        if step % block == 0:  # one element of each block
            return offset, step // block * outer, _WHOLE
        if step == 1 and start % block == size % block == 0:
            return offset, stride, (block, outer)
        return None

    def _pad(self, padding: tuple[tuple[int, int], ...], value: float) -> View | None:
        if not any(map(any, padding)):
            return self
        if self.bounds is not None and self.fill != value:
            return None
        if any(self.is_blocked(axis) and any(margins) for axis, margins in enumerate(padding)):
            return None
        valid = self.bounds or tuple((0, n) for n in self.shape)
        return View(
            tuple(n + before + after for n, (before, after) in zip(self.shape, padding)),
            self.strides,
            self.offset - sum(before * s for (before, _), s in zip(padding, self.strides)),
            tuple((low + before, high + before) for (low, high), (before, _) in zip(valid, padding)),
            value,
            self.blocks,
        )

    def _strided_view(self, shape: Shape, strides: tuple[int, ...], offset: int) -> View | None:
        return View(shape, strides, self.offset + offset) if self.is_row_major else None

    def _reshape(self, shape: Shape) -> View | None:
        if self.bounds is not None:
            return self._reshape_bounded(shape)
        if math.prod(shape) == 0:
            return View(shape, row_major(shape), self.offset)
        old = [(n, s) for n, s in zip(self.shape, self.strides) if n != 1]
        cut = [c for n, c in zip(self.shape, self.blocks or (_WHOLE,) * len(self.shape)) if n != 1]
        strides, blocks = [0] * len(shape), [_WHOLE] * len(shape)
        at = 0  # next source axis
        axis = 0
        while axis < len(shape):
            if shape[axis] == 1:
                axis += 1
                continue
            # The shortest runs of source axes and of new axes with as many elements on both sides.
            first, last, have, want = at, axis, old[at][0], shape[axis]
            while have != want:
                if have < want:
                    at += 1
                    have *= old[at][0]
                else:
                    last += 1
                    want *= shape[last]
            if any(old[i][1] != old[i + 1][1] * old[i + 1][0] for i in range(first, at)):
                return None
            if any(c != _WHOLE for c in cut[first : at + 1]):
                if first < at or axis < last:  # a blocked axis stays as it is
                    return None
                blocks[axis] = cut[at]
            step = old[at][1]
            for new in range(last, axis - 1, -1):
                strides[new] = step
                step *= shape[new]
            at += 1
            axis = last + 1
        return View(shape, tuple(strides), self.offset, blocks=_some(blocks))

    def _reshape_bounded(self, shape: Shape) -> View | None:
        """Only axes of size 1 that are wholly valid may come or go."""
        assert self.bounds is not None
        kept = [a for a, n in enumerate(self.shape) if n != 1 or self.bounds[a] != (0, 1)]
        if [self.shape[a] for a in kept] != [n for n in shape if n != 1]:
            return None
        strides, bounds, blocks, rest = [], [], [], iter(kept)
        for size in shape:
            axis = next(rest) if size != 1 else None
            strides.append(0 if axis is None else self.strides[axis])
            bounds.append((0, 1) if axis is None else self.bounds[axis])
            blocks.append(_WHOLE if axis is None or self.blocks is None else self.blocks[axis])
        return View(shape, tuple(strides), self.offset, tuple(bounds), self.fill, _some(blocks))


@lru_cache(maxsize=16384)
def _moved(view: View, op: str, attrs: Any) -> View | None:
    result: View | None = getattr(view, f"_{op}")(*attrs)
    return result


def _some(blocks: list[tuple[int, int]]) -> tuple[tuple[int, int], ...] | None:
    return None if all(entry == _WHOLE for entry in blocks) else tuple(blocks)


def _valid_steps(start: int, size: int, step: int, low: int, high: int) -> tuple[int, int]:
    """Indices i in ``range(size)`` with ``low <= start + i * step < high``."""
    if step > 0:
        first, last = -((start - low) // step), -((start - high) // step)
    else:
        first, last = -((high - 1 - start) // -step), -((low - 1 - start) // -step)
    first, last = max(0, min(first, size)), max(0, min(last, size))
    return (first, last) if first < last else (0, 0)
