"""Cut a graph of values into kernels.

Three decisions are made here, in this order:

1. *What gets memory*: outputs, the results of cores (everything that is not elementwise or movement), what cores read,
   and shared elementwise values that cost more to compute twice than to keep.
2. *What becomes one kernel*: each of these values is computed by one kernel together with the elementwise and movement
   values between it and others in memory; a reduction takes its source's computation in as prologue.
3. *What merges*: an elementwise kernel joins the core whose output it reads element by element (an epilogue), or an
   elementwise kernel of the same shape, if no other kernel stands between them.

:func:`fusable` is the one predicate that says what may be computed inside another kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.primitive import Kind
from minigrad.shapes import Shape
from minigrad.simplify import Value
from minigrad.view import Order, View


class Move(NamedTuple):
    """A movement primitive between memory and a kernel; ``source`` is the value that it moves."""

    op: str
    attrs: Any
    source: int


Chain = tuple[Move, ...]  # first applied first
_HEAVY = frozenset("exp expm1 log log1p sin cos tanh erf sigmoid pow atan2 threefry".split())
_MAX_DEPTH = 48  # lines of one body: bounds both the recursion here and a kernel's registers
_CHEAP = 4  # recomputing up to this many operations on one large source beats a pass over memory


def seen_through(shape: Shape, chain: Chain, order: Order = ()) -> View | None:
    """The view of a buffer of ``shape`` in ``order`` after ``chain``, or None where no view says it."""
    return View.of(shape, order).through((op, attrs) for op, attrs, _ in chain)


def fusable(value: Value) -> bool:
    """Whether a value may be computed inside the kernel that uses it."""
    kind = value.op.kind
    if kind is Kind.CREATION:
        return value.op.name != "buffer"
    return kind in (Kind.ELEMENTWISE, Kind.MOVEMENT, Kind.IDENTITY)


class Load(NamedTuple):
    """A read of the value ``base`` in memory through movement."""

    base: int
    chain: Chain


class Line(NamedTuple):
    """A line of a body before layouts are known: like :class:`minigrad.kernel.Instr`, with a :class:`Load` to load."""

    op: str
    args: tuple[int, ...]
    attr: Any
    dtype: DType


class Store(NamedTuple):
    """``value`` is written to the memory of ``target`` through ``chain``."""

    value: int
    target: int
    chain: Chain


@dataclass(eq=False)
class Draft:
    """A kernel to be: a core or none, and what its epilogue stores."""

    core: int | None
    space: Shape
    stores: list[Store]
    loads: dict[Load, None] = field(default_factory=dict)  # an ordered set
    prologue: list[Line] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    epilogue: list[Line] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # epilogue lines of the stores
    after: list[Draft] = field(default_factory=list)  # drafts that must run before, besides those that are read
    awaited: dict[int, None] = field(default_factory=dict)  # values that must be in memory before, by barriers
    passing: set[int] = field(default_factory=set)  # values computed here element by element that nobody else reads

    def needs(self) -> dict[int, None]:
        """The values that must be in memory before, each once."""
        return dict.fromkeys(load.base for load in self.loads) | self.awaited


class _NeedsMemory(Exception):
    """Raised while a body is written: ``value`` must be in memory first."""

    def __init__(self, value: int) -> None:
        self.value = value


@dataclass
class Schedule:
    """Kernels in an order in which they can run, and the values that are in memory besides the inputs."""

    values: Sequence[Value]
    drafts: list[Draft]
    stored: set[int]


def schedule(
    values: Sequence[Value], outputs: Iterable[int], epilogues: frozenset[str], fuse: bool, kept: frozenset[int]
) -> Schedule:
    """Cut ``values`` into kernels that leave ``outputs`` in memory.

    Args:
        values: from :func:`minigrad.simplify.simplify`.
        outputs: the values that must be in memory at the end.
        epilogues: cores whose kernels the backend lets take an epilogue.
        fuse: False gives each value a kernel of its own.
        kept: values that a later backward pass will read; none of them may need a core to be run again.
    """
    scheduler = _Scheduler(values, set(outputs), epilogues, fuse, kept)
    return scheduler.run()


class _Scheduler:
    def __init__(
        self,
        values: Sequence[Value],
        outputs: set[int],
        epilogues: frozenset[str],
        fuse: bool,
        kept: frozenset[int],
    ) -> None:
        self.values, self.outputs, self.epilogues, self.fuse = values, outputs, epilogues, fuse
        self.kept = kept
        self.needed = self._reachable(outputs)
        self.users: dict[int, list[int]] = {v: [] for v in self.needed}
        for v in self.needed:
            for s in values[v].sources:
                self.users[s].append(v)
        self.memory: set[int] = set()

    def run(self) -> Schedule:
        self._assign_memory()
        while True:
            try:
                drafts = self._draft()
                break
            except _NeedsMemory as missing:
                self.memory.add(missing.value)
        if self.fuse:
            drafts = _merge(self, drafts)
        drafts = _sort(drafts)
        return Schedule(self.values, drafts, {s.target for d in drafts for s in d.stores})

    def _reachable(self, roots: Iterable[int]) -> list[int]:
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            v = stack.pop()
            if v not in seen:
                seen.add(v)
                stack.extend(self.values[v].sources)
        return sorted(seen)

    # 1. What gets memory.

    def in_memory(self, v: int) -> bool:
        """Whether the value is read from memory by kernels that do not compute it."""
        return v in self.memory or self.values[v].op.name == "buffer"

    def strip(self, v: int) -> tuple[int, Chain]:
        """The value below a value's movement, and that movement; stops at what is in memory."""
        chain: list[Move] = []
        while not self.in_memory(v) and self.values[v].op.kind in (Kind.MOVEMENT, Kind.IDENTITY):
            value = self.values[v]
            v = value.sources[0]
            if value.op.kind is Kind.MOVEMENT:
                chain.append(Move(value.op.name, value.attrs, v))
        return v, tuple(reversed(chain))

    def _assign_memory(self) -> None:
        values, memory = self.values, self.memory
        memory.update(v for v in self.outputs if values[v].op.name != "buffer")
        depth: dict[int, int] = {}
        for v in self.needed:
            value = values[v]
            if not self.fuse and value.op.kind is Kind.ELEMENTWISE:
                memory.add(v)
            if value.op.name == "barrier":
                self._make_awaitable(value.sources[1])
            if fusable(value):
                depth[v] = 1 + max((depth.get(s, 0) for s in value.sources), default=0)
                if depth[v] > _MAX_DEPTH or v in memory:
                    memory.add(v)
                    depth[v] = 0
                continue
            depth[v] = 0
            if value.op.kind is Kind.PROJECTION or value.op.outputs == 1 and value.op.name != "buffer":
                memory.add(v)
            if value.op.kind is not Kind.REDUCE:
                for s in value.sources[:1] if value.op.name == "assign_view" else value.sources:
                    if value.op.name != "cat" and value.op.kind is not Kind.PROJECTION:
                        self._make_loadable(s)
        if self.fuse:
            self._share()
        self._keep_residuals()

    def _make_loadable(self, v: int) -> None:
        """Cores read memory through plain views: padding and computation before them need memory."""
        base, chain = self.strip(v)
        view = seen_through(self.values[base].shape, chain)
        made = self.values[base].op.kind is Kind.CREATION and not self.in_memory(base)
        if view is None or view.bounds is not None or made:
            if not self.in_memory(v):
                self.memory.add(v)
        elif fusable(self.values[base]):
            self.memory.add(base)

    def _make_awaitable(self, v: int) -> None:
        """What a kernel waits for is in memory at some time."""
        base = self.strip(v)[0]
        if self.values[base].op.kind is not Kind.CREATION and fusable(self.values[base]):
            self.memory.add(base)

    def _share(self) -> None:
        """Give memory to elementwise values that several kernels would compute, unless that is cheap."""
        values = self.values
        weight: dict[int, int] = {}
        bases: dict[int, frozenset[int]] = {}
        for v in self.needed:
            value = values[v]
            if self.in_memory(v) or not fusable(value):
                weight[v], bases[v] = 0, frozenset((v,))
                continue
            own = 0
            if value.op.kind is Kind.ELEMENTWISE:
                own = 10 if value.op.name in _HEAVY else 1
            weight[v] = own + sum(weight[s] for s in value.sources)
            large = math.prod(value.shape) // 4
            found = (b for s in value.sources for b in bases[s])
            bases[v] = frozenset(b for b in found if math.prod(values[b].shape) > large)
        kernels: dict[int, frozenset[int]] = {}  # which kernels compute the value, if it has no memory
        for v in reversed(self.needed):
            users: set[int] = set()
            for u in self.users[v]:
                inside = fusable(values[u]) and not self.in_memory(u)
                users |= kernels[u] if inside else {u}
            if not self.in_memory(v) and values[v].op.kind is Kind.ELEMENTWISE and len(users) > 1:
                if len(bases[v]) > 1 or weight[v] > _CHEAP:
                    self.memory.add(v)
            kernels[v] = frozenset(users)

    def _keep_residuals(self) -> None:
        """Of the values a later backward pass reads, keep those that would need a core to be run again."""
        costly: dict[int, bool] = {}
        for v in self.needed:
            value = self.values[v]
            if self.in_memory(v) or value.op.kind is Kind.CREATION:
                costly[v] = False
            elif fusable(value):
                costly[v] = any(costly[s] for s in value.sources)
            else:
                costly[v] = True
            if v in self.kept and costly[v] and value.op.outputs == 1:
                self.memory.add(v)
                costly[v] = False

    # 2. One kernel for each value in memory.

    def _draft(self) -> list[Draft]:
        drafts = []
        for v in self.needed:
            value = self.values[v]
            if value.op.name == "cat":
                drafts += self._draft_cat(v, value)
            elif value.op.name == "assign_view":
                base, new = value.sources
                shape = self.values[new].shape
                chain = (Move("strided_view", (shape, value.attrs.strides, value.attrs.offset), v),)
                copy = Draft(None, value.shape, [Store(base, v, ())])
                drafts += [copy, Draft(None, shape, [Store(new, v, chain)], after=[copy])]
            elif value.op.outputs > 1:
                parts = [u for u in self.users[v] if u in self.memory]
                shape = self.values[parts[0]].shape
                drafts.append(Draft(v, shape, [Store(u, u, ()) for u in parts]))
            elif v in self.memory and fusable(value):
                drafts.append(Draft(None, value.shape, [Store(v, v, ())]))
            elif v in self.memory and value.op.kind is not Kind.PROJECTION:
                drafts.append(Draft(v, value.shape, [Store(v, v, ())]))
        for draft in drafts:
            self.write(draft)
        return drafts

    def _draft_cat(self, v: int, value: Value) -> list[Draft]:
        drafts, start, axis = [], 0, value.attrs.axis
        for s in value.sources:
            shape = self.values[s].shape
            starts = tuple(start if a == axis else 0 for a in range(len(shape)))
            chain = (Move("slice", (starts, shape, (1,) * len(shape)), v),)
            drafts.append(Draft(None, shape, [Store(s, v, chain)]))
            start += shape[axis]
        return drafts

    def write(self, draft: Draft) -> None:
        """Write the bodies of a draft; raises :class:`_NeedsMemory` where no view says a movement."""
        draft.loads.clear()
        draft.awaited.clear()
        draft.prologue, draft.epilogue, draft.sources = [], [], []
        if draft.core is not None:
            fused = self.values[draft.core].op.kind is Kind.REDUCE
            writer = _Writer(self, draft, draft.prologue, set(), computes=fused)
            draft.sources = [writer.write(s, ()) for s in self.values[draft.core].sources]
        own = {s.value for s in draft.stores if s.target == s.value or not self.in_memory(s.value)} | draft.passing
        if draft.core is not None:
            outputs = [u for u in self.users[draft.core] if self.values[u].op.kind is Kind.PROJECTION]
            own |= {draft.core, *outputs}
        writer = _Writer(self, draft, draft.epilogue, own)
        draft.lines = [writer.write(store.value, ()) for store in draft.stores]


