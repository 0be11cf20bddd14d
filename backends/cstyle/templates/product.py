"""The register tile of matrix products on CPUs: a rectangle of sums that stay in registers while k runs.

A product is seen as out[..., v, s] = sum over k of vector[..., v, k] scalar[..., s, k], where V is the axis of the
output that is computed in vectors. Either the vectors of a tile are loaded along V and multiplied by one number each,
or (``dots``) both operands are loaded along k and the lanes of each sum are added up at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from minigrad.backends.cstyle.body import At, Emitter, Lanes
from minigrad.backends.cstyle.source import block, loop, split
from minigrad.backends.cstyle.templates.elementwise import decoded
from minigrad.kernel import Operand
from minigrad.view import View


class Extent(NamedTuple):
    """How an axis of the output is cut: into tiles of ``step``, and those into groups."""

    length: int
    step: int
    groups: int

    @classmethod
    def of(cls, length: int, step: int, groups: int) -> Extent:
        """At most ``groups`` groups with equally many tiles."""
        return cls(length, step, split(max(1, length // step), groups)[1])

    @property
    def tiles(self) -> int:
        """Whole tiles."""
        return self.length // self.step


class Product(NamedTuple):
    """A product to render.

    Attributes:
        emitter: of the kernel whose epilogue ends each tile.
        vector: the operand (batch, V, K).
        scalar: the operand (batch, S, K).
        axes: V and S among the axes of the output.
        v: tiles along V, of whole vectors.
        s: tiles along S.
        batches: groups that share out the batch.
        width: lanes of a vector along V.
        depth: how long sums are.
        last: how long those are whose first index is the greatest.
        dots: lanes of a vector along k; 0 to read along V.
    """

    emitter: Emitter
    vector: Operand
    scalar: Operand
    axes: tuple[int, int]
    v: Extent
    s: Extent
    batches: int
    width: int
    depth: int
    last: int
    dots: int

    def render(self) -> tuple[list[str], tuple[int, int, int]]:
        """The body of the kernel function, and the groups it is for."""
        emitter = self.emitter
        batch = emitter.kernel.space[:-2]

        def columns(at: list[At]) -> list[str]:
            return self._cut("v", 0, self.v, lambda v, length: rows(at, v, self._pieces(length)))

        def rows(at: list[At], v: At, pieces: list[Lanes]) -> list[str]:
            return self._cut("s", 1, self.s, lambda s, count: self._tile(at, v, pieces, s, count))

        total = math.prod(batch)
        if total == 1:
            return columns([At()] * len(batch)), (self.v.groups, self.s.groups, 1)
        each, groups = split(total, self.batches)
        decode, at = decoded("g", batch, emitter.index_type)
        if self.last != self.depth:
            decode.append(f"const int kn = {at[0]} == {batch[0] - 1} ? {self.last} : {self.depth};")
        lines = self._run("g", 2, each, total, decode + columns(at))
        return lines, (self.v.groups, self.s.groups, groups)

    # Loops over tiles.

    def _cut(self, name: str, dimension: int, cut: Extent, body: Callable[[At, int], list[str]]) -> list[str]:
        """The tiles of a group along one axis: whole ones, then what is left under the last group."""
        lines, rest = [], cut.length % cut.step
        if cut.tiles:
            each, _ = split(cut.tiles, cut.groups)
            lines += self._run(name, dimension, each, cut.tiles, body(At(name, cut.step), cut.step))
        if rest:
            last = f"if ({self.emitter.dialect.group_id(dimension)} == {cut.groups - 1})" if cut.groups > 1 else ""
            lines.append(block(last, body(At("0", 1, cut.length - rest), rest)))
        return lines

    def _run(self, name: str, dimension: int, each: int, total: int, lines: list[str]) -> list[str]:
        """A loop over the group's share of ``total`` things."""
        index = self.emitter.index_type
        if each >= total:
            return [loop(name, 0, total, lines, 1, index)]
        first = f"{self.emitter.dialect.group_id(dimension)} * {each}"
        stop = f"{first} + {each}"
        if total % each:
            stop = f"({stop} < {total} ? {stop} : {total})"
        return [loop(name, first, stop, lines, 1, index)]

    def _pieces(self, length: int) -> list[Lanes]:
        """``length`` outputs along V as vectors, narrower ones at the end."""
        pieces, width = [], self.width
        while length:
            while width > length:
                width //= 2
            pieces.append(Lanes(self.axes[0], width))
            length -= width
        return pieces

    # One tile.

    def _tile(self, batch: list[At], v: At, pieces: list[Lanes], s: At, rows: int) -> list[str]:
        emitter = self.emitter
        lines = [
            self._pointer("p", self.vector, [*batch, v, At()]),
            self._pointer("q", self.scalar, [*batch, s, At()]),
        ]
        lines += (self._dots if self.dots else self._outer)(v, pieces, s, rows)
        dtype = emitter.kernel.epilogue[0].dtype
        core = next((line.dtype for line in emitter.kernel.epilogue if line.op == "core"), dtype)
        at = [*batch, At(), At()]
        for i in range(rows):
            ahead = 0
            for j, lanes in enumerate(pieces):
                at[self.axes[0]], at[self.axes[1]] = _moved(v, ahead), _moved(s, i)
                value = f"a{i}_{j}"
                if core.is_half:
                    value = emitter.rounded(value, core, lanes.width)
                finish = emitter.finish(at, lanes, [value])
                lines.append(block("", finish) if len(finish) > 1 else finish[0])
                ahead += lanes.width
        return lines

    def _pointer(self, name: str, operand: Operand, index: list[At]) -> str:
        emitter = self.emitter
        pointer = emitter.dialect.pointer(emitter.storage(operand.dtype), name, True)
        return f"{pointer} = b{operand.buffer} + {emitter.address(operand.view, index)};"

    def _element(self, name: str, view: View, at: At, ahead: int, k: str) -> str:
        """A pointer to the element ``ahead`` of the tile's first one, with the distance ``k`` along k."""
        distance = _distance(view, -2, at, ahead)
        return " + ".join([name, *(part for part in (k, str(distance)) if part != "0")])

    def _accumulate(self, total: str, p: str, q: str, width: int) -> str:
        emitter, dtype = self.emitter, self.vector.dtype
        return emitter.operation("add", [total, emitter.operation("mul", [p, q], dtype, width)], dtype, width)

    def _over_k(self, step: int, body: Callable[[str, str], list[str]], first: str = "0") -> list[str]:
        """Loops over k; ``body`` is given how far the vector and the scalar operand are along it."""
        views = self.vector.view, self.scalar.view
        stop = str(self.depth) if self.last == self.depth else "kn"
        index = self.emitter.index_type
        cuts = [view.blocks[-1] if view.blocks is not None else (0, 0) for view in views]
        size = max(size for size, _ in cuts)
        if not size:
            if step > 1 and (self.depth % step or self.last % step):
                stop = f"{stop} / {step} * {step}"
            return [loop("k", first, stop, body(*(_times("k", view.strides[-1]) for view in views)), step, index)]
        places = []
        for view, (own, outer) in zip(views, cuts):
            stride = view.strides[-1]
            far = _times("k", outer if own else size * stride)
            places.append(far if step == size else f"{far} + {_times('i', stride)}")
        lines = body(*places)
        if step < size:
            lines = [loop("i", 0, size, lines, step, index)]
        return [loop("k", first, f"{stop} / {size}", lines, 1, index)]

    def _outer(self, v: At, pieces: list[Lanes], s: At, rows: int) -> list[str]:
        """Vectors along V times single numbers."""
        emitter, dialect, dtype = self.emitter, self.emitter.dialect, self.vector.dtype
        element = emitter.storage(dtype)
        lines = []
        for j, lanes in enumerate(pieces):
            zeros = [f"a{i}_{j} = {emitter.literal(0, dtype, lanes.width)}" for i in range(rows)]
            lines.append(f"{emitter.type(dtype, lanes.width)} {', '.join(zeros)};")

        def body(p: str, q: str) -> list[str]:
            stride = self.vector.view.strides[-2]
            inner, ahead = [], 0
            for j, lanes in enumerate(pieces):
                type_ = emitter.type(dtype, lanes.width)
                if stride == 1 or lanes.width == 1:
                    value = dialect.load(element, lanes.width, self._element("p", self.vector.view, v, ahead, p))
                else:
                    each = [self._element("p", self.vector.view, v, ahead + n, p) for n in range(lanes.width)]
                    value = dialect.build([f"*({one})" for one in each], type_)
                inner.append(f"const {type_} p{j} = {value};")
                ahead += lanes.width
            for i in range(rows):
                inner.append(f"const {element} q{i} = *({self._element('q', self.scalar.view, s, i, q)});")
                for j, lanes in enumerate(pieces):
                    number = emitter.splat(f"q{i}", emitter.type(dtype, lanes.width)) if lanes.width > 1 else f"q{i}"
                    inner.append(f"a{i}_{j} = {self._accumulate(f'a{i}_{j}', f'p{j}', number, lanes.width)};")
            return inner

        return lines + self._over_k(1, body)

    def _dots(self, v: At, pieces: list[Lanes], s: At, rows: int) -> list[str]:
        """Vectors along k times vectors along k; lanes are added up after the loop."""
        emitter, dialect, dtype, width = self.emitter, self.emitter.dialect, self.vector.dtype, self.dots
        element, type_ = emitter.storage(dtype), emitter.type(dtype, width)
        columns = sum(lanes.width for lanes in pieces)
        lines = []
        for i in range(rows):
            zeros = [f"d{i}_{c} = {emitter.literal(0, dtype, width)}" for c in range(columns)]
            lines.append(f"{type_} {', '.join(zeros)};")

        def body(p: str, q: str) -> list[str]:
            inner = []
            for i in range(rows):
                place = self._element("q", self.scalar.view, s, i, q)
                inner.append(f"const {type_} q{i} = {dialect.load(element, width, place)};")
            for c in range(columns):
                place = self._element("p", self.vector.view, v, c, p)
                inner.append(f"const {type_} p{c} = {dialect.load(element, width, place)};")
                inner += [f"d{i}_{c} = {self._accumulate(f'd{i}_{c}', f'p{c}', f'q{i}', width)};" for i in range(rows)]
            return inner

        def rest(p: str, q: str) -> list[str]:
            inner = [f"const {element} q{i} = *({self._element('q', self.scalar.view, s, i, q)});" for i in range(rows)]
            first = 0
            for j, lanes in enumerate(pieces):
                of = emitter.type(dtype, lanes.width)
                each = [self._element("p", self.vector.view, v, first + n, p) for n in range(lanes.width)]
                inner.append(f"const {of} p{j} = {dialect.build([f'*({e})' for e in each], of)};")
                for i in range(rows):
                    number = emitter.splat(f"q{i}", of) if lanes.width > 1 else f"q{i}"
                    inner.append(f"a{i}_{j} = {self._accumulate(f'a{i}_{j}', f'p{j}', number, lanes.width)};")
                first += lanes.width
            return inner

        if self.depth >= width:
            lines += self._over_k(width, body)
        for i in range(rows):
            first = 0
            for j, lanes in enumerate(pieces):
                names = [f"d{i}_{c}" for c in range(first, first + lanes.width)]
                lines += self._summed(names, f"a{i}_{j}")
                first += lanes.width
        if self.depth % width or self.last % width:
            stop = str(self.depth) if self.last == self.depth else "kn"
            strides = self.vector.view.strides[-1], self.scalar.view.strides[-1]
            remaining = rest(*(_times("k", stride) for stride in strides))
            lines.append(loop("k", f"{stop} / {width} * {width}", stop, remaining, 1, emitter.index_type))
        return lines

    def _summed(self, names: list[str], result: str) -> list[str]:
        """Statements that give ``result`` the sums of the lanes of each vector: a vector, or a number for one."""
        dialect, dtype = self.emitter.dialect, self.vector.dtype
        width, held, lines = self.dots, 1, []  # held: sums that a vector has parts of
        while len(names) > 1:
            low, high = _halves(width, held)
            type_, pairs = self.emitter.type(dtype, width), list(zip(names[::2], names[1::2]))
            names = [f"{x}_{held}" for x, _ in pairs]
            for name, (x, y) in zip(names, pairs):
                parts = [dialect.build([f"{x}.{half}", f"{y}.{half}"], type_) for half in (low, high)]
                lines.append(f"const {type_} {name} = {self.emitter.operation('add', parts, dtype, width)};")
            held *= 2
        (value,) = names
        while width > held:
            low, high = _halves(width, held)
            width //= 2
            lines.append(f"const {self.emitter.type(dtype, width)} {result}_{width} = {value}.{low} + {value}.{high};")
            value = f"{result}_{width}"
        lines.append(f"{self.emitter.type(dtype, held)} {result} = {value};")
        return lines


