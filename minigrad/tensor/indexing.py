"""Indexing as in NumPy, and reading and writing at positions that are data.

Basic indices (integers, slices, None, ``...``) give views: writing to them writes to the tensor. Arrays and lists of
integers, and bool masks, give copies. Positions that are known here (Python numbers, lists, ndarrays) raise where they
are out of range; those in a tensor, whose values are not known before they are computed, are clamped to the first or
last position.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minigrad import capture, dtypes
from minigrad import device as devices
from minigrad.buffer import Buffer
from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError, ShapeError
from minigrad.graph import Node, apply, create, leaf
from minigrad.ops.indexing import flat_positions, take_along
from minigrad.shapes import Shape, broadcast, normalize_axis, row_major
from minigrad.tensor.base import Operand, TensorBase
from minigrad.tensor.movement import one_axis
from minigrad.tensor.reduction import ReductionMethods
from minigrad.view import View

T = TypeVar("T", bound="IndexingMethods")


class Fancy(NamedTuple):
    """Arrays between the brackets: ``indices[k]`` indexes ``axes[k]``; their broadcast axes stand at ``place``."""

    axes: tuple[int, ...]
    indices: list[Node]
    place: int


class IndexingMethods(ReductionMethods):
    """Square brackets, gather and scatter."""

    __slots__ = ()

    def __getitem__(self: T, key: Any) -> T:
        part, arrays, place = _taken_apart(self, key)
        if not arrays:
            return part
        return self.wrap(_fetch(part.node, _fancy(part, arrays, place)))

    def __setitem__(self, key: Any, value: Operand) -> None:
        part, arrays, place = _taken_apart(self, key)
        if not arrays:
            # `x[i] += 1` has written through the view before it assigns that same view here.
            if isinstance(value, TensorBase) and value._base is part._base and value._view == part._view:
                return
            source = self.like(value).node
            part.assign(part._quick(_broadcast_value(source, part.shape)))
            return
        source = self.like(value).node.cast(self.dtype)
        written = _masked(part, arrays, place, source) if len(arrays) == 1 else None
        if written is None:
            written = _stored(part.node, _fancy(part, arrays, place), source)
        part.assign(part._quick(written))

    def __iter__(self: T) -> Iterator[T]:
        if not self.shape:
            raise ArgumentTypeError.of("iter", "a tensor of at least one dimension", "a 0-d tensor")
        return iter(self.unbind(0))

    # Positions along one axis.

    def gather(self: T, axis: int | None = None, index: Any = None, *, dim: int | None = None) -> T:
        """``out[.., i, ..] = x[.., index[.., i, ..], ..]`` along ``axis``.

        The integer ``index`` has as many axes as this tensor; but for ``axis`` none is longer than this tensor's.

        >>> from minigrad import Tensor
        >>> Tensor([[1, 2], [3, 4]]).gather(1, [[1], [0]]).tolist()
        [[2], [3]]

        Raises:
            ShapeError: if the index does not fit.
            AxisError: if a position that is known here is out of range.
        """
        at = one_axis("gather", axis, dim, self.ndim)
        return self.wrap(take_along(self.node, _index_along("gather", self, at, index), at))

    def take_along_axis(self: T, indices: Any, axis: int | None = None, *, dim: int | None = None) -> T:
        """:meth:`gather` where all other axes broadcast (NumPy's function); of the flat tensor by default."""
        if axis is None and dim is None:
            return self.flatten().take_along_axis(indices, 0)
        at = one_axis("take_along_axis", axis, dim, self.ndim)
        index = index_node("take_along_axis", indices, self.shape[at], self.device)
        if index.ndim != self.ndim:
            raise ShapeError.of("take_along_axis", f"indices of {self.ndim} dimensions", index.shape)
        ours, theirs = ((*n.shape[:at], 1, *n.shape[at + 1 :]) for n in (self.node, index))
        shape = broadcast("take_along_axis", ours, theirs)
        node, index = (n.expand((*shape[:at], n.shape[at], *shape[at + 1 :])) for n in (self.node, index))
        return self.wrap(take_along(node, index, at))

    def index_select(self: T, axis: int | None = None, index: Any = None, *, dim: int | None = None) -> T:
        """Positions ``index`` (1-d) of one axis."""
        at = one_axis("index_select", axis, dim, self.ndim)
        return self.wrap(_fetch(self.node, Fancy((at,), [_vector("index_select", self, at, index)], at)))

    def embedding(self: T, weight: T, padding_idx: int | None = None) -> T:
        """Rows of ``weight`` (n, width) at these integers in [0, n): (...) to (..., width).

        Row ``padding_idx`` gets no gradient.
        """
        if weight.ndim != 2:
            raise ShapeError.of("embedding", "a weight of shape (n, width)", weight.shape)
        index = index_node("embedding", self, weight.shape[0], weight.device)
        rows = _fetch(weight.node, Fancy((0,), [index], 0))
        if padding_idx is not None:
            padding = index.equals(_checked(padding_idx, weight.shape[0])).reshape((*index.shape, 1))
            rows = padding.where(apply("detach", rows), rows)
        return self.wrap(rows)

    def scatter(
        self: T, axis: int | None = None, index: Any = None, src: Operand = 0, reduce: str | None = None,
        *, dim: int | None = None,
    ) -> T:  # fmt: skip
        """A copy with ``src`` written at ``index`` along ``axis``: ``out[.., index[.., i, ..], ..] = src[.., i, ..]``.

        Args:
            axis: the axis that is indexed.
            index: as for :meth:`gather`.
            src: a number, or a tensor no axis of which is shorter than the index's.
            reduce: None: the last of several values for one position stays; ``"add"``: they are added to the old value;
                ``"amax"``: the greatest stays, the old value included.
            dim: another name for ``axis``.

        Raises:
            ShapeError: if the index or ``src`` does not fit.
            ArgumentError: for another ``reduce``.
            AxisError: if a position that is known here is out of range.

        >>> from minigrad import Tensor
        >>> Tensor([0, 0, 0]).scatter(0, [2, 0], Tensor([5, 6])).tolist()
        [6, 0, 5]
        """
        at = one_axis("scatter", axis, dim, self.ndim)
        index = _index_along("scatter", self, at, index)
        source = self.like(src).node.cast(self.dtype)
        if source.ndim == 0:
            source = source.expand(index.shape)
        elif source.ndim != self.ndim or any(n < i for n, i in zip(source.shape, index.shape)):
            raise ShapeError.of("scatter", f"a source of at least the index's shape {index.shape}", source.shape)
        elif source.shape != index.shape:
            zeros, ones = (0,) * self.ndim, (1,) * self.ndim
            source = apply("slice", source, starts=zeros, sizes=index.shape, steps=ones)
        count, length = (math.prod(index.shape),), math.prod(self.shape)
        positions = flat_positions(index, at, self.shape).reshape(count)
        old, new = self.node.reshape((length,)), source.reshape(count)
        if reduce is None:
            out = put(old, positions, new)
        elif reduce == "add":
            out = old + apply("scatter", positions, new, length=length, reduce="sum")
        elif reduce == "amax":
            out = apply("maximum", old, apply("scatter", positions, new, length=length, reduce="max"))
        else:
            raise ArgumentError.of("scatter", "a reduce of None, 'add' or 'amax'", repr(reduce))
        return self.wrap(out.reshape(self.shape))

    def scatter_add(
        self: T, axis: int | None = None, index: Any = None, src: Operand = 0, *, dim: int | None = None
    ) -> T:
        """:meth:`scatter` with ``reduce="add"``."""
        return self.scatter(axis, index, src, "add", dim=dim)

    def index_add(
        self: T, axis: int | None = None, index: Any = None, source: Operand = 0, *, dim: int | None = None
    ) -> T:
        """A copy with slice i of ``source`` added to slice ``index[i]`` along ``axis``."""
        at = one_axis("index_add", axis, dim, self.ndim)
        where = _vector("index_add", self, at, index)
        node = self.like(source).node.cast(self.dtype)
        if node.shape != (*self.shape[:at], *where.shape, *self.shape[at + 1 :]):
            got = f"source {node.shape}, index {where.shape}, axis {at} of {self.shape}"
            raise ShapeError.of("index_add", "a source with one slice per index", got)
        order = (at, *(a for a in range(self.ndim) if a != at))
        added = apply("scatter", where, node.permute(order), length=self.shape[at], reduce="sum")
        return self.wrap(self.node + added.permute(_inverse(order)))

    # Masks.

    def masked_fill(self: T, mask: T, value: Operand) -> T:
        """A copy with ``value`` (one number) where the bool ``mask``, which broadcasts to this shape, holds."""
        fill = self.like(value).node.cast(self.dtype)
        if fill.ndim or broadcast("masked_fill", self.shape, mask.shape) != self.shape:
            expected = f"one number and a mask that broadcasts to {self.shape}"
            raise ShapeError.of("masked_fill", expected, f"a value of {fill.shape} and a mask of {mask.shape}")
        return self.wrap(mask.node.where(fill, self.node))

    def masked_select(self: T, mask: T) -> T:
        """The elements where the bool ``mask`` holds, 1-d; both broadcast. Reads the mask: not inside ``jit``."""
        shape = broadcast("masked_select", self.shape, mask.shape)
        return self.broadcast_to(shape).flatten()[mask.broadcast_to(shape).flatten()]

    def nonzero(self: T, as_tuple: bool = False) -> Any:
        """Positions of the elements that are not 0: int64 of shape (count, ndim), or one (count,) tensor per axis.

        The shape depends on the values, so this computes them: not inside ``jit``.
        """
        found = np.argwhere(self.numpy())
        out = self.wrap(_on_device(found, self.device))
        return out.unbind(1) if as_tuple else out

    # Diagonals.

    def diagonal(self: T, offset: int = 0, axis1: int = 0, axis2: int = 1) -> T:
        """A view of the elements whose position along ``axis2`` is that along ``axis1`` plus ``offset``, as last axis.

        >>> from minigrad import Tensor
        >>> Tensor([[1, 2], [3, 4]]).diagonal().tolist()
        [1, 4]
        """
        a, b = normalize_axis("diagonal", axis1, self.ndim), normalize_axis("diagonal", axis2, self.ndim)
        if a == b:
            raise ArgumentError.of("diagonal", "two axes that differ", f"{axis1} and {axis2} of {self.shape}")
        first = (max(-offset, 0), max(offset, 0))
        count = max(min(self.shape[a] - first[0], self.shape[b] - first[1]), 0)
        rest = [axis for axis in range(self.ndim) if axis not in (a, b)]
        shape = (*(self.shape[axis] for axis in rest), count)

        def along(view: View) -> View:
            strides = (*(view.strides[axis] for axis in rest), view.strides[a] + view.strides[b])
            start = first[0] * view.strides[a] + first[1] * view.strides[b] if count else 0
            return View(shape, strides, view.offset + start)

        view = along(View.of(self.shape))
        out = self._apply("strided_view", shape=shape, strides=view.strides, offset=view.offset)
        out._base = base = self if self._base is None else self._base
        out._view, out._seen = view if self._view is None else along(self._view), base._version
        return out


# Taking an index apart.


def _taken_apart(x: T, key: Any) -> tuple[T, list[tuple[Any, int]], int]:
    """Basic indices applied, as a view; arrays with the view's axis that each begins at; where their axes will stand.

    NumPy's rule: next to each other (an integer beside them is one of them) they stand where the first stood; with
    anything between they come first.
    """
    items = [_item(k) for k in (key if isinstance(key, tuple) else (key,))]
    used = sum(0 if k is None or k is Ellipsis else k.ndim if _is_mask(k) else 1 for k in items)
    if used > x.ndim or sum(k is Ellipsis for k in items) > 1:
        raise AxisError.of("index", f"at most {x.ndim} indices and one '...' for {x.shape}", key)
    at = next((i for i, k in enumerate(items) if k is Ellipsis), len(items))
    items[at : at + 1] = [Ellipsis, *[slice(None)] * (x.ndim - used)]
    starts: list[int] = []
    sizes: list[int] = []
    steps: list[int] = []
    shape: list[int] = []  # of the view
    arrays: list[tuple[Any, int]] = []
    spots: list[int] = []  # arrays and integers, by their place among the items
    kept = 0  # axes of the view that no array indexes
    place = 0
    for spot, item in enumerate(items):
        if item is Ellipsis:  # parts its neighbours also where it stands for no axes
            continue
        if item is None:
            shape.append(1)
            kept += 1
            continue
        axis = len(starts)
        if isinstance(item, slice):
            start, stop, step = item.indices(x.shape[axis])
            size = len(range(start, stop, step))
            starts.append(start if size else 0)
            sizes.append(size)
            steps.append(step)
            shape.append(size)
            kept += 1
            continue
        if not spots:
            place = kept
        spots.append(spot)
        if isinstance(item, int):
            starts.append(_checked(item, x.shape[axis]))
            sizes.append(1)
            steps.append(1)
            continue
        arrays.append((item, len(shape)))
        covered = x.shape[axis : axis + (item.ndim if _is_mask(item) else 1)]
        if _is_mask(item) and item.shape != covered:
            raise AxisError.of("index", f"a mask of shape {covered}, as the axes it is for", item.shape)
        for size in covered:
            starts.append(0)
            steps.append(1)
            sizes.append(size)
            shape.append(size)
    if spots and spots[-1] - spots[0] >= len(spots):
        place = 0
    view = tuple(shape)
    if tuple(sizes) != x.shape or any(s != 1 for s in steps):
        x = x._move("slice", starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))
        return (x if view == x.shape else x._move("reshape", shape=view)), arrays, place
    return x._move("reshape", shape=view), arrays, place


