"""Data sets, loaders of mini-batches, and transforms of images."""

from minigrad.nn.data import transforms
from minigrad.nn.data.batches import batches
from minigrad.nn.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, collate, random_split
from minigrad.nn.data.idx import read_idx
from minigrad.nn.data.loader import DataLoader
from minigrad.nn.data.mnist import MNIST, mnist

__all__ = [
    "ConcatDataset", "DataLoader", "Dataset", "MNIST", "Subset", "TensorDataset", "batches", "collate", "mnist",
    "random_split", "read_idx", "transforms",
]  # fmt: skip
