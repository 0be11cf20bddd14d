"""Contractions on tensor cores: matrix products, convolutions and their adjoints, in half types or in TF32.

A group computes one tile of the output, its warps parts of it. Pieces of both sources come to shared memory round by
round, several rounds ahead (``tensor_pieces``); from there warps load matrices and multiply them. At the end each warp
brings its sums back in order by way of shared memory, 16 rows at a time, so that the epilogue reads and writes packs
of neighbours. Few outputs share their sums among groups, and another launch adds the parts.
"""

from __future__ import annotations

from minigrad.backends.cstyle.body import Emitter
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.contraction import Contraction
from minigrad.backends.cstyle.templates.packs import UNROLLED, PackEmitter, Packs, pack_width
from minigrad.backends.cstyle.templates.tensor_choice import ROUND, STEP, TensorTile, depth, tensor_shares, tensor_tiles
from minigrad.backends.cstyle.templates.tensor_pieces import MEMORY, Piece
from minigrad.backends.cstyle.templates.tiled_access import Names, decoded, index_at
from minigrad.backends.cstyle.templates.tiled_product import count
from minigrad.kernel import Kernel, Operand

HEIGHT = 16  # rows of an instruction's sums, which are put in order together
PAD = 8  # surplus floats of each of them in shared memory


def render_tensor(kernel: Kernel, target: Target, tile: TensorTile | None = None) -> Rendered:
    """A contraction on tensor cores."""
    functions = Functions(target.dialect)
    template = _Tensor(kernel, target, functions, tile or tensor_tiles(kernel, target)[0])
    stages = [template.main()]
    if template.parts > 1:
        stages.append(template.addition())
    return Rendered(tuple(stages), functions.used(), template.scratch)


