"""Weights in files: the safetensors format, written atomically; PyTorch's are read too."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.errors import ArgumentTypeError, DataError
from minigrad.nn import torch_file
from minigrad.tensor import Tensor

PathLike = str | os.PathLike[str]
Array = npt.NDArray[Any]
PICKLED = b"\x80"  # how a pickle begins, since its protocol 2
CHECKSUM = "crc32"  # its name in the metadata


def save(path: PathLike, state_dict: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors by name to a safetensors file.

    The file appears whole or not at all: it is written beside its destination, flushed to the disk and renamed, so a
    crash or a full disk leaves an earlier file of that name as it was. Its metadata get a checksum (``crc32``), which
    :func:`load` looks at: safetensors itself has none.

    Args:
        path: the file.
        state_dict: tensors or arrays of any shape and dtype, such as ``model.state_dict()``.
        metadata: strings to keep with them.

    Raises:
        ArgumentTypeError: if ``state_dict`` is no mapping, or a key or a value of ``metadata`` is not a string.
        DataError: if the file cannot be written, with the reason.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "w.safetensors"), {"w": Tensor([1.0, 2.0])}, {"made by": "hand"})
    ...     load(Path(folder, "w.safetensors"))["w"].tolist(), read_metadata(Path(folder, "w.safetensors"))
    ([1.0, 2.0], {'made by': 'hand'})
    """
    from safetensors.numpy import save as encode

    if not isinstance(state_dict, Mapping):
        raise ArgumentTypeError.of("save", "tensors by name", type(state_dict).__name__, "the path comes first")
    if not all(isinstance(text, str) for pair in (metadata or {}).items() for text in pair):
        raise ArgumentTypeError.of("save", "metadata of strings", metadata, "turn values into strings with json.dumps")
    arrays = {name: np.asarray(_array(value), order="C") for name, value in state_dict.items()}  # 0-d stays 0-d
    known = dict(metadata or {})
    found = _checksum(known)
    for name in sorted(arrays):
        found = _continued(found, arrays[name])
    write_atomically(path, encode(arrays, metadata={**known, CHECKSUM: f"{found:08x}"}))


def load(path: PathLike, device: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a state dict that PyTorch saved (``.pth``, ``.pt``).

    What kind of file it is tells its content. PyTorch's are read without PyTorch, and their pickle is not run.

    Args:
        path: the file.
        device: where to put them; None is the default device.

    Raises:
        DataError: if the file is missing, damaged or of another kind, or has a dtype that minigrad lacks.
    """
    if torch_file.recognize(path):
        return {name: Tensor(array, device=device) for name, array in torch_file.read(path)}
    with _opened(path) as file:
        metadata = dict(file.metadata() or {})
        expected, found = metadata.pop(CHECKSUM, None), _checksum(metadata)
        tensors = {}
        try:
            for name in sorted(file.keys()):  # one array at a time is in memory twice
                array = file.get_tensor(name)
                found = _continued(found, array)
                tensors[name] = Tensor(array, device=device)
        except (TypeError, ValueError) as error:
            raise DataError.of(str(path), "dtypes that minigrad has", error) from error
        if expected not in (None, f"{found:08x}"):
            hint = "the file is damaged: copy it again, or use another one"
            raise DataError.of(str(path), "the bytes that were written", "others, by their checksum", hint)
        return {name: tensors[name] for name in file.keys()}


def read_metadata(path: PathLike) -> dict[str, str]:
    """Read the strings kept in a safetensors file, without its tensors.

    Raises:
        DataError: if the file is missing, truncated or not a safetensors file.
    """
    with _opened(path) as file:
        return {name: text for name, text in (file.metadata() or {}).items() if name != CHECKSUM}


def write_atomically(path: PathLike, content: bytes) -> None:
    """Put ``content`` in a file so that, whatever happens, it holds either this or what it held before.

    Raises:
        DataError: naming the file, if it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        hint = "choose a folder that exists, can be written to and has room"
        hint += "; the earlier file of that name is intact" if path.exists() else ""
        raise DataError.of(str(path), f"to write {len(content)} bytes", error.strerror, hint) from error


def check_writable(folder: PathLike) -> None:
    """Raise now if a folder cannot be made or written to; nothing is made.

    Raises:
        DataError: with the reason.
    """
    whole = Path(folder).absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if not there.is_dir():
        raise DataError.of(str(folder), "a folder to write into", f"the file {there}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError.of(str(folder), "a folder to write into", f"no permission to write into {there}")


def _checksum(metadata: Mapping[str, str]) -> int:
    """CRC-32 of the metadata, with which that of everything begins: the arrays follow in the order of their names."""
    return zlib.crc32(json.dumps(metadata, sort_keys=True).encode())


def _continued(found: int, array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, found)


def _array(value: Any) -> Array:
    return value.numpy() if isinstance(value, Tensor) else np.asarray(value)


def _opened(path: PathLike) -> Any:
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise DataError.of(str(path), "a safetensors file", "a folder", "that of a run has weights.safetensors")
    try:
        return safe_open(path, framework="numpy")
    except OSError as error:
        got = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise DataError.of(str(path), "a safetensors file", got) from error
    except SafetensorError as error:
        with open(path, "rb") as file:
            pickled = file.read(1) == PICKLED
        if pickled:
            expected = "a safetensors file, or a state dict that PyTorch saved"
            hint = "it was not run; where you trust it, read it with Python's pickle and write it with nn.save"
            raise DataError.of(str(path), expected, "a pickle of something else", hint) from error
        hint = "the file is damaged, or neither a safetensors file nor one of PyTorch: write or copy it again"
        got = f"{os.stat(path).st_size} bytes ({error})"
        raise DataError.of(str(path), "a complete safetensors file", got, hint) from error
