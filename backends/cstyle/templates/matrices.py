"""Contractions through a library of matrix products: the matrices that it is given, and what is rendered around it.

A library takes matrices whose rows or columns lie next to one another, many of them at equal distances. What lies
otherwise is copied into scratch memory first (of a convolution that is the well-known matrix of all windows), and
results that are not stored as they are go there too; a rendered launch computes the epilogue from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as choices

from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.contraction import Contraction
from minigrad.backends.cstyle.templates.tiled_access import address_at, checks, decoded, scaled
from minigrad.backends.cstyle.templates.tiled_choice import ITEMS, runs_along_terms
from minigrad.backends.cstyle.templates.tiled_product import Array, Variables, count, step
from minigrad.dtypes import DType
from minigrad.kernel import Kernel

CALLS = 16  # calls of the library that one contraction may take
SCRATCH = 4 << 30  # bytes of one piece of scratch memory
Steps = Mapping[str, int]  # how far apart in memory neighbouring values of each variable lie


@dataclass(frozen=True)
class Matrix:
    """Where matrices lie, in elements.

    Attributes:
        buffer: the kernel's buffer, or else
        piece: the piece of scratch memory.
        row: from one row to the next.
        column: from one column to the next.
        batch: from one matrix to the next.
        starts: where the first lies, for each call of the library.
    """

    buffer: int | None
    piece: int | None
    row: int
    column: int
    batch: int
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Products:
    """``out = left @ right`` for matrices of m by k and k by n; each is one of ``batch`` at equal distances.

    Attributes:
        dtype: of all elements; half types are summed in float32.
        sizes: m, n, k and batch.
        left: as said; so are the others.
        right: as said.
        out: as said.
    """

    dtype: DType
    sizes: tuple[int, int, int, int]
    left: Matrix
    right: Matrix
    out: Matrix


@dataclass(frozen=True)
class Around:
    """A contraction as copies into scratch memory, products of matrices and an epilogue, any of which may be absent."""

    before: Rendered
    products: Products
    after: Rendered


def render_around(kernel: Kernel, target: Target) -> Around | None:
    """What a library of matrix products needs around it; None where it is of no use."""
    if 0 in kernel.core_shapes[0]:
        return None
    return _Around(kernel.in_core_shape(), target).rendered()


class _Side:
    """A source or the output: how it lies, or would lie in scratch memory.

    Attributes:
        array: it.
        dense: variables of its elements in scratch memory, outermost first.
        offset: its first element.
        steps: how far apart neighbouring values of each variable lie; None where it is no matrix as it is.
    """

    def __init__(self, array: Array, dense: Variables, sizes: Mapping[str, int]) -> None:
        self.array, self.dense = array, dense
        view, places = array.operand.view, array.places
        self.offset = view.offset + sum(stride * place.offset for stride, place in zip(view.strides, places))
        whole = all(p.divisor == 1 and not p.needs_check(sizes) for p in places) and view.blocks is None
        self.steps: Steps | None = {name: step(view, places, name) for name in sizes} if whole else None

    @property
    def nbytes(self) -> int:
        """Of scratch memory."""
        return count(self.dense) * self.array.operand.dtype.itemsize

    @property
    def dense_steps(self) -> Steps | None:
        """The same of scratch memory; None where that would be too much."""
        steps, distance = {}, 1
        for variable in reversed(self.dense):
            steps[variable.name] = distance
            distance *= variable.size
        return steps if self.nbytes <= SCRATCH else None


class _Around(Contraction):
    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.functions = Functions(target.dialect)
        super().__init__(kernel, target, self.functions)
        p, sizes = self.product, self.product.sizes
        self.given = p.left.operand.dtype
        by_terms = [runs_along_terms(array, rows, p.k) for array, rows in ((p.left, p.m), (p.right, p.n))]
        stored = Array(kernel.outputs[kernel.stores[0][1]], p.out)
        self.sides = {
            "left": _Side(p.left, (*p.batch, *p.m, *p.k) if by_terms[0] else (*p.batch, *p.k, *p.m), sizes),
            "right": _Side(p.right, (*p.batch, *p.n, *p.k) if by_terms[1] else (*p.batch, *p.k, *p.n), sizes),
            "out": _Side(stored, (*p.batch, *p.m, *p.n), sizes),
        }
        self.is_stored = len(kernel.epilogue) == len(kernel.stores) == 1 and not self.doubtful
        self.piece = 0  # of scratch memory that holds the results

    @property
    def pieces(self) -> tuple[int, ...]:
        """The results."""
        return (self.piece,)

    @property
    def parameters(self) -> str:
        """Of the functions: all buffers, then one piece of scratch memory."""
        return self.emitter.parameters([self.given])

    def rendered(self) -> Around | None:
        """With as little copied as can be."""
        if not self.given.is_float or 0 in self.shape or not count(self.product.k):
            return None
        some = [tuple(name for name, there in zip(self.sides, way) if there) for way in choices((0, 1), repeat=3)]
        for copied in sorted(some, key=lambda names: sum(self.sides[name].nbytes for name in names)):
            products = self._products(copied) if self.is_stored or "out" in copied else None
            if products is not None:
                return self._around(copied, products)
        return None

    def _products(self, copied: Sequence[str]) -> Products | None:
        """The matrices, if these sides are copied; None where some side is none."""
        p = self.product
        steps = {name: s.dense_steps if name in copied else s.steps for name, s in self.sides.items()}
        left, right, out = steps.values()
        if left is None or right is None or out is None or not (_joins(p.k, left) and _joins(p.k, right)):
            return None
        # Rows that are not at equal distances are rows of several matrices, and so are columns.
        more_m, m = _split(p.m, left, out)
        more_n, n = _split(p.n, right, out)
        calls, batch = _split((*p.batch, *more_m, *more_n), left, right, out)
        if count(calls) > CALLS:
            return None
        found = {}
        for name, at, rows, columns in (("left", left, m, p.k), ("right", right, p.k, n), ("out", out, m, n)):
            side = self.sides[name]
            starts = [0 if name in copied else side.offset]
            for variable in calls:
                starts = [o + i * at.get(variable.name, 0) for o in starts for i in range(variable.size)]
            row, column, between = (_last(variables, at) for variables in (rows, columns, batch))
            if not _is_matrix(count(rows), count(columns), row, column):
                return None
            buffer, piece = (None, copied.index(name)) if name in copied else (side.array.operand.buffer, None)
            found[name] = Matrix(buffer, piece, row, column, between, tuple(starts))
        return Products(self.given, (count(m), count(n), count(p.k), count(batch)), **found)

    def _around(self, copied: Sequence[str], products: Products) -> Around:
        scratch = tuple(self.sides[name].nbytes for name in copied)
        copies = [self._copy(name, number) for number, name in enumerate(copied) if name != "out"]
        before, after = Rendered(tuple(copies), (), scratch), Rendered((), (), scratch)
        if "out" in copied:
            self.piece = copied.index("out")
            stage = self._epilogue()
            after = Rendered((stage,), self.functions.used(), scratch)
        return Around(before, products, after)

    def _copy(self, name: str, piece: int) -> Stage:
        """The launch that copies a source: 16 bytes at a time where it lies in such."""
        side, access, index = self.sides[name], self.left if name == "left" else self.right, self.index
        *outer, last = side.dense
        wide = self.dialect.wide // self.given.itemsize
        run = wide if wide and access.is_run((last,), wide) else 1
        lines, names = decoded("i", (*outer, last._replace(size=last.size // run)), index)
        names[last.name] = scaled(last.name, run)
        conditions = checks(side.array.places, names, self.product.sizes, index)
        element = self.emitter.storage(self.given)
        type_ = self.dialect.pack(element, run) if run > 1 else element
        address = address_at(self.emitter, side.array, names)
        value = f"*(const {type_} *)(b{side.array.operand.buffer} + {address})"
        if conditions:
            value = f"{' && '.join(conditions)} ? {value} : {type_}()"
        lines.append(f"*({type_} *)(s0 + {scaled('i', run)}) = {value};")
        return self._launch(lines, count(side.dense) // run, piece)

    def _epilogue(self) -> Stage:
        """The launch that makes of results what is stored."""
        raw, to_float = "s0[i]", f"{self.given.name}_to_float32"
        value = f"{self.functions.call(to_float, 1)}({raw})" if self.given.is_half else raw
        lines = [f"{self.type} sum = {value};"]
        if self.doubtful:
            lines.append(f"if (!(sum - sum == 0)) sum = {self.call('down', 'across')};")
        stage = self.each_output(lambda names: lines)
        return stage._replace(text=self.again() + stage.text)

    def _launch(self, lines: list[str], size: int, piece: int) -> Stage:
        """One item for each of ``size`` positions ``i``."""
        group, item = self.dialect.group_id(index=self.index), self.dialect.local_id(0)
        start = f"const {self.index} i = {group} * {ITEMS} + {item};"
        text = block(self.dialect.kernel(self.parameters, (ITEMS,)), [start, block(f"if (i < {size})", lines)])
        return Stage(text, (-(-size // ITEMS),), (ITEMS,), self.emitter.buffers, (piece,))


def _joins(variables: Variables, steps: Steps) -> bool:
    """Whether one distance leads through all variables as through one."""
    pairs = zip(variables, variables[1:])
    return all(steps.get(a.name, 0) == steps.get(b.name, 0) * b.size for a, b in pairs)


def _split(variables: Variables, *steps: Steps) -> tuple[Variables, Variables]:
    """The last variables that join on all sides, as many as do, after the others."""
    first = len(variables)
    while first > 0 and all(_joins(variables[first - 1 :], s) for s in steps):
        first -= 1
    return variables[:first], variables[first:]


def _last(variables: Variables, steps: Steps) -> int:
    """The distance that leads through variables that join."""
    return steps.get(variables[-1].name, 0) if variables else 0


def _is_matrix(rows: int, columns: int, row: int, column: int) -> bool:
    """Whether rows or columns lie next to one another, and do not overlap."""
    by_rows = (columns == 1 or column == 1) and (rows == 1 or row >= columns)
    return by_rows or ((rows == 1 or row == 1) and (columns == 1 or column >= rows))
