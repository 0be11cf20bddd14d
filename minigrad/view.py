"""Views: how a tensor's elements are found in a buffer, and what movement primitives do to that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from minigrad.shapes import Shape, row_major


class View(NamedTuple):
    """Element ``i`` of a tensor is buffer element ``offset + sum(i * strides)``, or ``fill`` where out of ``bounds``.

    ``bounds`` is None where everything is inside, else one ``(first, past_last)`` of valid indices per axis. Strides
    and offset count elements.
    """

    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0
    bounds: tuple[tuple[int, int], ...] | None = None
    fill: float = 0.0

    @classmethod
    @lru_cache(maxsize=16384)
    def of(cls, shape: Shape, order: tuple[int, ...] = ()) -> View:
        """The view of a whole buffer whose axes lie in ``order``, outermost first (default: row-major).

        >>> View.of((2, 3, 4), (1, 2, 0)).strides
        (1, 8, 2)
        """
        if not order:
            return cls(shape, row_major(shape))
        strides = [1] * len(shape)
        step = 1
        for axis in reversed(order):
            strides[axis] = step
            step *= max(shape[axis], 1)
        return cls(shape, tuple(strides))

    @property
    def is_row_major(self) -> bool:
        """Whether elements lie one after the other in row-major order."""
        expected = row_major(self.shape)
        return self.bounds is None and all(n <= 1 or s == e for n, s, e in zip(self.shape, self.strides, expected))

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
        return self._replace(
            shape=tuple(self.shape[a] for a in axes), strides=tuple(self.strides[a] for a in axes), bounds=bounds
        )

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
        return self._replace(shape=shape, strides=tuple(strides), bounds=self.bounds and tuple(bounds))

    def _slice(self, starts: tuple[int, ...], sizes: Shape, steps: tuple[int, ...]) -> View:
        offset = self.offset + sum(a * s for a, s in zip(starts, self.strides))
        strides = tuple(s * k for s, k in zip(self.strides, steps))
        bounds = None
        if self.bounds is not None:
            bounds = tuple(
                _valid_steps(start, size, step, *valid)
                for start, size, step, valid in zip(starts, sizes, steps, self.bounds)
            )
            if all(valid == (0, n) for valid, n in zip(bounds, sizes)):
                bounds = None
        return self._replace(shape=sizes, strides=strides, offset=offset, bounds=bounds)

    def _pad(self, padding: tuple[tuple[int, int], ...], value: float) -> View | None:
        if not any(map(any, padding)):
            return self
        if self.bounds is not None and self.fill != value:
            return None
        valid = self.bounds or tuple((0, n) for n in self.shape)
        return View(
            tuple(n + before + after for n, (before, after) in zip(self.shape, padding)),
            self.strides,
            self.offset - sum(before * s for (before, _), s in zip(padding, self.strides)),
            tuple((low + before, high + before) for (low, high), (before, _) in zip(valid, padding)),
            value,
        )

    def _strided_view(self, shape: Shape, strides: tuple[int, ...], offset: int) -> View | None:
        return View(shape, strides, self.offset + offset) if self.is_row_major else None

    def _reshape(self, shape: Shape) -> View | None:
        if self.bounds is not None:
            return self._reshape_bounded(shape)
        if math.prod(shape) == 0:
            return View(shape, row_major(shape), self.offset)
        old = [(n, s) for n, s in zip(self.shape, self.strides) if n != 1]
        strides = [0] * len(shape)
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
            step = old[at][1]
            for new in range(last, axis - 1, -1):
                strides[new] = step
                step *= shape[new]
            at += 1
            axis = last + 1
        return View(shape, tuple(strides), self.offset)

    def _reshape_bounded(self, shape: Shape) -> View | None:
        """Only axes of size 1 that are wholly valid may come or go."""
        assert self.bounds is not None
        kept = [a for a, n in enumerate(self.shape) if n != 1 or self.bounds[a] != (0, 1)]
        if [self.shape[a] for a in kept] != [n for n in shape if n != 1]:
            return None
        strides, bounds, rest = [], [], iter(kept)
        for size in shape:
            axis = next(rest) if size != 1 else None
            strides.append(0 if axis is None else self.strides[axis])
            bounds.append((0, 1) if axis is None else self.bounds[axis])
        return self._replace(shape=shape, strides=tuple(strides), bounds=tuple(bounds))


@lru_cache(maxsize=16384)
def _moved(view: View, op: str, attrs: Any) -> View | None:
    result: View | None = getattr(view, f"_{op}")(*attrs)
    return result


def _valid_steps(start: int, size: int, step: int, low: int, high: int) -> tuple[int, int]:
    """Indices i in ``range(size)`` with ``low <= start + i * step < high``."""
    if step > 0:
        first, last = -((start - low) // step), -((start - high) // step)
    else:
        first, last = -((high - 1 - start) // -step), -((low - 1 - start) // -step)
    first, last = max(0, min(first, size)), max(0, min(last, size))
    return (first, last) if first < last else (0, 0)
