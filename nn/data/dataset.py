"""Data sets: examples by number, one at a time or many at once."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from numbers import Number
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError, ShapeError
from minigrad.nn.data.order import permutation

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Batch: TypeAlias = Array | tuple[Array, ...]  # as an example is: an array, or a tuple of them


class Dataset:
    """Base of data sets: ``len(dataset)`` examples, of which ``dataset[i]`` is one.

    Subclasses define both. An example is an array or a number, or a tuple of these, such as ``(image, label)``.
    Anything else with these two methods (a list of examples, PyTorch's data sets) serves the loader as well.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 5
    ...     def __getitem__(self, index):
    ...         return np.full(2, index), index**2
    >>> Squares().take(np.array([1, 3]))
    (array([[1, 1], [3, 3]]), array([1, 9]))
    """

    def __len__(self) -> int:
        """How many examples there are."""
        raise NotImplementedError(f"{type(self).__name__} needs a method __len__")

    def __getitem__(self, index: Any) -> Any:
        """One example."""
        raise NotImplementedError(f"{type(self).__name__} needs a method __getitem__")

    def take(self, indices: Indices) -> Batch:
        """A batch: the examples of these numbers, each of their parts stacked along a new first axis.

        A data set that can get many at once more cheaply than one by one overrides this.
        """
        return collate([self[index] for index in indices.tolist()])


def take(dataset: Any, indices: Indices) -> Batch:
    """The examples of these numbers of any object with ``__getitem__``, stacked: see :meth:`Dataset.take`."""
    if isinstance(dataset, Dataset):
        return dataset.take(indices)
    return collate([dataset[index] for index in indices.tolist()])


def collate(examples: Sequence[Any]) -> Batch:
    """Examples as one batch: arrays are stacked, tuples part by part. Integers make int64, floats float32.

    Raises:
        ArgumentError: if there are no examples, or tuples of different lengths.
        ShapeError: if arrays that belong together have different shapes.
        ArgumentTypeError: if an example is neither an array, a number nor a tuple of these.

    >>> collate([(np.zeros(3, np.uint8), 7), (np.ones(3, np.uint8), 2)])
    (array([[0, 0, 0], [1, 1, 1]], dtype=uint8), array([7, 2]))
    """
    if not examples:
        raise ArgumentError.of("collate", "at least one example", "none")
    if not isinstance(examples[0], (tuple, list)):
        return _stack(examples, "examples")
    sizes = sorted({len(example) if isinstance(example, (tuple, list)) else 1 for example in examples})
    if len(sizes) > 1:
        raise ArgumentError.of("collate", "examples of as many parts", f"some of {sizes[0]}, some of {sizes[-1]}")
    return tuple(_stack(parts, f"part {i} of the examples") for i, parts in enumerate(zip(*examples)))


def _stack(values: Sequence[Any], what: str) -> Array:
    first = values[0]
    if isinstance(first, Number) and not isinstance(first, np.generic):
        dtype = bool if isinstance(first, bool) else np.int64 if isinstance(first, int) else np.float32
        return np.array(values, dtype)
    for value in values:
        if not isinstance(value, np.generic) and not hasattr(value, "__array__"):
            hint = "turn it into one in the data set's __getitem__"
            raise ArgumentTypeError.of("collate", f"{what} to be arrays or numbers", type(value).__name__, hint)
    arrays = [np.asarray(value) for value in values]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        hint = "resize or pad them in the data set's __getitem__, or give the loader a collate_fn"
        raise ShapeError.of("collate", f"{what} to have one shape", " and ".join(map(str, shapes[:3])), hint)
    return np.stack(arrays)


class TensorDataset(Dataset):
    """Arrays side by side, such as images and labels: example ``i`` is the tuple of each array's entry ``i``.

    Args:
        arrays: arrays whose first axes have one length; tensors are copied to the host.

    Raises:
        ShapeError: if the first axes differ.
        ArgumentError: if there are no arrays.

    >>> digits = TensorDataset(np.zeros((3, 1, 4, 4), np.uint8), np.array([7, 2, 1]))
    >>> image, label = digits[1]
    >>> image.shape, int(label)
    ((1, 4, 4), 2)
    >>> [part.shape for part in digits.take(np.array([2, 0]))]
    [(2, 1, 4, 4), (2,)]
    """

    def __init__(self, *arrays: Any) -> None:
        self.arrays: tuple[Array, ...] = tuple(np.asarray(array) for array in arrays)
        if not arrays:
            raise ArgumentError.of("TensorDataset", "at least one array", "none")
        if any(not array.ndim for array in self.arrays) or len({len(array) for array in self.arrays}) > 1:
            shapes = ", ".join(str(array.shape) for array in self.arrays)
            raise ShapeError.of("TensorDataset", "arrays with first axes of one length", shapes)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(array[index] for array in self.arrays)

    def take(self, indices: Indices) -> tuple[Array, ...]:
        """The entries of these numbers, copied in one go for each array."""
        return tuple(array[indices] for array in self.arrays)


class Subset(Dataset):
    """Some examples of a data set, in an order of their own.

    Args:
        dataset: where they come from.
        indices: their numbers in it; may repeat.

    Raises:
        AxisError: if one of them is out of range.

    >>> Subset(TensorDataset(np.arange(10)), [7, 0, 7]).take(np.array([0, 1]))
    (array([7, 0]),)
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | Indices) -> None:
        self.dataset, self.indices = dataset, np.asarray(indices, np.int64).reshape(-1)
        count = len(dataset)
        if self.indices.size and not (-count <= self.indices.min() and self.indices.max() < count):
            got = f"{self.indices.min()} to {self.indices.max()}"
            raise AxisError.of("Subset", f"indices of a data set of {count} examples", got)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[int(self.indices[index])]

    def take(self, indices: Indices) -> Batch:
        """The examples of these numbers, as the data set that they come from takes them."""
        return take(self.dataset, self.indices[indices])


