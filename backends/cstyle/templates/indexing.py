"""Gather and scatter along axis 0, at positions that are data.

A scatter adds in the order of its index whatever the number of groups: on CPUs each group owns some rows of the output
and walks through the whole index; on GPUs the index is sorted, and each element of the output finds its sources there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from minigrad import dtypes
from minigrad.backends.cstyle.body import At, Emitter, Lanes
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.nest import arranged, bound, constant, index_type, marker, overlapping
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import ITEMS, PER_CORE, decoded, render_map, vector_width
from minigrad.backends.cstyle.templates.folds import Fold, of_nothing, position_dtype
from minigrad.backends.cstyle.templates.sort import Runs, item, key_of
from minigrad.kernel import Instr, Kernel, Operand
from minigrad.shapes import Shape
from minigrad.view import View

GROUP = 4096  # elements that are worth a group of their own
OWNERS = 2  # groups per core that share out the rows of a scatter: each of them walks through the whole index
TILE = 4  # vectors of a row that are added at a time
CHUNK = 1024  # elements of a row that are shared out together


def render_take(kernel: Kernel, target: Target) -> Rendered:
    """``out[i, ...] = x[index[i], ...]``."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    return _Take(kernel, target).rendered()


def render_scatter(kernel: Kernel, target: Target) -> Rendered:
    """``out[index[i], ...]`` gathers ``source[i, ...]``."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    if 0 in kernel.source_shapes[0]:
        return render_map(of_nothing(kernel, kernel.attrs.reduce, kernel.outputs[0].dtype), target)
    return _Scatter(kernel, target).rendered()


def _spread(kernel: Kernel, sources: Sequence[View], output: Callable[[View], View]) -> Kernel:
    """The kernel with operands of their own for its sources, over a joint space.

    Args:
        kernel: its sources are loads.
        sources: their views over that space.
        output: an epilogue's view over that space.
    """
    used = sorted({line.attr for line in kernel.epilogue if line.op == "load"})
    given = [kernel.inputs[kernel.prologue[s].attr] for s in kernel.sources]
    own = [operand._replace(view=view) for operand, view in zip(given, sources)]

    def moved(operand: Operand) -> Operand:
        return operand._replace(view=output(operand.view))

    def line(of: Instr) -> Instr:
        if of.op == "load":
            return of._replace(attr=used.index(of.attr))
        return of._replace(attr=output(of.attr)) if isinstance(of.attr, View) else of

    return dataclasses.replace(
        kernel,
        prologue=(),
        sources=(),
        epilogue=tuple(map(line, kernel.epilogue)),
        inputs=(*(moved(kernel.inputs[n]) for n in used), *own),
        outputs=tuple(map(moved, kernel.outputs)),
    )


def _with(view: View, before: int, after: int) -> View:
    """The view with axes of size 1 around."""
    bounds = view.bounds and (((0, 1),) * before + view.bounds + ((0, 1),) * after)
    blocks = view.blocks and (((0, 0),) * before + view.blocks + ((0, 0),) * after)
    shape, strides = (1,) * before + view.shape + (1,) * after, (0,) * before + view.strides + (0,) * after
    return view._replace(shape=shape, strides=strides, bounds=bounds, blocks=blocks)


def _cut(view: View, first: int, last: int) -> View:
    """The view along some of its axes only."""
    blocks = view.blocks and view.blocks[first:last]
    return View(view.shape[first:last], view.strides[first:last], view.offset, blocks=blocks)


def _joined(one: View, other: View) -> View:
    """One view along the axes of both; the offset is that of the first."""
    none = ((0, 0),)
    blocks = None
    if one.blocks or other.blocks:
        blocks = (one.blocks or none * len(one.shape)) + (other.blocks or none * len(other.shape))
    return View(one.shape + other.shape, one.strides + other.strides, one.offset, blocks=blocks)


class _Indexing:
    """What both share: the joint space, and an axis (or several, if it lies in blocks) that the index chooses.

    Attributes:
        index: the type of loop variables.
        chosen: the axes of the space that the index chooses.
        first: axes that come first, in their order.
    """

    index: str

    def __init__(self, kernel: Kernel, target: Target, shape: Shape, chosen: int, first: Sequence[int]) -> None:
        leading = marker(shape, first) if first else None
        main = len(kernel.inputs)  # the first output
        kernel, marked = arranged(kernel, shape, main, [marker(shape, [chosen])], leading)
        self.kernel, self.target, self.shape = kernel, target, kernel.space
        self.functions = Functions(target.dialect)
        self.e = Emitter(kernel, target, self.functions)
        self.chosen = self._along(marked[0])
        self.first = self._along(marked[1]) if first else []

    def _along(self, marked: View) -> list[int]:
        """The axes that a marker marks, outermost first."""
        axes = [a for a, stride in enumerate(marked.strides) if stride and self.shape[a] > 1]
        return sorted(axes, key=lambda a: -marked.strides[a])

    def sizes(self, axes: Sequence[int]) -> Shape:
        return tuple(self.shape[a] for a in axes)

    def decoded(self, name: str, axes: Sequence[int]) -> tuple[list[str], dict[int, At]]:
        """Statements that take the position ``name`` among ``axes`` apart, and the index along each."""
        lines, at = decoded(name, self.sizes(axes), self.index, f"{name}_")
        return lines, dict(zip(axes, at))

    def at(self, *places: dict[int, At]) -> list[At]:
        """An index that is 0 along axes without a place."""
        found: dict[int, At] = {}
        for some in places:
            found |= some
        return [found.get(axis, At()) for axis in range(len(self.shape))]


class _Take(_Indexing):
    def __init__(self, kernel: Kernel, target: Target) -> None:
        x, index = (kernel.inputs[kernel.prologue[s].attr].view for s in kernel.sources)
        lead, rows, rank = len(index.shape), x.shape[0], len(kernel.core_shapes[0])
        shape = (*kernel.core_shapes[0], rows)
        rest = _with(_cut(x, 1, len(x.shape)), lead, 0)
        views = [_joined(rest, _cut(x, 0, 1)), _with(index, 0, rank - lead + 1)]
        self.rows, self.dtype = rows, kernel.prologue[kernel.sources[0]].dtype
        super().__init__(_spread(kernel, views, lambda view: _with(view, 0, 1)), target, shape, rank, ())
        self.operand = len(self.kernel.inputs) - 2
        self.axes = [a for a in range(len(self.shape)) if a not in self.chosen]
        self.index = index_type(self.e, max(math.prod(self.sizes(self.axes)), rows))

    def rendered(self) -> Rendered:
        local = ITEMS if self.target.is_gpu else 1
        lines, groups = self._items() if self.target.is_gpu else self._vectors()
        text = block(self.target.dialect.kernel(self.e.parameters(), (local,)), lines)
        return Rendered((Stage(text, (groups,), (local,), self.e.buffers),), self.functions.used())

    def _row(self, places: dict[int, At]) -> tuple[list[str], dict[int, At]]:
        """Statements that read the index, and the row that it says; out of range it is the first or the last."""
        given = self.e.load(self.operand + 1, self.at(places))
        decode, row = self.decoded("row", self.chosen)
        clamped = f"given < 0 ? 0 : given < {self.rows} ? given : {self.rows - 1}"
        return [f"const long given = {given};", constant(self.index, "row", f"({self.index})({clamped})"), *decode], row

    def _moved(self, at: list[At], lanes: Lanes) -> list[str]:
        value = self.e.load(self.operand, at, lanes)
        core = f"const {self.e.type(self.dtype, lanes.width)} core = {value};"
        return [core, *self.e.finish(at, lanes, ("core",))]

    def _items(self) -> tuple[list[str], int]:
        total = math.prod(self.sizes(self.axes))
        decode, places = self.decoded("i", self.axes)
        lines, row = self._row(places)
        body = [*decode, *lines, *self._moved(self.at(places, row), Lanes())]
        return [*item(self.e, self.index), block(f"if (i < {total})", body)], -(-total // ITEMS)

    def _vectors(self) -> tuple[list[str], int]:
        """Pieces of the innermost axis shared out to groups."""
        *outer, inner = self.axes or [-1]
        length = self.shape[inner] if self.axes else 1
        index = self.kernel.inputs[self.operand + 1].view
        apart = bool(self.axes) and index.strides[inner] != 0  # each element has a row of its own
        width = 1 if apart or not self.axes else vector_width(self.e, length)
        pieces = -(-length // CHUNK)
        rounds = math.prod(self.sizes(outer)) * pieces
        wanted = min(PER_CORE * self.target.cores, max(1, rounds * min(length, CHUNK) // GROUP))
        each, groups = split(rounds, wanted)
        decode, places = self.decoded("r", outer)

        def elements(step: int, stop: str) -> list[str]:
            here = {**places, inner: At("j")} if self.axes else places
            lines, found = self._row(here) if apart else ([], row)
            moved = self._moved(self.at(here, found), Lanes(inner, step) if step > 1 else Lanes())
            return [block(f"for (; j + {step} <= {stop}; j += {step})", [*lines, *moved])]

        lines, row = ([], {}) if apart else self._row(places)
        body = [
            constant(self.index, "r", f"t / {pieces}"),
            *decode,
            *lines,
            f"{self.index} j = t % {pieces} * {CHUNK};",
            bound(self.index, "stop", f"j + {CHUNK}", length),
            *(elements(width, "stop") if width > 1 else []),
            *elements(1, "stop"),
        ]
        head = [constant(self.index, "first", f"{self.target.dialect.group_id(index=self.index)} * {each}")]
        head.append(bound(self.index, "last", f"first + {each}", rounds))
        return [*head, loop("t", "first", "last", body, 1, self.index)], groups


class _Scatter(_Indexing):
    def __init__(self, kernel: Kernel, target: Target) -> None:
        index, source = (kernel.inputs[kernel.prologue[s].attr].view for s in kernel.sources)
        lead, rest, length = len(index.shape), source.shape[len(index.shape) :], kernel.attrs.length
        shape = (*index.shape, length, *rest)
        one = View((1,), (0,))
        views = [
            _with(index, 0, 1 + len(rest)),
            _joined(_joined(_cut(source, 0, lead), one), _cut(source, lead, len(source.shape))),
        ]
        self.dtype = kernel.prologue[kernel.sources[1]].dtype
        self.count, self.length = math.prod(index.shape), length
        spread = _spread(kernel, views, lambda view: _with(view, lead, 0))
        super().__init__(spread, target, shape, lead, range(lead))
        self.operand = len(self.kernel.inputs) - 2
        self.fold = Fold(self.e, kernel.attrs.reduce, self.dtype)
        self.rest = [a for a in range(len(self.shape)) if a not in (*self.first, *self.chosen)]
        self.width = math.prod(self.sizes(self.rest))
        self.index = index_type(self.e, max(self.count, self.length) * self.width)

    def rendered(self) -> Rendered:
        return self._items() if self.target.is_gpu else self._owners()

    def _source(self, at: list[At], lanes: Lanes) -> list[str]:
        """Statements that read the source as a field ``x``."""
        width = lanes.width
        value = f"const {self.e.type(self.dtype, width)} value = {self.e.load(self.operand + 1, at, lanes)};"
        return [value, *self.fold.given("x", self.fold.element(["value"], width), width)]

    def _finish(self, name: str, at: list[At], lanes: Lanes) -> list[str]:
        core = f"const {self.e.type(self.dtype, lanes.width)} core = {self.fold.result(name, lanes.width)[0]};"
        return [core, *self.e.finish(at, lanes, ("core",))]

    # CPUs.

    def _owners(self) -> Rendered:
        """Each group owns some rows, or of few rows some columns, and lists the sources of each row before it adds."""
        n, group = self.index, self.target.dialect.group_id(index=self.index)
        wanted = max(1, min(OWNERS * self.target.cores, (self.count + self.length) * self.width // GROUP))
        each, parts = split(self.length, wanted)
        columns = self.shape[self.rest[-1]] if self.rest else 1
        width = vector_width(self.e, columns)
        offsets = [t * width for t in range(min(columns // width, TILE))]
        step = width * len(offsets)  # tiles overlap at the end of a row
        strip, strips = split(-(-columns // step), max(1, wanted // parts))
        kind = position_dtype(self.count)
        place = self.e.storage(kind)
        decode, first = self.decoded("i", self.first)
        read = [*decode, f"const long given = {self.e.load(self.operand, self.at(first))};"]
        word = self.e.storage(dtypes.uint64)
        inside = f"({word})given - ({word})lo < span"  # one comparison, which is nearly always foreseen
        lines = [
            constant(n, "lo", f"{group} / {strips} * {each}"),
            bound(n, "hi", f"lo + {each}", self.length),
            f"const {word} span = hi > lo ? hi - lo : 0;",
            constant(n, "left", f"{group} % {strips} * {strip}"),
            bound(n, "right", f"left + {strip}", -(-columns // step)),
            f"{self.target.dialect.pointer(place, 'ends', False)} = s0 + {group} % {strips} * {self.length};",
            f"{self.target.dialect.pointer(place, 'sources', False)} = s1 + {group} % {strips} * {self.count};",
            f"{place} below = 0;",
            loop("row", "lo", "hi", ["ends[row] = 0;"], 1, n),
            loop("i", 0, self.count, [*read, "below += given < lo ? 1 : 0;", f"if ({inside}) ++ends[given];"], 1, n),
            f"{place} next = below;",
            loop("row", "lo", "hi", [f"const {place} some = ends[row];", "ends[row] = next;", "next += some;"], 1, n),
            loop("i", 0, self.count, [*read, f"if ({inside}) sources[ends[given]++] = i;"], 1, n),
            loop("row", "lo", "hi", self._row(offsets, width, step), 1, n),
        ]
        head = self.target.dialect.kernel(self.e.parameters([kind, kind]), (1,))
        stage = Stage(block(head, lines), (parts * strips,), (1,), self.e.buffers, (0, 1))
        sizes = (strips * self.length * kind.itemsize, strips * self.count * kind.itemsize)
        return Rendered((stage,), self.functions.used(), sizes)

    def _row(self, offsets: Sequence[int], width: int, step: int) -> list[str]:
        """Add and finish the elements of a row, whose sources are listed up to ``ends[row]``."""
        n = self.index
        *outer, inner = self.rest or [-1]
        places = [At(f"w{axis}") for axis in outer] + [At("k")] * bool(self.rest)
        tile = overlapping(n, places, len(outer), self.shape[inner], step) if self.rest else []
        rest = dict(zip(self.rest, places))
        decode, first = self.decoded("i", self.first)
        undo, row = self.decoded("row", self.chosen)
        lanes = Lanes(inner, width) if width > 1 else Lanes()
        start: list[str] = []
        add: list[str] = []
        done: list[str] = []
        for offset in offsets:
            here = dict(rest)
            if self.rest:
                here[inner] = here[inner]._replace(offset=offset)
            name = f"t{offset}"
            start += self.fold.declare(name, width)
            add.append(block("", [*self._source(self.at(first, here), lanes), *self.fold.merge(name, "x", width)]))
            done.append(block("", self._finish(name, self.at(row, here), lanes)))
        each = [constant(n, "i", "sources[s]"), *decode, *add]
        lines = [*tile, *start, loop("s", "below", "end", each, 1, n), *done]
        lines = [loop("k", "left", "right", lines, 1, n)]
        for axis in reversed(outer):
            lines = [loop(f"w{axis}", 0, self.shape[axis], lines, 1, n)]
        return [constant(n, "end", "ends[row]"), *undo, *lines, "below = end;"]

    # GPUs.

    def _items(self) -> Rendered:
        n, total = self.index, self.length * self.width
        decode, first = self.decoded("p", self.first)
        given = self.e.load(self.operand, self.at(first))
        runs = Runs(self.e, 1, self.count, dtypes.uint64, position_dtype(self.count), n)
        stages = runs.stages([*decode, f"const long given = {given};", *key_of(self.e, "given", dtypes.int64)])
        keys, places = runs.found
        undo, rest = self.decoded("w", self.rest)
        part, row = self.decoded("row", self.chosen)
        source = self._source(self.at(first, rest), Lanes())
        search = [
            constant(n, "probe", "low + (high - low) / 2"),
            f"const int before = {keys}[probe] < key;",
            "low = before ? probe + 1 : low;",
            "high = before ? high : probe;",
        ]
        body = [
            constant(n, "row", f"i / {self.width}"),
            constant(n, "w", f"i % {self.width}"),
            *part,
            *undo,
            *key_of(self.e, "row", dtypes.int64),
            f"{n} low = 0, high = {self.count};",
            block("while (low < high)", search),
            *self.fold.declare("t", 1),
            block(
                f"for (; low < {self.count} && {keys}[low] == key; ++low)",
                [constant(n, "p", f"{places}[low]"), *decode, *source, *self.fold.merge("t", "x", 1)],
            ),
            *self._finish("t", self.at(row, rest), Lanes()),
        ]
        lines = [*item(self.e, n), block(f"if (i < {total})", body)]
        stages.append(runs.stage(lines, -(-total // ITEMS)))
        return Rendered(tuple(stages), self.functions.used(), runs.scratch)
