"""What a group for tensor cores keeps of one source in shared memory: how it gets there, and on to registers."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.backends.cstyle.source import block, loop
from minigrad.backends.cstyle.templates.packs import UNROLLED
from minigrad.backends.cstyle.templates.tensor_choice import CHUNK, ROUND, STEP, TensorTile
from minigrad.backends.cstyle.templates.tiled_access import Access, Names
from minigrad.backends.cstyle.templates.tiled_product import count

MEMORY = "memory"  # all shared memory of a group, in bytes
FLOAT_PAD = 32  # surplus bytes of a line of floats that are read one by one, four lines at a time


class Piece:
    """``extent`` rows (of m or of n), each with the terms of a round.

    Where neighbours in memory are neighbouring terms, or neighbouring rows, they are copied 16 bytes at a time without
    passing through registers, and lie that way in shared memory too. Otherwise an item copies elements of some rows one
    by one. Surplus bytes between the lines of shared memory let the threads of a warp meet different banks.

    Attributes:
        lies: along what a line of shared memory lies, ``"terms"`` or ``"rows"``.
        chunked: whether 16 bytes are copied at a time.
        bytes: of one round.
    """

    def __init__(self, tag: str, access: Access, extent: int, tile: TensorTile, start: int) -> None:
        """``start`` is where the piece begins in the memory of a round."""
        self.tag, self.access, self.extent, self.start = tag, access, extent, start
        self.size = access.array.operand.dtype.itemsize
        self.depth, run = ROUND // self.size, CHUNK // self.size
        by_terms, by_rows = access.is_run(access.moving, run), access.is_run(access.fixed, run)
        self.lies = "rows" if by_rows and not by_terms else "terms"
        self.chunked, self.run = by_terms or by_rows, run if by_terms or by_rows else 1
        line = extent * self.size if self.lies == "rows" else ROUND
        self.pitch = line + (FLOAT_PAD if self.lies == "rows" and self.size == 4 else CHUNK)
        self.bytes = self.pitch * (self.depth if self.lies == "rows" else extent)
        # Places that an item copies, along rows and along terms; what it copies are pairs of them.
        items = tile.items
        if self.chunked:
            units, lines = line // CHUNK, self.bytes // self.pitch
        else:
            units, lines = extent, self.depth  # neighbouring items have neighbouring rows
        if units <= items:
            across = [f"item % {units}" + (f" * {run}" if self.chunked else "")]
            down = [f"item / {units} + {n * (items // units)}" for n in range(max(1, lines * units // items))]
        else:
            across = [f"item + {n * items}" for n in range(units // items)]
            down = [str(n) for n in range(lines)]
        self.idle = lines * units if lines * units < items else 0  # more items than that have nothing to copy
        down_rows = self.lies == "terms" and self.chunked
        self.fixed, self.moving = (down, across) if down_rows else (across, down)
        self.pairs = [(f, m) for m in range(len(self.moving)) for f in range(len(self.fixed))]
        self.conditional: set[str] = set()  # parts of positions that may have no element

    # From global memory.

    def names(self) -> list[str]:
        """Registers of the elements on their way that are copied one by one."""
        return [] if self.chunked else [f"{self.tag}{n}" for n in range(len(self.pairs))]

    def setup(self, start: str, known: Names) -> list[str]:
        """Before the rounds: where the rows are that an item copies, from row ``start`` on."""
        limit, lines = count(self.access.fixed), []
        for n, position in enumerate(self.fixed):
            flat, tag = f"{self.tag}_at{n}", f"{self.tag}f{n}"
            lines.append(f"const {self.access.index} {flat}_ = {start} + {position};")
            # Beyond the end: the last ones again. It costs no comparison later, and nobody stores what comes of it.
            last = limit - (self.run if self.lies == "rows" else 1)
            beyond = f"{flat}_ < {limit} ? {flat}_ : {last}" if limit % self.extent else f"{flat}_"
            lines.append(f"const {self.access.index} {flat} = {beyond};")
            lines += self._part(tag, "fixed", flat, known, [])
        return lines

    def fetch(self, known: Names, stage: str) -> list[str]:
        """Begin to copy a round, from term ``next`` on: chunks to the memory of ``stage``, elements to registers."""
        terms, lines = count(self.access.moving), []
        for n, position in enumerate(self.moving):
            flat = f"{self.tag}_k{n}"
            lines.append(f"const {self.access.index} {flat} = next + {position};")
            ends = [f"{flat} < {terms}"] * (terms % self.depth != 0)
            lines += self._part(f"{self.tag}m{n}", "moving", flat, known, ends)
        buffer = f"b{self.access.array.operand.buffer}"
        for number, (f, m) in enumerate(self.pairs):
            parts = (f"{self.tag}f{f}", f"{self.tag}m{m}")
            truths = [f"{part}_ok" for part in parts if part in self.conditional]
            address, conditions = self.access.place(*parts, truths)
            there = " && ".join(conditions)
            if self.chunked:
                lines.append(f"copy_later({self._to(f, m, stage)}, {buffer} + {address}, {there or 'true'});")
            else:
                value = f"{buffer}[{address}]"
                lines.append(f"{self.tag}{number} = {f'{there} ? {value} : {self._type}(0)' if there else value};")
        return self._busy(lines)

    def keep(self, stage: str) -> list[str]:
        """From registers to the memory of ``stage``."""
        if self.chunked:
            return []
        pairs = enumerate(self.pairs)
        return self._busy([f"*({self._type} *)({self._to(f, m, stage)}) = {self.tag}{n};" for n, (f, m) in pairs])

    @property
    def _type(self) -> str:
        return self.access.emitter.storage(self.access.array.operand.dtype)

    def declared(self) -> list[str]:
        """Statements that declare the registers."""
        return [f"{self._type} {name} = 0;" for name in self.names()]

    def _part(self, tag: str, kind: str, flat: str, known: Names, ends: Sequence[str]) -> list[str]:
        statements, conditions = self.access.part(tag, kind, flat, known)
        conditions = [*ends, *conditions]
        if not conditions:
            return statements
        self.conditional.add(tag)
        return [*statements, f"const bool {tag}_ok = {' && '.join(conditions)};"]

    def _to(self, f: int, m: int, stage: str) -> str:
        row, term = f"({self.fixed[f]})", f"({self.moving[m]})"
        line, along = (term, row) if self.lies == "rows" else (row, term)
        return f"{stage} + {self.start} + {line} * {self.pitch} + {along} * {self.size}"

    def _busy(self, lines: list[str]) -> list[str]:
        return [block(f"if (item < {self.idle})", lines)] if self.idle else lines

    # To registers: the lanes of a warp share matrices of 8 rows of 16 bytes, or of 8 times 8 elements to be transposed.

    def _matrices(self, to: str, row: str, second: str) -> str:
        """A statement that loads four matrices: 16 rows from ``row`` on, and the two halves of a step ``s``.

        ``second`` says which lanes' numbers divide by 8 into the second eight rows: those of matrices 1 and 3
        (``"lane / 8 % 2"``) or of matrices 2 and 3 (``"lane / 16"``). The others name the halves of the step.
        """
        half = "lane / 16" if second == "lane / 8 % 2" else "lane / 8 % 2"
        base = f"{MEMORY}_now + {self.start}"
        if self.lies == "terms":
            line, byte = f"{row} + {second} * 8 + lane % 8", f"s * {STEP} + {half} * {CHUNK}"
            return f"load_matrices({to}, {base} + ({line}) * {self.pitch} + {byte});"
        line, byte = f"s * {STEP // 2} + {half} * 8 + lane % 8", f"({row} + {second} * 8) * 2"
        return f"load_transposed({to}, {base} + ({line}) * {self.pitch} + {byte});"

    def _single(self, row: str, half: int) -> str:
        """A float, where it cannot be loaded as a part of a matrix."""
        line, byte = f"s * {STEP // 4} + {half * 4} + lane % 4", f"({row} + lane / 4) * 4"
        return f"*(const uint *)({MEMORY}_now + {self.start} + ({line}) * {self.pitch} + {byte})"

    @property
    def _by_elements(self) -> bool:
        return self.lies == "rows" and self.size == 4

    def left(self, to: str, row: str, number: int) -> str:
        """Load what a warp multiplies in a step from the left: ``number`` times 16 rows, to ``to[i]``."""
        if self._by_elements:
            at = [self._single(f"{row} + i * 16 + {r}", half) for half in (0, 1) for r in (0, 8)]
            lines = [f"{to}[i][{n}] = {value};" for n, value in enumerate(at)]
        else:
            lines = [self._matrices(f"{to}[i]", f"{row} + i * 16", "lane / 8 % 2")]
        return UNROLLED + loop("i", 0, number, lines + self._rounded(f"{to}[i]", 4))

    def right(self, to: str, row: str, number: int) -> str:
        """The same from the right: ``number`` times 8 rows, to ``to[j]``."""
        if self._by_elements:
            lines = [f"{to}[j][{half}] = {self._single(f'{row} + j * 8', half)};" for half in (0, 1)]
            return UNROLLED + loop("j", 0, number, lines + self._rounded(f"{to}[j]", 2))
        lines = [
            "uint four[4];",
            self._matrices("four", f"{row} + j * 8", "lane / 16"),
            *self._rounded("four", 4),
            *(f"{to}[j + {n // 2}][{n % 2}] = four[{n}];" for n in range(4)),
        ]
        return UNROLLED + loop("j", 0, number, lines, 2)

    def _rounded(self, name: str, number: int) -> list[str]:
        """Floats as tensor cores take them: with 10 digits after the point, rounded."""
        return [f"{name}[{n}] = rounded_to_tf32({name}[{n}]);" for n in range(number)] if self.size == 4 else []
