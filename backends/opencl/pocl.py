"""What is particular to PoCL: its cache of compiled kernels, and its headers.

PoCL compiles a kernel when it is first launched and keeps the result in files of its own, which it trusts: a truncated
one aborts the process or yields a program without kernels, and without a directory to write to it has no devices. So
each process gives it a directory of its own, fills that from minigrad's cache before a program is built, and copies to
the cache what a program has become when its kernels have run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from minigrad import config

VARIABLE = "POCL_CACHE_DIR"

# opencl-c.h declares 15,000 functions that generated code does not call; reading them takes 100 of the 125 ms that a
# small program needs. Its include guard skips it, and this declares what is left. What needs more is built with it.
WITHOUT_HEADER = "-D_OPENCL_H_"
DECLARATIONS = """\
size_t __attribute__((overloadable, const)) get_group_id(uint);
size_t __attribute__((overloadable, const)) get_local_id(uint);
void __attribute__((overloadable, convergent)) barrier(cl_mem_fence_flags);
#line 1
"""


class Store:
    """PoCL's directory in this process, in which each source has a directory.

    Attributes:
        places: the directories of programs that are there, by the key of their source.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.places: dict[str, str] = {}
        self._known: set[str] = set()
        self._users: Counter[str] = Counter()  # programs of several contexts may have one source

    def built(self) -> str | None:
        """The directory of a program that was not there at the last call."""
        tops = [path for path in self.directory.iterdir() if len(path.name) == 2]
        for top in sorted(tops, key=lambda path: -path.stat().st_mtime_ns)[:4]:
            for name in os.listdir(top):
                if f"{top.name}/{name}" not in self._known:
                    self._known.add(f"{top.name}/{name}")
                    return f"{top.name}/{name}"
        return None

    def fill(self, program: str, files: Mapping[str, bytes]) -> None:
        """Put files of an earlier process where PoCL will look for them, unless this one has them already."""
        self._known.add(program)
        for name, data in files.items():
            path = self.directory / program / name
            if not path.exists():  # never over a library that is loaded: another program may have the same source
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def use(self, key: str, program: str) -> None:
        """Note one more program that needs a directory."""
        self.places[key] = program
        self._users[program] += 1

    def is_compiled(self, program: str, functions: Sequence[str]) -> bool:
        """Whether PoCL has compiled all functions of a program."""
        root = self.directory / program
        return all(any(root.glob(f"{function}/*/*.so")) for function in functions)

    def files(self, program: str) -> dict[str, bytes]:
        """All files of a program, by their paths in its directory."""
        root = self.directory / program
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def drop(self, program: str) -> None:
        """Note one program less, and remove the files that nobody needs any more."""
        self._users[program] -= 1
        if self._users[program] > 0:
            return
        del self._users[program]
        self.places = {key: place for key, place in self.places.items() if place != program}
        self._known.discard(program)
        shutil.rmtree(self.directory / program, ignore_errors=True)


_store: Store | None = None


def store() -> Store | None:
    """PoCL's directory; None where the user chose one."""
    return _store


@contextmanager
def directory() -> Iterator[None]:
    """Within the block PoCL, if that is where it starts, learns where its files go."""
    global _store
    if os.environ.get(VARIABLE):
        yield
        return
    _store = Store(_make_directory())
    os.environ[VARIABLE] = str(_store.directory)
    weakref.finalize(_store, _remove, _store.directory, os.getpid())  # at exit, after those made later
    try:
        yield
    finally:
        del os.environ[VARIABLE]  # not for child processes: the directory goes with this one


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within the block Ctrl-C waits, also for processes and threads that are started in it.

    A terminal sends it to all processes of a group: PoCL aborts when the linker that it has started dies of it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_directory() -> Path:
    try:  # not below /tmp where that is not needed: code cannot always be run from there
        return _locked_directory(config.cache_directory() / "opencl" / "live")
    except (OSError, ImportError):  # Windows has no such locks
        return Path(tempfile.mkdtemp(prefix="minigrad-"))


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _locked_directory(parent: Path) -> Path:
    """A new directory that is locked as long as this process lives; removes those whose processes are gone."""
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        lock = _lock(other)
        if lock is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(lock)
    while True:
        path = Path(tempfile.mkdtemp(dir=parent))
        if _lock(path) is not None:  # else another process took it for one without owner
            return path


def _lock(path: Path) -> int | None:
    """The open lock of a directory; None where another process has it."""
    import fcntl

    try:
        handle = os.open(path / "lock", os.O_CREAT | os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError:
        os.close(handle)
        return None


def missing() -> str | None:
    """What PoCL from PyPI lacks here: it links kernels with the system's linker, and aborts where there is none."""
    with suppress(ImportError, ValueError):
        if importlib.util.find_spec("pocl_binary_distribution") and shutil.which("ld") is None:
            return "PoCL needs the linker 'ld': install binutils (Debian, Ubuntu: apt install binutils)"
    return None
