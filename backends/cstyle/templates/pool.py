"""Pooling and its adjoints: one loop nest in which each element is computed by itself, in lanes of images or channels.

Where a window lies wholly inside the input its taps are unrolled; near the borders, and for large windows, they are
loops over the taps inside. The adjoints turn this round: each position of the input adds the windows that cover it, so
nothing is written twice and the order of the sum is fixed. There ``stride`` neighbouring positions are unrolled, one
block, since which taps reach a position depends on its remainder.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from minigrad import dtypes
from minigrad.backends.cstyle.body import ONE, At, Emitter, Lanes
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import GROUP, ITEMS, PER_CORE, decoded
from minigrad.backends.cstyle.templates.matmul_tiles import vector_width
from minigrad.kernel import Kernel
from minigrad.primitive import TABLE
from minigrad.shapes import row_major
from minigrad.view import View

UNROLLED = 36  # taps, or positions of a block, that are written out one by one
ADJOINTS = ("window_scatter", "avg_pool_grad")


def render_pool(kernel: Kernel, target: Target) -> Rendered:
    """A pooling core or an adjoint of one."""
    if 0 in kernel.space:
        return Rendered(())
    return _POOLS[kernel.op](kernel, target).render()


class _Axis(NamedTuple):
    """One spatial axis: window positions ``output * stride - before + tap * dilation`` of an input of ``size``."""

    size: int
    outputs: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int

    @property
    def inside(self) -> range:
        """Windows all of whose taps are inside the input."""
        first = -(-self.before // self.stride)
        stop = (self.size - 1 - (self.kernel - 1) * self.dilation + self.before) // self.stride + 1
        return range(first, max(first, min(stop, self.outputs)))

    @property
    def phases(self) -> list[tuple[int, int]]:
        """For each tap the remainder of the positions under it, and the tap."""
        return [(tap * self.dilation % self.stride, tap) for tap in range(self.kernel)]

    # Statements about axis ``n``.

    def taps(self, n: int, window: str) -> list[str]:
        """``a``: where a window starts; ``f`` and ``l``: its taps inside the input, first and past last."""
        return [
            f"const int a{n} = {window} * {self.stride} - {self.before};",
            f"const int f{n} = a{n} < 0 ? {self._rounded_up(f'-a{n}', self.dilation)} : 0;",
            _least(f"l{n}", self._rounded_up(f"{self.size} - a{n}", self.dilation), self.kernel),
        ]

    def divisor(self, n: int, window: str, padded: bool) -> list[str]:
        """``c``: how many taps of a window count in an average."""
        if padded:
            rest = f"{self.size + self.after + self.before} - {window} * {self.stride}"
            return [_least(f"c{n}", self._rounded_up(rest, self.dilation), self.kernel)]
        taps = block("", [*self.taps(n, window), f"c{n} = l{n} > f{n} ? l{n} - f{n} : 0;"])
        return [f"int c{n};", taps]

    def counted(self, padded: bool) -> range:
        """Windows all of whose taps count in an average."""
        if not padded:
            return self.inside
        room = self.size + self.before + self.after - (self.kernel - 1) * self.dilation
        return range(0, max(0, min((room - 1) // self.stride + 1, self.outputs)))

    def windows(self, n: int, position: str) -> list[str]:
        """``f`` and ``l``: the windows that may cover a position, first and past last."""
        low = f"{position} + {self.before - (self.kernel - 1) * self.dilation}"
        return [
            f"const int f{n} = {low} > 0 ? {self._rounded_up(low, self.stride)} : 0;",
            _least(f"l{n}", f"({position} + {self.before}) / {self.stride} + 1", self.outputs),
        ]

    def tap(self, n: int, position: str) -> list[str]:
        """``t``: which tap of window ``o`` lies on a position; nothing more for a window of which none does."""
        far = f"{position} + {self.before} - o{n} * {self.stride}"
        if self.dilation == 1:
            return [f"const int t{n} = {far};"]
        return [f"if (({far}) % {self.dilation}) continue;", f"const int t{n} = ({far}) / {self.dilation};"]

    @staticmethod
    def _rounded_up(length: str, unit: int) -> str:
        return length if unit == 1 else f"({length} + {unit - 1}) / {unit}"


def _least(name: str, value: str, most: int) -> str:
    return f"const int {name} = {value} < {most} ? {value} : {most};"


class _Nest(ABC):
    """What both directions share: loops over images, channels and rows, each row in a fast and a general part."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel, self.target, self.attrs = kernel, target, kernel.attrs
        window = kernel.attrs.window
        adjoint = kernel.op in ADJOINTS
        large, small = kernel.source_shapes[0][2:], kernel.core_shapes[0][2:]
        if adjoint:
            large, small = small, large
        self.axes = []
        for n, (before, after) in enumerate(window.padding):
            sizes = large[n], small[n], window.kernel[n], window.stride[n]
            self.axes.append(_Axis(*sizes, before, after, window.dilation[n]))
        self.functions = Functions(target.dialect)
        self.emitter = Emitter(kernel, target, self.functions)
        self.sources = [kernel.prologue[source].attr for source in kernel.sources]
        self.dtype = kernel.inputs[self.sources[0]].dtype
        self.lanes = self._lanes()
        self.unrolled = math.prod(window.kernel) <= UNROLLED and math.prod(window.stride) <= UNROLLED
        self.strides = row_major(window.kernel)

    # What differs.

    @property
    @abstractmethod
    def counts(self) -> list[int]:
        """Steps of the loop along each spatial axis."""

    @abstractmethod
    def interior(self, axis: _Axis) -> range:
        """The steps along an axis that :meth:`fast` may take."""

    @abstractmethod
    def fast(self, at: list[At], lanes: Lanes) -> list[str]:
        """One step (``s0``, ``s1``...) without a look at borders."""

    @abstractmethod
    def general(self, at: list[At], lanes: Lanes) -> list[str]:
        """One step anywhere."""

    @abstractmethod
    def element(self, at: list[At], lanes: Lanes) -> list[str]:
        """One output anywhere, at the spatial index ``s0``, ``s1``..."""

    # Values.

    def load(self, source: int, index: Sequence[At], lanes: Lanes) -> str:
        """A source at an index."""
        return self.emitter.load(self.sources[source], index, lanes)

    def type(self, width: int) -> str:
        """The type in which values are computed."""
        return self.emitter.type(self.dtype, width)

    def literal(self, value: float, width: int) -> str:
        """A constant among the values."""
        return self.emitter.literal(value, self.dtype, width)

    def number(self, tap: str, width: int) -> str:
        """The number of a tap in the lanes."""
        return self.emitter.splat(tap, f"int{width}") if width > 1 else tap

    def added(self, total: str, term: str, width: int) -> str:
        """A sum; of bools as NumPy has it."""
        op = "bitwise_or" if self.dtype is dtypes.bool_ else "add"
        return f"{total} = {self.emitter.operation(op, [total, f'({term})'], self.dtype, width)};"

    def chosen(self, numbers: str, tap: str, yes: str, no: str, width: int) -> str:
        """``yes`` in the lanes whose tap it is."""
        return self.emitter.choose(f"({numbers} == {self.number(tap, width)})", yes, no, self.dtype, width)

    def finish(self, index: list[At], lanes: Lanes, *core: str) -> list[str]:
        """The epilogue over values that still have float32's digits."""
        values = [self.emitter.rounded(core[0], self.dtype, lanes.width) if self.dtype.is_half else core[0]]
        return self.emitter.finish(index, lanes, [*values, *core[1:]])

    def flat(self, prefix: str) -> str:
        """The number of a tap from its indices."""
        return " + ".join(f"{prefix}{n} * {s}" if s != 1 else f"{prefix}{n}" for n, s in enumerate(self.strides))

    def divisor(self, windows: list[str], padded: bool) -> list[str]:
        """``c``: how many taps of a window count in an average, as a value."""
        lines = [line for n, axis in enumerate(self.axes) for line in axis.divisor(n, windows[n], padded)]
        count = " * ".join(f"c{n}" for n in range(len(self.axes)))
        lines.append(f"const int count = {count};")
        value = self.emitter.dialect.cast("(count > 0 ? count : 1)", self.type(1))
        return [*lines, f"const {self.type(1)} c = {value};"]

    def loops(self, name: str, lines: list[str]) -> list[str]:
        """Loops from ``f`` to ``l`` along all axes."""
        for n in range(len(self.axes) - 1, -1, -1):
            lines = [loop(f"{name}{n}", f"f{n}", f"l{n}", lines)]
        return lines

    # The nest.

    def _lanes(self) -> Lanes:
        """The axis that is contiguous in the output, if a vector of it fits."""
        kernel, last = self.kernel, len(self.kernel.space) - 1
        if self.target.is_gpu:
            return ONE
        view = kernel.outputs[kernel.stores[0][1]].view
        width = vector_width(self.target, self.dtype)
        axes = [0, 1]
        if not view.is_blocked(last) and (kernel.op not in ADJOINTS or self.axes[-1].stride == 1):
            axes.append(last)
        for axis in axes:
            size = view.blocks[axis][0] if view.blocks is not None else 0
            if view.strides[axis] == 1 and view.shape[axis] >= width > 1 and size % width == 0:
                return Lanes(axis, width)
        return ONE

    def render(self) -> Rendered:
        """One launch."""
        dialect, index = self.target.dialect, self.emitter.index_type
        if self.target.is_gpu:
            total = math.prod(self.kernel.space)
            decode, at = decoded("i", self.kernel.space, index, "r")
            names = [f"const int s{n} = {a};" for n, a in enumerate(at[2:])]
            lines = [f"const {index} i = {dialect.group_id(index=index)} * {ITEMS} + {dialect.local_id(0)};"]
            lines.append(block(f"if (i < {total})", [*decode, *names, *self.element(at[:2], ONE)]))
            return self._rendered(lines, -(-total // ITEMS), ITEMS)
        lanes, lines, most = self.lanes, [], 1
        if lanes.axis in (0, 1):
            length = self.kernel.space[lanes.axis]
            rest = length % lanes.width
            parts = [(lanes, 0, length - rest)] + ([(ONE, length - rest, rest)] if rest else [])
        else:
            parts = [(lanes, 0, self.kernel.space[0])]
        for some, first, count in parts:
            nest, groups = self._part(some, lanes.axis if lanes.axis in (0, 1) else 0, first, count)
            most = max(most, groups)
            lines.append(block("", nest))
        return self._rendered(lines, most, 1)

    def _rendered(self, lines: list[str], groups: int, local: int) -> Rendered:
        text = block(self.target.dialect.kernel(self.emitter.parameters(), (local,)), lines)
        return Rendered((Stage(text, (groups,), (local,), self.emitter.buffers),), self.functions.used())

    def _part(self, lanes: Lanes, axis: int, first: int, count: int) -> tuple[list[str], int]:
        """The loops over ``count`` indices of images or channels from ``first`` on, and the groups that share them."""
        space, view = self.kernel.space, self.kernel.outputs[self.kernel.stores[0][1]].view
        unit = lanes.width if lanes.axis == axis else 1
        counts = [space[0], space[1], *self.counts]
        counts[axis] = count // unit
        far = [abs(s) for s in view.strides]
        for n, (size, outer) in enumerate(view.blocks or ()):
            far[n] = outer if size else far[n]
        rows = sorted(range(len(space) - 1), key=lambda n: (-far[n], n))
        wanted = max(1, min(PER_CORE * self.target.cores, math.prod(space) // GROUP))
        total = math.prod(counts[n] for n in rows)
        each, groups = split(total, wanted)
        decode, found = decoded("r", tuple(counts[n] for n in rows), "int", "r")
        at = [At()] * len(space)
        for n, place in zip(rows, found):
            at[n] = place
        at[axis] = at[axis]._replace(scale=unit, offset=first)
        decode += [f"const int s{n} = {a};" for n, a in enumerate(at[2:])]
        start = f"{self.target.dialect.group_id(0)} * {each}" if groups > 1 else "0"
        stop = f"{start} + {each}" if groups > 1 else str(total)
        if each * groups != total:
            stop = f"({stop} < {total} ? {stop} : {total})"
        return [loop("r", start, stop, decode + self._row(at[:2], lanes))], groups

    def _row(self, at: list[At], lanes: Lanes) -> list[str]:
        """The last spatial axis."""
        last = len(self.axes) - 1
        name, count = f"s{last}", self.counts[last]
        across = lanes.axis == last + 2
        ranges = [self.interior(axis) for axis in self.axes]
        step = lanes.width if across else 1
        start, stop = ranges[last].start, ranges[last].stop
        general = [block("", self.general(at, ONE if across else lanes))]
        if not self.unrolled or stop - start < step or not all(ranges):
            return [loop(name, 0, count, general)]
        fast, variable = self.fast(at, lanes), name
        if (stop - start) % step:  # the last vector reaches back into the one before
            variable = "next"
            fast = [f"const int {name} = next < {stop - step} ? next : {stop - step};", *fast]
        conditions = []
        for n, (inside, many) in enumerate(zip(ranges[:last], self.counts)):
            if inside.start > 0:
                conditions.append(f"s{n} >= {inside.start}")
            if inside.stop < many:
                conditions.append(f"s{n} < {inside.stop}")
        run = loop(variable, start, stop, fast, step)
        if not conditions and start == 0 and stop == count:
            return [run]
        if stop == count:
            enter = [run, "break;"]
        else:
            enter = [run, f"{name} = {stop};"]
        here = " && ".join([f"{name} == {start}", *conditions])
        return [loop(name, 0, count, [block(f"if ({here})", enter), *general])]


class _Forward(_Nest):
    """Each output goes over the taps of its window."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        super().__init__(kernel, target)
        # Where lanes lie along the last axis they read a view in which that axis is one of windows and one of taps.
        view, axis = kernel.inputs[self.sources[0]].view, self.axes[-1]
        stride = view.strides[-1]
        self.across = self.lanes.axis == len(view.shape) - 1
        if self.across and view.is_blocked(len(view.shape) - 1):
            self.lanes, self.across = ONE, False
        if self.across:
            windows = View(
                (*view.shape[:-1], axis.outputs, axis.kernel),
                (*view.strides[:-1], stride * axis.stride, stride * axis.dilation),
                view.offset - stride * axis.before,
                blocks=view.blocks and (*view.blocks, (0, 0)),
            )
            self.windows = len(kernel.inputs)
            operand = kernel.inputs[self.sources[0]]._replace(view=windows)
            self.emitter = Emitter(replace(kernel, inputs=(*kernel.inputs, operand)), target, self.functions)

    @property
    def counts(self) -> list[int]:
        return [axis.outputs for axis in self.axes]

    def interior(self, axis: _Axis) -> range:
        return axis.inside

    def fast(self, at: list[At], lanes: Lanes) -> list[str]:
        index = [*at, *(At(f"s{n}") for n in range(len(self.axes)))]
        lines = []
        for tap in product(*(range(axis.kernel) for axis in self.axes)):
            places = [
                At(f"s{n}", axis.stride, t * axis.dilation - axis.before)
                for n, (axis, t) in enumerate(zip(self.axes, tap))
            ]
            if lanes.width > 1 and self.across:
                place = [*at, *places[:-1], index[-1], At(offset=tap[-1])]
                value = self.emitter.load(self.windows, place, lanes)
            else:
                value = self.load(0, [*at, *places], lanes)
            number = sum(t * s for t, s in zip(tap, self.strides))
            lines += self.begin(index, lanes, value) if number == 0 else self.step(str(number), value, lanes.width)
        return lines + self.end(index, lanes, True)

    def general(self, at: list[At], lanes: Lanes) -> list[str]:
        index = [*at, *(At(f"s{n}") for n in range(len(self.axes)))]
        lines = [line for n, axis in enumerate(self.axes) for line in axis.taps(n, f"s{n}")]
        lines += self.begin(index, lanes, None)
        step = [f"const int p{n} = a{n} + t{n} * {axis.dilation};" for n, axis in enumerate(self.axes)]
        value = self.load(0, [*at, *(At(f"p{n}") for n in range(len(self.axes)))], lanes)
        lines += self.loops("t", [*step, *self.step(self.flat("t"), value, lanes.width)])
        return lines + self.end(index, lanes, False)

    element = general

    # What differs; the value so far is called ``best``.

    @abstractmethod
    def begin(self, index: list[At], lanes: Lanes, first: str | None) -> list[str]:
        """Before all taps, or after the first one, which has number 0."""

    @abstractmethod
    def step(self, number: str, value: str, width: int) -> list[str]:
        """One tap."""

    @abstractmethod
    def end(self, index: list[At], lanes: Lanes, inside: bool) -> list[str]:
        """The epilogue, after all taps of a window that lies ``inside``, or else those from ``f`` to ``l``."""


class _Max(_Forward):
    """The greatest value of each window, and the number of its tap: the first one; NaN is greater than all."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        super().__init__(kernel, target)
        self.tapped = any(line.op == "core" and line.attr == 1 for line in kernel.epilogue)
        # Beside float32 values numbers are floats too: compilers narrow integers to bytes at once, and that costs more.
        self.numbers = dtypes.float32 if self.type(1) == "float" else dtypes.int32

    def begin(self, index: list[At], lanes: Lanes, first: str | None) -> list[str]:
        width, number = lanes.width, "0"
        if first is None:
            some = " && ".join(f"f{n} < l{n}" for n in range(len(self.axes)))
            number = f"({some} ? {self.flat('f')} : 0)"
        best = self.literal(self.dtype.min, width) if first is None else first
        lines = [f"{self.type(width)} best = {best};"]
        if self.tapped:
            lines.append(f"{self.emitter.type(self.numbers, width)} tap = {self._number(number, width)};")
        return lines

    def _number(self, tap: str, width: int) -> str:
        return self.emitter.splat(tap, self.emitter.type(self.numbers, width))

    def step(self, number: str, value: str, width: int) -> list[str]:
        operation = self.emitter.operation
        x = f"const {self.type(width)} x = {value};"
        if not self.tapped:
            best = operation("maximum", ["x", "best"], self.dtype, width)
            return [block("", [x, f"best = {best};"])]
        taken = f"({operation('le', ['x', 'best'], self.dtype, width)} == 0)"
        if self.dtype.is_float:
            taken += f" & {operation('eq', ['best', 'best'], self.dtype, width)}"
        chosen = self.emitter.choose("taken", self._number(number, width), "tap", self.numbers, width)
        lines = [
            x,
            f"const {self.emitter.type(dtypes.int32, width)} taken = {taken};",
            f"best = {self.emitter.choose('taken', 'x', 'best', self.dtype, width)};",
            f"tap = {chosen};",
        ]
        return [block("", lines)]

    def end(self, index: list[At], lanes: Lanes, inside: bool) -> list[str]:
        tap = self.emitter.cast("tap", self.numbers, TABLE["max_pool"].dtype(self.attrs, self.numbers)[1], lanes.width)
        return self.finish(index, lanes, "best", tap)


class _Gather(_Forward):
    """The value at a given tap of each window."""

    def begin(self, index: list[At], lanes: Lanes, first: str | None) -> list[str]:
        width = lanes.width
        given = self.kernel.inputs[self.sources[1]].dtype
        which = self.emitter.cast(self.load(1, index, lanes), given, dtypes.int32, width)
        lines = [
            f"const {self.emitter.type(dtypes.int32, width)} which = {which};",
            f"{self.type(width)} best = {self.literal(0, width)};",
        ]
        return lines if first is None else lines + self.step("0", first, width)

    def step(self, number: str, value: str, width: int) -> list[str]:
        return [f"best = {self.chosen('which', number, value, 'best', width)};"]

    def end(self, index: list[At], lanes: Lanes, inside: bool) -> list[str]:
        return self.finish(index, lanes, "best")


class _Average(_Forward):
    """The mean of each window."""

    def begin(self, index: list[At], lanes: Lanes, first: str | None) -> list[str]:
        return [f"{self.type(lanes.width)} best = {self.literal(0, lanes.width) if first is None else first};"]

    def step(self, number: str, value: str, width: int) -> list[str]:
        return [self.added("best", value, width)]

    def end(self, index: list[At], lanes: Lanes, inside: bool) -> list[str]:
        if inside:
            taps = self.literal(math.prod(axis.kernel for axis in self.axes), lanes.width)
            return self.finish(index, lanes, f"(best / {taps})")
        lines = self.divisor([f"s{n}" for n in range(len(self.axes))], self.attrs.count_include_pad)
        return lines + self.finish(index, lanes, f"(best / {self.emitter.splat('c', self.type(lanes.width))})")


class _Adjoint(_Nest):
    """Each position of the input adds what the windows on it have for it."""

    @property
    def counts(self) -> list[int]:
        return [(axis.size - 1 + axis.before) // axis.stride + 1 for axis in self.axes]

    def interior(self, axis: _Axis) -> range:
        lowest = min((phase - tap * axis.dilation) // axis.stride for phase, tap in axis.phases)
        highest = max((phase - tap * axis.dilation) // axis.stride for phase, tap in axis.phases)
        windows = self.whole(axis)
        first = max(-(-axis.before // axis.stride), windows.start - lowest)
        stop = min((axis.size + axis.before) // axis.stride, windows.stop - highest)
        return range(first, max(first, stop))

    def fast(self, at: list[At], lanes: Lanes) -> list[str]:
        lines: list[str] = []
        known: dict[tuple[int, ...], int] = {}
        for phases in product(*(range(axis.stride) for axis in self.axes)):
            terms = []
            reaching = [[tap for phase, tap in axis.phases if phase == here] for axis, here in zip(self.axes, phases)]
            for tap in product(*reaching):
                ahead = tuple(
                    (phase - t * axis.dilation) // axis.stride for axis, phase, t in zip(self.axes, phases, tap)
                )
                if ahead not in known:
                    known[ahead] = len(known)
                    index = [*at, *(At(f"s{n}", 1, a) for n, a in enumerate(ahead))]
                    lines += self.given(str(known[ahead]), index, lanes)
                number = sum(t * s for t, s in zip(tap, self.strides))
                terms.append(self.term(str(known[ahead]), str(number), lanes.width))
            index = [*at]
            index += [At(f"s{n}", axis.stride, h - axis.before) for n, (axis, h) in enumerate(zip(self.axes, phases))]
            total = [f"{self.type(lanes.width)} total = {terms[0] if terms else self.literal(0, lanes.width)};"]
            total += [self.added("total", term, lanes.width) for term in terms[1:]]
            lines.append(block("", [*total, *self.end(index, lanes)]))
        return lines

    def general(self, at: list[At], lanes: Lanes) -> list[str]:
        lines = self.element(at, lanes, "p")
        for n in range(len(self.axes) - 1, -1, -1):
            axis = self.axes[n]
            place = [f"const int p{n} = s{n} * {axis.stride} + h{n} - {axis.before};"]
            place.append(f"if (p{n} < 0 || p{n} >= {axis.size}) continue;")
            lines = [loop(f"h{n}", 0, axis.stride, place + lines)]
        return lines

    def element(self, at: list[At], lanes: Lanes, position: str = "s") -> list[str]:
        width, places = lanes.width, [f"{position}{n}" for n in range(len(self.axes))]
        lines = [line for n, axis in enumerate(self.axes) for line in axis.windows(n, places[n])]
        lines.append(f"{self.type(width)} total = {self.literal(0, width)};")
        inner = self.given("0", [*at, *(At(f"o{n}") for n in range(len(self.axes)))], lanes)
        inner += self.share(width)
        inner.append(self.added("total", self.term("0", self.flat("t"), width), width))
        for n in range(len(self.axes) - 1, -1, -1):
            inner = [loop(f"o{n}", f"f{n}", f"l{n}", self.axes[n].tap(n, places[n]) + inner)]
        lines += inner
        return lines + self.finish([*at, *map(At, places)], lanes, "total")

    # What differs.

    @abstractmethod
    def whole(self, axis: _Axis) -> range:
        """Windows that :meth:`fast` may use."""

    @abstractmethod
    def given(self, name: str, index: list[At], lanes: Lanes) -> list[str]:
        """Load what a window has."""

    def share(self, width: int) -> list[str]:
        """Make of that what a position gets, at any window ``o``."""
        return []

    @abstractmethod
    def term(self, name: str, number: str, width: int) -> str:
        """What a position gets that lies under tap ``number``."""

    def end(self, index: list[At], lanes: Lanes) -> list[str]:
        """The epilogue of :meth:`fast`."""
        return self.finish(index, lanes, "total")


class _Scatter(_Adjoint):
    """Each window has a value for one of its taps."""

    def whole(self, axis: _Axis) -> range:
        return range(axis.outputs)

    def given(self, name: str, index: list[At], lanes: Lanes) -> list[str]:
        width, dtype = lanes.width, self.kernel.inputs[self.sources[1]].dtype
        which = self.emitter.cast(self.load(1, index, lanes), dtype, dtypes.int32, width)
        return [
            f"const {self.type(width)} g{name} = {self.load(0, index, lanes)};",
            f"const {self.emitter.type(dtypes.int32, width)} w{name} = {which};",
        ]

    def term(self, name: str, number: str, width: int) -> str:
        return self.chosen(f"w{name}", number, f"g{name}", self.literal(0, width), width)


class _AverageGrad(_Adjoint):
    """Each window has a value that all its taps share."""

    def whole(self, axis: _Axis) -> range:
        return axis.counted(self.attrs.count_include_pad)

    def given(self, name: str, index: list[At], lanes: Lanes) -> list[str]:
        return [f"{self.type(lanes.width)} g{name} = {self.load(0, index, lanes)};"]

    def share(self, width: int) -> list[str]:
        lines = self.divisor([f"o{n}" for n in range(len(self.axes))], self.attrs.count_include_pad)
        return [*lines, f"g0 = g0 / {self.emitter.splat('c', self.type(width))};"]

    def term(self, name: str, number: str, width: int) -> str:
        return f"g{name}"

    def end(self, index: list[At], lanes: Lanes) -> list[str]:
        taps = self.literal(math.prod(axis.kernel for axis in self.axes), lanes.width)
        return self.finish(index, lanes, f"(total / {taps})")


_POOLS: dict[str, type[_Nest]] = {
    "max_pool": _Max,
    "window_gather": _Gather,
    "window_scatter": _Scatter,
    "avg_pool": _Average,
    "avg_pool_grad": _AverageGrad,
}
POOLS = tuple(_POOLS)
