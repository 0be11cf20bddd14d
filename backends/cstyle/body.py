"""Render the lines of a body: straight-line C over one element, or over a vector of neighbouring elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from minigrad import dtypes
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.target import Target
from minigrad.dtypes import DType
from minigrad.kernel import Body, Instr, Kernel, Operand
from minigrad.view import View

INT_MAX = 2**31 - 1


class At(NamedTuple):
    """An index along one axis, as C: ``expr * scale + offset``."""

    expr: str = "0"
    scale: int = 1
    offset: int = 0

    def __str__(self) -> str:
        if self.expr == "0" or self.scale == 0:
            return str(self.offset)
        text = self.expr if self.scale == 1 else f"{_atom(self.expr)} * {self.scale}"
        return f"{text} + {self.offset}" if self.offset else text

    @property
    def constant(self) -> int | None:
        """The index, where it is known now."""
        return self.offset if self.expr == "0" or self.scale == 0 else None


class Lanes(NamedTuple):
    """``width`` neighbouring indices along ``axis``, computed at once; one element where there is no axis."""

    axis: int | None = None
    width: int = 1


ONE = Lanes()


def _atom(expr: str) -> str:
    return expr if expr.isidentifier() or expr.isdigit() else f"({expr})"


def _sum(terms: list[str], constant: int) -> str:
    if constant or not terms:
        terms = [*terms, str(constant)]
    return " + ".join(terms)


class Emitter:
    """Renders parts of one kernel.

    Buffers are called ``b0``, ``b1``... by their position. Bools are stored as bytes and computed as ints (a vector's
    lane is 0 or -1), half types are stored as their bits and computed in float32, rounded after each line.
    """

    def __init__(self, kernel: Kernel, target: Target, functions: Functions) -> None:
        self.kernel, self.target, self.functions = kernel, target, functions
        self.dialect = target.dialect
        views = [operand.view for operand in (*kernel.inputs, *kernel.outputs)]
        reach = max(map(_reach, views), default=0)
        self.index_type = "int" if reach <= INT_MAX else "long"

    # Types.

    def storage(self, dtype: DType) -> str:
        """The C type of an element in memory."""
        return self.dialect.storage[dtype]

    def type(self, dtype: DType, width: int = 1) -> str:
        """The C type in which elements are computed."""
        return self.dialect.vector(self.dialect.compute[dtype], width)

    def parameters(self, scratch: Sequence[DType] = ()) -> str:
        """The function's parameters: all buffers of the kernel, then pieces of scratch memory ``s0``, ``s1``..."""
        kernel = self.kernel
        operands = {o.buffer: o for o in (*kernel.inputs, *kernel.outputs)}
        written = {o.buffer for o in kernel.outputs}
        pointers = [
            self.dialect.pointer(self.storage(operands[b].dtype), f"b{b}", b not in written, True)
            for b in sorted(operands)
        ]
        pointers += [self.dialect.pointer(self.storage(d), f"s{n}", False, True) for n, d in enumerate(scratch)]
        return ", ".join(pointers)

    @property
    def buffers(self) -> tuple[int, ...]:
        """The buffers in the order of :meth:`parameters`."""
        return tuple(sorted({o.buffer for o in (*self.kernel.inputs, *self.kernel.outputs)}))

    # Values.

    def splat(self, value: str, type_: str) -> str:
        """A scalar in every lane."""
        return self.dialect.cast(value, type_)

    def literal(self, value: float, dtype: DType, width: int = 1) -> str:
        """A constant of ``dtype`` in its compute type."""
        text = self.dialect.literal(value, dtype)
        if dtype is dtypes.bool_ and width > 1:
            text = f"-{text}"
        return self.splat(text, self.type(dtype, width)) if width > 1 else text

    def mask(self, comparison: str, dtype: DType, width: int) -> str:
        """A comparison of values of ``dtype`` as a truth value (an int, or a vector of ints)."""
        if width == 1 or self._mask_type(dtype) == "int":
            return comparison
        return self.dialect.convert(comparison, f"int{width}")

    def _mask_type(self, dtype: DType) -> str:
        compute = dtypes.float32 if dtype.is_half else dtype
        size = 4 if dtype is dtypes.bool_ else compute.itemsize
        return {1: "char", 2: "short", 4: "int", 8: "long"}[size]

    def choose(self, condition: str, yes: str, no: str, dtype: DType, width: int) -> str:
        """``condition ? yes : no`` per lane; the condition is a truth value."""
        if width > 1 and self._mask_type(dtype) != "int":
            condition = self.dialect.convert(condition, f"{self._mask_type(dtype)}{width}")
        return f"{condition} ? {yes} : {no}"

    # Memory.

    def address(self, view: View, index: Sequence[At]) -> str:
        """The element of its buffer at ``index``."""
        terms, constant = [], view.offset
        for axis, (at, stride) in enumerate(zip(index, view.strides)):
            if view.shape[axis] == 1:
                continue
            size, outer = view.blocks[axis] if view.blocks is not None else (0, 0)
            if not size:
                constant += at.offset * stride
                if at.constant is None and stride:
                    terms.append(self._times(at.expr, at.scale * stride))
            elif at.scale % size == 0 or at.constant is not None:
                constant += at.offset // size * outer + at.offset % size * stride
                if at.constant is None and outer:
                    terms.append(self._times(at.expr, at.scale // size * outer))
            else:
                terms += [f"({at}) / {size} * {self._long(outer)}", self._times(f"({at}) % {size}", stride)]
        return _sum(terms, constant)

    def _times(self, expr: str, factor: int) -> str:
        if factor == 1 and self.index_type == "int":
            return _atom(expr)
        return f"{_atom(expr)} * {self._long(factor)}"

    def _long(self, factor: int) -> str:
        return str(factor) if self.index_type == "int" else f"{factor}L"

    def _neighbours(self, view: View, index: Sequence[At], lanes: Lanes) -> int | None:
        """How far apart in memory the lanes lie, or None if not evenly."""
        assert lanes.axis is not None
        if view.shape[lanes.axis] == 1:
            return 0
        size, _ = view.blocks[lanes.axis] if view.blocks is not None else (0, 0)
        at = index[lanes.axis]
        if size and (size % lanes.width or at.offset % lanes.width or (at.scale % lanes.width and at.constant is None)):
            return None
        return view.strides[lanes.axis]

    def _lane(self, index: Sequence[At], lanes: Lanes, lane: int) -> list[At]:
        moved = list(index)
        if lanes.axis is not None:
            moved[lanes.axis] = moved[lanes.axis]._replace(offset=moved[lanes.axis].offset + lane)
        return moved

    def inside(self, view: View, index: Sequence[At]) -> str:
        """A condition: whether one element is within the bounds of a view; empty where it always is."""
        conditions = []
        for axis, (low, high) in enumerate(view.bounds or ()):
            if view.shape[axis] == 1 and (low, high) == (0, 1):
                continue
            at = index[axis] if view.shape[axis] != 1 else At()
            if at.constant is not None:
                if not low <= at.constant < high:
                    return "0"
                continue
            if low > 0:
                conditions.append(f"{at} >= {low}")
            if high < view.shape[axis]:
                conditions.append(f"{at} < {high}")
        return " && ".join(conditions)

    def _whole(self, view: View, lanes: Lanes) -> bool:
        """Whether the bounds treat all lanes alike."""
        axis = lanes.axis
        return view.bounds is None or axis is None or view.bounds[axis] == (0, view.shape[axis])

    def load(self, operand: int, index: Sequence[At], lanes: Lanes = ONE) -> str:
        """An input at ``index``, in its compute type."""
        source = self.kernel.inputs[operand]
        view, dtype, width = source.view, source.dtype, lanes.width
        if width == 1:
            return self._guarded(source, self._element(source, index), index)
        if self._whole(view, lanes):
            return self._guarded(source, self._vector(source, index, lanes), index, width)
        parts = []
        for lane in range(width):
            at = self._lane(index, lanes, lane)
            parts.append(self._guarded(source, self._element(source, at), at, mask=-1))
        return self.dialect.build(parts, self.type(dtype, width))

    def _guarded(self, source: Operand, value: str, index: Sequence[At], width: int = 1, mask: int = 1) -> str:
        condition = self.inside(source.view, index)
        fill = self.literal(source.view.fill, source.dtype, width)
        if mask < 0 and source.dtype is dtypes.bool_:
            value, fill = f"-({value})", f"-({fill})"
        if condition == "0":
            return fill
        return f"({condition} ? {value} : {fill})" if condition else value

    def _element(self, source: Operand, index: Sequence[At]) -> str:
        return self._widened(f"b{source.buffer}[{self.address(source.view, index)}]", source.dtype, 1)

    def _vector(self, source: Operand, index: Sequence[At], lanes: Lanes) -> str:
        width, storage = lanes.width, self.storage(source.dtype)
        step = self._neighbours(source.view, index, lanes)
        base = self.address(source.view, index)
        memory = f"b{source.buffer}"
        if step == 0:
            scalar = self._widened(f"{memory}[{base}]", source.dtype, 1)
            if source.dtype is dtypes.bool_:
                scalar = f"-({scalar})"
            return self.splat(scalar, self.type(source.dtype, width))
        if step == 1:
            raw = self.dialect.load(storage, width, f"{memory} + {base}")
        elif step is not None:
            elements = [f"{memory}[{base} + {lane * step}]" for lane in range(width)]
            raw = self.dialect.build(elements, f"{storage}{width}")
        else:
            places = [self.address(source.view, self._lane(index, lanes, lane)) for lane in range(width)]
            raw = self.dialect.build([f"{memory}[{place}]" for place in places], f"{storage}{width}")
        return self._widened(raw, source.dtype, width)

    def _widened(self, raw: str, dtype: DType, width: int) -> str:
        """A stored value in its compute type."""
        if dtype is dtypes.bool_:
            return f"({raw} != 0)" if width == 1 else f"({self.dialect.convert(raw, f'int{width}')} != 0)"
        if dtype.is_half:
            return f"{self.functions.call(f'{dtype.name}_to_float32', width)}({raw})"
        return raw

    def narrowed(self, value: str, dtype: DType, width: int) -> str:
        """A computed value as it is stored."""
        if dtype is dtypes.bool_:
            return f"(uchar)({value} != 0)" if width == 1 else self.dialect.convert(f"({value} & 1)", f"uchar{width}")
        if dtype.is_half:
            return f"{self.functions.call(f'float32_to_{dtype.name}', width)}({value})"
        return value

    def store(self, output: int, value: str, index: Sequence[At], lanes: Lanes = ONE) -> str:
        """A statement that writes ``value`` (of the compute type) to an output at ``index``."""
        target = self.kernel.outputs[output]
        width, base = lanes.width, self.address(target.view, index)
        raw, memory = self.narrowed(value, target.dtype, width), f"b{target.buffer}"
        if width == 1:
            return f"{memory}[{base}] = {raw};"
        step = self._neighbours(target.view, index, lanes)
        if step == 1:
            return self.dialect.store(self.storage(target.dtype), width, f"{memory} + {base}", raw)
        kept = f"const {self.storage(target.dtype)}{width} kept = {raw};"
        places = [self.address(target.view, self._lane(index, lanes, lane)) for lane in range(width)]
        writes = [f"{memory}[{place}] = kept.s{lane:x};" for lane, place in enumerate(places)]
        return " ".join(["{", kept, *writes, "}"])

    # Lines.

    def lines(
        self, body: Body, index: Sequence[At], lanes: Lanes = ONE, core: Sequence[str] = (), tag: str = "v"
    ) -> tuple[list[str], list[str]]:
        """Statements that compute a body at ``index``, and the names of its lines.

        Args:
            body: the prologue or epilogue.
            index: one per axis of the body's space.
            lanes: which axis is computed as a vector from ``index`` on.
            core: names of the core's outputs there, in their compute types.
            tag: what names begin with.
        """
        statements: list[str] = []
        names: list[str] = []
        for number, line in enumerate(body):
            if line.op == "core":
                names.append(core[line.attr])
                continue
            value = self._value(body, line, names, index, lanes)
            names.append(f"{tag}{number}")
            statements.append(f"const {self.type(line.dtype, lanes.width)} {tag}{number} = {value};")
        return statements, names

    def finish(
        self, index: Sequence[At], lanes: Lanes = ONE, core: Sequence[str] = (), tag: str = "e"
    ) -> list[str]:
        """The epilogue at ``index`` and its stores."""
        statements, names = self.lines(self.kernel.epilogue, index, lanes, core, tag)
        return statements + [self.store(output, names[line], index, lanes) for line, output in self.kernel.stores]

    def _value(self, body: Body, line: Instr, names: list[str], index: Sequence[At], lanes: Lanes) -> str:
        width, dtype = lanes.width, line.dtype
        if line.op == "load":
            return self.load(line.attr, index, lanes)
        if line.op == "const":
            value, sign = line.attr
            return self.literal(math.copysign(value, sign) if dtype.is_float else value, dtype, width)
        if line.op == "iota":
            return self._iota(line.attr, dtype, index, lanes)
        if line.op == "inside":
            return self._inside(line.attr, index, lanes)
        args = [names[a] for a in line.args]
        given = body[line.args[0]].dtype
        if line.op == "cast":
            value = self.cast(args[0], given, dtype, width)
        elif line.op == "where":
            return self.choose(args[0], args[1], args[2], dtype, width)
        else:
            value = self.operation(line.op, args, given, width)
        return self.rounded(value, dtype, width) if dtype.is_half and line.op not in _EXACT else value

    def rounded(self, value: str, dtype: DType, width: int) -> str:
        """A float32 value with the precision of a half type."""
        return f"{self.functions.call(f'round_{dtype.name}', width)}({value})"

    def _iota(self, view: View, dtype: DType, index: Sequence[At], lanes: Lanes) -> str:
        width, parts = lanes.width, []
        for lane in range(width):
            at = self._lane(index, lanes, lane)
            condition, place = self.inside(view, at), self.address(view, at)
            fill = self.dialect.literal(view.fill, dtype)
            value = f"({self.dialect.compute[dtype]})({place})"
            if dtype is dtypes.bool_:
                value, fill = (f"{'-' * (width > 1)}({text} != 0)" for text in (place, fill))
            parts.append(fill if condition == "0" else f"({condition} ? {value} : {fill})" if condition else value)
        return parts[0] if width == 1 else self.dialect.build(parts, self.type(dtype, width))

    def _inside(self, view: View, index: Sequence[At], lanes: Lanes) -> str:
        conditions = [self.inside(view, self._lane(index, lanes, lane)) or "1" for lane in range(lanes.width)]
        if lanes.width == 1:
            return f"({conditions[0]})"
        return self.dialect.build([f"-({condition})" for condition in conditions], f"int{lanes.width}")

    def cast(self, value: str, given: DType, dtype: DType, width: int) -> str:
        """A value of dtype ``given`` in the compute type of ``dtype``."""
        if dtype is dtypes.bool_:
            zero = self.literal(0, given, width)
            return value if given is dtypes.bool_ else self.mask(f"({value} != {zero})", given, width)
        if given is dtypes.bool_:
            value = f"({value} != 0)" if width == 1 else f"({value} & 1)"
        elif self.dialect.compute[given] == self.dialect.compute[dtype]:
            return value
        elif dtype.is_half and given.itemsize >= 4:  # rounding to float32 and then again would be wrong by an ulp
            return f"{self.functions.call('to_odd', width, given)}({value})"
        elif given.is_float and dtype.is_integer and (dtype.itemsize < 4 or dtype is dtypes.uint32):
            # Out of range C promises nothing; by way of a wider integer it wraps, as NumPy does.
            value = self.dialect.convert(value, self.dialect.vector("int" if dtype.itemsize < 4 else "long", width))
        return self.dialect.convert(value, self.type(dtype, width))

    def operation(self, op: str, args: Sequence[str], dtype: DType, width: int) -> str:
        """An elementwise primitive on values of ``dtype``, not rounded."""
        rule = _RULES.get(op)
        if rule is not None:
            return rule(self, list(args), dtype, width)
        wide = dtypes.float32 if dtype.is_half else dtype
        return f"{self.functions.call(op, width, wide)}({', '.join(args)})"


def _reach(view: View) -> int:
    """The greatest distance from the start of a buffer that addresses of a view come to, on the way too."""
    total = abs(view.offset)
    for axis, (size, stride) in enumerate(zip(view.shape, view.strides)):
        block, outer = view.blocks[axis] if view.blocks is not None else (0, 0)
        total += abs(outer) * (size // block) + abs(stride) * block if block else abs(stride) * size
    return total


Rule = Callable[[Emitter, list[str], DType, int], str]
# Results of these have no more digits than their sources.
_EXACT = frozenset("copy neg abs sign relu maximum minimum where floor ceil trunc round".split())


def _format(text: str) -> Rule:
    """``{0}`` and ``{1}`` are the arguments, ``{zero}`` and ``{one}`` constants of their type."""

    def rule(e: Emitter, args: list[str], dtype: DType, width: int) -> str:
        return text.format(*args, zero=e.literal(0, dtype, width), one=e.literal(1, dtype, width))

    return rule


def _compare(text: str, of_bools: str) -> Rule:
    def rule(e: Emitter, args: list[str], dtype: DType, width: int) -> str:
        if dtype is dtypes.bool_:
            return of_bools.format(*args)
        return e.mask(f"({text.format(*args, zero=e.literal(0, dtype, width))})", dtype, width)

    return rule


def _extreme(comparison: str, of_bools: str) -> Rule:
    """The larger or the smaller of two, or NaN; true is -1 in vectors, so bools are not compared."""

    def rule(e: Emitter, args: list[str], dtype: DType, width: int) -> str:
        a, b = args
        if dtype is dtypes.bool_:
            return f"{a} {of_bools} {b}"
        return f"(({a} {comparison} {b}) | ({a} != {a})) ? {a} : {b}"

    return rule


def _wrapping(operator: str) -> Rule:
    """Arithmetic: signed integers wrap, which C promises of unsigned ones only."""

    def rule(e: Emitter, args: list[str], dtype: DType, width: int) -> str:
        if dtype.kind != "i":
            return f" {operator} ".join(args) if len(args) == 2 else f"{operator}{args[0]}"
        signed = e.type(dtype, width)
        # Short scalars are promoted: a product of two could leave int.
        unsigned = f"u{signed}" if width > 1 or dtype.itemsize >= 4 else "uint"
        cast = e.dialect.reinterpret if width > 1 else e.dialect.cast
        bits = [cast(a, unsigned) for a in args]
        return cast("(" + (f" {operator} ".join(bits) if len(bits) == 2 else f"{operator}{bits[0]}") + ")", signed)

    return rule


def _sign(e: Emitter, args: list[str], dtype: DType, width: int) -> str:
    (x,), zero, one = args, e.literal(0, dtype, width), e.literal(1, dtype, width)
    if dtype.kind == "u":
        return f"{x} != {zero} ? {one} : {zero}"
    return f"{x} > {zero} ? {one} : ({x} < {zero} ? {e.literal(-1, dtype, width)} : {x})"


def _relu(e: Emitter, args: list[str], dtype: DType, width: int) -> str:
    zero = e.literal(0, dtype, width)
    return args[0] if dtype.kind == "u" else f"{args[0]} < {zero} ? {zero} : {args[0]}"


def _abs(e: Emitter, args: list[str], dtype: DType, width: int) -> str:
    if dtype.kind == "u":
        return args[0]
    zero = e.literal(0, dtype, width)
    negated = _wrapping("-")(e, [zero, args[0]], dtype, width)
    return f"{args[0]} <= {zero} ? {negated} : {args[0]}"  # not <: the absolute value of -0 is 0


_RULES: dict[str, Rule] = {
    "copy": _format("{0}"),
    "neg": _wrapping("-"),
    "abs": _abs,
    "sign": _sign,
    "reciprocal": _format("{one} / {0}"),
    "relu": _relu,
    "isnan": _compare("{0} != {0}", ""),
    "isfinite": _compare("{0} - {0} == {zero}", ""),
    "logical_not": _format("({0} == 0)"),
    "bitwise_not": _format("~{0}"),
    "add": _wrapping("+"),
    "sub": _wrapping("-"),
    "mul": _wrapping("*"),
    "div": _format("{0} / {1}"),
    "maximum": _extreme(">", "|"),
    "minimum": _extreme("<", "&"),
    "lt": _compare("{0} < {1}", "(({0} == 0) & ({1} != 0))"),
    "le": _compare("{0} <= {1}", "(({0} == 0) | ({1} != 0))"),
    "eq": _compare("{0} == {1}", "(({0} != 0) == ({1} != 0))"),
    "ne": _compare("{0} != {1}", "(({0} != 0) != ({1} != 0))"),
    "bitwise_and": _format("{0} & {1}"),
    "bitwise_or": _format("{0} | {1}"),
    "bitwise_xor": _format("{0} ^ {1}"),
}
