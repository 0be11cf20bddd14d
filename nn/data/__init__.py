"""Data sets and mini-batches."""

from minigrad.nn.data.batches import batches
from minigrad.nn.data.idx import read_idx
from minigrad.nn.data.mnist import MNIST, mnist

__all__ = ["MNIST", "batches", "mnist", "read_idx"]
