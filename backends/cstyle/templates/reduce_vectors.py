"""Reductions on CPUs: one work-item per group, which works on vectors.

They lie along the innermost axis that stays, and gather down the reduced ones; or along the reduced axis, and their
lanes are gathered at the end. Where rows that stay are long and far apart, whole rows are read one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minigrad.backends.cstyle.body import At, Lanes
from minigrad.backends.cstyle.nest import bound, constant, overlapping
from minigrad.backends.cstyle.source import Rendered, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import PER_CORE, decoded, vector_width
from minigrad.backends.cstyle.templates.folds import lanes_merged
from minigrad.backends.cstyle.templates.reduction import CHAIN, Reduction
from minigrad.kernel import Kernel
from minigrad.shapes import Shape

GROUP = 8192  # elements that are worth a group of their own
SPLIT = 65536  # elements from which on a second launch pays
SHORT = 4  # vectors: a shorter reduced axis that they do not divide is left to the lanes of another one
LONG = 256  # elements: rows that are worth to be read one after the other
ROW = 2048  # elements of a row whose results stay in the nearest cache
NEAR = 1 << 18  # bytes whose order of access matters little


class Vectors(Reduction):
    """One kernel on one CPU."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        super().__init__(kernel, target)
        self.axis, self.width = self._vector_axis()
        self.down = self.axis in self.kept or self.axis is None  # lanes stay apart
        computes = sum(line.op not in ("load", "const") for line in self.kernel.prologue)
        room = 8 if computes <= 2 else 4 if computes <= 8 else 2
        # Where in a tile its vectors begin; at the end of a short axis they overlap.
        self.offsets, self.step, self.by_rows = [0], 1, False
        if self.down and self.axis is not None:
            self._tile(self.shape[self.axis], room)
        self.room = room if self.by_rows else max(room // len(self.offsets), 1)  # accumulators per vector of the tile

    def _tile(self, n: int, room: int) -> None:
        """Choose vectors side by side along an axis of ``n`` that stays."""
        width = self.width
        if -(-n // width) <= min(room, 4):
            self.offsets, self.step = [min(start, n - width) for start in range(0, n, width)], n
            return
        if self.reduced and self.axis == len(self.shape) - 1 and self.main.view.strides[-1] == 1:
            apart = abs(self.main.view.strides[self.reduced[-1]]) * self.main.dtype.itemsize
            if n >= LONG and apart * self.terms > NEAR:
                self.by_rows = True
                self.step = -(-n // -(-n // ROW))
                return
        # Tiles overlap at the end of the axis: large ones pay where that is little work.
        work = {t: -(-n // (t * width)) * t for t in (4, 2, 1) if t <= room}
        tile = next(t for t in work if work[t] <= 1.15 * min(work.values()))
        self.offsets, self.step = [t * width for t in range(tile)], tile * width

    def _vector_axis(self) -> tuple[int | None, int]:
        lanes = self.target.lanes
        if not self.shape:
            return None, 1
        last = len(self.shape) - 1
        wide = [axis for axis in self.kept if self.shape[axis] >= lanes]
        n = self.shape[last]
        if last in self.reduced and wide and n % lanes and n < SHORT * lanes:
            last = wide[-1]
        elif last in self.reduced and n < lanes and self.kept and self.shape[self.kept[-1]] > n:
            last = self.kept[-1]
        return last, vector_width(self.e, self.shape[last])

    def rendered(self) -> Rendered:
        """The launches."""
        tiles = self._tiles()
        elements = self.results * self.terms
        cores = self.target.cores
        wanted = max(1, min(PER_CORE * cores, elements // GROUP))
        count = math.prod(tiles)
        uneven = -(-count // cores) * cores > 1.25 * count
        shares = wanted // count if uneven else 1
        if self.by_rows:  # short chains of additions
            shares = max(shares, math.isqrt(self.terms) // (2 * self.room))
        parts, each_part, axis = 1, 0, -1
        if self.reduced and elements >= SPLIT and shares > 1:
            axis = self._split_axis(shares)
            unit = self._unit(axis)
            each_part, parts = split(-(-self.shape[axis] // unit), shares)
            each_part *= unit
        if parts == 1:
            axis = -1
        each, groups = split(count, max(1, wanted // parts))
        group = self.group if parts == 1 else f"{self.group} / {parts}"
        part = "" if parts == 1 else f"{self.group} % {parts}"
        lines = [constant(self.index, "lo", f"({part}) * {each_part}")] if part else []
        if part:
            lines.append(bound(self.index, "hi", f"lo + {each_part}", self.shape[axis]))
        lines += self._shared(tiles, each, groups, group, lambda at: self._one(at, axis, part))
        stages = [(lines, groups * parts, 1)]
        if parts > 1:
            stages.append(self._second(parts))
        return self.render(stages, parts)

    def _shared(
        self, tiles: Shape, each: int, groups: int, group: str, body: Callable[[list[At]], list[str]]
    ) -> list[str]:
        """A loop over the tiles of one group."""
        decode, at = decoded("r", tiles, self.index, "k")
        if math.prod(tiles) == 1:
            return body(at)
        lines, stop = [], str(each)
        start = "0" if groups == 1 else f"({group}) * {each}"
        if groups > 1:
            lines.append(constant(self.index, "first", start))
            start, stop = "first", "last"
            lines.append(bound(self.index, "last", f"first + {each}", math.prod(tiles)))
        return [*lines, loop("r", start, stop, decode + body(at), 1, self.index)]

    def _tiles(self) -> Shape:
        """How many rounds there are along each kept axis."""
        rounds = list(self.kept_shape)
        if self.down and self.axis is not None:
            rounds[self.kept.index(self.axis)] = -(-self.shape[self.axis] // self.step)
        return tuple(rounds)

    # One tile.

    def _unit(self, axis: int) -> int:
        """What the ends of parts of a reduced axis are multiples of."""
        return self.width * self.room if axis == self.axis else 1

    def _split_axis(self, parts: int) -> int:
        """The reduced axis to split: the outermost that is long enough."""
        enough = [axis for axis in self.reduced if self.shape[axis] >= parts * self._unit(axis)]
        return enough[0] if enough else max(self.reduced, key=lambda axis: self.shape[axis] / self._unit(axis))

    def _one(self, places: list[At], axis: int, part: str) -> list[str]:
        """A tile of results, of which ``axis`` is reduced from ``lo`` to ``hi`` only if there are parts."""
        lines = []
        if self.down and self.axis is not None:
            lines = overlapping(self.index, places, self.kept.index(self.axis), self.shape[self.axis], self.step)
        at = self.at(self.kept, places)
        if self.by_rows:
            return lines + self._rows(at, axis, part)
        lines += _Sweep(self, at, axis).lines()
        if not self.down:
            return lines + self.finish("t", at, Lanes(), part)
        for t, offset in enumerate(self.offsets):
            lines.append(block("", self.finish(f"t{t}", self.moved(at, offset), Lanes(self.axis, self.width), part)))
        return lines

    def moved(self, at: Sequence[At], offset: int) -> list[At]:
        """The index ``offset`` further along the vectors' axis."""
        moved = list(at)
        if offset and self.axis is not None:
            moved[self.axis] = moved[self.axis]._replace(offset=moved[self.axis].offset + offset)
        return moved

    def _rows(self, at: list[At], axis: int, part: str) -> list[str]:
        """Some long rows at a time, in memory order: what is gathered lies in an array that stays in cache."""
        assert self.axis is not None
        fold, width, lanes, n = self.fold, self.width, Lanes(self.axis, self.width), self.index
        place, last = str(at[self.axis]), self.step - width
        at[self.axis] = At("i")

        def columns(lines: list[str]) -> str:
            """A loop over vectors, each with its place ``p`` in the array; the last may overlap the one before."""
            here = "p" if self.step % width == 0 else f"(p < {last} ? p : {last})"
            return loop("p", 0, self.step, [constant(n, "i", f"{place} + {here}"), *lines], width, n)

        def rows(count: int) -> list[str]:
            lines = []
            for c in range(count):
                here = list(at)
                for other in self.reduced:
                    here[other] = At(f"r{other}", 1, c if other == self.reduced[-1] else 0)
                lines += self.fetch(f"x{c}", here, lanes, f"v{c}_")
            step = 1
            while step < count:
                for c in range(0, count - step, 2 * step):
                    lines += fold.merge(f"x{c}", f"x{c + step}", width, later=True)
                step *= 2
            into = [*self.loaded("t", "p", width, "m", "private"), *fold.merge("t", "x0", width, later=True)]
            return [columns([*lines, *into, *self.stored("t", "p", width, "m", "private")])]

        lines: list[str] = []
        for other in reversed(self.reduced):
            lo, hi = ("lo", "hi") if other == axis else ("0", str(self.shape[other]))
            if lines:
                lines = [loop(f"r{other}", lo, hi, lines, 1, n)]
                continue
            r, some = f"r{other}", min(self.room, self.shape[other])
            lines = [f"{n} {r} = {lo};", block(f"for (; {r} + {some} <= {hi}; {r} += {some})", rows(some))]
            lines.append(block(f"for (; {r} < {hi}; ++{r})", rows(1)))
        clear = [*fold.declare("t", width), *self.stored("t", "p", width, "m", "private")]
        done = [*self.loaded("t", "p", width, "m", "private"), *self.finish("t", at, lanes, part)]
        memory = [f"{self.e.storage(d)} m{f}[{-(-self.step // width) * width}];" for f, d in enumerate(fold.fields)]
        return [*memory, columns(clear), block("", lines), columns(done)]

    def _second(self, parts: int) -> tuple[list[str], int, int]:
        """The launch that gathers partial results."""
        axis = self.kept[-1] if self.kept else None
        width = vector_width(self.e, self.shape[axis]) if axis is not None else 1
        rounds = self.kept_shape if axis is None else (*self.kept_shape[:-1], -(-self.shape[axis] // width))
        each, groups = split(
            math.prod(rounds), max(1, min(PER_CORE * self.target.cores, self.results * parts // GROUP))
        )

        def body(places: list[At]) -> list[str]:
            lines = []
            if axis is not None:
                lines = overlapping(self.index, places, len(places) - 1, self.shape[axis], width)
            return lines + self.combined(self.at(self.kept, places), Lanes(axis, width), parts)

        return self._shared(rounds, each, groups, self.group, body), groups, 1


class _Sweep:
    """The loops over the reduced axes for one tile of results.

    Loops are written from the inside out. Where sums would become too long a chain, partial sums begin anew inside a
    loop and are added up outside: error then grows with the square root of the number of terms at most.
    """

    def __init__(self, of: Vectors, at: list[At], axis: int) -> None:
        self.of, self.at, self.split = of, at, axis
        self.loops = list(of.reduced)
        self.width = of.width
        self.tile = len(of.offsets)
        self.inner = not of.down  # whether the innermost loop goes in vectors
        self.rest = 0  # elements of it that are left to scalars
        self.row = 0  # vectors of a short innermost axis, which is written out
        if self.inner:
            n = of.shape[self.loops[-1]]
            self.rest = n % self.width
            short = n // self.width < 2 * of.room and of.terms > n and self.loops[-1] != axis
            self.row = n // self.width if short else 0
        self.copies = of.room
        steps = self._steps()
        while self.copies > 1 and self.copies > steps:
            self.copies //= 2
        self.level = 0

    def _steps(self) -> int:
        """How often the loop with independent accumulators goes round."""
        loops = self.loops[:-1] if self.row else self.loops
        if not loops:
            return 1
        n = self.of.shape[loops[-1]]
        return n // self.width if self.inner and not self.row else n

    def lines(self) -> list[str]:
        """Statements that leave the results in variables ``t0``, ``t1``... or ``t``."""
        of, fold = self.of, self.of.fold
        loops = self.loops[:-1] if self.row else self.loops
        total = of.terms // max(1, self.copies) // (self.width if self.inner else 1)
        enough = max(CHAIN, math.isqrt(max(total, 0)))
        chain = max(1, self.row)
        lines = [] if loops else self._element(self.at, 0)
        for axis in reversed(loops):
            unit = self.copies if not lines else 1
            if self.inner and axis == of.axis:
                unit *= self.width
            count = -(-of.shape[axis] // unit)
            lo, hi = ("lo", "hi") if axis == self.split else ("0", str(of.shape[axis]))
            if not fold.rounds or chain * count <= 2 * enough:
                lines, chain = self._loop(axis, lo, hi, lines), chain * count
                continue
            some = max(1, enough // chain) * unit
            first, last = f"c{axis}", f"h{axis}"
            stop = bound(of.index, last, f"{first} + {some}", hi)
            inside = [stop, *self._declared(), *self._loop(axis, first, last, lines), *self._raised()]
            lines, chain = [loop(first, lo, hi, inside, some, of.index)], -(-of.shape[axis] // some)
        return [*self._declared(), *lines, *self._results()]

    # Accumulators: at level 0 several copies, further out one.

    def _names(self) -> list[tuple[str, int]]:
        """The accumulators of this level, with their widths."""
        copies = self.copies if self.level == 0 else 1
        found = [(self._name(t, c), self.width) for t in range(self.tile) for c in range(copies)]
        return found + ([(self._single(), 1)] if self.rest else [])

    def _name(self, tile: int, copy: int = 0) -> str:
        return f"a{self.level}_{tile}_{copy}"

    def _single(self) -> str:
        return f"b{self.level}"

    def _declared(self) -> list[str]:
        return [line for name, width in self._names() for line in self.of.fold.declare(name, width)]

    def _joined(self) -> list[str]:
        """Gather the copies of each accumulator in the first, pairwise."""
        lines, copies = [], self.copies if self.level == 0 else 1
        while copies > 1:
            half = copies // 2
            for tile in range(self.tile):
                for c in range(half):
                    lines += self.of.fold.merge(self._name(tile, c), self._name(tile, c + copies - half), self.width)
            copies -= half
        return lines

    def _raised(self) -> list[str]:
        """Gather this level in the next one."""
        lines, fold = self._joined(), self.of.fold
        below = [(self._name(t), self.width) for t in range(self.tile)] + ([(self._single(), 1)] if self.rest else [])
        self.level += 1
        for (name, width), (to, _) in zip(below, self._names()):
            lines += fold.merge(to, name, width)
        return lines

    def _results(self) -> list[str]:
        of, fold, lines = self.of, self.of.fold, self._joined()
        if of.down:
            for tile in range(self.tile):
                lines += fold.given(f"t{tile}", fold.names(self._name(tile)), self.width)
            return lines
        lines += lanes_merged(fold, self._name(0), "t", self.width)
        if self.width == 1:
            lines += fold.given("t", fold.names(self._name(0)), 1)
        return lines + (fold.merge("t", self._single(), 1) if self.rest else [])

    # Loops.

    def _index(self, axis: int, place: At) -> list[At]:
        """The index with the loops' variables, and ``place`` along ``axis``."""
        at = list(self.at)
        for other in self.loops:
            at[other] = At(f"r{other}")
        if self.row:
            at[self.loops[-1]] = At()
        at[axis] = place
        return at

    def _loop(self, axis: int, lo: str, hi: str, inside: list[str]) -> list[str]:
        """A loop around ``inside``; the innermost fills the copies in turn, then come single steps, then scalars."""
        if inside:
            return [loop(f"r{axis}", lo, hi, inside, 1, self.of.index)]
        of, variable, n = self.of, f"r{axis}", self.of.shape[axis]
        step = self.width if self.inner and axis == of.axis else 1
        wide = step * self.copies
        lines = [f"{of.index} {variable} = {lo};"]
        if self.copies > 1:
            places = [self._index(axis, At(variable, 1, c * step)) for c in range(self.copies)]
            body = [line for c, at in enumerate(places) for line in self._element(at, c)]
            lines.append(block(f"for (; {variable} + {wide} <= {hi}; {variable} += {wide})", body))
        if self.copies == 1 or n % wide >= step or axis == self.split:
            body = self._element(self._index(axis, At(variable)), 0)
            ahead = f"{variable} + {step} <= {hi}" if step > 1 else f"{variable} < {hi}"
            lines.append(block(f"for (; {ahead}; {variable} += {step})", body))
        if step > 1 and self.rest:
            body = [of.gather(self._single(), self._index(axis, At(variable)), Lanes())]
            lines.append(block(f"for (; {variable} < {hi}; ++{variable})", body))
        return [block("", lines)]

    def _element(self, at: list[At], copy: int) -> list[str]:
        """Gather one step in accumulator ``copy``: a tile of vectors, or a short row."""
        of, lanes = self.of, Lanes(self.of.axis, self.width)
        if not self.row:
            return [of.gather(self._name(t, copy), of.moved(at, offset), lanes) for t, offset in enumerate(of.offsets)]
        lines = [of.gather(self._name(0, copy), of.moved(at, v * self.width), lanes) for v in range(self.row)]
        if self.rest:
            rest = list(at)
            rest[self.loops[-1]] = At("q", 1, self.row * self.width)
            body = [of.gather(self._single(), rest, Lanes())]
            lines.append(loop("q", 0, self.rest, body, 1, of.index))
        return lines
