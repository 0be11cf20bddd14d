"""Sliding windows over one to three spatial dimensions: pooling, its inverse, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from minigrad import dtypes
from minigrad.errors import ArgumentError, ShapeError
from minigrad.graph import Node, apply, create, full, project
from minigrad.ops.indexing import take_along
from minigrad.shapes import Shape, Window, per_axis, per_axis_padding
from minigrad.tensor.base import Operand
from minigrad.tensor.contraction import ContractionMethods, Size, batched
from minigrad.tensor.indexing import clamped, put
from minigrad.tensor.movement import slice_along

T = TypeVar("T", bound="WindowMethods")
Pool = Callable[[Node, tuple[int, ...]], Node]  # over windows that do not overlap, of the given size


class WindowMethods(ContractionMethods):
    """Pooling."""

    __slots__ = ()

    # Maximum pooling.

    def max_pool1d(
        self: T, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        """:meth:`max_pool2d` over one spatial dimension."""
        return self._max_pool(1, kernel_size, stride, padding, dilation, ceil_mode, return_indices)

    def max_pool2d(
        self: T, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        """The largest value of each window. NaN is larger than all; among equals the first gets the gradient.

        Output sizes are (N - F + 2P)/S + 1, rounded down, with F = dilation * (kernel_size - 1) + 1.

        Args:
            kernel_size: size of the window, one number or one per spatial dimension; so the next three.
            stride: step of the window; None is the size of the window.
            padding: positions on both sides that never win; at most half of F.
            dilation: distance between the taps of the window.
            ceil_mode: round output sizes up, unless a window would then start beyond the input.
            return_indices: give (values, indices); an index is an int64 position in the flattened spatial dimensions.

        Shapes: (N, C, H, W) to (N, C, *O), or (C, H, W) to (C, *O).

        Raises:
            ShapeError: if an output would be empty, or the padding is too large.

        >>> from minigrad import Tensor
        >>> values, indices = Tensor([[[[1.0, 2.0, 7.0], [4.0, 3.0, 5.0]]]]).max_pool2d(2, 1, return_indices=True)
        >>> values.tolist(), indices.tolist()
        ([[[[4.0, 7.0]]]], [[[[3, 2]]]])
        """
        return self._max_pool(2, kernel_size, stride, padding, dilation, ceil_mode, return_indices)

    def max_pool3d(
        self: T, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        """:meth:`max_pool2d` over three spatial dimensions."""
        return self._max_pool(3, kernel_size, stride, padding, dilation, ceil_mode, return_indices)

    def _max_pool(
        self: T, rank: int, kernel: Size, stride: Size | None, padding: Size, dilation: Size, ceil: bool, indices: bool
    ) -> Any:
        op = f"max_pool{rank}d"
        x = batched(op, self.node, rank)
        window = _window(op, rank, kernel, stride, padding, dilation, ceil)
        pooled = apply("max_pool", x, window=window)
        values = self._unbatched(project(pooled, 0), rank)
        return (
            (values, self._unbatched(_positions(project(pooled, 1), window, x.shape[2:]), rank)) if indices else values
        )

    def _unbatched(self: T, out: Node, rank: int) -> T:
        """The result, without a batch axis where this tensor has none."""
        return self.wrap(out if self.ndim == rank + 2 else out.reshape(out.shape[1:]))

    def max_unpool1d(
        self: T, indices: Operand, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        output_size: Sequence[int] | None = None,
    ) -> T:  # fmt: skip
        """:meth:`max_unpool2d` over one spatial dimension."""
        return self._max_unpool(1, indices, kernel_size, stride, padding, output_size)

    def max_unpool2d(
        self: T, indices: Operand, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        output_size: Sequence[int] | None = None,
    ) -> T:  # fmt: skip
        """Values put back where :meth:`max_pool2d` found them, with zeros elsewhere.

        Args:
            indices: those of the pooling; of several values with one index the last stays.
            kernel_size: that of the pooling.
            stride: that of the pooling.
            padding: that of the pooling.
            output_size: the spatial sizes (or the whole shape) of the result, where several pool to this size; default
                (N - 1) * stride - 2 padding + kernel_size.

        Shapes: (N, C, H, W) and indices of that shape to (N, C, *output_size); so without N.

        Raises:
            ShapeError: if the indices have another shape.
            ArgumentError: if ``output_size`` does not pool to this size.

        >>> from minigrad import Tensor
        >>> Tensor([[[[4.0]]]]).max_unpool2d(Tensor([[[[2]]]]), 2).tolist()
        [[[[0.0, 0.0], [4.0, 0.0]]]]
        """
        return self._max_unpool(2, indices, kernel_size, stride, padding, output_size)

    def max_unpool3d(
        self: T, indices: Operand, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        output_size: Sequence[int] | None = None,
    ) -> T:  # fmt: skip
        """:meth:`max_unpool2d` over three spatial dimensions."""
        return self._max_unpool(3, indices, kernel_size, stride, padding, output_size)

    def _max_unpool(
        self: T, rank: int, indices: Operand, kernel: Size, stride: Size | None, padding: Size,
        output_size: Sequence[int] | None,
    ) -> T:  # fmt: skip
        op = f"max_unpool{rank}d"
        x, at = self.node, self.like(indices).node
        if at.shape != x.shape or not at.dtype.is_integer:
            raise ShapeError.of(op, f"integer indices of shape {x.shape}", f"{at.dtype.name} of {at.shape}")
        x, at = batched(op, x, rank), batched(op, at.cast(dtypes.int64), rank)
        window = _window(op, rank, kernel, stride, padding, 1, False)
        spatial = _unpooled_size(op, window, x.shape[2:], output_size)
        planes, area, count = x.shape[0] * x.shape[1], math.prod(spatial), math.prod(x.shape)
        first = create("iota", x.device, length=planes, dtype=dtypes.int64) * area
        positions = clamped(at, area).reshape((planes, math.prod(x.shape[2:]))) + first.reshape((planes, 1))
        empty = full((planes * area,), 0, x.dtype, x.device)
        out = put(empty, positions.reshape((count,)), x.reshape((count,)))
        return self._unbatched(out.reshape((*x.shape[:2], *spatial)), rank)

    # Average pooling.

    def avg_pool1d(
        self: T, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> T:  # fmt: skip
        """:meth:`avg_pool2d` over one spatial dimension."""
        return self._avg_pool(1, kernel_size, stride, padding, ceil_mode, count_include_pad)

    def avg_pool2d(
        self: T, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> T:  # fmt: skip
        """The mean of each window. Output sizes are (N - F + 2P)/S + 1, rounded down.

        Args:
            kernel_size: size of the window F, one number or one per spatial dimension; so the next two.
            stride: step of the window; None is the size of the window.
            padding: zeros on both sides, at most half the window.
            ceil_mode: round output sizes up, unless a window would then start beyond the input.
            count_include_pad: whether zeros of the padding count in the mean; what a window has beyond them never does.

        Shapes: (N, C, H, W) to (N, C, *O), or (C, H, W) to (C, *O).

        Raises:
            ShapeError: if an output would be empty, or the padding is too large.
            DTypeError: if the dtype is not floating.
        """
        return self._avg_pool(2, kernel_size, stride, padding, ceil_mode, count_include_pad)

    def avg_pool3d(
        self: T, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> T:  # fmt: skip
        """:meth:`avg_pool2d` over three spatial dimensions."""
        return self._avg_pool(3, kernel_size, stride, padding, ceil_mode, count_include_pad)

    def _avg_pool(
        self: T, rank: int, kernel: Size, stride: Size | None, padding: Size, ceil: bool, count_include_pad: bool
    ) -> T:
        op = f"avg_pool{rank}d"
        window = _window(op, rank, kernel, stride, padding, 1, ceil)
        out = apply("avg_pool", batched(op, self.node, rank), window=window, count_include_pad=count_include_pad)
        return self._unbatched(out, rank)

    # Adaptive pooling: output i is over positions floor(i * N / O) to ceil((i + 1) * N / O) - 1.

    def adaptive_avg_pool1d(self: T, output_size: int | Sequence[int | None] | None) -> T:
        """The means over windows that divide the input into ``output_size`` parts: (N, C, L) to (N, C, O)."""
        return self._adaptive("adaptive_avg_pool1d", 1, output_size, _mean_of_blocks)

    def adaptive_avg_pool2d(self: T, output_size: int | Sequence[int | None] | None) -> T:
        """The means over windows that divide the input into ``output_size`` parts as evenly as possible.

        Window i covers positions floor(i * N / O) to ceil((i + 1) * N / O) - 1, as in PyTorch: where N / O is not
        whole, windows overlap and differ in size. None keeps a size.

        Shapes: (N, C, H, W) to (N, C, *O), or (C, H, W) to (C, *O).

        >>> from minigrad import Tensor
        >>> Tensor([[[[1.0, 2.0, 3.0]]]]).adaptive_avg_pool2d((1, 2)).tolist()  # windows [1, 2] and [2, 3]
        [[[[1.5, 2.5]]]]
        """
        return self._adaptive("adaptive_avg_pool2d", 2, output_size, _mean_of_blocks)

    def adaptive_avg_pool3d(self: T, output_size: int | Sequence[int | None] | None) -> T:
        """:meth:`adaptive_avg_pool2d` over three spatial dimensions."""
        return self._adaptive("adaptive_avg_pool3d", 3, output_size, _mean_of_blocks)

    def adaptive_max_pool1d(
        self: T, output_size: int | Sequence[int | None] | None, return_indices: bool = False
    ) -> Any:
        """:meth:`adaptive_max_pool2d` over one spatial dimension."""
        return self._adaptive_max(1, output_size, return_indices)

    def adaptive_max_pool2d(
        self: T, output_size: int | Sequence[int | None] | None, return_indices: bool = False
    ) -> Any:
        """The largest values in the windows of :meth:`adaptive_avg_pool2d`.

        With ``return_indices`` also where they were, as for :meth:`max_pool2d`.
        """
        return self._adaptive_max(2, output_size, return_indices)

    def adaptive_max_pool3d(
        self: T, output_size: int | Sequence[int | None] | None, return_indices: bool = False
    ) -> Any:
        """:meth:`adaptive_max_pool2d` over three spatial dimensions."""
        return self._adaptive_max(3, output_size, return_indices)

    def _adaptive(self: T, op: str, rank: int, output_size: Any, pool: Pool) -> T:
        x = batched(op, self.node, rank)
        sizes = _adaptive_sizes(op, x.shape, rank, output_size)
        if all(n % o == 0 for n, o in zip(x.shape[2:], sizes)):
            return self._unbatched(pool(x, tuple(n // o for n, o in zip(x.shape[2:], sizes))), rank)
        for axis, parts in _last_first(sizes):
            x = _divided(x, axis, parts, pool)
        return self._unbatched(x, rank)

    def _adaptive_max(self: T, rank: int, output_size: Any, return_indices: bool) -> Any:
        op = f"adaptive_max_pool{rank}d"
        if not return_indices:
            return self._adaptive(op, rank, output_size, _max_of_blocks)
        x = batched(op, self.node, rank)
        area = math.prod(x.shape[2:])
        at = create("iota", x.device, length=area, dtype=dtypes.int64).reshape(x.shape[2:]).expand(x.shape)
        for axis, parts in _last_first(_adaptive_sizes(op, x.shape, rank, output_size)):
            x, at = _divided_with_positions(x, at, axis, parts)
        return self._unbatched(x, rank), self._unbatched(at, rank)

    # What windows are good for otherwise.

    def unfold(self: T, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> T:
        """The contents of all windows as columns (im2col): (N, C, H, W) to (N, C * prod(kernel_size), windows).

        Row c * prod(kernel_size) + tap is what channel c has under that tap; a convolution is the product of its
        flattened weight with this. (C, H, W) gives (C * prod(kernel_size), windows).
        """
        x = batched("unfold", self.node, 2)
        window = _window("unfold", 2, kernel_size, stride, padding, dilation, False)
        sizes = window.output_size("unfold", x.shape[2:])
        if any(map(any, window.padding)):
            x = apply("pad", x, padding=((0, 0), (0, 0), *window.padding), value=0)
        taps = []
        for row in range(window.kernel[0]):
            for column in range(window.kernel[1]):
                starts = (0, 0, row * window.dilation[0], column * window.dilation[1])
                tap = apply("slice", x, starts=starts, sizes=(*x.shape[:2], *sizes), steps=(1, 1, *window.stride))
                taps.append(tap.reshape((*x.shape[:2], 1, math.prod(sizes))))
        columns = apply("cat", *taps, axis=2).reshape((x.shape[0], x.shape[1] * len(taps), math.prod(sizes)))
        return self.wrap(columns if self.ndim == 4 else columns.reshape(columns.shape[1:]))


def _window(
    op: str, rank: int, kernel: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool
) -> Window:
    sizes = per_axis(op, "kernel_size", kernel, rank, 1)
    return Window(
        sizes,
        sizes if stride is None else per_axis(op, "stride", stride, rank, 1),
        per_axis_padding(op, padding, rank),
        per_axis(op, "dilation", dilation, rank, 1),
        ceil_mode,
    )


def _positions(taps: Node, window: Window, spatial: Shape) -> Node:
    """Positions in the flattened spatial dimensions, from taps within each window."""
    rank = window.rank
    taps = taps.cast(dtypes.int64)
    flat: Node | None = None
    for axis in range(rank):
        inner = math.prod(window.kernel[axis + 1 :])
        tap = apply("floordiv", taps, taps._other(inner)) if inner > 1 else taps
        if axis:
            tap = apply("mod", tap, tap._other(window.kernel[axis]))
        count = taps.shape[2 + axis]
        start = create("iota", taps.device, length=count, dtype=dtypes.int64) * window.stride[axis]
        start = (start - window.padding[axis][0]).reshape((count, *(1,) * (rank - axis - 1)))
        position = (tap * window.dilation[axis] + start) * math.prod(spatial[axis + 1 :])
        flat = position if flat is None else flat + position
    assert flat is not None
    return flat


def _unpooled_size(op: str, window: Window, pooled: Shape, given: Sequence[int] | None) -> Shape:
    """The spatial sizes of an unpooling: the default ones, or the given ones if those pool to ``pooled``."""
    rank = window.rank
    default = tuple(
        (n - 1) * s - before - after + k
        for n, k, s, (before, after) in zip(pooled, window.kernel, window.stride, window.padding)
    )
    if given is None:
        return default
    sizes = per_axis(op, "output_size", tuple(given)[-rank:], rank, 1)
    if len(given) not in (rank, rank + 1, rank + 2) or any(
        abs(n - d) >= s for n, d, s in zip(sizes, default, window.stride)
    ):
        raise ArgumentError.of(op, f"an output_size within less than the stride of {default}", tuple(given))
    return sizes


def _blocks(kernel: tuple[int, ...]) -> Window:
    return Window(kernel, kernel, ((0, 0),) * len(kernel), (1,) * len(kernel))


def _mean_of_blocks(x: Node, kernel: tuple[int, ...]) -> Node:
    return apply("avg_pool", x, window=_blocks(kernel), count_include_pad=True)


def _max_of_blocks(x: Node, kernel: tuple[int, ...]) -> Node:
    return project(apply("max_pool", x, window=_blocks(kernel)), 0)


def _adaptive_sizes(op: str, shape: Shape, rank: int, output_size: Any) -> tuple[int, ...]:
    given = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * rank
    if len(given) != rank:
        raise ArgumentError.of(op, f"output_size as one integer or {rank}", repr(output_size))
    if 0 in shape[2:]:
        raise ShapeError.of(op, "spatial sizes of at least 1", shape)
    return per_axis(op, "output_size", [n if o is None else o for o, n in zip(given, shape[2:])], rank, 1)


def _last_first(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Axes to divide and into how many parts: the last one first, so that of equal maxima the first one counts."""
    return [(axis + 2, sizes[axis]) for axis in range(len(sizes) - 1, -1, -1)]


