"""Choose how each value lies in memory, and turn a schedule into kernels with views.

A backend may prefer another order of axes for activations around a core (batch innermost, or in blocks, say). It is
asked core by core, in the order in which they run, and told how each source lies by what was chosen so far. Its wish
spreads to the elementwise kernels around, so that conversions cancel; where a reshape cannot be said in that order the
value stays row-major, and where a core would read a value in the wrong order a copy is put before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from minigrad.dtypes import DType
from minigrad.kernel import MAP, Body, Instr, Kernel, Operand
from minigrad.schedule import Chain, Draft, Line, Load, Schedule, in_place, seen_through
from minigrad.shapes import Shape
from minigrad.view import Order, View, fits

Wish = Order | None  # None: as it is


class Preference(Protocol):
    """The part of a backend that is asked: the orders wanted for a core's output and each source, or None."""

    def __call__(self, op: str, attrs: Any, shapes: list[Shape], views: list[View | None], /) -> list[Wish] | None:
        """Orders as :meth:`minigrad.backends.base.Backend.preferred_orders` gives them."""


class Launch(NamedTuple):
    """A kernel and the values whose memory its buffers are."""

    kernel: Kernel
    values: tuple[int, ...]


@dataclass
class Laid:
    """Kernels in order, and shape, dtype and axis order of every value that has memory (inputs too)."""

    launches: list[Launch]
    shapes: dict[int, Shape]
    dtypes: dict[int, DType]
    orders: dict[int, Order]


def lay_out(schedule: Schedule, preference: Preference | None, donations: Mapping[int, int]) -> Laid:
    """Kernels for ``schedule``.

    Args:
        schedule: what to compute.
        preference: the backend's wishes, or None for row-major wherever nothing else is given.
        donations: outputs and the inputs that they may overwrite, if they lie alike: these take over their order.
    """
    chooser = _Chooser(schedule, preference, donations)
    chooser.choose()
    return chooser.build()


