"""Threads of the NumPy backend: one pool for the process, single-threaded BLAS inside it, reusable scratch memory.

NumPy's loops and BLAS release Python's global lock, so plain threads run array code side by side. The pool has as many
threads as this process may use cores, the calling thread included. OpenBLAS's own workers spin between calls and would
take cores from the pool, so BLAS runs on one thread (`blas_single_thread`) while the backend computes.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from threadpoolctl import ThreadpoolController

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def available_threads() -> int:
    """Cores this process may use: its affinity mask, a cgroup's quota and the usual ``*_NUM_THREADS`` variables."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [int(first) for name in LIMITS if (first := os.environ.get(name, "").split(",")[0].strip()).isdigit()]
    return max(1, min([cores, _cgroup_quota(), *(limit for limit in limits if limit > 0)]))


def _cgroup_quota() -> int:
    """The CPU quota of this process's control group in whole cores, rounded up; a large number where there is none."""
    for path in ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"):
        with contextlib.suppress(OSError, ValueError):
            fields = Path(path).read_text().split()
            if len(fields) == 1:  # version 1 keeps the period in a file of its own
                fields.append(Path(path).with_name("cpu.cfs_period_us").read_text())
            quota, period = int(fields[0]), int(fields[1])  # version 2 says "max" for no limit: a ValueError
            if quota > 0:
                return math.ceil(quota / period)
    return 1 << 16