class ConcatDataset(Dataset):
    """Data sets one after the other.

    Args:
        datasets: one or more, whose examples have the same parts.

    Raises:
        ArgumentError: if there are none.

    >>> both = ConcatDataset([TensorDataset(np.arange(3)), TensorDataset(np.arange(10, 15))])
    >>> len(both), both.take(np.array([4, 0]))
    (8, (array([11,  0]),))
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError.of("ConcatDataset", "at least one data set", "none")
        self.cumulative_sizes = np.cumsum([len(dataset) for dataset in self.datasets]).tolist()

    def __len__(self) -> int:
        return int(self.cumulative_sizes[-1])

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise AxisError.of("ConcatDataset", f"an index of {len(self)} examples", index)
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - self._start(which)]

    def _start(self, which: int) -> int:
        return self.cumulative_sizes[which - 1] if which else 0

    def take(self, indices: Indices) -> Batch:
        """The examples of these numbers, of each data set in one go."""
        indices = np.where(indices < 0, indices + len(self), indices)
        owners = np.searchsorted(self.cumulative_sizes, indices, side="right")
        order = np.argsort(owners, kind="stable")
        batches = [
            take(self.datasets[which], indices[owners == which] - self._start(which)) for which in np.unique(owners)
        ]
        if len(batches) == 1:
            return batches[0]
        back = np.argsort(order, kind="stable")
        if not isinstance(batches[0], tuple):
            return _joined(batches)[back]
        return tuple(_joined(parts)[back] for parts in zip(*batches))


def _joined(parts: Sequence[Any]) -> Array:
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise ShapeError.of("ConcatDataset", "examples of one shape", " and ".join(map(str, shapes)))
    return np.concatenate(parts)


def random_split(dataset: Any, lengths: Sequence[float], seed: int = 0) -> list[Subset]:
    """Split a data set at random into parts that share nothing.

    Args:
        dataset: what to split.
        lengths: how many examples each part gets, adding up to ``len(dataset)``; or fractions that add up to 1, rounded
            down, with what is left going to the first parts, one each.
        seed: the same seed splits the same way, on every machine. It is not the seed of the training, so that what is
            held out stays the same from run to run.

    Raises:
        ArgumentError: if the lengths do not add up, or one is negative.

    >>> train, validation = random_split(TensorDataset(np.arange(10)), [0.8, 0.2])
    >>> len(train), len(validation)
    (8, 2)
    """
    count = len(dataset)
    sizes = [int(length) for length in lengths]
    if lengths and all(0 <= share <= 1 for share in lengths) and abs(sum(lengths) - 1) < 1e-9:
        sizes = [int(count * share + 1e-9) for share in lengths]
        for i in range(count - sum(sizes)):
            sizes[i % len(sizes)] += 1
    elif sizes != list(lengths) or any(size < 0 for size in sizes):
        sizes = []
    if sum(sizes) != count or not sizes:
        expected = f"lengths that add up to {count}, or fractions that add up to 1"
        raise ArgumentError.of("random_split", expected, list(lengths))
    order = permutation(count, seed, -1)  # no epoch: the loader's orders stay independent of it
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(sizes[:-1]))]