class _Chooser:
    def __init__(self, schedule: Schedule, preference: Preference | None, donations: Mapping[int, int]) -> None:
        self.values, self.drafts, self.stored = schedule.values, schedule.drafts, schedule.stored
        self.preference = preference
        self.orders: dict[int, Order] = {}
        self.wanted: dict[Draft, list[Wish]] = {}  # per source of the core
        self.chains: dict[int, list[Chain]] = {}  # through which a value is read and written
        self.writers: dict[int, list[Draft]] = {}
        for v, value in enumerate(self.values):
            if value.op.name == "buffer":
                self.orders[v] = value.attrs[1]
        for draft in self.drafts:
            for load in draft.loads:
                self.chains.setdefault(load.base, []).append(load.chain)
            for store in draft.stores:
                self.chains.setdefault(store.target, []).append(store.chain)
                self.writers.setdefault(store.target, []).append(draft)
        for out, into in donations.items():
            self._settle(out, self.orders[into])

    def choose(self) -> None:
        """Fill ``orders``: what a core wishes goes back to what feeds it, and forward to what follows."""
        if self.preference is not None:
            for draft in self.drafts:
                self._ask(draft, self.preference)
                self._spread_forward(draft)
            for draft in self.drafts:  # again: from what a later core gave its order
                self._spread_forward(draft)
        for v in self.stored:
            self.orders.setdefault(v, ())

    def _seen(self, load: Load) -> View | None:
        return seen_through(self.values[load.base].shape, load.chain, self.orders.get(load.base, ()))

    def _ask(self, draft: Draft, preference: Preference) -> None:
        if draft.core is None:
            return
        core = self.values[draft.core]
        shapes = [core.shape, *(self.values[s].shape for s in core.sources)]
        loads = [draft.prologue[line].attr for line in draft.sources]
        wishes = preference(core.op.name, core.attrs, shapes, [self._plain(load) for load in loads])
        if wishes is None:
            return
        self.wanted[draft] = wishes[1:]
        for load, wish in zip(loads, wishes[1:]):
            if isinstance(load, Load):
                if wish is None:
                    self._settle(load.base, ())  # what the backend was told of it stays true
                elif not load.chain:
                    self._wish(load.base, wish)
        if wishes[0] is not None:
            for store in draft.stores:
                self._wish(store.target, wishes[0])

    def _plain(self, load: Any) -> View | None:
        """The view through which a core will read a source, if that is a plain load."""
        if not isinstance(load, Load):
            return None
        view = self._seen(load) or seen_through(self.values[load.base].shape, load.chain)  # of a row-major copy
        return None if view is None or view.bounds is not None else view

    def _settle(self, v: int, order: Order) -> bool:
        """Decide how a value lies, if that is open and all movement on it can be said so."""
        shape = self.values[v].shape
        if v not in self.stored or v in self.orders or not fits(order, shape):
            return False
        if any(seen_through(shape, chain, order) is None for chain in self.chains[v]):
            return False
        self.orders[v] = order
        return True

    def _wish(self, v: int, order: Order) -> None:
        """Settle a value, and what is read beside it where it is computed."""
        stack = [v]
        while stack:
            v = stack.pop()
            if self._settle(v, order) and order:
                for draft in self.writers[v]:
                    if any(store.target == store.value == v for store in draft.stores):
                        stack += self._alike(draft, v)

    def _alike(self, draft: Draft, v: int) -> list[int]:
        """What a draft reads element by element as ``v`` lies."""
        shape = self.values[v].shape
        return [load.base for load in draft.loads if not load.chain and self.values[load.base].shape == shape]

    def _spread_forward(self, draft: Draft) -> None:
        if draft.core is not None:
            return
        for store in draft.stores:
            for v in self._alike(draft, store.target):
                if self.orders.get(v):
                    self._settle(store.target, self.orders[v])

    # Kernels.

    def build(self) -> Laid:
        """Kernels with views, after copies into the order that a core wants."""
        launches: list[Launch] = []
        shapes = {v: self.values[v].shape for v in self.orders}
        dtypes = {v: self.values[v].dtype for v in self.orders}
        laid = Laid(launches, shapes, dtypes, self.orders)
        copies: dict[tuple[Load, Order], int] = {}

        def copied(load: Load, order: Order) -> Load:
            key = (load, order)
            if key not in copies:
                copies[key] = self._copy(laid, load, order)
            return Load(copies[key], ())

        for draft in self.drafts:
            # A view that the order of an input cannot say goes through a row-major copy of it.
            instead = {
                load: copied(Load(load.base, ()), ())._replace(chain=load.chain)
                for load in draft.loads
                if self._seen(load) is None
            }
            sources: dict[Load, Load] = {}
            for line, order in zip(draft.sources, self.wanted.get(draft, [])):
                load = draft.prologue[line].attr
                if order is not None and isinstance(load, Load) and not self._lies_in(load, order):
                    sources[load] = copied(instead.get(load, load), order)
            launches.append(self._launch(laid, draft, instead | sources, instead))
        return laid

    def _lies_in(self, load: Load, order: Order) -> bool:
        """Whether a load's elements lie where ``order`` puts them; without blocks gaps between them do not matter."""
        view = self._seen(load)
        if view is None:
            return False
        expected = View.of(view.shape, order)
        axes = [a for a, n in enumerate(view.shape) if n != 1]
        if view.blocks or expected.blocks:
            same = all(view.strides[a] == expected.strides[a] for a in axes)
            return same and (view.offset, view.blocks) == (0, expected.blocks)
        strides = [view.strides[a] for a in sorted(axes, key=lambda a: -expected.strides[a])]
        return 0 not in strides and strides == sorted(strides, reverse=True)

    def _copy(self, laid: Laid, load: Load, order: Order) -> int:
        view = seen_through(laid.shapes[load.base], load.chain, laid.orders[load.base])
        assert view is not None
        number = len(self.values) + len(laid.orders)
        dtype = laid.dtypes[load.base]
        laid.shapes[number], laid.dtypes[number], laid.orders[number] = view.shape, dtype, order
        body = (Instr("load", (), 0, dtype),)
        operands = (Operand(0, dtype, view),), (Operand(1, dtype, View.of(view.shape, order)),)
        kernel = Kernel(MAP, None, (), (), (), (), view.shape, body, ((0, 0),), *operands, 2)
        laid.launches.append(Launch(kernel, (load.base, number)))
        return number

    def _launch(self, laid: Laid, draft: Draft, sources: dict[Load, Load], instead: dict[Load, Load]) -> Launch:
        buffers: dict[int, int] = {}  # value -> position among the kernel's buffers
        inputs: dict[Operand, int] = {}

        def read(load: Load) -> int:
            base = load.base
            view = seen_through(laid.shapes[base], load.chain, laid.orders[base])
            assert view is not None
            operand = Operand(buffers.setdefault(base, len(buffers)), laid.dtypes[base], view)
            return inputs.setdefault(operand, len(inputs))

        def body(lines: list[Line], replaced: dict[Load, Load]) -> Body:
            out = []
            for op, args, attr, dtype in lines:
                if isinstance(attr, Load):
                    attr = read(replaced.get(attr, attr))
                out.append(Instr(op, args, attr, dtype))
            return tuple(out)

        prologue, epilogue = body(draft.prologue, sources), body(draft.epilogue, instead)
        outputs = []
        for store in draft.stores:
            view = seen_through(self.values[store.target].shape, store.chain, self.orders[store.target])
            assert view is not None
            if view.shape != draft.space and in_place(view.shape, (), draft.space):
                view = view.moved("reshape", (draft.space,))
                assert view is not None
            position = buffers.setdefault(store.target, len(buffers))
            outputs.append(Operand(position, self.values[store.target].dtype, view))
        core = None if draft.core is None else self.values[draft.core]
        shapes = () if core is None else tuple(self.values[s].shape for s in core.sources)
        kernel = Kernel(
            MAP if core is None else core.op.name,
            None if core is None else core.attrs,
            prologue,
            tuple(draft.sources),
            shapes,
            () if core is None else (core.shape,) * core.op.outputs,
            draft.space,
            epilogue,
            tuple((line, n) for n, line in enumerate(draft.lines)),
            tuple(inputs),
            tuple(outputs),
            len(buffers),
        )
        return Launch(kernel, tuple(buffers))
