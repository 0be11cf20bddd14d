"""Contractions on GPUs: matrix products, convolutions and their adjoints in tiles staged in local memory.

A group computes one tile of the output. Round by round it copies the pieces of both sources that meet there to local
memory, where each item reads what its own small tile in registers needs. The next round's elements are loaded while
this round's are multiplied: they wait in registers, and then go to the other half of the local memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.contraction import Contraction
from minigrad.backends.cstyle.templates.tiled_access import Access, Names, decoded
from minigrad.backends.cstyle.templates.tiled_choice import PADDING, Tile, runs_along_terms, shares, tiles
from minigrad.backends.cstyle.templates.tiled_product import count
from minigrad.kernel import Kernel

ALIGNED = "__attribute__((aligned(16))) "  # so that compilers may read neighbours in local memory at once
UNROLLED = "#pragma unroll\n"


def render_tiled(kernel: Kernel, target: Target, tile: Tile | None = None) -> Rendered:
    """A contraction in tiles; its sums are shared between groups, and their parts added, where outputs are few."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    functions = Functions(target.dialect)
    template = _Tiled(kernel, target, functions, tile or tiles(kernel, target)[0])
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


class _Tiled(Contraction):
    """The functions of one kernel with one tile."""

    def __init__(self, kernel: Kernel, target: Target, functions: Functions, tile: Tile) -> None:
        super().__init__(kernel, target, functions)
        self.tile = tile
        self.share, self.parts = shares(self.product, tile, target.cores)
        if tile.depth:
            self.left_piece = _Piece("left", self.left, tile.m, tile)
            self.right_piece = _Piece("right", self.right, tile.n, tile)

    def main(self) -> Stage:
        """Sums in tiles."""
        tile, dialect = self.tile, self.dialect
        places = self.walk(tile.m, tile.n)
        split, _ = decoded("group", places, self.index)
        lines = [
            ALIGNED + dialect.local_array(self.type, "lefts", 2 * self.left_piece.size),
            ALIGNED + dialect.local_array(self.type, "rights", 2 * self.right_piece.size),
            f"const int item = {dialect.local_id(0)};",
            f"const int row = item / {tile.columns} * {tile.height};",
            f"const int column = item % {tile.columns};",
            f"const {self.index} group = {dialect.group_id(0)};",
            *split,
        ]
        statements, known = decoded("batch", self.product.batch, self.index)
        lines += statements
        lines += self.left_piece.setup(f"down * {tile.m}", known) + self.right_piece.setup(f"across * {tile.n}", known)
        names = (*self.left_piece.names(), *self.right_piece.names(), *self._sums())
        lines += [f"{self.type} {name} = 0;" for name in names]
        lines += self._rounds(known) + self._stores(known)
        text = block(dialect.kernel(self.parameters, (tile.items,)), lines)
        groups = count(places)
        if self.parts == 1:
            text = self.again() + text
        return Stage(text, (groups,), (tile.items,), self.emitter.buffers, self.pieces)

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
            block(f"if (next < {last})", [*self.left_piece.load(known), *self.right_piece.load(known)]),
            block(f"if (next > {first})", [UNROLLED + loop("k", 0, depth, self._multiply())]),
            "side = 1 - side;",
            *self.left_piece.keep(),
            *self.right_piece.keep(),
            self.dialect.barrier,
        ]
        return [*lines, loop("next", first, f"{last} + {depth}", steps, depth, self.index)]

    def _multiply(self) -> list[str]:
        """One term of each sum of an item. Rows of an item are neighbours, its columns are those of its neighbours."""
        tile, lines = self.tile, []
        for piece, name, place, number in (
            (self.left_piece, "x", "row + {n}", tile.height),
            (self.right_piece, "y", f"column + {{n}} * {tile.columns}", tile.width),
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
                    inside += self.written(names)
                    body = self.finish(f"sum{i}_{j}", names)
                lines.append(block(f"if ({' && '.join(inside)})" if inside else "", body))
        return lines

    # Sums of the terms that exist, where zeros in place of others met an infinity or NaN: rare, so it may be slow.

    def _doubts(self) -> list[str]:
        """Sums of an item once more, in one loop so that the text of it stands here once."""
        if not self.doubtful:
            return []
        tile, sums, (_, rows, columns) = self.tile, self._sums(), self.shape
        again = [
            f"const {self.index} m = down * {tile.m} + row + e / {tile.width};",
            f"const {self.index} n = across * {tile.n} + column + e % {tile.width} * {tile.columns};",
            f"if (m < {rows} && n < {columns} && !(again[e] - again[e] == 0)) again[e] = {self.call('m', 'n')};",
        ]
        lines = [
            f"{self.type} again[{len(sums)}] = {{{', '.join(sums)}}};",
            loop("e", 0, len(sums), again),
            *(f"{name} = again[{e}];" for e, name in enumerate(sums)),
        ]
        finite = " + ".join(f"({name} - {name})" for name in sums)
        return [block(f"if (!({finite} == 0))", lines)]

    def direct(self) -> Stage:
        """Nothing is staged: each item adds up its sum."""
        return self.each_output(self.added)