def _parts(length: int, parts: int) -> list[tuple[int, int]]:
    """Starts and sizes of ``parts`` windows as equal as possible; they may overlap by one."""
    return [(i * length // parts, -(-(i + 1) * length // parts) - i * length // parts) for i in range(parts)]


def _along(x: Node, axis: int, size: int) -> tuple[int, ...]:
    """The spatial kernel that is ``size`` long along one axis."""
    return tuple(size if a == axis else 1 for a in range(2, x.ndim))


def _divided(x: Node, axis: int, parts: int, pool: Pool) -> Node:
    """One axis pooled into ``parts`` windows."""
    windows = _parts(x.shape[axis], parts)
    pieces = [pool(slice_along(x, axis, start, size), _along(x, axis, size)) for start, size in windows]
    return apply("cat", *pieces, axis=axis)


def _divided_with_positions(x: Node, at: Node, axis: int, parts: int) -> tuple[Node, Node]:
    """Maxima of one axis divided into ``parts`` windows, and the elements of ``at`` where they were."""
    values, positions = [], []
    for start, size in _parts(x.shape[axis], parts):
        pooled = apply("max_pool", slice_along(x, axis, start, size), window=_blocks(_along(x, axis, size)))
        values.append(project(pooled, 0))
        positions.append(take_along(at, project(pooled, 1).cast(dtypes.int64) + start, axis))
    return apply("cat", *values, axis=axis), apply("cat", *positions, axis=axis)