class _Tensor(Contraction):
    """The functions of one kernel with one tile."""

    emitter: PackEmitter

    def __init__(self, kernel: Kernel, target: Target, functions: Functions, tile: TensorTile) -> None:
        super().__init__(kernel, target, functions)
        self.tile, self.wide = tile, target.dialect.wide
        self.share, self.parts = tensor_shares(self.product, tile, target.cores)
        self.left_piece = Piece("left", self.left, tile.m, tile, 0)
        self.right_piece = Piece("right", self.right, tile.n, tile, self.left_piece.bytes)
        self.round_bytes = self.left_piece.bytes + self.right_piece.bytes
        self.across, self.down = tile.width // 8, tile.height // HEIGHT  # instructions of a warp

    def make_emitter(self, kernel: Kernel, target: Target, functions: Functions) -> Emitter:
        """One that reads and writes packs."""
        return PackEmitter(kernel, target, functions)

    def main(self) -> Stage:
        """Sums in tiles."""
        tile, dialect, index = self.tile, self.dialect, self.index
        places = self.walk(tile.m, tile.n)
        split, _ = decoded("group", places, index)
        known_lines, known = decoded("batch", self.product.batch, index)
        warps = tile.down * tile.across
        staged = warps * HEIGHT * (tile.width + PAD) * 4
        lines = [
            f"SHARED_MEMORY({MEMORY});",
            f"const int item = {dialect.local_id(0)}, lane = item % 32, warp = item / 32;",
            f"const int row = warp / {tile.across} * {tile.height}, column = warp % {tile.across} * {tile.width};",
            f"const {index} group = {dialect.group_id(index=index)};",
            *split,
            *known_lines,
            *self.left_piece.setup(f"down * {tile.m}", known),
            *self.right_piece.setup(f"across * {tile.n}", known),
            *self.left_piece.declared(),
            *self.right_piece.declared(),
            f"float sums[{self.down}][{self.across}][4] = {{}};",
            *self._rounds(known),
            dialect.barrier,
            *self._stores(known),
        ]
        text = block(dialect.kernel(self.parameters, (tile.items,), tile.resident), lines)
        if self.parts == 1:
            text = self.again() + text
        dynamic = max(tile.stages * self.round_bytes, staged)
        return Stage(text, (count(places),), (tile.items,), self.emitter.buffers, self.pieces, dynamic)

    # Rounds.

    def _rounds(self, known: Names) -> list[str]:
        """Several rounds are on their way; each begins when the one that had its memory has been multiplied."""
        length, terms, ahead, index = depth(self.product), count(self.product.k), self.tile.stages - 1, self.index
        lines = []
        first, last = "0", str(terms)
        if self.parts > 1:
            first, last, end = "first", "last", f"(part + 1) * {self.share}"
            lines.append(f"const {index} first = part * {self.share};")
            lines.append(f"const {index} last = {end} < {terms} ? {end} : {terms};")
        memory = f"{MEMORY}_next"

        def fetched() -> list[str]:
            return [*self.left_piece.fetch(known, memory), *self.right_piece.fetch(known, memory)]

        def kept() -> list[str]:
            return [*self.left_piece.keep(memory), *self.right_piece.keep(memory)]

        start = [
            f"const {index} next = {first} + stage * {length};",
            f"uchar *const {memory} = {MEMORY} + stage * {self.round_bytes};",
            block(f"if (next < {last})", [*fetched(), *kept()]),
            "commit_copies();",
        ]
        lines.append(loop("stage", 0, ahead, start))
        later = f"if (next < {last})"
        step = [
            f"wait_for_copies<{ahead - 1}>();",
            self.dialect.barrier,
            f"const {index} next = now + {ahead * length};",
            f"const uchar *const {MEMORY}_now = {MEMORY} + stage * {self.round_bytes};",
            f"uchar *const {memory} = {MEMORY} + (stage + {ahead}) % {self.tile.stages} * {self.round_bytes};",
            block(later, fetched()),
            "commit_copies();",
            *self._multiplied(),
            *([block(later, kept())] if kept() else []),
            f"stage = (stage + 1) % {self.tile.stages};",
        ]
        lines += ["int stage = 0;", loop("now", first, last, step, length, index)]
        return lines

    def _multiplied(self) -> list[str]:
        """The steps of a round: what the next one multiplies is loaded before this one's is multiplied."""
        steps = ROUND // STEP
        load = [
            self.left_piece.left("x[s % 2]", "row", self.down),
            self.right_piece.right("y[s % 2]", "column", self.across),
        ]
        dtype = self.product.left.operand.dtype
        multiply = loop("j", 0, self.across, [f"multiply_{dtype.name}(sums[i][j], x[z % 2][i], y[z % 2][j]);"])
        body = [
            block(f"if (z + 1 < {steps})", ["const int s = z + 1;", *load]),
            UNROLLED + loop("i", 0, self.down, [UNROLLED + multiply]),
        ]
        return [
            f"uint x[2][{self.down}][4], y[2][{self.across}][2];",
            block("", ["const int s = 0;", *load]),
            UNROLLED + loop("z", 0, steps, body),
        ]

    # What becomes of the sums.

    def _stores(self, known: Names) -> list[str]:
        """Sixteen rows at a time to shared memory, and from there in packs to where they belong."""
        tile, (_, rows, columns), index = self.tile, self.shape, self.index
        axis, width = self._packing()
        pitch = tile.width + PAD
        units = tile.width // width
        place = f"lane / 4 * {pitch} + lane % 4 * 2 + j * 8"
        put = [f"kept[{place} + {n // 2 * 8 * pitch + n % 2}] = sums[i][j][{n}];" for n in range(4)]
        inside = [f"m < {rows}"] * (rows % tile.m != 0) + [f"n < {columns}"] * (columns % tile.n != 0)
        pack = [
            f"const int r = u / {units}, c = u % {units} * {width};",
            f"const {index} m = down * {tile.m} + row + i * {HEIGHT} + r;",
            f"const {index} n = across * {tile.n} + column + c;",
            f"const float *const found = kept + r * {pitch} + c;",
            block(f"if ({' && '.join(inside)})" if inside else "", self._pack(axis, width, known)),
        ]
        body = [
            UNROLLED + loop("j", 0, self.across, put),
            "__syncwarp();",
            loop("u", "lane", HEIGHT * units, pack, 32),
            "__syncwarp();",
        ]
        kept = f"float *const kept = (float *){MEMORY} + warp * {HEIGHT * pitch};"
        return [kept, UNROLLED + loop("i", 0, self.down, body)]

    def _packing(self) -> tuple[int, int]:
        """The axis of the output along which a pack of sums lies, and how many they are."""
        if self.parts > 1:
            return -1, 4 if self.shape[2] % 4 == 0 else 1
        if not self.product.n:
            return 0, 1
        last = self.product.n[-1]
        ((axis, place),) = ((a, p) for a, p in enumerate(self.product.out) if last.name in dict(p.terms))
        if place.divisor != 1 or place.needs_check(self.product.sizes) or dict(place.terms)[last.name] != 1:
            return axis, 1
        outputs = self.kernel.outputs
        width = pack_width(self.wide, last.size, [*self._loaded(), *outputs], outputs, axis)
        while any(scale % width for name, scale in place.terms if name != last.name) or place.offset % width:
            width //= 2
        return axis, width

    def _loaded(self) -> list[Operand]:
        """What the epilogue reads."""
        return [self.kernel.inputs[line.attr] for line in self.kernel.epilogue if line.op == "load"]

    def _pack(self, axis: int, width: int, known: Names) -> list[str]:
        """The epilogue of a pack of sums, or away with them to be added."""
        if self.parts > 1:
            at = f"((part * {self.shape[0]} + batch) * {self.shape[1]} + m) * {self.shape[2]} + n"
            type_ = self.dialect.pack("float", width)
            return [f"*({type_} *)(s0 + {at}) = *(const {type_} *)found;"]
        lines_m, names_m = decoded("m", self.product.m, self.index, "_m")
        lines_n, names_n = decoded("n", self.product.n, self.index, "_n")
        names = {**known, **names_m, **names_n}

        def finished(j: str, names: Names) -> list[str]:
            again = f"if (!(sum - sum == 0)) sum = {self.call('m', f'n + {j}')};"
            return [f"float sum = found[{j}];", *([again] if self.doubtful else []), *self.finish("sum", names)]

        if width == 1:
            body = finished("0", names)
        else:
            packs = Packs(self.emitter, axis, width)
            read, made = packs.names(self._loaded(), "p"), packs.names(self.kernel.outputs, "q")
            here, last = [index_at(place, names) for place in self.product.out], self.product.n[-1].name
            with self.emitter.using(read, made):
                each = packs.each(finished("j", {**names, last: "e"}), self.index, names[last])
            body = [*packs.loads(read, here), *packs.made(made), each, *packs.stores(made, here)]
        written = self.written(names)
        return [*lines_m, *lines_n, block(f"if ({' && '.join(written)})" if written else "", body)]
