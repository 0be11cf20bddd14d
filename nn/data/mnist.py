"""MNIST: 60,000 handwritten digits to train on and 10,000 to test on, 28 x 28 pixels each (LeCun et al., 1998).

The four original IDX files are used where they are found, downloaded where they are not. Without data and without a
network there is a sample of 3,000 + 1,000 real digits inside the package (``sample/``): of each of the original sets
the first 300 (training) or 100 (test) images of each digit, in their original order.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigrad.errors import DataError
from minigrad.nn.data.dataset import TensorDataset
from minigrad.nn.data.download import cache_folder, data_folders, fetch
from minigrad.nn.data.idx import read_idx

Bytes = npt.NDArray[np.uint8]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# SHA-256 of the uncompressed bytes: gzip's own output differs from copy to copy.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_SAMPLE = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class MNIST:
    """The digits as they come: pixels 0 (background) to 255 and labels 0 to 9, uint8 and read-only."""

    train_images: Bytes  # (60000, 28, 28)
    train_labels: Bytes  # (60000,)
    test_images: Bytes  # (10000, 28, 28)
    test_labels: Bytes  # (10000,)
    is_sample: bool  # whether this is only the sample, of 3000 and 1000
    source: str  # where it comes from, for people
    classes: tuple[str, ...] = tuple("0123456789")  # their names, by label

    @property
    def train(self) -> TensorDataset:
        """The training images, (1, 28, 28) each, with labels of int64."""
        return TensorDataset(self.train_images[:, None], self.train_labels.astype(np.int64))

    @property
    def test(self) -> TensorDataset:
        """The test images, likewise."""
        return TensorDataset(self.test_images[:, None], self.test_labels.astype(np.int64))


def mnist(data: str | os.PathLike[str] | None = None, download: bool = True) -> MNIST:
    """MNIST from the first place that has it.

    Searched in order: ``data``, the folder in ``MINIGRAD_DATA``, the cache (``MINIGRAD_CACHE``, else the user's cache
    folder), the mirrors; last comes the sample, with a notice on stderr. A folder may hold the four files (gzipped or
    not) or a folder ``mnist`` with them. Every file must match the checksum of the original.

    Args:
        data: a folder to look in first.
        download: whether to try the network; what it brings goes into the cache.

    Raises:
        DataError: if ``data`` is no folder, or a place that should have MNIST has only some of the files, or a
            damaged one. Nothing is overwritten.

    >>> digits = mnist()  # doctest: +SKIP
    >>> digits.train_images.shape, digits.train_labels[:3]  # doctest: +SKIP
    ((60000, 28, 28), array([5, 0, 4], dtype=uint8))
    """
    folders = data_folders(data)
    for place in (place for folder in folders for place in (folder / "mnist", folder)):
        if files := _find(place):
            if missing := sorted(SHA256.keys() - files.keys()):
                raise DataError.of(str(place), "the four files of MNIST", f"only {', '.join(sorted(files))}",
                                   f"put {', '.join(missing)} beside them")  # fmt: skip
            return _load(files, str(place))

    cache, reason = cache_folder("mnist"), "not tried"
    if download:
        try:
            _fetch_missing(cache)
        except DataError as error:
            reason = str(error)
    if len(files := _find(cache)) == len(SHA256):
        return _load(files, str(cache))

    print(
        "minigrad: MNIST was not found: using the sample inside the package, 3000 + 1000 of its 70,000 digits.\n"
        f"  looked in: {', '.join(map(str, [*folders, cache]))}\n"
        f"  download: {reason}\n"
        "  For the whole of it, put the four original files into one of these folders or name theirs in MINIGRAD_DATA.",
        file=sys.stderr,
    )
    return sample()


def sample() -> MNIST:
    """The 3,000 + 1,000 digits inside the package, 300 + 100 of each."""
    return _load(_find(_SAMPLE), "the sample inside the package", is_sample=True)


def _find(place: Path) -> dict[str, Path]:
    candidates = ((name, place / (name + suffix)) for name in SHA256 for suffix in ("", ".gz"))
    return {name: path for name, path in candidates if path.is_file()}


def _fetch_missing(cache: Path) -> None:
    found = _find(cache)
    if missing := [f"{name}.gz" for name in SHA256 if name not in found]:
        print(f"minigrad: downloading MNIST (11 MB) into {cache}", file=sys.stderr)
        fetch(missing, MIRRORS, cache, verify=lambda name, path: read_idx(path, SHA256[name.removesuffix(".gz")]))


def _load(files: dict[str, Path], source: str, is_sample: bool = False) -> MNIST:
    train_images, train_labels, test_images, test_labels = (
        read_idx(files[name], None if is_sample else sha256) for name, sha256 in SHA256.items()
    )
    return MNIST(train_images, train_labels, test_images, test_labels, is_sample, source)
