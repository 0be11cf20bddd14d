"""Movement: other shapes, orders and arrangements of the same elements.

What one strided view can say (permute, flip, squeeze, slices, most reshapes) shares memory with its source: writing to
either shows in the other. An expanded view is read-only. The rest (pad, cat, roll, repeat ...) gives new tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from minigrad import dtypes
from minigrad.dtypes import DType, Scalar
from minigrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from minigrad.graph import Node, apply
from minigrad.shapes import Axes, Shape, as_shape, infer_reshape, normalize_axes, normalize_axis
from minigrad.tensor.elementwise import ElementwiseMethods

M = TypeVar("M", bound="MovementMethods")  # T is a property here
Sizes = int | Sequence[int]  # f(2, 3) and f((2, 3)) are the same


def sizes_of(given: Sequence[Sizes]) -> Sequence[Any]:
    """The numbers of ``f(2, 3)`` or ``f((2, 3))``."""
    return given[0] if len(given) == 1 and isinstance(given[0], Sequence) else given


def one_axis(op: str, axis: int | None, dim: int | None, rank: int) -> int:
    """The axis named by ``axis`` or ``dim``, as a number in ``range(rank)``."""
    if (axis is None) == (dim is None):
        raise ArgumentTypeError.of(op, "one of axis and dim", f"axis={axis}, dim={dim}")
    return normalize_axis(op, axis if dim is None else dim, rank)  # type: ignore[arg-type]


def slice_along(x: Node, axis: int, start: int, size: int, step: int = 1) -> Node:
    """``size`` positions of one axis, from ``start`` by ``step``."""
    starts, sizes, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return apply("slice", x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))


def repeated(x: Node, axis: int, count: int) -> Node:
    """Each element ``count`` times in a row along one axis."""
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    node = x.reshape((*before, size, 1, *after)).expand((*before, size, count, *after))
    return node.reshape((*before, size * count, *after))


def _in_one_dtype(op: str, first: Any, others: tuple[Any, ...]) -> list[Any]:
    """The tensors of ``f(a, b)`` or ``f([a, b])``, in their common dtype."""
    given = list(first) if isinstance(first, (list, tuple)) else [first]
    given += others
    tensor = next((t for t in given if isinstance(t, ElementwiseMethods)), None)
    if tensor is None:
        raise ArgumentTypeError.of(op, "at least one tensor", f"{len(given)} values without one")
    given = [tensor.like(t) for t in given]
    dtype = dtypes.result_type([(t.dtype, t.ndim == 0) for t in given])
    return [t if t.dtype is dtype else t.wrap(t.node.cast(dtype)) for t in given]


class MovementMethods(ElementwiseMethods):
    """Shapes, orders and arrangements."""

    __slots__ = ()

    # The same elements under another shape.

    def size(self, axis: int | None = None, *, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        if axis is None and dim is None:
            return self.shape
        return self.shape[one_axis("size", axis, dim, self.ndim)]

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def reshape(self: M, *shape: Sizes) -> M:
        """The same elements, in row-major order, under another shape; one size may be -1.

        Shares memory where one strided view can say it, else copies.

        >>> from minigrad import Tensor
        >>> Tensor([[1, 2, 3], [4, 5, 6]]).reshape(3, -1).tolist()
        [[1, 2], [3, 4], [5, 6]]

        Raises:
            ShapeError: if the number of elements differs.
        """
        return self._move("reshape", shape=infer_reshape("reshape", self.shape, sizes_of(shape)))

    def view(self: M, *shape: Sizes) -> M:
        """:meth:`reshape` that always shares memory.

        Raises:
            ShapeError: if no strided view of the memory has this shape.
        """
        out = self._move("reshape", shape=infer_reshape("view", self.shape, sizes_of(shape)))
        if out._base is None:
            got = f"{out.shape} of a view of shape {self.shape}"
            raise ShapeError.of("view", "a shape that one strided view says", got, "use .reshape, which may copy")
        return out

    def flatten(self: M, start_dim: int = 0, end_dim: int = -1) -> M:
        """Axes ``start_dim`` to ``end_dim`` (both included) as one; a 0-d tensor becomes 1-d."""
        first = normalize_axis("flatten", start_dim, self.ndim)
        last = normalize_axis("flatten", end_dim, self.ndim)
        if first > last:
            raise ArgumentError.of("flatten", "start_dim before end_dim", f"{start_dim} and {end_dim}")
        count = math.prod(self.shape[first : last + 1])
        return self._move("reshape", shape=(*self.shape[:first], count, *self.shape[last + 1 :]))

    def unflatten(self: M, axis: int | None = None, sizes: Sequence[int] = (), *, dim: int | None = None) -> M:
        """One axis split into several of ``sizes``, of which one may be -1."""
        at = one_axis("unflatten", axis, dim, self.ndim)
        parts = infer_reshape("unflatten", self.shape[at : at + 1], sizes)
        return self._move("reshape", shape=(*self.shape[:at], *parts, *self.shape[at + 1 :]))

    def squeeze(self: M, axis: Axes = None, *, dim: Axes = None) -> M:
        """Without the given axes (default: all) that have size 1; others stay, as in PyTorch."""
        gone = normalize_axes("squeeze", axis if dim is None else dim, self.ndim)
        return self._move("reshape", shape=tuple(n for a, n in enumerate(self.shape) if n != 1 or a not in gone))

    def unsqueeze(self: M, axis: int | None = None, *, dim: int | None = None) -> M:
        """With a new axis of size 1 at position ``axis``."""
        at = one_axis("unsqueeze", axis, dim, self.ndim + 1)
        return self._move("reshape", shape=(*self.shape[:at], 1, *self.shape[at:]))

    # Another order of axes or elements.

    def permute(self: M, *axes: Sizes) -> M:
        """Axes reordered: axis i of the result is axis ``axes[i]`` of this.

        Raises:
            AxisError: if an axis is out of range.
            ArgumentError: if not every axis is there once.
        """
        order = tuple([normalize_axis("permute", a, self.ndim) for a in sizes_of(axes)])
        return self._move("permute", axes=order)

    def transpose(self: M, dim0: int = 1, dim1: int = 0) -> M:
        """Two axes exchanged."""
        order = list(range(self.ndim))
        a, b = normalize_axis("transpose", dim0, self.ndim), normalize_axis("transpose", dim1, self.ndim)
        if order:
            order[a], order[b] = b, a
        return self._move("permute", axes=tuple(order))

    swapaxes = swapdims = transpose

    @property
    def T(self: M) -> M:
        """All axes in reverse order."""
        return self._move("permute", axes=tuple(range(self.ndim))[::-1])

    @property
    def mT(self: M) -> M:
        """The last two axes exchanged: the transposes of a batch of matrices."""
        if self.ndim < 2:
            raise ShapeError.of("mT", "at least 2 dimensions", self.shape)
        return self.transpose(-2, -1)

    def movedim(self: M, source: Sizes, destination: Sizes) -> M:
        """Axes ``source`` moved to positions ``destination``; the others keep their order."""
        given = [tuple(s) if isinstance(s, Sequence) else (s,) for s in (source, destination)]
        old, new = ([normalize_axis("movedim", a, self.ndim) for a in axes] for axes in given)
        if len(old) != len(new) or len(set(old)) != len(old) or len(set(new)) != len(new):
            raise ArgumentError.of("movedim", "as many different destinations as sources", f"{source} to {destination}")
        order = [a for a in range(self.ndim) if a not in old]
        for to, axis in sorted(zip(new, old)):
            order.insert(to, axis)
        return self._move("permute", axes=tuple(order))

    moveaxis = movedim

    def flip(self: M, *axes: Sizes, axis: Axes = None, dim: Axes = None) -> M:
        """Elements in reverse order along ``axes`` (default: all)."""
        named = axis if dim is None else dim
        flipped = normalize_axes("flip", tuple(sizes_of(axes)) if axes else named, self.ndim)
        back = [a in flipped and n > 0 for a, n in enumerate(self.shape)]
        starts = tuple(n - 1 if b else 0 for n, b in zip(self.shape, back))
        return self._move("slice", starts=starts, sizes=self.shape, steps=tuple(-1 if b else 1 for b in back))

    def roll(self: M, shifts: Sizes, axis: Axes = None, *, dim: Axes = None) -> M:
        """Elements moved on by ``shifts`` along ``axis``, re-entering at the front; of the flat tensor by default."""
        named = axis if dim is None else dim
        if named is None:
            return self.flatten().roll(shifts, 0).reshape(self.shape)
        moves = tuple(shifts) if isinstance(shifts, Sequence) else (shifts,)
        axes = tuple(named) if isinstance(named, Sequence) else (named,)
        if len(moves) != len(axes):
            raise ArgumentError.of("roll", "one shift per axis", f"{shifts} along {axes}")
        node = self.node
        for shift, given in zip(moves, axes):
            at = normalize_axis("roll", given, self.ndim)
            length = node.shape[at] if node.ndim else 0
            split = shift % length if length else 0
            if split:
                end, front = slice_along(node, at, length - split, split), slice_along(node, at, 0, length - split)
                node = apply("cat", end, front, axis=at)
        return self.clone() if node is self._node else self.wrap(node)

    # Repetition.

    def expand(self: M, *shape: Sizes) -> M:
        """Axes of size 1 (and new leading ones) repeated to ``shape``, where -1 keeps a size. A read-only view."""
        given = sizes_of(shape)
        lead = len(given) - self.ndim
        kept = tuple([self.shape[a - lead] if s == -1 and a >= lead else s for a, s in enumerate(given)])
        return self._move("expand", shape=as_shape("expand", kept))

    def broadcast_to(self: M, *shape: Sizes) -> M:
        """This tensor broadcast to ``shape``, a read-only view."""
        return self._move("expand", shape=as_shape("broadcast_to", tuple(sizes_of(shape))))

    def repeat(self: M, *repeats: Sizes) -> M:
        """Copies side by side, ``repeats`` of them along each axis; more repeats than axes add leading axes.

        >>> from minigrad import Tensor
        >>> Tensor([1, 2]).repeat(2, 2).tolist()
        [[1, 2, 1, 2], [1, 2, 1, 2]]
        """
        counts = as_shape("repeat", tuple(sizes_of(repeats)))
        if len(counts) < self.ndim:
            raise ShapeError.of("repeat", f"at least one number for each axis of {self.shape}", counts)
        shape = (1,) * (len(counts) - self.ndim) + self.shape
        node = self.node.reshape(tuple(n for size in shape for n in (1, size)))
        node = node.expand(tuple(n for pair in zip(counts, shape) for n in pair))
        return self.wrap(node.reshape(tuple(c * n for c, n in zip(counts, shape))))

    def tile(self: M, *reps: Sizes) -> M:
        """:meth:`repeat`, but missing leading numbers are 1 (NumPy's ``tile``)."""
        counts = tuple(sizes_of(reps))
        return self.repeat((1,) * (self.ndim - len(counts)) + counts)

    def repeat_interleave(self: M, repeats: int, axis: int | None = None, *, dim: int | None = None) -> M:
        """Each element ``repeats`` times in a row along ``axis``; without one, of the flat tensor."""
        if axis is None and dim is None:
            return self.flatten().repeat_interleave(repeats, 0)
        at = one_axis("repeat_interleave", axis, dim, self.ndim)
        (count,) = as_shape("repeat_interleave", repeats)
        return self.wrap(repeated(self.node, at, count))

    # Larger and smaller.

    def pad(self: M, padding: Sequence[Any], mode: str = "constant", value: Scalar = 0) -> M:
        """Elements added around this tensor.

        Args:
            padding: PyTorch's flat ``(before, after)`` of the last axis, then the one before it ...; or NumPy's
                ``((before, after), ...)``, one pair per axis, first axis first. Negative numbers cut off.
            mode: ``"constant"``, ``"reflect"`` (mirrored at the edge element), ``"replicate"`` (the edge element)
                or ``"circular"``.
            value: what to add in mode ``"constant"``.

        Raises:
            ArgumentError: for an unknown mode, or padding that does not fit the dimensions.
            ShapeError: if ``"reflect"`` or ``"circular"`` needs more elements than there are.

        >>> from minigrad import Tensor
        >>> Tensor([1, 2, 3]).pad((2, 1), mode="reflect").tolist()
        [3, 2, 1, 2, 3, 2]
        """
        pairs = _padding_pairs(padding, self.shape)
        node = self.node
        if any(p < 0 for pair in pairs for p in pair):
            starts = tuple(max(-before, 0) for before, _ in pairs)
            sizes = tuple(n + min(before, 0) + min(after, 0) for n, (before, after) in zip(self.shape, pairs))
            node = apply("slice", node, starts=starts, sizes=sizes, steps=(1,) * self.ndim)
        grown = tuple((max(before, 0), max(after, 0)) for before, after in pairs)
        if mode == "constant":
            if any(map(any, grown)):
                node = apply("pad", node, padding=grown, value=_fill(value, self.dtype))
        elif mode in _EXTENSIONS:
            for axis, (before, after) in enumerate(grown):
                if before or after:
                    node = _EXTENSIONS[mode](node, axis, before, after)
        else:
            raise ArgumentError.of("pad", f"a mode of constant, {', '.join(_EXTENSIONS)}", repr(mode))
        return self.clone() if node is self._node else self.wrap(node)

    def shrink(self: M, bounds: Sequence[Sequence[int] | None]) -> M:
        """A view of positions ``first`` to ``past_last - 1`` of each axis; None keeps an axis whole."""
        if len(bounds) != self.ndim:
            raise ArgumentError.of("shrink", f"one pair (first, past_last) per axis of {self.shape}", bounds)
        pairs = [(0, n) if pair is None else (pair[0], pair[1]) for pair, n in zip(bounds, self.shape)]
        if any(not 0 <= first <= last <= n for (first, last), n in zip(pairs, self.shape)):
            raise ShapeError.of("shrink", f"bounds inside {self.shape}", bounds)
        sizes = tuple(last - first for first, last in pairs)
        return self._move("slice", starts=tuple(first for first, _ in pairs), sizes=sizes, steps=(1,) * self.ndim)

    # Joining and parting. These also take a list: Tensor.cat([a, b], axis=1).

    def cat(self: M | Sequence[M], *others: Any, axis: int = 0, dim: int | None = None) -> M:
        """Tensors one after another along ``axis``, in their common dtype.

        >>> from minigrad import Tensor
        >>> Tensor.cat([Tensor([[1, 2]]), Tensor([[3, 4]])], axis=1).tolist()
        [[1, 2, 3, 4]]

        Raises:
            ShapeError: if the shapes differ along another axis, or a tensor is 0-d.
        """
        given, axis = _joined("cat", self, others, axis if dim is None else dim)
        first: M = given[0]
        if first.ndim == 0:
            raise ShapeError.of("cat", "tensors of at least one dimension", first.shape, "use stack")
        at = normalize_axis("cat", axis, first.ndim)
        return first.wrap(apply("cat", *[t.node for t in given], axis=at))

    concat = concatenate = cat

    def stack(self: M | Sequence[M], *others: Any, axis: int = 0, dim: int | None = None) -> M:
        """Tensors of one shape one after another along a new axis.

        Raises:
            ShapeError: if the shapes differ.
        """
        given, axis = _joined("stack", self, others, axis if dim is None else dim)
        first: M = given[0]
        if any(t.shape != first.shape for t in given):
            raise ShapeError.of("stack", "tensors of one shape", " and ".join(str(t.shape) for t in given))
        at = normalize_axis("stack", axis, first.ndim + 1)
        shape = (*first.shape[:at], 1, *first.shape[at:])
        return first.wrap(apply("cat", *[t.node.reshape(shape) for t in given], axis=at))

    def split(self: M, sizes: Sizes, axis: int = 0, *, dim: int | None = None) -> tuple[M, ...]:
        """Views of consecutive parts along ``axis``: of one size (the last may be smaller), or of the given sizes.

        Raises:
            ShapeError: if the given sizes do not sum up to the length of the axis.
        """
        at = normalize_axis("split", axis if dim is None else dim, self.ndim)
        if self.ndim == 0:
            raise ShapeError.of("split", "a tensor of at least one dimension", self.shape)
        length = self.shape[at]
        if isinstance(sizes, Sequence):
            parts = as_shape("split", sizes)
            if sum(parts) != length:
                raise ShapeError.of("split", f"sizes that sum up to {length}", parts)
        else:
            if sizes < 1:
                raise ArgumentError.of("split", "a size of at least 1", sizes)
            parts = tuple(min(sizes, length - start) for start in range(0, length, sizes)) or (0,)
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + part)
        whole: list[Sequence[int] | None] = [None] * self.ndim
        return tuple(self.shrink([*whole[:at], pair, *whole[at + 1 :]]) for pair in zip(starts, starts[1:]))

    def chunk(self: M, chunks: int, axis: int = 0, *, dim: int | None = None) -> tuple[M, ...]:
        """At most ``chunks`` views of equal size along ``axis``; the last may be smaller."""
        at = normalize_axis("chunk", axis if dim is None else dim, self.ndim)
        if chunks < 1:
            raise ArgumentError.of("chunk", "at least 1 chunk", chunks)
        length = self.shape[at] if self.ndim else 0
        return self.split((0,) * chunks if length == 0 else -(-length // chunks), at)

    def unbind(self: M, axis: int = 0, *, dim: int | None = None) -> tuple[M, ...]:
        """Views of each position along ``axis``, which is gone."""
        at = normalize_axis("unbind", axis if dim is None else dim, self.ndim)
        shape = self.shape[:at] + self.shape[at + 1 :]
        return tuple(part.reshape(shape) for part in self.split(1, at)) if self.shape[at] else ()

    def meshgrid(self: M | Sequence[M], *others: Any, indexing: str = "ij") -> tuple[M, ...]:
        """Coordinates of a grid: tensor i varies along axis i only; ``indexing="xy"`` exchanges the first two axes."""
        if indexing not in ("ij", "xy"):
            raise ArgumentError.of("meshgrid", "indexing 'ij' or 'xy'", repr(indexing))
        given: list[M] = _in_one_dtype("meshgrid", self, others)
        if any(t.ndim > 1 for t in given):
            raise ShapeError.of("meshgrid", "tensors of at most one dimension", [t.shape for t in given])
        order = list(range(len(given)))
        if indexing == "xy":
            order[:2] = order[1::-1]
        shape = tuple(given[i].numel() for i in order)
        lines = [tuple(-1 if a == axis else 1 for a in range(len(given))) for axis in order]
        return tuple(t.reshape(line).expand(shape) for t, line in zip(given, lines))

    # Copies.

    def clone(self: M) -> M:
        """A copy with memory of its own; differentiable."""
        return self._apply("copy")

    def contiguous(self: M) -> M:
        """This tensor, if its elements lie in row-major order in its memory, else a copy in which they do."""
        return self if self._view is None or self._view.is_row_major else self.clone()


def _joined(op: str, first: Any, others: tuple[Any, ...], axis: int) -> tuple[list[Any], int]:
    """Tensors to join, and the axis: PyTorch's ``cat([a, b], 1)`` gives it by position."""
    if isinstance(first, (list, tuple)) and len(others) == 1 and isinstance(others[0], int):
        return _in_one_dtype(op, first, ()), others[0]
    return _in_one_dtype(op, first, others), axis


def _padding_pairs(padding: Sequence[Any], shape: Shape) -> list[tuple[int, int]]:
    """One pair per axis, first axis first, from PyTorch's flat or NumPy's nested form."""
    rank = len(shape)
    if not isinstance(padding, Sequence):
        raise ArgumentTypeError.of("pad", "a sequence", repr(padding), "the last axis by 1 at both ends: (1, 1)")
    if padding and all(isinstance(p, Sequence) for p in padding):
        if len(padding) != rank or any(len(pair) != 2 for pair in padding):
            raise ArgumentError.of("pad", f"one pair (before, after) per axis of {shape}", padding)
        pairs = [(int(pair[0]), int(pair[1])) for pair in padding]
    else:
        if len(padding) % 2 or len(padding) > 2 * rank:
            raise ArgumentError.of("pad", f"an even number of at most {2 * rank} sizes for {shape}", padding)
        flat = [int(p) for p in padding]
        pairs = [(0, 0)] * (rank - len(flat) // 2) + list(zip(flat[-2::-2], flat[-1::-2]))
    if any(n + min(before, 0) + min(after, 0) < 0 for n, (before, after) in zip(shape, pairs)):
        raise ShapeError.of("pad", f"negative padding of at most the size, {shape}", padding)
    return pairs


def _fill(value: Scalar, dtype: DType) -> Scalar:
    """A Python number as ``dtype`` holds it; one NaN object, so that equal attributes compare equal."""
    if dtype.is_float:
        return math.nan if value != value else float(value)
    return bool(value) if dtype is dtypes.bool_ else int(value)


def _reflect(node: Node, axis: int, before: int, after: int) -> Node:
    size = node.shape[axis]
    _check_extension("reflect", node, axis, before, after, size - 1)
    front = [slice_along(node, axis, before, before, -1)] if before else []
    back = [slice_along(node, axis, size - 2, after, -1)] if after else []
    return apply("cat", *front, node, *back, axis=axis)


def _replicate(node: Node, axis: int, before: int, after: int) -> Node:
    size = node.shape[axis]
    _check_extension("replicate", node, axis, before, after, before + after if size else 0)

    def edge(at: int, count: int) -> list[Node]:
        shape = (*node.shape[:axis], count, *node.shape[axis + 1 :])
        return [slice_along(node, axis, at, 1).expand(shape)] if count else []

    return apply("cat", *edge(0, before), node, *edge(size - 1, after), axis=axis)


def _circular(node: Node, axis: int, before: int, after: int) -> Node:
    size = node.shape[axis]
    _check_extension("circular", node, axis, before, after, size)
    front = [slice_along(node, axis, size - before, before)] if before else []
    back = [slice_along(node, axis, 0, after)] if after else []
    return apply("cat", *front, node, *back, axis=axis)


def _check_extension(mode: str, node: Node, axis: int, before: int, after: int, most: int) -> None:
    if max(before, after) > most:
        got = f"({before}, {after}) along axis {axis} of {node.shape}"
        raise ShapeError.of("pad", f"{mode} padding of at most {most}", got)


_EXTENSIONS: dict[str, Callable[[Node, int, int, int], Node]] = {
    "reflect": _reflect,
    "replicate": _replicate,
    "circular": _circular,
}