def _item(key: Any) -> Any:
    """One index as None, ``...``, a slice, a Python int, or an integer or bool array or tensor."""
    if key is None or key is Ellipsis or isinstance(key, slice):
        return key
    if isinstance(key, TensorBase):
        if key.dtype.is_float:
            raise AxisError.of("index", "a tensor of integers or bools", key.dtype.name)
        return key
    if isinstance(key, np.ndarray) and key.ndim:
        capture.forbid_host_data()
    elif hasattr(key, "__index__") and not isinstance(key, (bool, np.bool_)):
        return operator.index(key)
    return _known(key)


def _known(key: Any) -> Any:
    """A list or ndarray as an array of int64 or bool."""
    array = np.asarray(key)
    if array.dtype.kind not in "iub" and array.size or array.dtype.kind == "b" and array.ndim == 0:
        raise AxisError.of("index", "integers, slices, None, '...', or arrays of integers or bools", repr(key))
    return array if array.dtype.kind == "b" else array.astype(np.int64)


def _is_mask(item: Any) -> bool:
    return (
        isinstance(item, TensorBase)
        and item.dtype is dtypes.bool_
        or isinstance(item, np.ndarray)
        and item.dtype == bool
    )


def _checked(position: int, size: int) -> int:
    if not -size <= position < size:
        raise AxisError.of("index", f"an integer in [{-size}, {size - 1}]", position)
    return position % size


