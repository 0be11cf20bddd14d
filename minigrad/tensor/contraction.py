"""Contractions: matrix products, Einstein sums, and convolutions over one to three spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from minigrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from minigrad.graph import Node, apply
from minigrad.mode import autocast_dtype, lowered
from minigrad.shapes import Window, per_axis, per_axis_padding
from minigrad.tensor import einsum as notation
from minigrad.tensor.base import Operand
from minigrad.tensor.indexing import IndexingMethods

T = TypeVar("T", bound="ContractionMethods")
Size = int | Sequence[int]
Padding = int | Sequence[int | Sequence[int]] | str  # a size, one per axis, a pair (before, after) per axis, or a word


class ContractionMethods(IndexingMethods):
    """Sums of products."""

    __slots__ = ()

    # Matrix products.

    def matmul(self: T, other: Operand) -> T:
        """Matrix product with NumPy's rules: leading axes broadcast, a 1-d operand is a row (left) or column (right).

        Both operands have one dtype; half types accumulate in float32.

        >>> from minigrad import Tensor
        >>> (Tensor([[1.0, 2.0], [3.0, 4.0]]) @ Tensor([1.0, 10.0])).tolist()
        [21.0, 43.0]

        Raises:
            ShapeError: if the inner sizes differ, or an operand is 0-d.
            DTypeError: if the dtypes differ.
        """
        b: Any = self.like(other)
        return self.wrap(_matmul(self.node, b.node))

    __matmul__ = dot = matmul

    def __rmatmul__(self: T, other: Operand) -> T:
        a: Any = self.like(other)
        return self.wrap(_matmul(a.node, self.node))

    def mm(self: T, other: Operand) -> T:
        """:meth:`matmul` of two matrices, without broadcasting."""
        return self._product("mm", other, 2)

    def bmm(self: T, other: Operand) -> T:
        """:meth:`matmul` of two batches of as many matrices: (B, n, m) and (B, m, p) to (B, n, p)."""
        return self._product("bmm", other, 3)

    def _product(self: T, op: str, other: Operand, rank: int) -> T:
        b: Any = self.like(other)
        if self.ndim != rank or b.ndim != rank or self.shape[:-2] != b.shape[:-2]:
            expected = "two matrices" if rank == 2 else "two batches of as many matrices, (B, n, m) and (B, m, p)"
            raise ShapeError.of(op, expected, f"{self.shape} and {b.shape}", "matmul broadcasts")
        return self.wrap(apply("matmul", *lowered(self.node, b.node)))

    def outer(self: T, other: Operand) -> T:
        """All products of two vectors: (n,) and (m,) to (n, m)."""
        b: Any = self.like(other)
        if self.ndim != 1 or b.ndim != 1:
            raise ShapeError.of("outer", "two vectors", f"{self.shape} and {b.shape}")
        return self.wrap(self.node.reshape((*self.shape, 1)) * b.node)

    @staticmethod
    def einsum(equation: str, *operands: T | Sequence[T]) -> T:
        """Einstein summation: axes with one letter are one, and letters that the output lacks are summed over.

        Pairs are contracted from left to right, by matrix products where they can be. ``...`` stands for any number of
        axes, which broadcast. Without ``->`` the output has the letters that occur once, in alphabetical order.

        >>> from minigrad import Tensor
        >>> Tensor.einsum("ij,kj->ik", Tensor([[1, 2]]), Tensor([[3, 4], [5, 6]])).tolist()
        [[11, 17]]

        Raises:
            ArgumentError: for an equation that is malformed or does not fit the operands.
            ShapeError: if sizes of one letter differ.
        """
        given: list[Any] = [t for o in operands for t in (o if isinstance(o, (list, tuple)) else (o,))]
        if not given or not all(isinstance(t, ContractionMethods) for t in given):
            raise ArgumentTypeError.of("einsum", "tensors after the equation", [type(t).__name__ for t in given])
        terms, output = notation.parse(equation, [t.shape for t in given])
        first: T = given[0]
        return first.wrap(notation.contract([t.node for t in given], terms, output))

    def linear(self: T, weight: Operand, bias: Operand | None = None) -> T:
        """``x @ weight.T + bias``: (..., in) with a weight of (out, in) and a bias of (out,) to (..., out).

        Raises:
            ShapeError: if the sizes do not fit.
        """
        w: Any = self.like(weight)
        if w.ndim != 2 or self.ndim == 0 or self.shape[-1] != w.shape[1]:
            raise ShapeError.of("linear", "an input (..., in) and a weight (out, in)", f"{self.shape} and {w.shape}")
        x, weights = lowered(self.node, w.node)
        rows = x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))
        out = apply("matmul", rows, weights.permute((1, 0)))
        if bias is not None:
            out = self._biased("linear", out, bias, w.shape[0], 0)
        return self.wrap(out if x.ndim == 2 else out.reshape((*x.shape[:-1], w.shape[0])))

    def _biased(self, op: str, out: Node, bias: Operand, channels: int, trailing: int) -> Node:
        """``out`` plus a bias of one number per channel, with ``trailing`` axes after the channels'."""
        node: Node = self.like(bias).node
        if node.shape != (channels,):
            raise ShapeError.of(op, f"a bias of shape {(channels,)}", node.shape)
        if autocast_dtype() is out.dtype:
            (node,) = lowered(node)
        return out + node.reshape((channels, *(1,) * trailing))

    # Convolutions.

    def conv1d(
        self: T, weight: Operand, bias: Operand | None = None,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
    ) -> T:  # fmt: skip
        """:meth:`conv2d` over one spatial dimension: (N, C, L) with a weight of (K, C / groups, F)."""
        return self._convolve(1, weight, bias, stride, padding, dilation, groups)

    def conv2d(
        self: T, weight: Operand, bias: Operand | None = None,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
    ) -> T:  # fmt: skip
        """Convolution as CNN libraries have it (the kernel is not flipped: cross-correlation).

        out[n, k, o] = bias[k] + sum over c, tap of weight[k, c, tap] * x[n, c, o * stride - padding + tap * dilation],
        where x is 0 outside. Output sizes are (N - F + 2P)/S + 1, rounded down, with F = dilation * (kernel - 1) + 1.

        Args:
            weight: (K, C / groups, kernel height, kernel width).
            bias: (K,).
            stride: step of the window, one number or one per spatial dimension; so dilation.
            padding: zeros around the input: one size, one per spatial dimension, or one pair (before, after) for each;
                ``"valid"`` is none, ``"same"`` keeps the size (stride 1; an odd zero goes to the end).
            dilation: distance between the taps of the window.
            groups: parts into which channels are divided, each convolved on its own.

        Shapes: (N, C, H, W) to (N, K, *O), or (C, H, W) to (K, *O).

        Raises:
            ShapeError: if sizes do not fit, or an output would be empty.
            DTypeError: if input and weight differ in dtype.

        >>> from minigrad import Tensor
        >>> Tensor.ones(1, 1, 3, 3).conv2d(Tensor.ones(1, 1, 2, 2)).tolist()
        [[[[4.0, 4.0], [4.0, 4.0]]]]
        """
        return self._convolve(2, weight, bias, stride, padding, dilation, groups)

    def conv3d(
        self: T, weight: Operand, bias: Operand | None = None,
        stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1,
    ) -> T:  # fmt: skip
        """:meth:`conv2d` over three spatial dimensions: (N, C, D, H, W) with a weight of (K, C / groups, *kernel)."""
        return self._convolve(3, weight, bias, stride, padding, dilation, groups)

    def _convolve(
        self: T, rank: int, weight: Operand, bias: Operand | None,
        stride: Size, padding: Padding, dilation: Size, groups: int,
    ) -> T:  # fmt: skip
        op = f"conv{rank}d"
        w: Node = self.like(weight).node
        if w.ndim != rank + 2:
            raise ShapeError.of(op, f"a weight of {rank + 2} dimensions (K, C/groups, kernel)", w.shape)
        kernel = w.shape[2:]
        steps = per_axis(op, "stride", stride, rank, 1)
        spread = per_axis(op, "dilation", dilation, rank, 1)
        window = Window(kernel, steps, _conv_padding(op, padding, kernel, steps, spread), spread)
        x, w = lowered(batched(op, self.node, rank), w)
        out = apply("conv", x, w, window=window, groups=groups)
        if bias is not None:
            out = self._biased(op, out, bias, w.shape[0], rank)
        return self.wrap(out if self.ndim == rank + 2 else out.reshape(out.shape[1:]))

    def conv_transpose1d(
        self: T, weight: Operand, bias: Operand | None = None,
        stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
    ) -> T:  # fmt: skip
        """:meth:`conv_transpose2d` over one spatial dimension."""
        return self._convolve_transposed(1, weight, bias, stride, padding, output_padding, groups, dilation)

    def conv_transpose2d(
        self: T, weight: Operand, bias: Operand | None = None,
        stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
    ) -> T:  # fmt: skip
        """The adjoint of :meth:`conv2d` by its input: each input value adds a scaled kernel to the output.

        Output sizes are (N - 1) * stride - 2P + F + output_padding, with F = dilation * (kernel - 1) + 1.

        Args:
            weight: (C, K / groups, kernel height, kernel width).
            bias: (K,).
            stride: step of the kernel in the output.
            padding: rows left out on both sides of the output.
            output_padding: rows more at the end of the output; less than stride or dilation.
            groups: parts into which channels are divided, each on its own.
            dilation: distance between the taps of the kernel.

        Shapes: (N, C, H, W) to (N, K, *O), or (C, H, W) to (K, *O).

        Raises:
            ShapeError: if sizes do not fit, or an output would be empty.
        """
        return self._convolve_transposed(2, weight, bias, stride, padding, output_padding, groups, dilation)

    def conv_transpose3d(
        self: T, weight: Operand, bias: Operand | None = None,
        stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
    ) -> T:  # fmt: skip
        """:meth:`conv_transpose2d` over three spatial dimensions."""
        return self._convolve_transposed(3, weight, bias, stride, padding, output_padding, groups, dilation)

    def _convolve_transposed(
        self: T, rank: int, weight: Operand, bias: Operand | None,
        stride: Size, padding: Size, output_padding: Size, groups: int, dilation: Size,
    ) -> T:  # fmt: skip
        op = f"conv_transpose{rank}d"
        w: Node = self.like(weight).node
        if w.ndim != rank + 2:
            raise ShapeError.of(op, f"a weight of {rank + 2} dimensions (C, K/groups, kernel)", w.shape)
        steps = per_axis(op, "stride", stride, rank, 1)
        spread = per_axis(op, "dilation", dilation, rank, 1)
        cut = per_axis(op, "padding", padding, rank, 0)
        more = per_axis(op, "output_padding", output_padding, rank, 0)
        if any(m >= max(s, d) for m, s, d in zip(more, steps, spread)):
            got = f"output_padding {more}, stride {steps}, dilation {spread}"
            raise ArgumentError.of(op, "output_padding less than stride or dilation", got)
        x, w = lowered(batched(op, self.node, rank), w)
        if groups < 1 or x.shape[1] != w.shape[0] or x.shape[1] % groups:
            got = f"input {x.shape}, weight {w.shape}, groups={groups}"
            raise ShapeError.of(op, "an input of weight.shape[0] channels, which groups divides", got)
        whole = Window(w.shape[2:], steps, ((0, 0),) * rank, spread)
        extents = [whole.extent(axis) for axis in range(rank)]
        parts = [_transposed_axis(op, *numbers) for numbers in zip(range(rank), x.shape[2:], extents, steps, cut, more)]
        window = whole._replace(padding=tuple(part.padding for part in parts))
        spatial = tuple(part.size for part in parts)
        out = apply("conv_input_grad", x, w, window=window, groups=groups, spatial=spatial)
        if any(any(part.tail) for part in parts):
            out = self.wrap(out).pad([(0, 0), (0, 0), *(part.tail for part in parts)]).node
        if bias is not None:
            out = self._biased(op, out, bias, out.shape[1], rank)
        return self.wrap(out if self.ndim == rank + 2 else out.reshape(out.shape[1:]))


