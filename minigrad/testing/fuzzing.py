"""Random programs on several backends until the time is up: ``minigrad fuzz``.

Programs are drawn in chunks by worker processes; a seed and a chunk's number determine what is drawn. A program that
differs from the oracle, or between two backends, or raises, or takes the worker with it, is a difference; Hypothesis
shrinks it, and it is written as a script of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import platform
import queue
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minigrad
from minigrad import device as devices
from minigrad import dtypes
from minigrad.errors import DeviceError
from minigrad.graph import toposort
from minigrad.testing.checks import WAYS, Tally, check_pair, check_program
from minigrad.testing.programs import Program, nowhere, outcomes
from minigrad.testing.script import asked, definition, reproducer
from minigrad.testing.shrinking import shrunk

WHAT = ("programs", "rows", "gradients", "training")  # kinds of programs, chunk by chunk in this order
WORKER = "minigrad.testing.fuzz_worker"
CACHES = ("MINIGRAD_CACHE", "POCL_CACHE_DIR", "XDG_CACHE_HOME", "HYPOTHESIS_STORAGE_DIRECTORY")
SHRINKING = 60.0  # seconds
HANGING = 600.0  # seconds that one program may take: minutes on a machine that is busy with something else
MOST_DIFFERENCES = 10
PROGRAMS_OF_A_WORKER = 600
MEMORY_OF_A_WORKER = 2 << 30


# Checks --------------------------------------------------------------------------------------------------------------


class Check(NamedTuple):
    """One backend against the oracle in some ways, or two backends against each other."""

    backends: tuple[str, ...]
    ways: tuple[str, ...] = tuple(WAYS)

    def run(self, program: Program) -> Tally:
        """Raises what :func:`check_program` or :func:`check_pair` raises."""
        if len(self.backends) == 2:
            return check_pair(program, *self.backends)
        return check_program(program, self.backends[0], self.ways)

    def narrowed(self, program: Program) -> Check:
        """The way that alone fails, where there is one."""
        for way in self.ways if len(self.backends) == 1 else ():
            alone = self._replace(ways=(way,))
            try:
                alone.run(program)
            except Exception:
                return alone
        return self


def checks_of(program: Program, backends: Sequence[str], only: Check | None = None) -> list[Check]:
    """Every check of a program (or ``only`` one) whose backends declare that they have what it needs."""
    able = [name for name in backends if can_run(name, program)]
    wanted = [only] if only else [*(Check((b,)) for b in able), *map(Check, itertools.combinations(able, 2))]
    return [check for check in wanted if set(check.backends) <= set(able)]


def can_run(backend: str, program: Program) -> bool:
    """Whether a backend declares that it has every primitive and dtype of a program, and of its gradients."""
    can = devices.get(backend).backend.capabilities
    if not can.unsupported and len(can.dtypes) == len(dtypes.ALL):
        return True
    for node in toposort(outcomes(program, program.build(nowhere))):
        kinds = node.dtype if isinstance(node.dtype, tuple) else (node.dtype,)
        if node.op.name in can.unsupported or not can.dtypes.issuperset(kinds):
            return False
    return True


def reproduce(program: Program, backends: Sequence[str]) -> int:
    """What a reproducer does: check a program and print what is found, the worst element where there is a difference.

    Args:
        program: what is run.
        backends: where, unless the command line names others.

    Returns:
        1 if something differs or raises, else 0.
    """
    failed = 0
    for check in checks_of(program, asked(backends)):
        name = " against ".join(check.backends)
        try:
            tally = check.run(program)
        except Exception as error:
            failed = 1
            print(f"{name}: {'' if isinstance(error, AssertionError) else type(error).__name__ + ': '}{error}")
        else:
            print(f"{name}: agrees, worst error {tally.worst:.3g} of its bound, {_share(tally)}")
    return failed


def _share(tally: Tally) -> str:
    return f"{tally.decided} of {tally.elements} elements decided"


# Campaigns -----------------------------------------------------------------------------------------------------------


@dataclass
class Difference:
    """A defect found.

    Attributes:
        what: in a few words.
        ops: the primitives of the shrunk program.
        message: the worst element, the exception, or what a process that died said last.
        chunk: which chunk of the seed draws it.
        script: the reproducer, where there is a program.
        path: the file that holds it, if that could be written.
        times: how often a program with the same primitives failed so.
    """

    what: str
    ops: tuple[str, ...]
    message: str
    chunk: int
    script: str = ""
    path: Path | None = None
    times: int = 1


@dataclass
class Count:
    """What a campaign has done so far.

    A program is inconclusive if nothing of it could be decided, or less than half of its elements.
    """

    programs: int = 0
    steps: int = 0
    inconclusive: int = 0
    seconds: float = 0.0
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        backends: names, or ``pkg.mod:Class``.
        seconds: after which no new program is run; what has failed is still shrunk.
        seed: determines what is drawn, with the number of the chunk.
        workers: processes.
        what: some of :data:`WHAT`.
        out: folder of the reproducers.
        chunk: only this one, once; None: one after the other until the time is up.
    """

    backends: tuple[str, ...]
    seconds: float
    seed: int
    workers: int = min(2, os.cpu_count() or 1)
    what: tuple[str, ...] = WHAT
    out: Path = Path()
    chunk: int | None = None