def _on_device(array: Any, device: str) -> Node:
    return leaf(Buffer.of(devices.get(device), array), array.shape, dtypes.as_dtype(array.dtype), device)


def index_node(op: str, value: Any, size: int, device: str) -> Node:
    """Positions in ``range(size)`` as int64: negative ones counted from the end, those of a tensor clamped.

    Raises:
        AxisError: if one that is known here is out of range, or they are no integers.
    """
    if isinstance(value, TensorBase):
        if not value.dtype.is_integer:
            raise AxisError.of(op, "an index of integers", value.dtype.name)
        node = value.node.cast(dtypes.int64)
        return clamped((node < 0).where(node + size, node) if value.dtype.is_signed else node, size)
    if isinstance(value, np.ndarray):
        capture.forbid_host_data()
    array = _known(value)
    if array.dtype == bool:
        raise AxisError.of(op, "an index of integers", "bools")
    wrong = (array < -size) | (array >= size)
    if wrong.any():
        raise AxisError.of(op, f"integers in [{-size}, {size - 1}]", array[wrong].flat[0])
    return _on_device(np.where(array < 0, array + size, array), device)


def clamped(index: Node, size: int) -> Node:
    """``index`` within ``range(size)``."""
    low = apply("maximum", index, index._other(0))
    return apply("minimum", low, low._other(size - 1))


