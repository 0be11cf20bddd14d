"""New tensors: constants, ranges, random numbers, initial weights, masks.

``f(2, 3)`` and ``f((2, 3))`` make the same shape. ``dtype`` is float32 unless said otherwise, ``device`` the default
one, and ``requires_grad`` asks for gradients, in all of these functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from minigrad import device as devices
from minigrad import dtypes, random
from minigrad.dtypes import DType, DTypeLike, Scalar
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.graph import Node, apply, constant, create, set_grad_enabled
from minigrad.shapes import Shape, as_shape
from minigrad.tensor.movement import Sizes, sizes_of
from minigrad.tensor.operators import fits
from minigrad.tensor.resize import ResizeMethods

T = TypeVar("T", bound="CreationMethods")


def _place(op: str, dtype: DTypeLike | None, device: str | None, default: DType = dtypes.float32) -> tuple[DType, str]:
    """The dtype and device asked for, if the device has such a dtype."""
    kind = default if dtype is None else dtypes.as_dtype(dtype)
    name = devices.canonical(device)
    devices.get(name).backend.check(op, kind)
    return kind, name


def _filled(shape: Shape, value: Scalar, dtype: DType, device: str) -> Node:
    """A constant in a node of its own: the shared one would give two tensors one gradient."""
    node = constant(value, dtype, device)
    return node.expand(shape) if shape else create("const", device, **node.attrs._asdict())


def _positions(length: int, dtype: DType, device: str) -> Node:
    return create("iota", device, length=length, dtype=dtype)


def _fans(op: str, shape: Shape) -> tuple[int, int]:
    """Inputs and outputs of a unit, for a weight of shape (outputs, inputs, *kernel)."""
    if len(shape) < 2:
        raise ShapeError.of(op, "a weight of at least 2 dimensions (outputs, inputs, *kernel)", shape)
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


class CreationMethods(ResizeMethods):
    """Ways to make tensors, from nothing or in the likeness of another."""

    __slots__ = ()

    @classmethod
    def _made(cls: type[T], node: Node, requires_grad: bool) -> T:
        tensor = cls.wrap(node)
        return tensor.requires_grad_() if requires_grad else tensor

    # Constants.

    @classmethod
    def full(
        cls: type[T], shape: Sizes, value: Scalar, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """One number everywhere; without ``dtype`` in the dtype of that number (int32 for 2, float32 for 2.0).

        >>> from minigrad import Tensor
        >>> Tensor.full((2, 2), 7).tolist()
        [[7, 7], [7, 7]]
        """
        kind, name = _place("full", dtype, device, dtypes.scalar_dtype(value))
        if not fits(value, kind):
            raise DTypeError.of("full", f"a number that {kind.name} can hold", value)
        return cls._made(_filled(as_shape("full", shape), value, kind, name), requires_grad)

    @classmethod
    def zeros(
        cls: type[T], *shape: Sizes, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Zeros."""
        return cls.full(sizes_of(shape), 0, dtype or dtypes.float32, device, requires_grad)

    @classmethod
    def ones(
        cls: type[T], *shape: Sizes, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Ones."""
        return cls.full(sizes_of(shape), 1, dtype or dtypes.float32, device, requires_grad)

    @classmethod
    def empty(
        cls: type[T], *shape: Sizes, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """A tensor to be written to; until then zeros, as no memory is taken for it."""
        return cls.full(sizes_of(shape), 0, dtype or dtypes.float32, device, requires_grad)

    @classmethod
    def eye(
        cls: type[T], n: int, m: int | None = None, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """The identity matrix of n rows, and of m columns if that is given."""
        rows, columns = as_shape("eye", (n, n if m is None else m))
        kind, name = _place("eye", dtype, device)
        row = _positions(rows, dtypes.int32, name).reshape((rows, 1))
        return cls._made(row.equals(_positions(columns, dtypes.int32, name)).cast(kind), requires_grad)

    @classmethod
    def arange(
        cls: type[T], start: Scalar, stop: Scalar | None = None, step: Scalar = 1, dtype: DTypeLike | None = None,
        device: str | None = None, requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """``start``, ``start + step``, ... below ``stop``; ``arange(n)`` counts from 0. Integers make int32.

        >>> from minigrad import Tensor
        >>> Tensor.arange(3).tolist(), Tensor.arange(5, 0, -2).tolist()
        ([0, 1, 2], [5, 3, 1])

        Raises:
            ArgumentError: if ``step`` is 0 or leads away from ``stop``.
        """
        if stop is None:
            start, stop = 0, start
        if step == 0 or (stop - start) / step < 0:
            raise ArgumentError.of("arange", "a step that leads from start to stop", f"{start}, {stop}, {step}")
        length = math.ceil((stop - start) / step)
        own = dtypes.result_type([(dtypes.scalar_dtype(v), True) for v in (start, stop, step)])
        kind, name = _place("arange", dtype, device, own)
        work = dtypes.float32 if kind.is_half else kind
        if own.is_float and not kind.is_float:  # fractions count before they are cut off
            work = dtypes.float32
        node = _positions(length, work, name)
        if step != 1:
            node = node * step
        if start != 0:
            node = node + start
        return cls._made(node.cast(kind), requires_grad)

    @classmethod
    def linspace(
        cls: type[T], start: float, end: float, steps: int, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """``steps`` numbers from ``start`` to ``end``, both exact, evenly spaced."""
        (length,) = as_shape("linspace", steps)
        kind, name = _place("linspace", dtype, device)
        work = kind if kind is dtypes.float64 else dtypes.float32
        step = (end - start) / max(length - 1, 1)
        index = _positions(length, work, name)
        upward, downward = index * step + start, end - (length - 1 - index) * step
        return cls._made((index <= (length - 1) // 2).where(upward, downward).cast(kind), requires_grad)

    # Random numbers: the next ones of the stream that `minigrad.manual_seed` starts.

    @classmethod
    def rand(
        cls: type[T], *shape: Sizes, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Numbers uniform on [0, 1): multiples of 2^-24 (2^-11 in float16, 2^-8 in bfloat16)."""
        return cls.uniform(*shape, dtype=dtype, device=device, requires_grad=requires_grad)

    @classmethod
    def uniform(
        cls: type[T], *shape: Sizes, low: float = 0.0, high: float = 1.0, dtype: DTypeLike | None = None,
        device: str | None = None, requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Numbers uniform on [low, high)."""
        sizes = as_shape("uniform", sizes_of(shape))
        kind, name = _floats("uniform", dtype, device)
        with set_grad_enabled(False):
            node = random.uniform(math.prod(sizes), kind, name)
            if (low, high) != (0.0, 1.0):
                last = np.nextafter(kind.numpy.type(high), kind.numpy.type(low))  # rounding must not reach high
                node = apply("minimum", node * (high - low) + low, constant(float(last), kind, name))
            node = node.reshape(sizes)
        return cls._made(node, requires_grad)

    @classmethod
    def randn(
        cls: type[T], *shape: Sizes, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Normal numbers of mean 0 and standard deviation 1."""
        return cls.normal(*shape, dtype=dtype, device=device, requires_grad=requires_grad)

    @classmethod
    def normal(
        cls: type[T], *shape: Sizes, mean: float = 0.0, std: float = 1.0, dtype: DTypeLike | None = None,
        device: str | None = None, requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Normal numbers of the given mean and standard deviation."""
        sizes = as_shape("normal", sizes_of(shape))
        kind, name = _floats("normal", dtype, device)
        with set_grad_enabled(False):
            node = random.normal(math.prod(sizes), kind, name)
            if (mean, std) != (0.0, 1.0):
                node = node * std + mean
            node = node.reshape(sizes)
        return cls._made(node, requires_grad)

    @classmethod
    def randint(
        cls: type[T], *shape: Sizes, low: int = 0, high: int | None = None, dtype: DTypeLike | None = None,
        device: str | None = None,
    ) -> T:  # fmt: skip
        """Integers uniform on [low, high), int32 where they fit.

        Called as ``randint(2, 3, low=0, high=10)`` or, like PyTorch's, as ``randint(0, 10, (2, 3))`` or
        ``randint(10, (2, 3))``.

        Raises:
            ArgumentError: if there is no integer from ``low`` to ``high``.
        """
        if len(shape) > 1 and isinstance(shape[-1], Sequence):
            *bounds, sizes = shape
            low, high = (0, *bounds) if len(bounds) == 1 else bounds  # type: ignore[assignment]
        else:
            sizes = sizes_of(shape)
        if high is None or high <= low:
            raise ArgumentError.of("randint", "low < high", f"low={low}, high={high}")
        sizes = as_shape("randint", sizes)
        own = dtypes.promote(dtypes.scalar_dtype(low), dtypes.scalar_dtype(high - 1))
        kind, name = _place("randint", dtype, device, own)
        span = constant(high - low, dtypes.uint64, name)
        offset = apply("mod", random.wide_bits(math.prod(sizes), name), span)
        return cls.wrap((offset.cast(dtypes.int64) + low).cast(kind).reshape(sizes))

    @classmethod
    def randperm(cls: type[T], n: int, dtype: DTypeLike | None = None, device: str | None = None) -> T:
        """The integers from 0 to n - 1 in random order, int64."""
        (count,) = as_shape("randperm", n)
        kind, name = _place("randperm", dtype, device, dtypes.int64)
        return cls.wrap(random.wide_bits(count, name)).argsort().cast(kind)

    def bernoulli(self: T) -> T:
        """1 with the probability that each element is, else 0; in this dtype, without gradient."""
        kind = self.dtype
        if not kind.is_float:
            raise DTypeError.of("bernoulli", "probabilities of a floating dtype", kind.name)
        with set_grad_enabled(False):
            drawn = random.uniform(self.numel(), dtypes.float32, self.device).reshape(self.shape)
            return self.wrap((drawn < self.node.cast(dtypes.float32)).cast(kind))

    # Initial weights, of shape (outputs, inputs, *kernel).

    @classmethod
    def kaiming_uniform(
        cls: type[T], *shape: Sizes, a: float = 0.0, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Uniform of variance ``2 / ((1 + a^2) inputs)``: keeps that of activations through ReLUs (He et al., 2015).

        ``a`` is the negative slope of a leaky ReLU.
        """
        sizes = as_shape("kaiming_uniform", sizes_of(shape))
        bound = math.sqrt(6 / ((1 + a * a) * max(_fans("kaiming_uniform", sizes)[0], 1)))
        return cls.uniform(sizes, low=-bound, high=bound, dtype=dtype, device=device, requires_grad=requires_grad)

    @classmethod
    def kaiming_normal(
        cls: type[T], *shape: Sizes, a: float = 0.0, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Normal of the variance of :meth:`kaiming_uniform`."""
        sizes = as_shape("kaiming_normal", sizes_of(shape))
        std = math.sqrt(2 / ((1 + a * a) * max(_fans("kaiming_normal", sizes)[0], 1)))
        return cls.normal(sizes, std=std, dtype=dtype, device=device, requires_grad=requires_grad)

    @classmethod
    def glorot_uniform(
        cls: type[T], *shape: Sizes, dtype: DTypeLike | None = None, device: str | None = None,
        requires_grad: bool = False,
    ) -> T:  # fmt: skip
        """Uniform of variance ``2 / (inputs + outputs)``, for tanh layers (Glorot and Bengio, 2010)."""
        sizes = as_shape("glorot_uniform", sizes_of(shape))
        bound = math.sqrt(6 / max(sum(_fans("glorot_uniform", sizes)), 1))
        return cls.uniform(sizes, low=-bound, high=bound, dtype=dtype, device=device, requires_grad=requires_grad)

    xavier_uniform = glorot_uniform

    # In the likeness of a tensor: its shape, dtype and device, unless told otherwise.

    def full_like(
        self: T, value: Scalar, dtype: DTypeLike | None = None, device: str | None = None, requires_grad: bool = False
    ) -> T:
        """One number everywhere."""
        return self.full(self.shape, value, dtype or self.dtype, device or self.device, requires_grad)

    def zeros_like(
        self: T, dtype: DTypeLike | None = None, device: str | None = None, requires_grad: bool = False
    ) -> T:
        """Zeros."""
        return self.full_like(0, dtype, device, requires_grad)

    def ones_like(self: T, dtype: DTypeLike | None = None, device: str | None = None, requires_grad: bool = False) -> T:
        """Ones."""
        return self.full_like(1, dtype, device, requires_grad)

    def rand_like(self: T, dtype: DTypeLike | None = None, device: str | None = None, requires_grad: bool = False) -> T:
        """Numbers uniform on [0, 1)."""
        kind, name = dtype or self.dtype, device or self.device
        return self.rand(self.shape, dtype=kind, device=name, requires_grad=requires_grad)

    def randn_like(
        self: T, dtype: DTypeLike | None = None, device: str | None = None, requires_grad: bool = False
    ) -> T:
        """Normal numbers of mean 0 and standard deviation 1."""
        kind, name = dtype or self.dtype, device or self.device
        return self.randn(self.shape, dtype=kind, device=name, requires_grad=requires_grad)

    # Masks.

    def one_hot(self: T, num_classes: int) -> T:
        """1 at the position that each integer is, else 0: shape (..., num_classes), int64. Other integers give only 0.

        >>> from minigrad import Tensor
        >>> Tensor([2, 0]).one_hot(3).tolist()
        [[0, 0, 1], [1, 0, 0]]
        """
        if not self.dtype.is_integer:
            raise DTypeError.of("one_hot", "integers", self.dtype.name)
        index = self.node.cast(dtypes.int64).reshape((*self.shape, 1))
        return self.wrap(index.equals(_positions(num_classes, dtypes.int64, self.device)).cast(dtypes.int64))

    def tril(self: T, diagonal: int = 0) -> T:
        """Elements above the diagonal of the last two axes (or one ``diagonal`` further up) set to 0."""
        return self.wrap(_up_to("tril", self.node, diagonal).where(self.node, 0))

    def triu(self: T, diagonal: int = 0) -> T:
        """Elements below the diagonal of the last two axes (or one ``diagonal`` further up) set to 0."""
        return self.wrap(_up_to("triu", self.node, diagonal - 1).where(0, self.node))


def _floats(op: str, dtype: DTypeLike | None, device: str | None) -> tuple[DType, str]:
    kind, name = _place(op, dtype, device)
    if not kind.is_float:
        raise DTypeError.of(op, "a floating dtype", kind.name, "randint makes integers")
    return kind, name


def _up_to(op: str, x: Node, diagonal: int) -> Node:
    """Whether an element of a matrix is on the diagonal or below."""
    if x.ndim < 2:
        raise ShapeError.of(op, "a tensor of at least 2 dimensions", x.shape)
    rows, columns = (_positions(n, dtypes.int32, x.device) for n in x.shape[-2:])
    return columns <= (rows + diagonal).reshape((x.shape[-2], 1))
