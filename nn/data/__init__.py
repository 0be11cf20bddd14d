"""Data sets, loaders of mini-batches, and transforms of images."""

from minigrad.nn.data import transforms
from minigrad.nn.data.cifar import cifar10, cifar100
from minigrad.nn.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, collate, random_split
from minigrad.nn.data.idx import read_idx
from minigrad.nn.data.image_data import ImageData
from minigrad.nn.data.image_folder import ImageFolder, read_image
from minigrad.nn.data.loader import DataLoader
from minigrad.nn.data.mnist import fashion_mnist, mnist

__all__ = [
    "ConcatDataset", "DataLoader", "Dataset", "ImageData", "ImageFolder", "Subset", "TensorDataset", "cifar10",
    "cifar100", "collate", "fashion_mnist", "mnist", "random_split", "read_idx", "read_image", "transforms",
]  # fmt: skip