class _Writer:
    """Writes one body: lines for values under the movement between them and the body's space."""

    def __init__(
        self, scheduler: _Scheduler, draft: Draft, body: list[Line], own: set[int], computes: bool = True
    ) -> None:
        self.scheduler, self.values = scheduler, scheduler.values
        self.draft, self.body, self.own = draft, body, own
        self.computes = computes  # False: of sources that are in memory, a core reads constants too
        self.known: dict[tuple[int, Chain], int] = {}

    def write(self, v: int, chain: Chain) -> int:
        """The line of value ``v`` seen through ``chain``."""
        value = self.values[v]
        if value.op.name == "const" and self.computes:
            chain = ()
        elif v in self.own and in_place(value.shape, chain, self.draft.space):
            chain = ()  # computed here, and each element where the kernel has it
        key = (v, chain)
        if key not in self.known:
            self.known[key] = self._line(v, value, chain)
        return self.known[key]

    def _emit(self, op: str, args: Iterable[int], attr: Any, dtype: DType) -> int:
        self.body.append(Line(op, tuple(args), attr, dtype))
        return len(self.body) - 1

    def _line(self, v: int, value: Value, chain: Chain) -> int:
        if value.op.name == "const" and (self.computes or not self.scheduler.in_memory(v)):
            return self._emit("const", (), (value.attrs.value, value.attrs.sign), value.dtype)
        if v in self.own and not chain:
            if v == self.draft.core:
                return self._emit("core", (), 0, value.dtype)
            if value.op.kind is Kind.PROJECTION:
                return self._emit("core", (), value.attrs.index, value.dtype)
        elif self.scheduler.in_memory(v):
            self._view(View.of(value.shape), chain)
            load = Load(v, chain)
            self.draft.loads[load] = None
            return self._emit("load", (), load, value.dtype)
        if value.op.name == "iota":
            return self._emit("iota", (), self._view(View.of(value.shape), chain), value.dtype)
        if value.op.kind is Kind.ELEMENTWISE:
            args = [self._argument(s, value.shape, chain) for s in value.sources]
            return self._emit(value.op.name, args, getattr(value.attrs, "dtype", None), value.dtype)
        source = value.sources[0]
        if value.op.kind is Kind.IDENTITY:
            awaited = [self.scheduler.strip(s)[0] for s in value.sources[1:]]
            self.draft.awaited.update((a, None) for a in awaited if self.values[a].op.kind is not Kind.CREATION)
            return self.write(source, chain)
        if value.op.name == "pad":
            base = self.scheduler.strip(source)[0]
            if not self.scheduler.in_memory(base) or self.values[base].op.name == "const":  # constants are never read
                return self._pad(value, source, chain)
        return self.write(source, (Move(value.op.name, value.attrs, source), *chain))

    def _argument(self, source: int, shape: Shape, chain: Chain) -> int:
        if self.values[source].shape != shape:
            chain = (Move("expand", (shape,), source), *chain)
        return self.write(source, chain)

    def _pad(self, value: Value, source: int, chain: Chain) -> int:
        """Padding around something computed: compute it everywhere, then choose."""
        inner = self.write(source, (Move("pad", (value.attrs.padding, 0.0), source), *chain))
        shape = self.values[source].shape
        view = self._view(View.of(shape), (Move("pad", value.attrs, source), *chain))
        if view.bounds is None:
            return inner
        inside = self._emit("inside", (), view, dtypes.bool_)
        fill = self._emit("const", (), (value.attrs.value, 1.0), value.dtype)
        return self._emit("where", (inside, inner, fill), None, value.dtype)

    def _view(self, view: View, chain: Chain) -> View:
        for op, attrs, source in chain:
            moved = view.moved(op, attrs)
            if moved is None:
                raise _NeedsMemory(source)
            view = moved
        return view