class _Axis(NamedTuple):
    """One spatial axis of a transposed convolution: of the convolution it is the adjoint of, and what comes after."""

    padding: tuple[int, int]
    size: int
    tail: tuple[int, int]  # to pad with zeros, negative to cut


def _transposed_axis(op: str, axis: int, size: int, extent: int, stride: int, cut: int, more: int) -> _Axis:
    """``cut`` is the padding and ``more`` the output padding.

    The latter takes back rows that the former cuts, then adds rows of zeros: fewer than the stride are rows that a
    convolution leaves over, more are added to the result.
    """
    reach = (size - 1) * stride + extent
    out = reach - 2 * cut + more
    if size < 1 or out < 1:
        numbers = f"({size} - 1)*{stride} + {extent} - {2 * cut} + {more} along spatial axis {axis}"
        raise ShapeError.of(op, "an output size (N - 1)*S + F - 2P + output_padding of at least 1", numbers)
    if more - cut < stride:
        return _Axis((cut, max(cut - more, 0)), out, (0, 0))
    front = min(cut, reach)
    return _Axis((0, 0), reach, (-front, out - reach + front))


def batched(op: str, x: Node, rank: int) -> Node:
    """``x`` as (N, C, *S): an input without a batch axis is a batch of one."""
    if x.ndim not in (rank + 1, rank + 2):
        raise ShapeError.of(op, f"an input of {rank + 2} dimensions (N, C, {rank} spatial), or one without N", x.shape)
    return x if x.ndim == rank + 2 else x.reshape((1, *x.shape))


def _matmul(a: Node, b: Node) -> Node:
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError.of("matmul", "operands of at least one dimension", f"{a.shape} and {b.shape}", "use *")
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ShapeError.of("matmul", "inner sizes that agree", f"{a.shape} @ {b.shape}")
    left = a.reshape((1, *a.shape)) if a.ndim == 1 else a
    right = b.reshape((*b.shape, 1)) if b.ndim == 1 else b
    out = apply("matmul", *lowered(left, right))
    shape = out.shape[:-2] + out.shape[-2:-1] * (a.ndim > 1) + out.shape[-1:] * (b.ndim > 1)
    return out.reshape(shape)


def _conv_padding(
    op: str, padding: Padding, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if not isinstance(padding, str):
        return per_axis_padding(op, padding, len(kernel))
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding != "same" or any(s != 1 for s in stride):
        raise ArgumentError.of(
            op, "padding as sizes, 'valid', or 'same' with stride 1", f"{padding!r}, stride {stride}"
        )
    totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
    return tuple((total // 2, total - total // 2) for total in totals)
