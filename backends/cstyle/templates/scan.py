"""Running sums along an axis.

On CPUs vectors lie along the innermost axis that is not summed along, and long rows are cut in parts: a first launch
sums each part, the second begins each with what was before it. On GPUs the items of a group do the same with parts of
a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigrad.backends.cstyle.body import At, Emitter, Lanes
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.nest import bound, constant, flat, index_type, overlapping, rows_of
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import ITEMS, PER_CORE, decoded, vector_width
from minigrad.backends.cstyle.templates.folds import Fold
from minigrad.kernel import Kernel

GROUP = 8192  # elements that are worth a group of their own
SPLIT = 65536  # elements from which on a second launch pays
CHAIN = 64  # additions in a row before a partial sum begins anew


def render_scan(kernel: Kernel, target: Target) -> Rendered:
    """A running sum."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    return _Scan(kernel, target).rendered()


class _Scan:
    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.source, self.reverse = kernel.sources[0], kernel.attrs.reverse
        self.target, self.length = target, kernel.source_shapes[0][kernel.attrs.axis]
        kernel, self.along, self.kept, self.kept_shape, self.rows = rows_of(kernel)
        self.kernel, self.shape = kernel, kernel.space
        self.functions = Functions(target.dialect)
        self.e = Emitter(kernel, target, self.functions)
        self.fold = Fold(self.e, "sum", kernel.prologue[self.source].dtype)
        self.index = index_type(self.e, math.prod(self.shape))
        self.some = max(CHAIN, math.isqrt(self.length))

    def rendered(self) -> Rendered:
        return self._items() if self.target.is_gpu else self._vectors()

    # Both.

    def _sweep(self, lo: str, hi: str, kept: Sequence[At], lanes: Lanes, store: bool) -> list[str]:
        """Add the elements from ``lo`` to ``hi`` to ``base``; with ``store`` finish every one of them."""
        fold, width = self.fold, lanes.width
        decode, along = decoded("q", tuple(self.shape[a] for a in self.along), self.index, "q")
        at = [At()] * len(self.shape)
        for axis, place in zip([*self.kept, *self.along], [*kept, *along]):
            at[axis] = place
        lines, names = self.e.lines(self.kernel.prologue, at, lanes)
        place_of_p = f"{self.length - 1} - p" if self.reverse else "p"
        body = [constant(self.index, "q", place_of_p), *decode, *lines]
        body += [*fold.given("x", fold.element([names[self.source]], width), width), *fold.merge("acc", "x", width)]
        if store:
            body += [*fold.given("out", fold.names("base"), width), *fold.merge("out", "acc", width)]
            core = self.e.type(fold.dtype, width)
            body += [f"const {core} core = {fold.result('out', width)[0]};", *self.e.finish(at, lanes, ("core",))]
        # Partial sums begin anew from time to time: long chains of additions lose digits.
        inside = [
            bound(self.index, "next", f"c + {self.some}", hi),
            *fold.declare("acc", width),
            loop("p", "c", "next", body, 1, self.index),
            *fold.merge("base", "acc", width),
        ]
        return [loop("c", lo, hi, inside, self.some, self.index)]

    def _stage(self, lines: list[str], groups: int, local: int, scratch: bool) -> Stage:
        head = self.target.dialect.kernel(self.e.parameters(self.fold.fields if scratch else ()), (local,))
        return Stage(block(head, lines), (groups,), (local,), self.e.buffers, (0,) if scratch else ())

    # CPUs.

    def _vectors(self) -> Rendered:
        fold, cores, group = self.fold, self.target.cores, self.target.dialect.group_id(index=self.index)
        axis = self.kept[-1] if self.kept and self.kept[-1] == len(self.shape) - 1 else None
        width = vector_width(self.e, self.shape[axis]) if axis is not None else 1
        lanes = Lanes(axis, width)
        tiles = self.kept_shape if axis is None else (*self.kept_shape[:-1], -(-self.shape[axis] // width))
        count, elements = math.prod(tiles), self.rows * self.length
        wanted = max(1, min(PER_CORE * cores, elements // GROUP))
        parts = each_part = 1
        if elements >= SPLIT and count < 2 * cores and count % cores:
            each_part, parts = split(self.length, wanted // count)
        each, groups = split(count, max(1, wanted // parts))
        decode, places = decoded("r", tiles, self.index, "k")
        lines = list(decode)
        if axis is not None:
            lines += overlapping(self.index, places, len(places) - 1, self.shape[axis], width)
        place = f"part * {self.rows} + {flat(places, self.kept_shape)}"
        memory = self.e.storage(fold.wide)

        def stage(second: bool) -> Stage:
            lo, hi, inner = "0", str(self.length), [*lines, *fold.declare("base", width)]
            head = [constant(self.index, "first", f"{group} / {parts} * {each}")]
            head.append(bound(self.index, "last", f"first + {each}", count))
            if parts > 1:
                lo, hi = "lo", "hi"
                head.append(constant(self.index, "mine", f"{group} % {parts}"))
                head.append(constant(self.index, "lo", f"mine * {each_part}"))
                head.append(bound(self.index, "hi", f"lo + {each_part}", self.length))
            if second and parts > 1:
                before = fold.given("x", [self.target.dialect.load(memory, width, f"s0 + {place}")], width)
                inner.append(loop("part", 0, "mine", [*before, *fold.merge("base", "x", width)], 1, self.index))
            inner += self._sweep(lo, hi, places, lanes, second)
            if not second:
                kept = place.replace("part", "mine", 1)
                inner.append(self.target.dialect.store(memory, width, f"s0 + {kept}", "base_0"))
            tile = loop("r", "first", "last", inner, 1, self.index)
            return self._stage([*head, tile], groups * parts, 1, parts > 1)

        stages = (stage(False), stage(True)) if parts > 1 else (stage(True),)
        scratch = (parts * self.rows * fold.wide.itemsize,) if parts > 1 else ()
        return Rendered(stages, self.functions.used(), scratch)

    # GPUs.

    def _items(self) -> Rendered:
        """Some rows side by side in a group, each in as many parts as there are items for it."""
        dialect, fold = self.target.dialect, self.fold
        side = 1
        while side < ITEMS and (side * self.length < ITEMS or side < self.rows // (8 * self.target.cores)):
            side *= 2
        down, item = ITEMS // side, dialect.local_id(0)
        each, groups = -(-self.length // down), -(-self.rows // side)
        decode, kept = decoded("o", self.kept_shape, self.index, "k")
        lines = [
            dialect.local_array(self.e.storage(fold.wide), "shared", ITEMS),
            f"const int x = {item} % {side}, y = {item} / {side};",
            constant(self.index, "o", f"{dialect.group_id(index=self.index)} * {side} + x"),
            constant(self.index, "lo", f"y * {each}"),
            bound(self.index, "hi", f"lo + {each}", self.length),
            *fold.declare("base", 1),
        ]
        if down > 1:
            sums = [*decode, *self._sweep("lo", "hi", kept, Lanes(), False)]
            before = [*fold.given("x", [f"shared[z * {side} + x]"], 1), *fold.merge("base", "x", 1)]
            lines += [
                block(f"if (o < {self.rows})", sums),
                f"shared[{item}] = base_0;",
                dialect.barrier,
                f"base_0 = {self.e.literal(0, fold.wide)};",
                loop("z", 0, "y", before),
            ]
        lines.append(block(f"if (o < {self.rows})", [*decode, *self._sweep("lo", "hi", kept, Lanes(), True)]))
        return Rendered((self._stage(lines, groups, ITEMS, False),), self.functions.used())
