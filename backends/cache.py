"""Small files on disk that are right or not there: compiled programs and what was measured, for later processes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

LIMIT = 512 << 20  # bytes; the least recently used entries go first
_FORMAT = b"minigrad 1\n"


def digest(*parts: str) -> str:
    """A key: a hash of ``parts`` and of where each ends."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Cache:
    """Named pieces of bytes under keys. Whatever is wrong with the directory or a file in it is a miss, never an error.

    Each entry is one file that is written elsewhere and renamed, and begins with a checksum of the rest: processes may
    share the directory, be killed, or find what another program left there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._written = LIMIT  # bytes since the size of the directory was looked at

    def get(self, key: str) -> dict[str, bytes] | None:
        """What was stored under ``key``."""
        path = self.directory / key
        try:
            data = path.read_bytes()
            if not data.startswith(_FORMAT):
                return None
            data = data[len(_FORMAT) :]
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                return None
            head, _, body = zlib.decompress(data[32:]).partition(b"\n")
            pieces, start = {}, 0
            for name, size in json.loads(head):
                pieces[name] = body[start : start + size]
                start += size
            with suppress(OSError):
                os.utime(path)
            return pieces
        except (OSError, ValueError, zlib.error):
            return None

    def put(self, key: str, pieces: Mapping[str, bytes]) -> None:
        """Store ``pieces`` under ``key``, if that is possible."""
        head = json.dumps([(name, len(piece)) for name, piece in pieces.items()]).encode()
        data = zlib.compress(b"\n".join([head, b"".join(pieces.values())]), 1)
        with suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._make_room(len(data))
            handle, name = tempfile.mkstemp(dir=self.directory, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_FORMAT + hashlib.sha256(data).digest() + data)
                os.replace(name, self.directory / key)
            except BaseException:
                os.unlink(name)
                raise

    def _make_room(self, size: int) -> None:
        self._written += size
        if self._written < LIMIT // 8:
            return
        self._written = 0
        found = []
        for path in self.directory.iterdir():
            with suppress(OSError):  # another process may have removed it
                status = path.stat()
                if path.is_file():
                    found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= LIMIT:
                break
            with suppress(OSError):
                path.unlink()
            total -= size
