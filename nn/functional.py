"""Layers and losses as functions: PyTorch's names for what :class:`minigrad.Tensor` computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from minigrad.errors import ArgumentError
from minigrad.shapes import per_axis
from minigrad.tensor import Tensor

Size = int | Sequence[int]