def in_place(shape: Shape, chain: Chain, space: Shape) -> bool:
    """Whether movement leaves element i of ``shape`` at element i of ``space``, up to axes of size 1."""
    view = seen_through(shape, chain)
    if view is None or not view.is_row_major or view.offset:
        return False
    here = [n for n in view.shape if n != 1]
    return here == [n for n in shape if n != 1] == [n for n in space if n != 1]


def _merge(scheduler: _Scheduler, drafts: list[Draft]) -> list[Draft]:
    """Let elementwise drafts join the drafts whose results they read in place."""
    merger = _Merger(scheduler, drafts)
    for draft in list(drafts):
        if draft.core is None and not draft.after:
            merger.try_join(draft)
    return merger.drafts


class _Merger:
    def __init__(self, scheduler: _Scheduler, drafts: list[Draft]) -> None:
        self.scheduler, self.drafts = scheduler, drafts
        self.writers: dict[int, list[Draft]] = {}
        self.readers: dict[int, list[Draft]] = {}
        self.last: dict[Draft, int] = {}  # a draft reads nothing that was numbered after this
        for draft in drafts:
            self.last[draft] = max(s.target for s in draft.stores)
            for store in draft.stores:
                self.writers.setdefault(store.target, []).append(draft)
            for base in draft.needs():
                self.readers.setdefault(base, []).append(draft)

    def try_join(self, draft: Draft) -> None:
        """Merge ``draft`` into a draft that computes something it reads, cores first."""
        producers: dict[Draft, None] = {}
        for load in draft.loads:
            writers = self.writers.get(load.base, [])
            if len(writers) == 1 and writers[0] is not draft:
                producers[writers[0]] = None
        for producer in sorted(producers, key=lambda p: p.core is None):
            if self._fits(producer, draft) and not self._between(producer, draft):
                self._join(producer, draft)
                return

    def _fits(self, producer: Draft, draft: Draft) -> bool:
        values = self.scheduler.values
        if producer.core is not None and values[producer.core].op.name not in self.scheduler.epilogues:
            return False
        if len(producer.epilogue) + len(draft.epilogue) > 2 * _MAX_DEPTH:
            return False
        made = {s.target: s for s in producer.stores}
        for load in draft.loads:
            store = made.get(load.base)
            if store is not None:
                whole = store.target == store.value
                if not whole or not in_place(values[load.base].shape, load.chain, draft.space):
                    return False
        if producer.space == draft.space:
            return True
        # What is stored besides must not have lines of the producer's shape.
        plain = all(s.value == producer.core or self._only_reader(s.target, draft) for s in producer.stores)
        return producer.core is not None and plain

    def _only_reader(self, v: int, draft: Draft) -> bool:
        return v not in self.scheduler.outputs and self.readers.get(v, []) == [draft]

    def _between(self, producer: Draft, draft: Draft) -> bool:
        """Whether some other draft must run after ``producer`` and before ``draft``."""
        first = min(s.target for s in producer.stores)
        seen = {producer}
        stack = [d for d in self._sources(draft) if d is not producer]
        while stack:
            other = stack.pop()
            if other in seen or self.last[other] < first:
                continue
            seen.add(other)
            for source in self._sources(other):
                if source is producer:
                    return True
                stack.append(source)
        return False

    def _sources(self, draft: Draft) -> list[Draft]:
        return [w for base in draft.needs() for w in self.writers.get(base, [])] + draft.after

    def _join(self, producer: Draft, draft: Draft) -> None:
        producer.stores += draft.stores
        producer.passing |= draft.passing
        producer.space = draft.space
        self.last[producer] = max(self.last[producer], self.last[draft])
        self.drafts.remove(draft)
        for other in self.drafts:
            other.after = [producer if d is draft else d for d in other.after]
        for store in draft.stores:
            self.writers[store.target] = [producer if w is draft else w for w in self.writers[store.target]]
        for base in draft.needs():
            self.readers[base] = [r for r in self.readers[base] if r is not draft]
        for store in list(producer.stores):
            unread = not self.readers.get(store.target) and store.target not in self.scheduler.outputs
            if unread and store.target == store.value and len(producer.stores) > 1:
                producer.stores.remove(store)
                producer.passing.add(store.value)
                self.scheduler.memory.discard(store.value)
        self.scheduler.write(producer)
        for base in producer.needs():
            readers = self.readers.setdefault(base, [])
            if producer not in readers:
                readers.append(producer)


def _sort(drafts: list[Draft]) -> list[Draft]:
    """Drafts in an order in which each runs after what it reads."""
    writers: dict[int, list[Draft]] = {}
    for draft in drafts:
        for store in draft.stores:
            writers.setdefault(store.target, []).append(draft)
    done: dict[Draft, None] = {}
    begun: set[Draft] = set()
    stack = drafts[::-1]
    while stack:
        draft = stack[-1]
        before = [w for base in draft.needs() for w in writers.get(base, [])] + draft.after
        waiting = [d for d in before if d not in done and d is not draft]
        if waiting:
            assert draft not in begun, "kernels wait for one another"
            begun.add(draft)
            stack += waiting
        else:
            done[stack.pop()] = None
    return list(done)
