"""What the templates of contractions for GPUs share: the product, sums in parts, and what becomes of each sum."""

from __future__ import annotations

import math
from collections.abc import Callable

from minigrad.backends.cstyle.body import ONE, Emitter
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import NAME, Stage, block, loop
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
from minigrad.backends.cstyle.templates.tiled_choice import ITEMS
from minigrad.backends.cstyle.templates.tiled_product import Variable, Variables, count, product_of
from minigrad.kernel import Kernel

AGAIN = f"{NAME}_again"  # the function that computes one sum without haste


class Contraction:
    """One kernel on one device.

    Attributes:
        product: its core.
        shape: how many batches, rows and columns there are.
        parts: how many groups share a sum, whose parts another launch adds.
        dtype: of sums, ``type`` in C.
        doubtful: whether zeros stand for terms that do not exist: one that met an infinity or NaN is a wrong NaN.
    """

    parts = 1

    def __init__(self, kernel: Kernel, target: Target, functions: Functions) -> None:
        self.kernel, self.dialect = kernel, target.dialect
        self.product = product = product_of(kernel)
        self.emitter = emitter = self.make_emitter(kernel, target, functions)
        self.index = emitter.index_type
        self.dtype = accumulator(product.left.operand.dtype)
        self.type = emitter.type(self.dtype)
        self.shape = [count(variables) for variables in (product.batch, product.m, product.n)]
        self.left = Access(emitter, product.left, product.m, product.k, product.sizes)
        self.right = Access(emitter, product.right, product.n, product.k, product.sizes)
        self.doubtful = product.omits and self.dtype.is_float and bool(self.left.checked or self.right.checked)

    def make_emitter(self, kernel: Kernel, target: Target, functions: Functions) -> Emitter:
        """What renders the epilogue."""
        return Emitter(kernel, target, functions)

    @property
    def scratch(self) -> tuple[int, ...]:
        """Bytes of the parts of the sums."""
        return (self.parts * math.prod(self.shape) * self.dtype.itemsize,) if self.parts > 1 else ()

    @property
    def parameters(self) -> str:
        """Of the functions: all buffers, then the parts."""
        return self.emitter.parameters([self.dtype] * len(self.pieces))

    @property
    def pieces(self) -> tuple[int, ...]:
        """Pieces of scratch memory that functions get."""
        return (0,) if self.parts > 1 else ()

    def walk(self, m: int, n: int) -> Variables:
        """The order of groups that compute ``m`` by ``n`` sums each."""
        batches, rows, columns = self.shape
        down, across = Variable("down", -(-rows // m)), Variable("across", -(-columns // n))
        # Neighbouring groups, which run at the same time, share their piece of the larger source.
        tiles = (down, across) if rows > columns else (across, down)
        return (Variable("part", self.parts), Variable("batch", batches), *tiles)

    def written(self, names: Names) -> list[str]:
        """Conditions under which a sum is stored."""
        return checks(self.product.out, names, self.product.sizes, self.index)

    def finish(self, value: str, names: Names) -> list[str]:
        """The epilogue of one sum."""
        dtype = self.product.left.operand.dtype
        core = self.emitter.rounded(value, dtype, 1) if dtype.is_half else value
        if dtype is not self.dtype and not dtype.is_half:
            core = self.dialect.cast(value, self.emitter.type(dtype))
        index = [index_at(place, names) for place in self.product.out]
        return [f"const {self.emitter.type(dtype)} core = {core};", *self.emitter.finish(index, ONE, ["core"])]

    def call(self, down: str, across: str) -> str:
        """A call of :meth:`again`."""
        memory = [*(f"b{b}" for b in self.emitter.buffers), *(f"s{n}" for n in range(len(self.pieces)))]
        return f"{AGAIN}({', '.join(memory)}, batch, {down}, {across})"

    def again(self) -> str:
        """A function that computes one sum."""
        if not self.doubtful:
            return ""
        lines, names = self.variables()
        where = ", ".join(f"{self.index} {flat}" for flat in ("batch", "down", "across"))
        head = f"{self.dialect.rare} {self.type} {AGAIN}({self.parameters}, {where})"
        return block(head, [*lines, *self.added(names), "return sum;"]) + "\n\n"

    def variables(self) -> tuple[list[str], dict[str, str]]:
        """Statements that find the variables of one sum, and their names."""
        lines: list[str] = []
        names: dict[str, str] = {}
        product = self.product
        for flat, variables in (("batch", product.batch), ("down", product.m), ("across", product.n)):
            statements, found = decoded(flat, variables, self.index)
            lines += statements
            names |= found
        return lines, names

    def added(self, names: Names) -> list[str]:
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

    def addition(self) -> Stage:
        """The parts of each sum, added in order; then the epilogue."""
        step = f"sum += s0[part * {math.prod(self.shape)} + i];"
        lines = [f"{self.type} sum = s0[i];", loop("part", 1, self.parts, [step], 1, self.index)]
        if self.doubtful:
            lines.append(f"if (!(sum - sum == 0)) sum = {self.call('down', 'across')};")
        stage = self.each_output(lambda names: lines)
        return stage._replace(text=self.again() + stage.text)

    def each_output(self, summed: Callable[[Names], list[str]]) -> Stage:
        """A launch with one sum per item: ``summed`` gives statements that compute ``sum``."""
        size, (batches, rows, columns) = math.prod(self.shape), self.shape
        flat = (Variable("batch", batches), Variable("down", rows), Variable("across", columns))
        lines, _ = decoded("i", flat, self.index)
        statements, names = self.variables()
        written = self.written(names)
        body = [*summed(names), *self.finish("sum", names)]
        lines += [*statements, *([block(f"if ({' && '.join(written)})", body)] if written else body)]
        group, item = self.dialect.group_id(index=self.index), self.dialect.local_id(0)
        head = self.dialect.kernel(self.parameters, (ITEMS,))
        text = block(head, [f"const {self.index} i = {group} * {ITEMS} + {item};", block(f"if (i < {size})", lines)])
        return Stage(text, (-(-size // ITEMS),), (ITEMS,), self.emitter.buffers, self.pieces)
