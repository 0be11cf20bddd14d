"""Choose how each value lies in memory, and turn a schedule into kernels with views.

A backend may prefer another order of axes for activations around a core (batch innermost, say). Its wish spreads to
the elementwise kernels around, so that conversions cancel; where a reshape cannot be said in that order the value
stays row-major, and where a core would read a value in the wrong order a copy is put before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from minigrad.dtypes import DType
from minigrad.kernel import MAP, Body, Instr, Kernel, Operand
from minigrad.schedule import Draft, Line, Load, Schedule, in_place, seen_through
from minigrad.shapes import Shape
from minigrad.view import View

Order = tuple[int, ...]  # axes, outermost first; empty for row-major


class Preference(Protocol):
    """The part of a backend that is asked: the orders wanted for a core's output and each source, or None."""

    def __call__(self, op: str, attrs: Any, shapes: list[Shape], /) -> list[Order] | None:
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


def lay_out(schedule: Schedule, preference: Preference | None, row_major: frozenset[int]) -> Laid:
    """Kernels for ``schedule``; the values in ``row_major`` keep that order whatever the backend prefers."""
    chooser = _Chooser(schedule, preference, row_major)
    chooser.choose()
    return chooser.build()


class _Chooser:
    def __init__(self, schedule: Schedule, preference: Preference | None, row_major: frozenset[int]) -> None:
        self.values, self.drafts, self.stored = schedule.values, schedule.drafts, schedule.stored
        self.preference = preference
        self.pinned = set(row_major)
        self.orders: dict[int, Order] = {}
        self.wanted: dict[Draft, list[Order]] = {}  # per source of the core
        for v, value in enumerate(self.values):
            if value.op.name == "buffer":
                self.orders[v] = value.attrs[1]
        for draft in self.drafts:
            for store in draft.stores:
                if any(move.op == "strided_view" for move in store.chain):
                    self.pinned.add(store.target)

    def choose(self) -> None:
        """Fill ``orders``: wishes of cores first, then of what feeds them, then of what follows."""
        if self.preference is not None:
            for draft in self.drafts:
                self._ask(draft)
            for draft in reversed(self.drafts):
                self._spread_back(draft)
            for draft in self.drafts:
                self._spread_forward(draft)
        for v in self.stored:
            self.orders.setdefault(v, ())
        for draft in self.drafts:  # a view that the order cannot say: keep the value row-major
            for load in draft.loads:
                if load.base in self.stored and self.orders[load.base] and self._seen(load) is None:
                    self.orders[load.base] = ()

    def _seen(self, load: Load) -> View | None:
        return seen_through(self.values[load.base].shape, load.chain, self.orders[load.base])

    def _ask(self, draft: Draft) -> None:
        if draft.core is None:
            return
        assert self.preference is not None
        core = self.values[draft.core]
        sources = [self.values[s].shape for s in core.sources]
        orders = self.preference(core.op.name, core.attrs, [core.shape, *sources])
        if orders is None:
            return
        self.wanted[draft] = orders[1:]
        for store in draft.stores:
            self._want(store.target, orders[0])
        for line, order in zip(draft.sources, orders[1:]):
            load = draft.prologue[line].attr
            if isinstance(load, Load) and not load.chain:
                self._want(load.base, order)

    def _want(self, v: int, order: Order) -> None:
        if v in self.stored and v not in self.pinned and len(self.values[v].shape) == len(order):
            self.orders.setdefault(v, order)

    def _spread_back(self, draft: Draft) -> None:
        for store in draft.stores:
            order = self.orders.get(store.target)
            if order and store.target == store.value:
                for load in draft.loads:
                    if not load.chain and self.values[load.base].shape == self.values[store.value].shape:
                        self._want(load.base, order)

    def _spread_forward(self, draft: Draft) -> None:
        if draft.core is not None:
            return
        for load in draft.loads:
            order = self.orders.get(load.base)
            if order and not load.chain:
                for store in draft.stores:
                    if self.values[store.target].shape == self.values[load.base].shape:
                        self._want(store.target, order)

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
                if order and isinstance(load, Load) and not self._lies_in(load, order):
                    sources[load] = copied(instead.get(load, load), order)
            launches.append(self._launch(laid, draft, instead | sources, instead))
        return laid

    def _lies_in(self, load: Load, order: Order) -> bool:
        view = self._seen(load)
        if view is None:
            return False
        strides = [view.strides[a] for a in order if view.shape[a] != 1]
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
