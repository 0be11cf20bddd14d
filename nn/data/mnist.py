"""MNIST and Fashion-MNIST: 60,000 grey images to train on and 10,000 to test on, 28 x 28 pixels each, of 10 classes.

MNIST shows handwritten digits (LeCun et al., 1998), Fashion-MNIST clothes (Xiao et al., 2017) in the same format. The
four original IDX files are used where they are found, downloaded where they are not. Without data and without a network
there is a sample of 3,000 + 1,000 real digits inside the package (``sample/``): of each of the original sets the first
300 (training) or 100 (test) images of each digit, in their original order.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigrad.errors import DataError
from minigrad.nn.data.download import Files, fetch, locate
from minigrad.nn.data.idx import read_idx
from minigrad.nn.data.image_data import ImageData

_SAMPLE = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class Origin:
    """Where one of the two comes from, and how it is recognised."""

    name: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    megabytes: int
    sha256: dict[str, str]  # of the uncompressed bytes: gzip's own output differs from copy to copy
    classes: tuple[str, ...]
    mean: float
    std: float


DIGITS = Origin(
    name="MNIST",
    folders=("mnist", "MNIST/raw"),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    megabytes=11,
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    classes=tuple("0123456789"),
    mean=0.1307,
    std=0.3081,
)
FASHION = Origin(
    name="Fashion-MNIST",
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    megabytes=31,
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    classes=(
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
    ),
    mean=0.2860,
    std=0.3530,
)  # fmt: skip


def mnist(data: str | os.PathLike[str] | None = None, download: bool = True) -> ImageData:
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
    ((60000, 1, 28, 28), array([5, 0, 4]))
    """
    files, place = _locate(DIGITS, data, download)
    if files:
        return _load(DIGITS, files, place)
    print(
        "minigrad: MNIST was not found: using the sample inside the package, 3000 + 1000 of its 70,000 digits\n"
        f"{place}\n  for the whole of it put its four files there, or name their folder in MINIGRAD_DATA",
        file=sys.stderr,
    )
    return sample()


def fashion_mnist(data: str | os.PathLike[str] | None = None, download: bool = True) -> ImageData:
    """Fashion-MNIST from the first place that has it, searched as by :func:`mnist`, in folders ``fashion-mnist``.

    Args:
        data: a folder to look in first.
        download: whether to try the network; what it brings goes into the cache.

    Raises:
        DataError: if it is nowhere, ``data`` is no folder, or a place that should have it has only some of the files,
            or a damaged one. Nothing is overwritten.

    >>> clothes = fashion_mnist()  # doctest: +SKIP
    >>> clothes.classes[clothes.train_labels[0]]  # doctest: +SKIP
    'ankle boot'
    """
    files, place = _locate(FASHION, data, download)
    if files:
        return _load(FASHION, files, place)
    hint = f"put {', '.join(f'{name}.gz' for name in FASHION.sha256)} into a folder fashion-mnist in one of these"
    raise DataError.of("fashion_mnist", "the four files of Fashion-MNIST", f"none\n{place}", hint)


def sample() -> ImageData:
    """The 3,000 + 1,000 digits inside the package, 300 + 100 of each."""
    files, _ = _find(DIGITS, _SAMPLE)
    return _load(DIGITS, files, "the sample inside the package", is_sample=True)


def _locate(origin: Origin, data: str | os.PathLike[str] | None, download: bool) -> tuple[Files, str]:
    def verify(name: str, path: Path) -> None:
        read_idx(path, origin.sha256[name.removesuffix(".gz")])

    def bring(cache: Path) -> None:
        _, missing = _find(origin, cache)
        print(f"minigrad: downloading {origin.name} ({origin.megabytes} MB) into {cache}", file=sys.stderr)
        fetch([f"{name}.gz" for name in missing], origin.mirrors, cache, verify)

    return locate(origin.name, origin.folders, lambda p: _find(origin, p), data, bring if download else None)


def _find(origin: Origin, place: Path) -> tuple[Files, list[str]]:
    candidates = ((name, place / (name + suffix)) for name in origin.sha256 for suffix in ("", ".gz"))
    files = {name: path for name, path in candidates if path.is_file()}
    return files, [name for name in origin.sha256 if name not in files]


def _load(origin: Origin, files: Files, source: str, is_sample: bool = False) -> ImageData:
    train_images, train_labels, test_images, test_labels = (
        read_idx(files[name], None if is_sample else sha256) for name, sha256 in origin.sha256.items()
    )
    return ImageData(
        train_images[:, None],
        train_labels.astype(np.int64),
        test_images[:, None],
        test_labels.astype(np.int64),
        classes=origin.classes,
        mean=(origin.mean,),
        std=(origin.std,),
        source=source,
        is_sample=is_sample,
    )
