"""A lazy tensor library with reverse-mode autograd and interchangeable backends."""

from minigrad import ops as _ops

__version__ = "0.1.0"