class _Job:
    """One call of `parallel`: the tasks that are left, in one queue per thread, and the first exception."""

    def __init__(self, tasks: int, threads: int, run: Callable[[int], None]) -> None:
        bounds = [tasks * t // threads for t in range(threads + 1)]
        self.queues = [deque(range(a, b)) for a, b in zip(bounds, bounds[1:])]
        self.run = run
        self.error: BaseException | None = None

    def work(self, thread: int) -> None:
        """Run this thread's own range in order, then help the others from the far end of theirs."""
        try:
            for victim in range(len(self.queues)):
                queue = self.queues[(thread + victim) % len(self.queues)]
                take = queue.pop if victim else queue.popleft
                while queue:
                    try:
                        task = take()
                    except IndexError:  # another thread took the last one
                        break
                    self.run(task)
        except BaseException as error:
            self.error = self.error or error
            for queue in self.queues:
                queue.clear()


class _Pool:
    """Worker threads that sleep on a lock each until there is a job; they are awake some 30 us after the call."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.busy = threading.Lock()
        self.job: _Job | None = None
        self.wake = [threading.Lock() for _ in range(threads - 1)]
        self.done = [threading.Lock() for _ in range(threads - 1)]
        for lock in self.wake + self.done:
            lock.acquire()
        for worker in range(threads - 1):
            threading.Thread(target=self._serve, args=(worker,), name=f"minigrad-{worker + 1}", daemon=True).start()

    def _serve(self, worker: int) -> None:
        np.seterr(all="ignore")  # per thread; the caller of `parallel` sets its own
        while True:
            self.wake[worker].acquire()
            job = self.job
            if job is None:
                return
            job.work(worker + 1)
            del job  # while the worker sleeps nothing of the job stays alive
            self.done[worker].release()

    def execute(self, job: _Job) -> None:
        """Run ``job`` on the calling thread and as many workers as it has queues for."""
        self.job = job
        helpers = len(job.queues) - 1
        for lock in self.wake[:helpers]:
            lock.release()
        job.work(0)
        for lock in self.done[:helpers]:
            lock.acquire()
        self.job = None

    def close(self) -> None:
        """Let the workers end when they have finished what they are doing."""
        self.job = None
        for lock in self.wake:
            with contextlib.suppress(RuntimeError):  # it was awake already
                lock.release()


_pool: _Pool | None = None
_pool_lock = threading.Lock()


def _current_pool() -> _Pool:
    global _pool
    if _pool is None:
        with _pool_lock:
            _pool = _pool or _Pool(available_threads())
    return _pool


def thread_count() -> int:
    """Threads that `parallel` uses, the calling one included."""
    return _current_pool().threads


def set_thread_count(threads: int | None) -> None:
    """Use ``threads`` threads from now on (None: what the machine offers). Not while kernels run."""
    global _pool
    with _pool_lock:
        if _pool is not None:
            _pool.close()
        _pool = None if threads is None else _Pool(threads)


def parallel(tasks: int, run: Callable[[int], None]) -> None:
    """Call ``run(0)`` to ``run(tasks - 1)``, spread over the thread pool; return when all are done.

    Each thread gets one contiguous range of tasks; one that finishes early takes tasks from the others' ends, so which
    thread runs a task is not fixed and results may depend only on the task's number. Calls from inside a task, or while
    another thread of the program uses the pool, run inline. The first exception is raised here; tasks that have not
    begun by then are dropped.

    >>> squares = [0] * 5
    >>> parallel(5, lambda i: squares.__setitem__(i, i * i))
    >>> squares
    [0, 1, 4, 9, 16]
    """
    pool = _current_pool() if tasks > 1 else None
    if pool is None or pool.threads == 1 or not pool.busy.acquire(blocking=False):
        for task in range(tasks):
            run(task)
        return
    job = _Job(tasks, min(tasks, pool.threads), run)
    try:
        pool.execute(job)
    except BaseException:  # an interrupt while waiting for workers, which are out of step now
        set_thread_count(pool.threads)
        raise
    finally:
        pool.busy.release()
    if job.error is not None:
        raise job.error


class _Blas:
    """The BLAS libraries of this process and how many callers want them on one thread."""

    def __init__(self) -> None:
        self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        self.lock = threading.Lock()
        self.users = 0
        self.saved: list[int] = []

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.saved = [library.get_num_threads() for library in self.libraries]
                for library in self.libraries:
                    library.set_num_threads(1)

    def exit(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                for library, threads in zip(self.libraries, self.saved):
                    library.set_num_threads(threads)


_blas: _Blas | None = None


def _current_blas() -> _Blas:
    global _blas
    if _blas is None:
        with _pool_lock:
            _blas = _blas or _Blas()
    return _blas


def blas_architectures() -> set[str]:
    """The processors that the loaded OpenBLAS libraries chose their kernels for, such as ``{"skylakex"}``."""
    return {getattr(library, "architecture", "").lower() for library in _current_blas().libraries}


def blas_names() -> str:
    """The loaded BLAS libraries with their versions and processors, such as ``openblas 0.3.29 SkylakeX``."""
    known = (library.info() for library in _current_blas().libraries)
    found = {" ".join(str(info.get(k) or "?") for k in ("internal_api", "version", "architecture")) for info in known}
    return ", ".join(sorted(found)) or "none"


@contextlib.contextmanager
def blas_single_thread() -> Iterator[None]:
    """Run BLAS on one thread inside this context, and as before after it.

    The limit holds for the process: while a minigrad program computes, NumPy calls made by other threads of the user
    also get one BLAS thread; before and after, the user's NumPy is as it was. Contexts nest and may overlap between
    threads. It costs about 4 us (`threadpoolctl`'s own context 15 us).
    """
    blas = _current_blas()
    blas.enter()
    try:
        yield
    finally:
        blas.exit()


_scratch = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A row-major array of this thread, aligned to 64 bytes, with whatever was in that memory before.

    The memory belongs to ``name``: the next call with that name on this thread hands out the same bytes again (grown
    where they do not suffice), so a kernel names its arrays apart and keeps none after it returns.

    >>> scratch("columns", (2, 3), "float32").shape
    (2, 3)
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    arenas: dict[str, NDArray[Any]] = _scratch.__dict__
    arena = arenas.get(name)
    if arena is None or arena.nbytes < nbytes:
        arena = arenas[name] = aligned(nbytes)
    return np.ndarray(shape, dtype, arena)


def aligned(nbytes: int) -> NDArray[np.uint8]:
    """``nbytes`` of new memory that starts at a multiple of 64 bytes."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]


def _after_fork() -> None:
    """A forked child has the pool's locks but not its threads: begin anew."""
    global _pool, _pool_lock, _blas
    _pool, _pool_lock, _blas = None, threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
