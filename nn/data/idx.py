"""Reader for IDX files, the format that MNIST and its relatives come in."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.errors import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}  # all big-endian
_GZIP_MAGIC = b"\x1f\x8b"
_HINT = "the file is damaged or another data set's: move it away and put the original in its place"


def read_idx(path: str | os.PathLike[str], sha256: str | None = None) -> npt.NDArray[Any]:
    """The array in an IDX file, gzipped or not (its content tells, not its name).

    The file starts with two zero bytes, the element type, the number of dimensions, then the sizes as big-endian
    uint32; the elements follow in row-major order.

    Args:
        path: the file.
        sha256: if given, what the uncompressed bytes must hash to, in hexadecimal.

    Returns:
        A read-only array of the file's shape and dtype (big-endian where that has more than one byte).

    Raises:
        DataError: if the file is missing, unreadable, truncated, not IDX, or does not match ``sha256``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big") + bytes([5, 0, 4]))
    ...     read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    path = Path(path)
    content = _uncompressed(path)
    array = _parse(path, content)
    if sha256 is not None and (got := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError.of(str(path), f"content with SHA-256 {sha256}", got, _HINT)
    return array


def _uncompressed(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError.of(str(path), "a readable file", error.strerror) from error
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError.of(str(path), "a complete gzip file", f"{len(content)} bytes ({error})", _HINT) from error


def _parse(path: Path, content: bytes) -> npt.NDArray[Any]:
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise DataError.of(str(path), "an IDX file (00 00, type, rank)", content[:4].hex(" ") or "no bytes", _HINT)
    dtype, rank = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataError.of(str(path), f"an IDX header of {start} bytes", f"{len(content)} bytes", _HINT)
    shape = struct.unpack_from(f">{rank}I", content, 4)
    size = start + math.prod(shape) * dtype.itemsize
    if len(content) != size:
        raise DataError.of(str(path), f"{size} bytes for shape {shape}", f"{len(content)} bytes", _HINT)
    return np.frombuffer(content, dtype, offset=start).reshape(shape)
