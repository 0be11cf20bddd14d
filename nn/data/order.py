"""What is drawn from a seed: the order of the examples, and the random numbers of a batch's transforms.

Both come from the counter-based generator Philox (Salmon et al., 2011), whose raw bits NumPy promises to keep the same
in every version; that is not promised for ``Generator.permutation`` and its relatives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MASK = 2**64 - 1


def permutation(count: int, seed: int, epoch: int = 0) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` that depends on ``(seed, epoch)`` alone.

    >>> permutation(8, seed=1)
    array([3, 5, 2, 7, 0, 6, 1, 4])
    """
    return np.argsort(_philox(seed, epoch, 0).random_raw(count), kind="stable")


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator for the transforms of one batch of an epoch; whoever loads it draws the same.

    >>> uniform(batch_generator(seed=1, epoch=0, batch=2), 0, 1, (2,)).round(3)
    array([0.311, 0.492])
    """
    return np.random.Generator(_philox(seed, epoch, batch + 1))


def _philox(seed: int, epoch: int, stream: int) -> np.random.Philox:
    key = np.array([seed & _MASK, epoch & _MASK], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], np.uint64))


def uniform(rng: np.random.Generator, low: float, high: float, shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Numbers uniform on [low, high) from the raw bits of a generator: the same in every version of NumPy."""
    unit: npt.NDArray[np.float64] = (_raw(rng, shape) >> np.uint64(11)) * np.float64(2.0**-53)
    return low + (high - low) * unit


def integers(rng: np.random.Generator, low: int, high: int, shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """Integers from low to high, both included, likewise; the bias is below (high - low) / 2^32."""
    span = np.uint64(high - low + 1)
    return low + (((_raw(rng, shape) >> np.uint64(32)) * span) >> np.uint64(32)).astype(np.int64)


def _raw(rng: np.random.Generator, shape: Sequence[int]) -> npt.NDArray[np.uint64]:
    count = int(np.prod(shape, dtype=np.int64))
    return np.asarray(rng.bit_generator.random_raw(count)).reshape(shape)
