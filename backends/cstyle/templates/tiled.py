"""Contractions on GPUs: matrix products, convolutions and their adjoints in tiles staged in local memory.

A group computes one tile of the output. Round by round it copies the pieces of both sources that meet there to local
memory, where each item reads what its own small tile in registers needs. The next round's elements are loaded while
this round's are multiplied: they wait in registers, and then go to the other half of the local memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minigrad.backends.cstyle.body import ONE, Emitter
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import NAME, Rendered, Stage, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.tiled_access import (
    Access,
    Names,
    accumulator,
    checks,
    decoded,
    element_at,
    index_at,
)
from minigrad.backends.cstyle.templates.tiled_choice import ITEMS, PADDING, Tile, runs_along_terms, shares, tiles
from minigrad.backends.cstyle.templates.tiled_product import Variable, count, product_of
from minigrad.kernel import Kernel

AGAIN = f"{NAME}_again"  # the function that computes one sum without haste
ALIGNED = "__attribute__((aligned(16))) "  # so that compilers may read neighbours in local memory at once
UNROLLED = "#pragma unroll\n"


def render_tiled(kernel: Kernel, target: Target, tile: Tile | None = None) -> Rendered:
    """A contraction in tiles; its sums are shared between groups, and their parts added, where outputs are few."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    functions = Functions(target.dialect)
    template = _Template(kernel, target, functions, tile or tiles(kernel, target)[0])
    stages = [template.main() if template.tile.depth else template.direct()]
    if template.parts > 1:
        stages.append(template.addition())
    return Rendered(tuple(stages), functions.used(), template.scratch)