def _fancy(part: TensorBase, arrays: list[tuple[Any, int]], place: int) -> Fancy:
    """Arrays as one int64 index per axis; a mask is read, and gives the positions where it holds."""
    axes: list[int] = []
    indices: list[Node] = []
    for array, axis in arrays:
        if array.ndim == 0 and _is_mask(array):
            raise AxisError.of("index", "a mask of at least one dimension", "a 0-d bool", "use where")
        found = np.nonzero(np.asarray(array)) if _is_mask(array) else (array,)
        for index in found:
            indices.append(index_node("index", index, part.shape[axis], part.device))
            axes.append(axis)
            axis += 1
    return Fancy(tuple(axes), indices, place)


# Reading and writing at positions.


def _rows(node: Node, fancy: Fancy) -> tuple[Node, Node, tuple[int, ...]]:
    """The indexed axes as one first axis, one index into it, and the order in which the axes now are."""
    order = (*fancy.axes, *(a for a in range(node.ndim) if a not in fancy.axes))
    moved = node.permute(order)
    count = len(fancy.axes)
    index: Node | None = None
    for position, stride in zip(fancy.indices, row_major(moved.shape[:count])):
        step = position * stride if stride != 1 else position
        index = step if index is None else index + step
    assert index is not None
    return moved.reshape((math.prod(moved.shape[:count]), *moved.shape[count:])), index, order


