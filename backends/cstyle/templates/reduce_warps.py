"""Reductions on GPUs whose items exchange values within a warp, and read 16 bytes at once.

A group has some results side by side and shares out the elements of each. Where the axis that is innermost in memory
is reduced, neighbouring items read neighbouring packs of one result; where it stays, each item has a pack of results,
and neighbouring items have neighbouring packs. What the items of a result have found is gathered within each warp
first, then, through local memory, among warps. Reductions to few results are split: a second launch gathers the parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigrad.backends.cstyle.body import At, Lanes
from minigrad.backends.cstyle.nest import bound, constant
from minigrad.backends.cstyle.source import Rendered, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import decoded
from minigrad.backends.cstyle.templates.packs import PackEmitter, Packs, in_packs, is_packed, pack_width
from minigrad.backends.cstyle.templates.reduction import CHAIN, Reduction
from minigrad.kernel import Kernel, Operand

ITEMS = 256
PER_CORE = 2  # groups per core that are wanted: with more, the second launch has more to gather
SIDE = 16  # results side by side in a group of the second launch
AHEAD = "#pragma unroll 4\n"  # packs that are on their way at the same time


def power(n: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


class Warps(Reduction):
    """One kernel on one GPU."""

    emitter = PackEmitter
    e: PackEmitter

    def __init__(self, kernel: Kernel, target: Target) -> None:
        super().__init__(kernel, target)
        last = len(self.shape) - 1
        self.along = last in self.reduced  # packs lie along what is reduced
        width = 1
        if self.shape and is_packed(self.main.view, last, 1) and self.main in self.kernel.inputs:
            width = pack_width(target.dialect.wide, self.shape[last], [self.main], [self.main], last)
        self.packs = Packs(self.e, last, width)
        self.width, self.results_each = width, 1 if self.along else width
        # What is counted: packs along the last axis, elements along the others.
        counted = in_packs(self.shape, last, width)
        self.kept_counts = tuple(counted[a] for a in self.kept)
        self.term_counts = tuple(counted[a] for a in self.reduced)

    def rendered(self) -> Rendered:
        """The launches."""
        results, terms = math.prod(self.kept_counts), math.prod(self.term_counts)
        side = ITEMS // min(ITEMS, power(terms))
        if not self.along and self.kept:
            side = max(side, min(ITEMS, power(self.kept_counts[-1])))
        down, groups = ITEMS // side, -(-results // side)
        least = 4 * CHAIN // self.width if self.along else 4 * CHAIN  # counted: what one item gathers at least
        parts = max(1, min(PER_CORE * self.target.cores // groups, terms // (least * down)))
        each = -(-terms // parts)
        part = f"{self.group} % {parts}" if parts > 1 else ""
        decode, kept = decoded("o", self.kept_counts, self.index, "k")
        names = [f"t{j}" for j in range(self.results_each)]
        if self.results_each > 1:
            decode.append(constant(self.index, "first", f"{kept[-1]} * {self.width}"))
        lines = [
            *self._position(side, f"{self.group} / {parts}" if parts > 1 else self.group, not self.along),
            constant(self.index, "lo", f"({part}) * {each}" if part else "0"),
            bound(self.index, "hi", f"lo + {each}", terms),
            *(line for name in names for line in self.fold.declare(name, 1)),
            block(f"if (o < {results})", [*decode, *self._gathered(kept, each, down)]),
            *self._tree(names, side, down, not self.along),
            block(f"if (y == 0 && o < {results})", [*decode, *self._finished(names, kept, part)]),
        ]
        stages = [(lines, groups * parts, ITEMS)]
        if parts > 1:
            stages.append(self._second(parts))
        return self.render(stages, parts)

    def _second(self, parts: int) -> tuple[list[str], int, int]:
        """The launch that gathers partial results, in an order that depends on nothing."""
        side = min(SIDE, power(self.results))
        down = ITEMS // side
        decode, kept = decoded("o", self.kept_shape, self.index, "k")
        more = [*self.loaded("x", f"part * {self.results} + o", 1), *self.fold.merge("t", "x", 1)]
        lines = [
            *self._position(side, self.group, True),
            *self.fold.declare("t", 1),
            block(f"if (o < {self.results})", [AHEAD + loop("part", "y", parts, more, down, self.index)]),
            *self._tree(["t"], side, down, True),
            block(
                f"if (y == 0 && o < {self.results})",
                [*decode, *self.finish("t", self.at(self.kept, kept), Lanes(), "")],
            ),
        ]
        return lines, -(-self.results // side), ITEMS

    def _position(self, side: int, group: str, across: bool) -> list[str]:
        """Which result (or pack of them) an item works on, and which share of its elements.

        ``across``: neighbouring items have neighbouring results; otherwise neighbouring elements of one result.
        """
        item, down = self.target.dialect.local_id(0), ITEMS // side
        x, y = (f"{item} % {side}", f"{item} / {side}") if across else (f"{item} / {down}", f"{item} % {down}")
        return [f"const int x = {x}, y = {y};", constant(self.index, "o", f"({group}) * {side} + x")]

    def _gathered(self, kept: list[At], each: int, down: int) -> list[str]:
        """The elements of an item. Partial sums begin anew from time to time: long chains of additions lose digits."""
        fold, unit = self.fold, self.width if self.along else 1
        some = down * max(1, max(CHAIN, math.isqrt(-(-each // down) * unit)) // unit)
        undo, terms = decoded("r", self.term_counts, self.index, "r")
        step = self._pack if self.along else self._elements

        def run(name: str, first: str, last: str) -> str:
            return AHEAD + loop("r", f"{first} + y", last, [*undo, *step(name, kept, terms)], down, self.index)

        if not fold.rounds or each <= 2 * some:
            return [run("t", "lo", "hi")]
        partial = [f"c{j}" for j in range(self.results_each)]
        inside = [
            bound(self.index, "next", f"base + {some}", "hi"),
            *(line for name in partial for line in fold.declare(name, 1)),
            run("c", "base", "next"),
            *(line for j, name in enumerate(partial) for line in fold.merge(f"t{j}", name, 1, later=True)),
        ]
        return [loop("base", "lo", "hi", inside, some, self.index)]

    def _index(self, kept: Sequence[At], terms: Sequence[At]) -> list[At]:
        return self.at([*self.kept, *self.reduced], [*kept, *terms])

    def _reads(self) -> dict[Operand, str]:
        """Operands that come in packs, and the names of these."""
        loads = [self.kernel.inputs[line.attr] for line in self.kernel.prologue if line.op == "load"]
        return self.packs.names(loads, "p") if self.width > 1 else {}

    def _pack(self, name: str, kept: list[At], terms: list[At]) -> list[str]:
        """Gather a pack of elements of one result."""
        if self.width == 1:
            return [self.gather(f"{name}0", self._index(kept, terms), Lanes())]
        read, outer = self._reads(), terms[:-1]
        loads = self.packs.loads(read, self._index(kept, [*outer, At("x0")]))
        with self.e.using(read):
            gather = self.gather(f"{name}0", self._index(kept, [*outer, At("e")]), Lanes())
        start = constant(self.index, "x0", f"{terms[-1]} * {self.width}")
        return [start, *loads, self.packs.each([gather], self.index, "x0")]

    def _elements(self, name: str, kept: list[At], terms: list[At]) -> list[str]:
        """Gather one element of each of a pack of results."""
        read = self._reads()
        lines = self.packs.loads(read, self._index(self._result(kept, 0), terms))
        for j in range(self.results_each):
            with self.e.using(read, number=str(j)):
                lines.append(self.gather(f"{name}{j}", self._index(self._result(kept, j), terms), Lanes()))
        return lines

    def _result(self, kept: list[At], j: int) -> list[At]:
        """The index of one of an item's results."""
        return [*kept[:-1], At("first", 1, j)] if self.results_each > 1 else kept

    def _finished(self, names: Sequence[str], kept: list[At], part: str) -> list[str]:
        """What becomes of an item's results."""
        places = [self.at(self.kept, self._result(kept, j)) for j in range(len(names))]
        if part or len(names) == 1:
            return [line for name, at in zip(names, places) for line in self._scope(name, at, part)]
        loads = [self.kernel.inputs[line.attr] for line in self.kernel.epilogue if line.op == "load"]
        read, written = self.packs.names(loads, "l"), self.packs.names(self.kernel.outputs, "q")
        lines = [*self.packs.loads(read, places[0]), *self.packs.made(written)]
        for j, (name, at) in enumerate(zip(names, places)):
            with self.e.using(read, written, str(j)):
                lines += self._scope(name, at, part)
        return lines + self.packs.stores(written, places[0])

    def _scope(self, name: str, at: list[At], part: str) -> list[str]:
        return [block("", self.finish(name, at, Lanes(), part))]

    def _tree(self, names: Sequence[str], side: int, down: int, across: bool) -> list[str]:
        """Gather what the items of each result have found in the one with y = 0."""
        dialect, fold, lines = self.target.dialect, self.fold, []
        met, distance = 1, side if across else 1
        while met < down and distance < dialect.warp:
            for name in names:
                others = [dialect.exchange(field, distance) for field in fold.names(name)]
                lines.append(block("", [*fold.given("other", others, 1), *fold.merge(name, "other", 1)]))
            met, distance = 2 * met, 2 * distance
        if met == down:
            return lines
        size = side * (down // met)
        mine, theirs = [], []
        for j, name in enumerate(names):
            here, there = f"{j * size} + y / {met} * {side} + x", f"{j * size} + z * {side} + x"
            mine += [f"shared{n}[{here}] = {field};" for n, field in enumerate(fold.names(name))]
            others = [f"shared{n}[{there}]" for n in range(len(fold.fields))]
            theirs.append(block("", [*fold.given("other", others, 1), *fold.merge(name, "other", 1)]))
        arrays = [(self.e.storage(dtype), f"shared{n}") for n, dtype in enumerate(fold.fields)]
        return [
            *lines,
            *(dialect.local_array(type_, name, size * len(names)) for type_, name in arrays),
            block(f"if (y % {met} == 0)", mine),
            dialect.barrier,
            block("if (y == 0)", [loop("z", 1, down // met, theirs)]),
        ]
