"""The tensor and its methods, in layers: each file adds the methods of one family to the class before it."""

from minigrad.tensor.base import TensorBase as Tensor

__all__ = ["Tensor"]
