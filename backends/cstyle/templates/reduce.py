"""Reductions: sum, prod, max, min, argmax, argmin."""

from __future__ import annotations

import math

from minigrad.backends.cstyle.body import Lanes
from minigrad.backends.cstyle.nest import bound, constant
from minigrad.backends.cstyle.source import Rendered, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import ITEMS, decoded, render_map
from minigrad.backends.cstyle.templates.folds import of_nothing
from minigrad.backends.cstyle.templates.reduce_vectors import Vectors
from minigrad.backends.cstyle.templates.reduce_warps import Warps
from minigrad.backends.cstyle.templates.reduction import CHAIN, Reduction
from minigrad.kernel import Kernel

FAN = 16  # results of items that one item gathers at a time


def render_reduce(kernel: Kernel, target: Target) -> Rendered:
    """A reduction over the axes of its attributes."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    if 0 in kernel.source_shapes[0]:
        return render_map(of_nothing(kernel, kernel.op, kernel.prologue[kernel.sources[0]].dtype), target)
    kind = Warps if target.dialect.warp else _Items if target.is_gpu else Vectors
    return kind(kernel, target).rendered()


class _Items(Reduction):
    """GPUs: a group of items has some results side by side, and shares out the elements of each."""

    def rendered(self) -> Rendered:
        side, parts = self._form()
        dialect, fold, down = self.target.dialect, self.fold, ITEMS // side
        groups = -(-self.results // side)
        decode, kept = decoded("o", self.kept_shape, self.index, "k")
        terms = tuple(self.shape[axis] for axis in self.reduced)
        undo, reduced = decoded("r", terms, self.index, "r")
        at = self.at([*self.kept, *self.reduced], [*kept, *reduced])
        each = -(-self.terms // parts)
        part = f"{self.group} % {parts}" if parts > 1 else ""
        group = f"{self.group} / {parts}" if parts > 1 else self.group
        element = [*undo, self.gather("c", at, Lanes())]
        # Partial sums begin anew from time to time: long chains of additions lose digits.
        some = down * max(CHAIN, math.isqrt(-(-each // down)))
        inside = [
            bound(self.index, "next", f"base + {some}", "hi"),
            *fold.declare("c", 1),
            loop("r", "base + y", "next", element, down, self.index),
            *fold.merge("t", "c", 1, later=True),
        ]
        lines = [dialect.local_array(self.e.storage(dtype), f"shared{n}", ITEMS) for n, dtype in enumerate(fold.fields)]
        lines += [
            f"const int x = {dialect.local_id(0)} % {side}, y = {dialect.local_id(0)} / {side};",
            constant(self.index, "o", f"({group}) * {side} + x"),
            constant(self.index, "lo", f"({part}) * {each}" if part else "0"),
            bound(self.index, "hi", f"lo + {each}", self.terms),
            *fold.declare("t", 1),
            block(f"if (o < {self.results})", [*decode, loop("base", "lo", "hi", inside, some, self.index)]),
        ]
        lines += self._tree(side, down)
        result = [*decode, *self.finish("t", self.at(self.kept, kept), Lanes(), part)]
        lines.append(block(f"if (y == 0 && o < {self.results})", result))
        stages = [(lines, groups * parts, ITEMS)]
        if parts > 1:
            combined = self.combined(self.at(self.kept, kept), Lanes(), parts)
            o = constant(self.index, "o", f"{self.group} * {ITEMS} + {dialect.local_id(0)}")
            second = [o, block(f"if (o < {self.results})", decode + combined)]
            stages.append((second, -(-self.results // ITEMS), ITEMS))
        return self.render(stages, parts)

    def _form(self) -> tuple[int, int]:
        """Results side by side in a group, and parts of the reduction.

        Neighbouring items read neighbouring elements: along the innermost axis, whether it stays or not.
        """

        def power(n: int) -> int:
            return 1 << max(n - 1, 0).bit_length()

        if self.reduced and self.reduced[-1] == len(self.shape) - 1:
            side = ITEMS // min(ITEMS, power(self.terms))
        else:
            near = self.shape[self.kept[-1]] if self.kept else 1
            side = max(min(ITEMS, power(near)), ITEMS // min(ITEMS, power(self.terms)))
        groups, down = -(-self.results // side), ITEMS // side
        wanted = 4 * self.target.cores // groups
        return side, max(1, min(wanted, ITEMS, self.terms // (4 * CHAIN * down)))

    def _tree(self, side: int, down: int) -> list[str]:
        """Gather the results of items with the same ``x`` in the one with y = 0: few, wide steps, since items wait."""
        dialect, fold = self.target.dialect, self.fold
        mine = [f"shared{n}[{dialect.local_id(0)}] = {name};" for n, name in enumerate(fold.names("t"))]
        lines = mine if down > 1 else []
        while down > 1:
            rest = down // min(down, FAN)
            other = [f"shared{n}[z * {side} + x]" for n in range(len(mine))]
            more = [*fold.given("other", other, 1), *fold.merge("t", "other", 1)]
            gather = loop("z", f"y + {rest}", down, more, rest)
            kept = mine if rest > 1 else []
            lines = [*lines, dialect.barrier, block(f"if (y < {rest})", [gather, *kept])]
            down = rest
        return lines
