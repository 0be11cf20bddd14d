"""Reads the tensors of PyTorch's files (``.pth``, ``.pt``), without PyTorch and without running the pickle in them.

Since PyTorch 1.6 such a file is a zip archive: ``data.pkl`` describes the tensors, and the memory behind them, their
*storages*, are records ``data/0``, ``data/1`` and so on. Before, it was a row of pickles with the storages after them.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DataError, MinigradError
from minigrad.nn.pickled import as_dict, decode

Array = npt.NDArray[Any]
PathLike = str | os.PathLike[str]

ZIP, TAR = b"PK\x03\x04", b"ustar"  # where archives start, and what a tar archive has at byte 257
MAGIC = 0x1950A86A20F9469CFC6C  # what the first pickle of an older file holds
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")  # where training scripts put a state dict
UNFOLDED = 16  # tensors may take so many times the size of the file, and a mebibyte: expanded ones repeat their memory


def recognize(path: PathLike) -> bool:
    """Whether a file starts like one that PyTorch wrote; one that cannot be read does not."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError:
        return False
    older = start.startswith(b"\x80") and MAGIC.to_bytes(10, "little") in start[:32]
    return start.startswith(ZIP) or older or start[257:262] == TAR


def read(path: PathLike) -> Iterator[tuple[str, Array]]:
    """The names and tensors of the state dict in a file that ``torch.save`` wrote.

    It may be all of the file or lie in it under one of the names that training scripts use, such as ``state_dict``.

    Raises:
        DataError: if the file is missing or damaged, holds objects other than tensors and plain values (a pickled
            model is one) or no state dict, or has dtypes that minigrad lacks.
    """
    source = str(path)
    with _naming(source), open(path, "rb") as file:
        container = _Zip(source, file) if file.read(len(ZIP)) == ZIP else _Legacy(source, file)
        tensors = _state_dict(source, container.tree)
        limit = UNFOLDED * os.fstat(file.fileno()).st_size + 2**20
        total = sum(tensor.nbytes for tensor in tensors.values())
        if total > limit:
            raise DataError.of(source, f"tensors of at most {limit} bytes for its size", f"{total} bytes")
        storage_bytes = lru_cache(maxsize=1)(container.read)  # tensors of one storage follow one another
        for name, tensor in tensors.items():
            if tensor.type.dtype is None:
                raise DataError.of(source, "dtypes that minigrad has", f"{name} of {tensor.type.name}")
            yield name, tensor.array(storage_bytes(tensor.storage), tensor.type.dtype)


# What the pickle describes.


@dataclass(frozen=True)
class ElementType:
    """What a storage is made of; ``dtype`` is None where minigrad has none like it."""

    name: str
    itemsize: int
    dtype: DType | None = None


@dataclass(frozen=True)
class Storage:
    """Memory beside the pickle: ``size`` elements of the storage named ``key``, from element ``start`` on."""

    type: ElementType
    key: str
    size: int
    start: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.type.itemsize


@dataclass(frozen=True)
class Strided:
    """A tensor: elements of a storage, by offset and strides."""

    storage: Storage
    type: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.type.itemsize

    def array(self, memory: bytes, dtype: DType) -> Array:
        """The elements in the bytes of the storage; NumPy checks that all lie inside."""
        kind = np.dtype(np.uint8) if dtype is dtypes.bool_ else dtype.numpy  # any byte but 0 is True
        strides = [stride * self.type.itemsize for stride in self.strides]
        view: Array = np.ndarray(self.shape, kind, memory, self.offset * self.type.itemsize, strides)
        return view != 0 if dtype is dtypes.bool_ else view


def _rebuild(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: Any
) -> Strided:  # rest: requires_grad and hooks
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise TypeError("a tensor without a storage, or with strides that do not fit its shape")
    return Strided(storage, storage.type, _size(offset), tuple(map(_size, shape)), tuple(map(_size, strides)))


def _rebuild_as(*arguments: Any) -> Strided:  # the storage is bytes, the dtype comes after requires_grad and hooks
    storage, offset, shape, strides, _, _, kind, *_ = arguments
    if not isinstance(kind, ElementType):
        raise TypeError("a tensor without a dtype")
    untyped = _rebuild(storage, offset, shape, strides)
    return Strided(storage, kind, untyped.offset, untyped.shape, untyped.strides)


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("a size that is no number, or below 0")
    return value


def _types() -> dict[str, ElementType]:
    """Element types by the names that PyTorch gives to dtypes."""
    ours = {dtype.name.rstrip("_"): ElementType(dtype.name.rstrip("_"), dtype.itemsize, dtype) for dtype in dtypes.ALL}
    floats8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
    others = {"complex32": 4, "complex64": 8, "complex128": 16, **dict.fromkeys(floats8, 1)}
    return ours | {name: ElementType(name, itemsize) for name, itemsize in others.items()}


TYPES = _types()
STORAGES = {
    "Bool": "bool", "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64",
    "Half": "float16", "BFloat16": "bfloat16", "Float": "float32", "Double": "float64",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128", "Untyped": "uint8",
}  # fmt: skip
KNOWN: dict[str, Any] = {
    **{f"torch.{name}": kind for name, kind in TYPES.items()},
    **{f"torch.{name}Storage": TYPES[kind] for name, kind in STORAGES.items()},
    "torch.storage.UntypedStorage": TYPES["uint8"],
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_as,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch.Size": tuple,
    "torch.device": lambda *_: None,
    "collections.OrderedDict": as_dict,
    "collections.Counter": as_dict,
}