def _placing(fancy: Fancy, index: Node, rest: int) -> tuple[int, ...]:
    """The permutation of (index axes, remaining axes) that puts the index axes where they belong."""
    after = range(index.ndim, index.ndim + rest)
    return (*after[: fancy.place], *range(index.ndim), *after[fancy.place :])


def _fetch(node: Node, fancy: Fancy) -> Node:
    rows, index, _ = _rows(node, fancy)
    return apply("take", rows, index).permute(_placing(fancy, index, rows.ndim - 1))


def _stored(node: Node, fancy: Fancy, value: Node) -> Node:
    """``node`` with ``value`` (broadcast) where the index points."""
    rows, index, order = _rows(node, fancy)
    rest = rows.shape[1:]
    shape = (*rest[: fancy.place], *index.shape, *rest[fancy.place :])
    value = _broadcast_value(value, shape).permute(_inverse(_placing(fancy, index, len(rest))))
    count = math.prod(index.shape)
    written = put(rows, index.reshape((count,)), value.reshape((count, *rest)))
    return written.reshape(tuple(node.shape[a] for a in order)).permute(_inverse(order))


def _masked(part: TensorBase, arrays: list[tuple[Any, int]], place: int, value: Node) -> Node | None:
    """A select by mask, which needs not know how many elements are chosen; None where the value depends on that."""
    ((mask, axis),) = arrays
    rank = part.ndim - mask.ndim + 1
    if not _is_mask(mask) or value.ndim > rank:
        return None
    shape = [1] * (rank - value.ndim) + list(value.shape)
    if shape.pop(place) != 1:
        return None
    shape[axis:axis] = [1] * mask.ndim
    chosen = mask.node if isinstance(mask, TensorBase) else _on_device(mask, part.device)
    chosen = chosen.reshape((*(1,) * axis, *mask.shape, *(1,) * (part.ndim - axis - mask.ndim)))
    return chosen.where(_broadcast_value(value.reshape(tuple(shape)), part.shape), part.node)


def _broadcast_value(value: Node, shape: Shape) -> Node:
    """A value that is assigned, broadcast; leading axes of size 1 too many are dropped, as in NumPy."""
    extra = value.ndim - len(shape)
    if extra > 0 and math.prod(value.shape[:extra]) == 1:
        value = value.reshape(value.shape[extra:])
    if broadcast("index assignment", value.shape, shape) != shape:
        raise ShapeError.of("index assignment", f"a value that broadcasts to {shape}", value.shape)
    return value.expand(shape)


def put(base: Node, index: Node, source: Node) -> Node:
    """``base`` with row i of ``source`` written at row ``index[i]``, the last one where several go to one row."""
    if 0 in (index.shape[0], base.shape[0]):
        return base
    order = create("iota", base.device, length=index.shape[0], dtype=dtypes.int64)
    last = apply("scatter", index, order, length=base.shape[0], reduce="max")  # negative where nothing is written
    kept = (last < 0).reshape((base.shape[0], *(1,) * (base.ndim - 1)))
    return kept.where(base, apply("take", source, apply("maximum", last, last._other(0))))


def _index_along(op: str, x: TensorBase, axis: int, index: Any) -> Node:
    """An index of :meth:`gather` or :meth:`scatter`."""
    node = index_node(op, index, x.shape[axis] if x.shape else 1, x.device)
    fits = 0 < x.ndim == node.ndim
    if not fits or any(i > n for a, (i, n) in enumerate(zip(node.shape, x.shape)) if a != axis):
        got = f"{node.shape} for {x.shape} along axis {axis}"
        raise ShapeError.of(op, "an index of as many axes (at least 1), none but the indexed one longer", got)
    return node


def _vector(op: str, x: TensorBase, axis: int, index: Any) -> Node:
    node = index_node(op, index, x.shape[axis] if x.shape else 1, x.device)
    if node.ndim != 1 or not x.shape:
        raise ShapeError.of(op, "a 1-d index into a tensor of at least one dimension", f"{node.shape}, {x.shape}")
    return node


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))
