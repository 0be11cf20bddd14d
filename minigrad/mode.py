"""Modes: recording derivatives or not, computing in a half type, and how exact products of float32 values are."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any

from minigrad import dtypes
from minigrad.config import settings
from minigrad.dtypes import DType, DTypeLike
from minigrad.errors import ArgumentError, DTypeError
from minigrad.graph import Node, set_grad_enabled


class _GradMode(ContextDecorator):
    enabled: bool

    def __init__(self) -> None:
        self._entered: list[Any] = []

    def __enter__(self) -> None:
        context = set_grad_enabled(self.enabled)
        context.__enter__()
        self._entered.append(context)

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(None, None, None)


class no_grad(_GradMode):  # noqa: N801  (PyTorch's name)
    """Within the block (or the decorated function), record no derivatives.

    >>> from minigrad import Tensor
    >>> x = Tensor([1.0], requires_grad=True)
    >>> with no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    enabled = False


class enable_grad(_GradMode):  # noqa: N801
    """Within the block, record derivatives again, also inside :class:`no_grad`."""

    enabled = True


class _Autocast(threading.local):
    dtype: DType | None = None


_autocast = _Autocast()


class autocast(ContextDecorator):  # noqa: N801
    """Mixed precision (Micikevicius et al., 2018): within the block, products are computed in a half type.

    Operands of matrix products and convolutions are cast to ``dtype``, in which their results are, too. Sums inside
    them and normalisations are computed in float32 all the same, and losses are float32. Parameters stay float32, and
    so do their gradients: optimizers notice nothing. Gradients of float16 can vanish: ``nn.amp.GradScaler`` scales the
    loss.

    Args:
        dtype: ``float16`` or ``bfloat16``.
        enabled: False does nothing.

    Raises:
        DTypeError: for another dtype.

    >>> from minigrad import Tensor
    >>> w = Tensor.ones(2, 3, requires_grad=True)
    >>> with autocast("bfloat16"):
    ...     y = Tensor.ones(4, 2) @ w
    >>> y.sum().backward()
    >>> y.dtype.name, w.grad.dtype.name
    ('bfloat16', 'float32')
    """

    def __init__(self, dtype: DTypeLike = dtypes.float16, enabled: bool = True) -> None:
        self.dtype = dtypes.as_dtype(dtype)
        if not self.dtype.is_half:
            raise DTypeError.of("autocast", "float16 or bfloat16", self.dtype.name)
        self.enabled = enabled
        self._before: list[DType | None] = []

    def __enter__(self) -> None:
        self._before.append(_autocast.dtype)
        _autocast.dtype = self.dtype if self.enabled else None

    def __exit__(self, *error: Any) -> None:
        _autocast.dtype = self._before.pop()


def autocast_dtype() -> DType | None:
    """The half type of :class:`autocast`; None outside it."""
    return _autocast.dtype


def lowered(*nodes: Node) -> list[Node]:
    """Operands of a sum of products as :class:`autocast` wants them: in its dtype, unless one is wider or no float."""
    dtype = _autocast.dtype
    if dtype is None or not all(n.dtype is dtypes.float32 or n.dtype.is_half for n in nodes):
        return list(nodes)
    return [node.cast(dtype) for node in nodes]


PRECISIONS = ("highest", "high", "medium")


def set_float32_matmul_precision(precision: str) -> None:
    """How exact products of float32 values are inside matrix products and convolutions computed from now on.

    ``"highest"``, the default: as float32 has it. ``"high"``: factors may be rounded to TF32, 10 digits after the
    point. ``"medium"``: to bfloat16, 7 digits. Sums are float32 in any case. PyTorch's names and meaning, but that
    convolutions follow, too. Only backends whose device is faster that way do it; a captured step is captured anew.

    Raises:
        ArgumentError: for any other name.

    >>> set_float32_matmul_precision("high")
    >>> get_float32_matmul_precision()
    'high'
    >>> set_float32_matmul_precision("highest")
    """
    if precision not in PRECISIONS:
        raise ArgumentError.of("set_float32_matmul_precision", " or ".join(map(repr, PRECISIONS)), repr(precision))
    settings.matmul_precision = precision


def get_float32_matmul_precision() -> str:
    """What :func:`set_float32_matmul_precision` was given last."""
    return settings.matmul_precision