def _state_dict(source: str, tree: Any) -> dict[str, Strided]:
    """The first dict of names and tensors, among those in the tree under a usual name and the tree itself."""
    inside = [tree[name] for name in WRAPPERS if name in tree] if isinstance(tree, dict) else []
    for candidate in (*inside, tree):
        if isinstance(candidate, dict) and all(
            isinstance(name, str) and isinstance(tensor, Strided) for name, tensor in candidate.items()
        ):
            return candidate
    kinds = f"a {type(tree).__name__}"
    if isinstance(tree, dict):
        kinds = ", ".join(f"{name!r}: {type(value).__name__}" for name, value in list(tree.items())[:10])
    hint = f"save model.state_dict() by itself or as one of {', '.join(WRAPPERS)}"
    raise DataError.of(source, "a state dict of names and tensors", kinds, hint)


# Where pickle and storages lie.


class _Container(Protocol):
    tree: Any

    def read(self, storage: Storage) -> bytes:
        """The bytes of a storage."""


class _Zip:
    """The format since PyTorch 1.6. Records are looked up by name and never unpacked to a disk."""

    def __init__(self, source: str, file: BinaryIO) -> None:
        self.source = source
        self.archive = zipfile.ZipFile(file)
        pickles = [name for name in self.archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DataError.of(source, "a PyTorch file with one data.pkl", f"a zip archive with {len(pickles)}")
        self.folder = pickles[0].removesuffix("data.pkl")
        if f"{self.folder}byteorder" in self.archive.namelist():
            order = self.archive.read(self.record("byteorder"))
            if order != b"little":
                _refuse_order(source, order.decode("ascii", "replace"))
        pickle = io.BytesIO(self.archive.read(self.record("data.pkl")))
        self.tree = decode(source, pickle, KNOWN, self.storage)

    def record(self, name: str) -> zipfile.ZipInfo:
        """A record, which must lie there as it is: a compressed one might be of any size."""
        info = self.archive.getinfo(self.folder + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise DataError.of(self.source, "records that are not compressed", f"{info.filename}, which is")
        return info

    def storage(self, identifier: Any) -> Storage:
        """What an identifier in the pickle stands for."""
        kind, element_type, key, _, size = identifier
        return _checked(kind, Storage(element_type, key, _size(size)))

    def read(self, storage: Storage) -> bytes:
        """The bytes of a storage."""
        record = self.record(f"data/{storage.key}")
        if record.file_size != storage.nbytes:
            raise DataError.of(self.source, f"{storage.nbytes} bytes in {record.filename}", f"{record.file_size}")
        return self.archive.read(record)


class _Legacy:
    """The format before PyTorch 1.6: pickles of a number, a version, the machine, the tensors and the storages' keys.

    The storages follow, each after its number of elements.
    """

    def __init__(self, source: str, file: BinaryIO) -> None:
        file.seek(257)
        if file.read(len(TAR)) == TAR:
            hint = "load it with PyTorch and save the state dict again"
            raise DataError.of(source, "a file of PyTorch 0.1.10 or newer", "a tar archive of an older one", hint)
        file.seek(0)
        self.source, self.file = source, file
        self.types: dict[str, ElementType] = {}
        magic, _, machine = (decode(source, file, {}) for _ in range(3))
        if magic != MAGIC or not isinstance(machine, dict):
            raise DataError.of(source, "a file that PyTorch wrote", "another pickle")
        if machine.get("little_endian") is not True:
            _refuse_order(source, "big")
        self.tree = decode(source, file, KNOWN, self.storage)
        self.places: dict[str, tuple[int, int]] = {}  # key -> position in the file and bytes
        for key in decode(source, file, {}):
            size = int.from_bytes(_exactly(file, 8), "little") * self.types[key].itemsize
            self.places[key] = file.tell(), size
            if file.tell() + size > os.fstat(file.fileno()).st_size:
                raise EOFError(f"the file ends within storage {key}")
            file.seek(size, os.SEEK_CUR)

    def storage(self, identifier: Any) -> Storage:
        """What an identifier in the pickle stands for; one with a view is a part of the storage of that key."""
        kind, element_type, key, _, size, view = identifier
        if isinstance(element_type, ElementType):
            self.types.setdefault(key, element_type)
        if view is None:
            return _checked(kind, Storage(element_type, key, _size(size)))
        _, start, size = view
        return _checked(kind, Storage(element_type, key, _size(size), _size(start)))

    def read(self, storage: Storage) -> bytes:
        """The bytes of a storage."""
        position, size = self.places[storage.key]
        start = storage.start * storage.type.itemsize
        if start + storage.nbytes > size:
            raise DataError.of(self.source, f"{start + storage.nbytes} bytes in storage {storage.key}", f"{size}")
        self.file.seek(position + start)
        return _exactly(self.file, storage.nbytes)


def _checked(kind: Any, storage: Storage) -> Storage:
    if kind != "storage" or not isinstance(storage.type, ElementType) or not isinstance(storage.key, str):
        raise TypeError("an identifier of something else than a storage")
    return storage


def _exactly(file: BinaryIO, count: int) -> bytes:
    """So many bytes of a file."""
    content = file.read(count)
    if len(content) != count:
        raise EOFError(f"the file ends {count - len(content)} bytes too early")
    return content


def _refuse_order(source: str, order: str) -> None:
    hint = "load it with PyTorch on a little-endian machine and save the state dict again"
    raise DataError.of(source, "a file of a little-endian machine", f"byte order {order}", hint)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Turn what goes wrong in a damaged file into one kind of error that names it."""
    try:
        yield
    except MinigradError:
        raise
    except OSError as error:
        raise DataError.of(source, "a readable file", error.strerror or error) from error
    except (zipfile.BadZipFile, EOFError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        hint = "the file is truncated or damaged: write or copy it again"
        raise DataError.of(source, "a complete PyTorch file", f"{type(error).__name__}: {error}", hint) from error
