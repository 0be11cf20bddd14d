"""CIFAR-10 and CIFAR-100: 50,000 colour images to train on and 10,000 to test on, 32 x 32 pixels (Krizhevsky, 2009).

Both official layouts are read, binary and Python, from the archives as they are downloaded or from the folders in them.
Files whose checksum is not that of the original are used all the same, with a notice: copies exist that went through
JPEG, and subsets in the same format.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.errors import DataError
from minigrad.nn.data.download import Files, fetch, locate
from minigrad.nn.data.image_data import ImageData
from minigrad.nn.pickled import Stateful, decode

Records = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]  # images and labels

MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
TRAIN_COUNT, TEST_COUNT = 50_000, 10_000
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_HINT = "the file is damaged or another data set's: move it away and put the original in its place"


@dataclass(frozen=True)
class Layout:
    """One of the two ways in which a data set comes: a folder with files, and an archive of that folder."""

    folder: str
    archive: str
    archive_md5: str
    md5: dict[str, str]  # of each file, the one with test images last
    label: Any  # binary: how many bytes of labels, of which the last counts; Python: the entry with the labels


@dataclass(frozen=True)
class Origin:
    """Where one of the two data sets comes from, and how it is recognised."""

    name: str
    folders: tuple[str, ...]
    megabytes: int  # of the archive with the binary layout
    binary: Layout
    python: Layout
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR10 = Origin(
    name="CIFAR-10",
    folders=("cifar10", "cifar-10"),
    megabytes=162,
    binary=Layout(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
        md5={
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
        label=1,
    ),
    python=Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        md5={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        label="labels",
    ),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = Origin(
    name="CIFAR-100",
    folders=("cifar100", "cifar-100"),
    megabytes=161,
    binary=Layout(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        archive_md5="03b5dce01913d631647c71ecec9e9cb8",
        md5={"train.bin": "6172c7755cfe09b2fe270c85cebc1b15", "test.bin": "4499cfba6c016c1be1438163640a0898"},
        label=2,
    ),
    python=Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        label="fine_labels",
    ),
    classes=tuple(
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
        "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
        "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
        "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
        "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm".split()
    ),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def cifar10(data: str | os.PathLike[str] | None = None, download: bool = True) -> ImageData:
    """CIFAR-10 from the first place that has it.

    Searched in order: ``data``, the folder in ``MINIGRAD_DATA``, the cache (``MINIGRAD_CACHE``, else the user's cache
    folder), the mirrors. A folder, or a folder ``cifar10`` in it, may hold the archive ``cifar-10-binary.tar.gz`` or
    ``cifar-10-python.tar.gz``, or what is in one of these.

    Args:
        data: a folder to look in first.
        download: whether to try the network; the archive that it brings (162 MB) goes into the cache.

    Raises:
        DataError: if it is nowhere, ``data`` is no folder, or a place that should have it has only some of the files,
            or a damaged one. Nothing is overwritten.

    >>> pictures = cifar10()  # doctest: +SKIP
    >>> pictures.train_images.shape, pictures.classes[pictures.train_labels[0]]  # doctest: +SKIP
    ((50000, 3, 32, 32), 'frog')
    """
    return _cifar(CIFAR10, data, download)


def cifar100(data: str | os.PathLike[str] | None = None, download: bool = True) -> ImageData:
    """CIFAR-100 with its 100 fine labels, from the first place that has it, searched as by :func:`cifar10`.

    Args:
        data: a folder to look in first.
        download: whether to try the network; the archive that it brings (161 MB) goes into the cache.

    Raises:
        DataError: as :func:`cifar10` does.

    >>> pictures = cifar100()  # doctest: +SKIP
    >>> len(pictures.classes)  # doctest: +SKIP
    100
    """
    return _cifar(CIFAR100, data, download)


def _cifar(origin: Origin, data: str | os.PathLike[str] | None, download: bool) -> ImageData:
    def verify(name: str, path: Path) -> None:
        if (got := _md5(path.read_bytes())) != origin.binary.archive_md5:
            raise DataError.of(name, f"content with MD5 {origin.binary.archive_md5}", got)

    def bring(cache: Path) -> None:
        print(f"minigrad: downloading {origin.name} ({origin.megabytes} MB) into {cache}", file=sys.stderr)
        fetch([origin.binary.archive], MIRRORS, cache, verify)

    files, place = locate(origin.name, origin.folders, lambda p: _find(origin, p), data, bring if download else None)
    if not files:
        hint = f"put {origin.binary.archive} from {MIRRORS[0]}cifar.html into one of these folders"
        raise DataError.of(origin.folders[0], f"the files of {origin.name}", f"none\n{place}", hint)
    return _load(origin, files, place)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _find(origin: Origin, place: Path) -> tuple[Files, list[str]]:
    """The files of a layout, else its archive; some files without the rest count only in the folder of their layout."""
    layouts = (origin.binary, origin.python)
    for layout in layouts:
        for folder in (place / layout.folder, place):
            files = {name: folder / name for name in layout.md5 if (folder / name).is_file()}
            missing = [name for name in layout.md5 if name not in files]
            if files and (not missing or folder.name == layout.folder):
                return files, missing
    archives = {layout.archive: place / layout.archive for layout in layouts if (place / layout.archive).is_file()}
    return archives, []


def _load(origin: Origin, files: Files, place: str) -> ImageData:
    layout = next(x for x in (origin.binary, origin.python) if x.archive in files or files.keys() == x.md5.keys())
    read = _read_binary if layout is origin.binary else _read_python
    *train_names, test_name = layout.md5
    counts = dict.fromkeys(train_names, TRAIN_COUNT // len(train_names)) | {test_name: TEST_COUNT}
    parts: dict[str, Records] = {}
    others = []
    for name, path, content in _contents(layout, files):
        if _md5(content) != layout.md5[name]:
            others.append(name)
        parts[name] = read(path, content, layout.label, len(origin.classes))
        if (count := len(parts[name][1])) != counts[name]:
            raise DataError.of(str(path), f"{counts[name]} images in {name}", count, _HINT)
    images, labels = (np.concatenate(arrays) for arrays in zip(*(parts[name] for name in train_names)))
    if others:
        which = "all its files" if len(others) == len(layout.md5) else ", ".join(others)
        print(
            f"minigrad: {origin.name} in {place} is used, but is not the original: the checksums of {which} differ",
            file=sys.stderr,
        )
    return ImageData(images, labels, *parts[test_name], origin.classes, origin.mean, origin.std, place)


def _contents(layout: Layout, files: Files) -> Iterator[tuple[str, Path, bytes]]:
    """Name, path (or the archive's) and bytes of each file of a layout, one at a time."""
    if layout.archive not in files:
        for name, path in files.items():
            try:
                yield name, path, path.read_bytes()
            except OSError as error:
                raise DataError.of(str(path), "a readable file", error.strerror) from error
        return
    archive, found = files[layout.archive], set()
    try:
        with tarfile.open(archive, "r|*") as tar:  # a stream: nothing is extracted, nothing is read twice
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if member.isfile() and name in layout.md5 and Path(folder).name == layout.folder:
                    extracted = tar.extractfile(member)
                    assert extracted is not None  # it is a file
                    found.add(name)
                    yield name, archive, extracted.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError.of(str(archive), "a complete .tar.gz", str(error) or "the end of the file", _HINT) from error
    if missing := [name for name in layout.md5 if name not in found]:
        raise DataError.of(str(archive), f"files in {layout.folder}/", f"none named {', '.join(missing)}", _HINT)


def _read_binary(path: Path, content: bytes, label_bytes: int, classes: int) -> Records:
    """Records of some bytes of labels, the last of which is the fine one, and the planes of red, green and blue."""
    size = label_bytes + _PIXELS
    if not content or len(content) % size:
        raise DataError.of(str(path), f"records of {size} bytes", f"{len(content)} bytes", _HINT)
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return _checked(path, records[:, label_bytes:], records[:, label_bytes - 1], classes)


def _read_python(path: Path, content: bytes, entry: str, classes: int) -> Records:
    """A pickled dict with an array ``data`` of such planes and a list of labels; Python 2 wrote the originals."""
    try:
        batch = decode(path.name, io.BytesIO(content), _GLOBALS)
        named = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, labels = named["data"].array, np.array(named[entry], np.int64)
    except (DataError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        got = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError.of(str(path), f"a dict with an array data and a list {entry}", got, _HINT) from error
    if pixels.shape != (len(labels), _PIXELS):
        raise DataError.of(str(path), f"bytes ({len(labels)}, {_PIXELS}), as there are labels", pixels.shape, _HINT)
    return _checked(path, pixels, labels, classes)


def _checked(path: Path, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[Any], classes: int) -> Records:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        got = f"{labels.min()} to {labels.max()}"
        raise DataError.of(str(path), f"labels from 0 to {classes - 1}", got, _HINT)
    return np.ascontiguousarray(pixels).reshape(-1, *_SHAPE), labels.astype(np.int64)


class _Array(Stateful):
    """An array of bytes in a pickle: made empty, filled by its state."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def set_state(self, state: Any) -> None:
        _, shape, dtype, _, raw = state
        if not isinstance(dtype, _ByteDType):
            raise TypeError("an array without a dtype")
        self.array = np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, np.uint8).reshape(shape)


class _ByteDType(Stateful):
    """The dtype of such an array."""

    def __init__(self, name: str, *_: Any) -> None:
        if name not in ("u1", "uint8"):
            raise ValueError(f"an array of {name!r}")

    def set_state(self, state: Any) -> None:
        pass  # byte order and alignment, of which a byte has none


_GLOBALS = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": None,  # an argument of the first
    "numpy.dtype": _ByteDType,
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),  # how Python 3 writes bytes for Python 2
}