def _halves(width: int, held: int) -> tuple[str, str]:
    """The lanes of the lower and upper halves of each of the ``held`` parts of a vector."""
    part = width // held
    low = [n * part + i for n in range(held) for i in range(part // 2)]
    return tuple("s" + "".join(f"{n + ahead:x}" for n in low) for ahead in (0, part // 2))  # type: ignore[return-value]


def _times(variable: str, factor: int) -> str:
    return "0" if factor == 0 else variable if factor == 1 else f"{variable} * {factor}"


def _moved(at: At, ahead: int) -> At:
    return at._replace(offset=at.offset + ahead)


def fits(view: View, axis: int, step: int) -> bool:
    """Whether tiles of ``step`` along an axis lie alike wherever they start."""
    size, _ = view.blocks[axis] if view.blocks is not None else (0, 0)
    return not size or step % size == 0 or size % step == 0


def _distance(view: View, axis: int, at: At, ahead: int) -> int:
    """How far the element ``ahead`` along ``axis`` lies from the one at ``at``."""
    size, outer = view.blocks[axis] if view.blocks is not None else (0, 0)
    stride = view.strides[axis]
    if not size or (at.constant is None and at.scale % size):  # within one block, see `fits`
        return ahead * stride
    first, last = at.offset, at.offset + ahead
    return last // size * outer + last % size * stride - (first // size * outer + first % size * stride)