class _Piece:
    """What a group stages of one source in each round: ``extent`` rows or columns by ``depth`` terms.

    Neighbouring items copy neighbouring elements: along the terms where those lie closer in memory.
    """

    def __init__(self, tag: str, access: Access, extent: int, tile: Tile) -> None:
        self.tag, self.access, self.extent = tag, access, extent
        self.depth, self.items = tile.depth, tile.items
        self.along = runs_along_terms(access.array, access.fixed, access.moving)
        self.pitch = extent + PADDING if self.along else extent
        self.size = tile.depth * self.pitch
        fast, slow = (self.depth, extent) if self.along else (extent, self.depth)
        items = tile.items
        # Positions that an item copies, along the fast and the slow axis; elements are pairs of them.
        if items >= fast:
            fasts = [f"item % {fast}"]
            slows = [f"item / {fast} + {n * (items // fast)}" for n in range(max(1, slow * fast // items))]
            self.elements = [(0, n) for n in range(len(slows))]
        else:
            fasts = [f"item + {n * items}" for n in range(fast // items)]
            slows = [str(n) for n in range(slow)]
            self.elements = [(f, s) for s in range(slow) for f in range(len(fasts))]
        self.fixed, self.moving = (slows, fasts) if self.along else (fasts, slows)
        if self.along:
            self.elements = [(s, f) for f, s in self.elements]
        self.idle = slow * fast < items  # some items have nothing to copy
        self.conditional: set[str] = set()  # parts of positions that may have no element

    def names(self) -> list[str]:
        """Registers of the elements on their way."""
        return [f"{self.tag}{n}" for n in range(len(self.elements))]

    def setup(self, start: str, known: Names) -> list[str]:
        """Before the rounds: where the rows or columns are that this item copies."""
        index, limit = self.access.index, count(self.access.fixed)
        lines = []
        for n, position in enumerate(self.fixed):
            flat, tag = f"{self.tag}_at{n}", f"{self.tag}f{n}"
            lines.append(f"const {index} {flat}_ = {start} + {position};")
            # Beyond the end: the last one again. It costs no comparison later, and nobody stores what comes of it.
            beyond = f"{flat}_ < {limit} ? {flat}_ : {limit - 1}" if limit % self.extent else f"{flat}_"
            lines.append(f"const {index} {flat} = {beyond};")
            statements, conditions = self.access.part(tag, "fixed", flat, known)
            lines += [*statements, *self._truth(tag, conditions)]
        return lines

    def load(self, known: Names) -> list[str]:
        """From global memory to registers, from term ``next`` on."""
        terms, index = count(self.access.moving), self.access.index
        lines = []
        for n, position in enumerate(self.moving):
            flat, tag = f"{self.tag}_k{n}", f"{self.tag}m{n}"
            lines.append(f"const {index} {flat} = next + {position};")
            statements, conditions = self.access.part(tag, "moving", flat, known)
            conditions = [f"{flat} < {terms}"] * (terms % self.depth != 0) + conditions
            lines += [*statements, *self._truth(tag, conditions)]
        for name, (f, m) in zip(self.names(), self.elements):
            fixed, moving = f"{self.tag}f{f}", f"{self.tag}m{m}"
            truths = [f"{tag}_ok" for tag in (fixed, moving) if tag in self.conditional]
            lines.append(f"{name} = {self.access.load(fixed, moving, truths)};")
        return self._busy(lines)

    def keep(self) -> list[str]:
        """From registers to local memory, the half that ``side`` names."""
        lines = []
        for name, (f, m) in zip(self.names(), self.elements):
            place = f"({self.moving[m]}) * {self.pitch} + {self.fixed[f]}"
            lines.append(f"{self.tag}s[side * {self.size} + {place}] = {name};")
        return self._busy(lines)

    def _busy(self, lines: list[str]) -> list[str]:
        return [block(f"if (item < {self.depth * self.extent})", lines)] if self.idle else lines

    def _truth(self, tag: str, conditions: Sequence[str]) -> list[str]:
        if not conditions:
            return []
        self.conditional.add(tag)
        return [f"int {tag}_ok = {' && '.join(conditions)};"]


class _Template:
    """The functions of one kernel with one tile."""

    def __init__(self, kernel: Kernel, target: Target, functions: Functions, tile: Tile) -> None:
        self.kernel, self.tile, self.dialect = kernel, tile, target.dialect
        self.product = product = product_of(kernel)
        self.emitter = emitter = Emitter(kernel, target, functions)
        self.index = emitter.index_type
        self.share, self.parts = shares(product, tile, target.cores)
        self.dtype = accumulator(product.left.operand.dtype)
        self.type = emitter.type(self.dtype)
        self.shape = [count(variables) for variables in (product.batch, product.m, product.n)]
        left = Access(emitter, product.left, product.m, product.k, product.sizes)
        right = Access(emitter, product.right, product.n, product.k, product.sizes)
        # Zeros stand for terms that do not exist: one that met an infinity or NaN is a wrong NaN.
        self.doubtful = product.omits and self.dtype.is_float and bool(left.checked or right.checked)
        if not tile.depth:
            return
        self.left, self.right = _Piece("left", left, tile.m, tile), _Piece("right", right, tile.n, tile)

    @property
    def scratch(self) -> tuple[int, ...]:
        """Bytes of the parts of the sums."""
        return (self.parts * math.prod(self.shape) * self.dtype.itemsize,) if self.parts > 1 else ()

    def main(self) -> Stage:
        """Sums in tiles."""
        tile, (batches, rows, columns), dialect = self.tile, self.shape, self.dialect
        down, across = Variable("down", -(-rows // tile.m)), Variable("across", -(-columns // tile.n))
        # Neighbouring groups, which run at the same time, share their piece of the larger source.
        walk = (down, across) if rows > columns else (across, down)
        places = (Variable("part", self.parts), Variable("batch", batches), *walk)
        split, _ = decoded("group", places, self.index)
        lines = [
            ALIGNED + dialect.local_array(self.type, "lefts", 2 * self.left.size),
            ALIGNED + dialect.local_array(self.type, "rights", 2 * self.right.size),
            f"const int item = {dialect.local_id(0)};",
            f"const int row = item / {tile.columns} * {tile.height};",
            f"const int column = item % {tile.columns};",
            f"const {self.index} group = {dialect.group_id(0)};",
            *split,
        ]
        statements, known = decoded("batch", self.product.batch, self.index)
        lines += statements
        lines += self.left.setup(f"down * {tile.m}", known) + self.right.setup(f"across * {tile.n}", known)
        lines += [f"{self.type} {name} = 0;" for name in (*self.left.names(), *self.right.names(), *self._sums())]
        lines += self._rounds(known) + self._stores(known)
        text = block(dialect.kernel(self._parameters, (tile.items,)), lines)
        groups = count(places)
        if self.parts == 1:
            text = self._again() + text
        return Stage(text, (groups,), (tile.items,), self.emitter.buffers, self._pieces)

    @property
    def _parameters(self) -> str:
        return self.emitter.parameters([self.dtype] * len(self._pieces))

    @property
    def _pieces(self) -> tuple[int, ...]:
        return (0,) if self.parts > 1 else ()

    def _sums(self) -> list[str]:
        return [f"sum{i}_{j}" for i in range(self.tile.height) for j in range(self.tile.width)]

    def _rounds(self, known: Names) -> list[str]:
        """One barrier a round: while some items still read one half of local memory, others write the other half."""
        depth, terms = self.tile.depth, count(self.product.k)
        last = "last" if self.parts > 1 else str(terms)
        lines = ["int side = 0;"]
        if self.parts > 1:
            end = f"(part + 1) * {self.share}"
            lines.append(f"const {self.index} first = part * {self.share};")
            lines.append(f"const {self.index} last = {end} < {terms} ? {end} : {terms};")
        first = "first" if self.parts > 1 else "0"
        steps = [
            block(f"if (next < {last})", [*self.left.load(known), *self.right.load(known)]),
            block(f"if (next > {first})", [UNROLLED + loop("k", 0, depth, self._multiply())]),
            "side = 1 - side;",
            *self.left.keep(),
            *self.right.keep(),
            self.dialect.barrier,
        ]
        return [*lines, loop("next", first, f"{last} + {depth}", steps, depth, self.index)]

    def _multiply(self) -> list[str]:
        """One term of each sum of an item. Rows of an item are neighbours, its columns are those of its neighbours."""
        tile, lines = self.tile, []
        for piece, name, place, number in (
            (self.left, "x", "row + {n}", tile.height),
            (self.right, "y", f"column + {{n}} * {tile.columns}", tile.width),
        ):
            for n in range(number):
                at = f"side * {piece.size} + k * {piece.pitch} + {place.format(n=n)}"
                lines.append(f"const {self.type} {name}{n} = {piece.tag}s[{at}];")
        for i in range(tile.height):
            lines.append(" ".join(f"sum{i}_{j} += x{i} * y{j};" for j in range(tile.width)))
        return lines

    def _stores(self, known: Names) -> list[str]:
        """What an item does with its sums: the epilogue, or away with them to be added."""
        tile, (_, rows, columns) = self.tile, self.shape
        lines = self._doubts() if self.parts == 1 else []
        across: list[dict[str, str]] = []
        for j in range(tile.width):
            lines.append(f"const {self.index} n_{j} = across * {tile.n} + column + {j * tile.columns};")
            statements, names = decoded(f"n_{j}", self.product.n, self.index, f"_n{j}")
            lines += statements
            across.append(names)
        for i in range(tile.height):
            lines.append(f"const {self.index} m_{i} = down * {tile.m} + row + {i};")
            statements, down = decoded(f"m_{i}", self.product.m, self.index, f"_m{i}")
            lines += statements
            for j in range(tile.width):
                inside = [f"m_{i} < {rows}"] * (rows % tile.m != 0) + [f"n_{j} < {columns}"] * (columns % tile.n != 0)
                if self.parts > 1:
                    at = f"((part * {self.shape[0]} + batch) * {rows} + m_{i}) * {columns} + n_{j}"
                    body = [f"s0[{at}] = sum{i}_{j};"]
                else:
                    names = {**known, **down, **across[j]}
                    inside += self._written(names)
                    body = self._finish(f"sum{i}_{j}", names)
                lines.append(block(f"if ({' && '.join(inside)})" if inside else "", body))
        return lines

    def _written(self, names: Names) -> list[str]:
        return checks(self.product.out, names, self.product.sizes, self.index)

    def _finish(self, value: str, names: Names) -> list[str]:
        """The epilogue of one sum."""
        dtype = self.product.left.operand.dtype
        core = self.emitter.rounded(value, dtype, 1) if dtype.is_half else value
        if dtype is not self.dtype and not dtype.is_half:
            core = self.dialect.cast(value, self.emitter.type(dtype))
        index = [index_at(place, names) for place in self.product.out]
        return [f"const {self.emitter.type(dtype)} core = {core};", *self.emitter.finish(index, ONE, ["core"])]

    # Sums of the terms that exist, where zeros in place of others met an infinity or NaN: rare, so it may be slow.

    def _doubts(self) -> list[str]:
        """Sums of an item once more, in one loop so that the text of it stands here once."""
        if not self.doubtful:
            return []
        tile, sums, (_, rows, columns) = self.tile, self._sums(), self.shape
        again = [
            f"const {self.index} m = down * {tile.m} + row + e / {tile.width};",
            f"const {self.index} n = across * {tile.n} + column + e % {tile.width} * {tile.columns};",
            f"if (m < {rows} && n < {columns} && !(again[e] - again[e] == 0)) again[e] = {self._call('m', 'n')};",
        ]
        lines = [
            f"{self.type} again[{len(sums)}] = {{{', '.join(sums)}}};",
            loop("e", 0, len(sums), again),
            *(f"{name} = again[{e}];" for e, name in enumerate(sums)),
        ]
        finite = " + ".join(f"({name} - {name})" for name in sums)
        return [block(f"if (!({finite} == 0))", lines)]

    def _call(self, down: str, across: str) -> str:
        memory = [*(f"b{b}" for b in self.emitter.buffers), *(f"s{p}" for p in self._pieces)]
        return f"{AGAIN}({', '.join(memory)}, batch, {down}, {across})"

    def _again(self) -> str:
        """A function that computes one sum."""
        if not self.doubtful:
            return ""
        lines, names = self._variables()
        where = ", ".join(f"{self.index} {flat}" for flat in ("batch", "down", "across"))
        head = f"{self.dialect.rare} {self.type} {AGAIN}({self._parameters}, {where})"
        return block(head, [*lines, *self._added(names), "return sum;"]) + "\n\n"

    def _variables(self) -> tuple[list[str], dict[str, str]]:
        """Statements that find the variables of one sum, and their names."""
        lines: list[str] = []
        names: dict[str, str] = {}
        product = self.product
        for flat, variables in (("batch", product.batch), ("down", product.m), ("across", product.n)):
            statements, found = decoded(flat, variables, self.index)
            lines += statements
            names |= found
        return lines, names

    def _added(self, names: Names) -> list[str]:
        """Statements that add the terms of one sum, one by one."""
        product, names = self.product, {**names, **{v.name: v.name for v in self.product.k}}
        conditions = [checks(a.places, names, product.sizes, self.index) for a in (product.left, product.right)]
        values = [element_at(self.emitter, a, names) for a in (product.left, product.right)]
        if product.omits:
            nest = ["".join(f"if ({c}) " for c in (*conditions[0], *conditions[1])) + f"sum += {' * '.join(values)};"]
        else:
            # One condition after the other: compilers warn of an && with a result that they know.
            for side in (0, 1):
                for condition in conditions[side]:
                    values[side] = f"({condition} ? {values[side]} : 0)"
            nest = [f"sum += {' * '.join(values)};"]
        for variable in reversed(product.k):
            nest = [loop(variable.name, 0, variable.size, nest, 1, self.index)]
        return [f"{self.type} sum = 0;", *nest]

    # Kernels with one output per item.

    def direct(self) -> Stage:
        """Nothing is staged: each item adds up its sum."""
        return self._each_output(self._added)

    def addition(self) -> Stage:
        """The parts of each sum, added in order; then the epilogue."""
        step = f"sum += s0[part * {math.prod(self.shape)} + i];"
        lines = [f"{self.type} sum = s0[i];", loop("part", 1, self.parts, [step], 1, self.index)]
        if self.doubtful:
            lines.append(f"if (!(sum - sum == 0)) sum = {self._call('down', 'across')};")
        stage = self._each_output(lambda names: lines)
        return stage._replace(text=self._again() + stage.text)

    def _each_output(self, summed: Callable[[Names], list[str]]) -> Stage:
        size, (batches, rows, columns) = math.prod(self.shape), self.shape
        flat = (Variable("batch", batches), Variable("down", rows), Variable("across", columns))
        lines, _ = decoded("i", flat, self.index)
        statements, names = self._variables()
        written = self._written(names)
        body = [*summed(names), *self._finish("sum", names)]
        lines += [*statements, *([block(f"if ({' && '.join(written)})", body)] if written else body)]
        group, item = self.dialect.group_id(index=self.index), self.dialect.local_id(0)
        head = self.dialect.kernel(self._parameters, (ITEMS,))
        text = block(head, [f"const {self.index} i = {group} * {ITEMS} + {item};", block(f"if (i < {size})", lines)])
        return Stage(text, (-(-size // ITEMS),), (ITEMS,), self.emitter.buffers, self._pieces)