class Campaign:
    """One run of the fuzzer.

    Args:
        options: what to run.
        told: called with each new difference.
        tick: called a few times a second.
    """

    def __init__(self, options: Options, told: Callable[[Difference], object], tick: Callable[[Count], object]) -> None:
        self.options, self.told, self.tick = options, told, tick
        self.count = Count()
        self.names = [devices.canonical(name) for name in options.backends]  # a wrong one is an error here already
        self._events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._chunks = iter([options.chunk]) if options.chunk is not None else itertools.count()
        self._workers: list[_Worker] = []
        self._known: dict[tuple[Any, ...], Difference] = {}
        self._start: float | None = None

    def run(self) -> Count:
        """Run until the time is up, or Ctrl-C; ``count`` holds what was done. No process or temporary file stays."""
        folder = Path(tempfile.mkdtemp(prefix="minigrad-fuzz-"))
        try:
            self._fill(folder)
            while self._workers:
                self._next(folder)
        finally:
            for worker in self._workers:
                worker.kill()
            self._workers.clear()
            shutil.rmtree(folder, ignore_errors=True)
        return self.count

    def _fill(self, folder: Path) -> None:
        while len(self._workers) < self.options.workers and not self._is_over():
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            self._workers.append(_Worker(self.options, folder, chunk, self._events))

    def _is_over(self) -> bool:
        if self._start is None:
            return False
        self.count.seconds = time.monotonic() - self._start
        late = self.options.chunk is None and self.count.seconds >= self.options.seconds
        return late or len(self.count.differences) >= MOST_DIFFERENCES

    def _next(self, folder: Path) -> None:
        """Take one event, or none for a while; then see to the workers."""
        with contextlib.suppress(queue.Empty):
            worker, event = self._events.get(timeout=0.1)
            if worker in self._workers:
                worker.last = time.monotonic()
                if event is None:
                    self._lost(worker)
                else:
                    self._take(worker, event)
        for worker in list(self._workers):
            if time.monotonic() > worker.last + HANGING:
                self._dead(worker, "hangs", f"no answer for {HANGING:.0f} s")
        if self._is_over():
            for worker in [w for w in self._workers if w.failed is None]:
                self._retire(worker)
        else:
            self._fill(folder)
        self.tick(self.count)

    def _take(self, worker: _Worker, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "ready":
            worker.ready = True
            self._start = self._start or time.monotonic()  # starting Python is no part of the time asked for
        elif kind == "check":
            worker.at = event["backends"]
        elif kind == "program":
            worker.programs += 1
            self.count.programs += 1
            self.count.steps += event["steps"]
            self.count.inconclusive += 2 * event["decided"] < event["elements"]
        elif kind == "failed":
            worker.failed = event
            self.count.programs += 1
            self.count.steps += event["steps"]
        elif kind == "shrunk":
            worker.failed = None
            self._differs(worker, event)
        elif kind == "broken":
            text = event["traceback"]
            self._keep(Difference("the fuzzer itself fails", (text.splitlines()[-1],), text, worker.chunk), None)
        elif kind == "done":
            if worker.programs > PROGRAMS_OF_A_WORKER or event["memory"] > MEMORY_OF_A_WORKER:
                self._retire(worker)
                return
            chunk = None if self._is_over() else next(self._chunks, None)
            if chunk is None:
                self._retire(worker)
            else:
                worker.draw(chunk)

    def _retire(self, worker: _Worker) -> None:
        worker.kill()
        worker.clear()
        self._workers.remove(worker)

    def _lost(self, worker: _Worker) -> None:
        code = worker.wait()
        said = worker.said()
        if not worker.ready:
            worker.kill()
            raise DeviceError.of("fuzz", "a worker process that starts", f"exit code {code}\n{said}")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._dead(worker, f"ends the process ({name})", said)

    def _dead(self, worker: _Worker, what: str, message: str) -> None:
        """A worker that died or must: its journal holds the program that it ran."""
        worker.kill()
        self._workers.remove(worker)
        text = worker.journal.read_text(encoding="utf-8") if worker.journal.exists() else ""
        if worker.failed is not None:
            self._differs(worker, worker.failed)
        elif text:
            self.count.programs += 1
            self.count.steps += text.count("\n        Step(")
        if worker.process.returncode != -signal.SIGKILL and text:
            text = worker.shrunk(text)
        ops = sorted(set(re.findall(r"^        Step\('(\w+)'", text, re.MULTILINE)))
        event = {"what": what, "message": message, "program": text, "ops": ops, "backends": worker.at}
        self._differs(worker, event)
        worker.clear()

    def _differs(self, worker: _Worker, event: dict[str, Any]) -> None:
        where = " against ".join(event["backends"])
        found = Difference(f"{where} {event['what']}", tuple(event["ops"]), event["message"], worker.chunk)
        self._keep(found, event["program"])

    def _keep(self, found: Difference, program: str | None) -> None:
        known = self._known.setdefault((found.what, found.ops), found)
        if known is not found:
            known.times += 1
            return
        if program:
            digest = hashlib.sha256(program.encode()).hexdigest()[:8]
            path = self.options.out / f"minigrad-fuzz-{digest}.py"
            found.script = reproducer(program, self.options.backends, self._comment(found))
            with contextlib.suppress(OSError):  # the disk may be full: whoever is told has the script
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(found.script, encoding="utf-8")
                found.path = path
        self.count.differences.append(found)
        self.told(found)

    def _comment(self, found: Difference) -> str:
        options = self.options
        command = f"minigrad fuzz --backends {','.join(options.backends)} --what {','.join(options.what)}"
        return "\n".join(
            [
                f"{found.what}: {found.message}",
                "",
                f"Found by: {command} --seed {options.seed} --chunk {found.chunk}",
                *described(self.names),
                "Runs on the backends named on its command line, or on those; exits with 1 if they differ, else 0.",
            ]
        )


def described(names: Sequence[str]) -> Iterator[str]:
    """Lines that name the versions of what a difference may depend on."""
    yield (
        f"minigrad {minigrad.__version__}, numpy {np.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}"
    )
    for name in names:
        kind, _, index = name.partition(":")
        yield f"{name}: {devices.device_names(kind)[int(index or 0)]}"


class _Worker:
    """A process that draws and runs programs; its files are in a folder of its own.

    Attributes:
        chunk: what it is at.
        journal: holds the program that it runs.
        programs: that it has run.
        last: when it was heard last.
        at: the backends of the check that it runs.
        failed: its event about a program that it is shrinking.
        ready: whether it has opened its backends.
    """

    def __init__(
        self,
        options: Options,
        folder: Path,
        chunk: int,
        events: queue.Queue[tuple[_Worker, dict[str, Any] | None]],
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.journal = self.folder / "program.py"
        self.programs, self.last, self.ready = 0, time.monotonic(), False
        self.failed: dict[str, Any] | None = None
        self.at: Sequence[str] = options.backends
        self.environment = {
            **os.environ,
            **{name: str(self.folder / name.lower()) for name in CACHES},
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONHASHSEED": "0",
            "PYTHONFAULTHANDLER": "1",
        }
        for name in CACHES:
            (self.folder / name.lower()).mkdir()
        with (self.folder / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self.environment,
                start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
            )
        orders = {
            "backends": options.backends, "seed": options.seed, "what": options.what, "journal": str(self.journal),
        }  # fmt: skip
        self._write(json.dumps(orders))
        self.draw(chunk)
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def draw(self, chunk: int) -> None:
        """Order a chunk."""
        self.chunk = chunk
        self._write(str(chunk))

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: its last event says so
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def _read(self, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):  # else it died while it wrote
                    events.put((self, json.loads(line)))
        events.put((self, None))

    def wait(self) -> int:
        """The exit code of a process that has closed its output."""
        return self.process.wait()

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        text = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-30:])

    def kill(self) -> None:
        """End the process, and what it has started."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def shrunk(self, text: str) -> str:
        """A smaller program that takes a process with it as this one did this process, each tried in one of its own."""
        best, path, deadline = text, self.folder / "smaller.py", time.monotonic() + SHRINKING

        def ends(program: Program) -> bool:
            nonlocal best
            if time.monotonic() > deadline:
                return False
            smaller = definition(program, literal=True)
            path.write_text(reproducer(smaller, self.at, ""), encoding="utf-8")
            command = [sys.executable, str(path)]
            try:
                tried = subprocess.run(command, capture_output=True, env=self.environment, timeout=SHRINKING)
            except subprocess.TimeoutExpired:
                return False
            if tried.returncode != self.process.returncode:
                return False
            best = smaller
            return True

        path.write_text(reproducer(text, self.at, ""), encoding="utf-8")
        shrunk(runpy.run_path(str(path))["program"], ends)
        return best

    def clear(self) -> None:
        """Remove its files."""
        shutil.rmtree(self.folder, ignore_errors=True)
