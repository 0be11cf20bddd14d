"""The NumPy backend."""

from minigrad.backends.numpy.backend import NumpyBackend

__all__ = ["NumpyBackend"]
