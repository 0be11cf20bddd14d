"""Turning the recording of derivatives off and on, for a block or a function."""

from __future__ import annotations

from contextlib import ContextDecorator
from typing import Any

from minigrad.graph import set_grad_enabled


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
