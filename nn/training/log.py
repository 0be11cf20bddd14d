"""A training's log: one JSON object a line, and TensorBoard's event files where tensorboard is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from minigrad import extras
from minigrad.errors import DataError
from minigrad.nn.serialize import PathLike

_FAR = 1 << 40  # where Windows locks a byte: those that are locked cannot be read, and others read the log


class Log:
    """Lines of JSON, appended to a file; what was written is safe from the death of the process at once.

    While it is open no other process can open it: a folder is that of one training.

    Args:
        path: the file.
        size: bytes of an earlier run to keep: what it wrote after its last checkpoint comes again.

    Raises:
        DataError: if it cannot be written, or is that of a training under way.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = Log(Path(folder, "log.jsonl"))
    ...     log.write("epoch", {"epoch": 1, "loss": 0.5})
    ...     log.close()
    ...     list(read_log(Path(folder, "log.jsonl")))
    [{'event': 'epoch', 'epoch': 1, 'loss': 0.5}]
    """

    def __init__(self, path: PathLike, size: int = 0) -> None:
        self.path = Path(path)
        try:
            self._file: IO[bytes] = open(self.path, "a+b", buffering=0)
            if not _lock(self._file):
                self._file.close()
                hint = "wait for it, or name another folder"
                raise DataError.of(str(path), "a log that nobody writes", "that of a training under way", hint)
            self._file.truncate(min(size, self._file.seek(0, os.SEEK_END)))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise DataError.of(str(path), "a log that can be written", error.strerror) from error

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Append one line."""
        line = json.dumps({"event": event, **values}) + "\n"
        try:
            self._file.write(line.encode())
        except OSError as error:
            raise DataError.of(str(self.path), f"to write {len(line)} bytes", error.strerror) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lock(file: IO[bytes]) -> bool:
    """Have a file to oneself until it is closed or the process dies; whether nobody else has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # what flock and locking raise for one that another has
        return False
    except OSError:  # a file system without locks
        pass
    return True


def read_log(path: PathLike) -> Iterator[dict[str, Any]]:
    """The objects of a log; a last line that is not whole is left out.

    Raises:
        DataError: if there is no such file, or another line is no JSON.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise DataError.of(str(path), "a log", error.strerror) from error
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError.of(str(path), "one JSON object a line", f"{line[:40]!r} in line {number}") from error


class EventWriter:
    """Scalars as TensorBoard reads them, in an event file of its own; ``tensorboard --logdir`` shows them.

    Args:
        folder: where the file goes.
        first_step: what earlier files in the folder say of this step and later ones does not count.

    Raises:
        MissingExtra: if tensorboard is not installed.
    """

    def __init__(self, folder: PathLike, first_step: int = 0) -> None:
        module = extras.load("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self._protos = extras.load("tensorboard.compat.proto.event_pb2", "tensorboard")
        self._summaries = extras.load("tensorboard.compat.proto.summary_pb2", "tensorboard")
        self._writer = module.EventFileWriter(str(folder))
        if first_step:
            status = self._protos.SessionLog(status=self._protos.SessionLog.START)
            self._writer.add_event(self._protos.Event(wall_time=time.time(), step=first_step, session_log=status))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Note values by name, such as ``loss/train``, after a number of steps."""
        found = [self._summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        summary = self._summaries.Summary(value=found)
        self._writer.add_event(self._protos.Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Have everything in the file."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def has_tensorboard() -> bool:
    """Whether tensorboard is installed."""
    return importlib.util.find_spec("tensorboard") is not None
