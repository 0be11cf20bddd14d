"""Where elements lie, computed in two parts: what changes with the rows of a tile, and what changes with the terms.

The index of a source is a sum of parts of either kind (``fixed``: of the rows or columns, known before the sum begins;
``moving``: of its terms), so that little is left to do for each element: an addition, and comparisons where
there is padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minigrad import dtypes
from minigrad.backends.cstyle.body import At, Emitter
from minigrad.backends.cstyle.templates.tiled_product import Array, Place, Places, Variables, count
from minigrad.dtypes import DType
from minigrad.view import View

Names = Mapping[str, str]


def accumulator(dtype: DType) -> DType:
    """The dtype of sums and of what is staged: float32 for half types; integers wrap as unsigned ones do."""
    if dtype.is_integer:
        return dtypes.uint64 if dtype.itemsize == 8 else dtypes.uint32
    return dtypes.float32 if dtype.is_half else dtype


def total(terms: Sequence[str]) -> str:
    """A sum in C."""
    return " + ".join(terms) or "0"


def scaled(value: str, scale: int, suffix: str = "") -> str:
    """A product with a constant in C."""
    return value if scale == 1 and not suffix else f"{value} * {scale}{suffix}"


def digit(flat: str, variables: Variables, first: int, last: int) -> str:
    """The number that ``variables[first : last + 1]`` make in a position over all ``variables``."""
    inner, own = count(variables[last + 1 :]), count(variables[first : last + 1])
    if own == 1:
        return "0"
    text = flat if inner == 1 else f"{flat} / {inner}"
    return text if first == 0 else f"{text} % {own}"


def decoded(flat: str, variables: Variables, index: str, suffix: str = "") -> tuple[list[str], dict[str, str]]:
    """Statements that take a position over ``variables`` apart, and the names of the parts."""
    names = {v.name: v.name + suffix for v in variables}
    parts = enumerate(variables)
    return [f"const {index} {names[v.name]} = {digit(flat, variables, n, n)};" for n, v in parts], names


def index_at(place: Place, names: Names) -> At:
    """An index, before its division."""
    terms = [scaled(names[name], scale) for name, scale in place.terms]
    if len(place.terms) == 1:
        ((name, scale),) = place.terms
        return At(names[name], scale, place.offset)
    return At(total(terms), 1, place.offset) if terms else At(offset=place.offset)


def check(place: Place, value: str, index: str) -> list[str]:
    """Conditions under which there is an element, for an index before its division."""
    inside = f"(u{index})({value}) < {place.size * place.divisor}u"
    return [inside] if place.divisor == 1 else [inside, f"({value}) % {place.divisor} == 0"]


def checks(places: Places, names: Names, sizes: Mapping[str, int], index: str) -> list[str]:
    """Conditions under which there is an element."""
    found = [check(p, str(index_at(p, names)), index) for p in places if p.needs_check(sizes)]
    return [part for parts in found for part in parts]


def element(emitter: Emitter, array: Array, address: str) -> str:
    """An element of a source in the accumulator's type."""
    operand = array.operand
    value = f"b{operand.buffer}[{address}]"
    if operand.dtype.is_half:
        return f"{emitter.functions.call(f'{operand.dtype.name}_to_float32', 1)}({value})"
    wide = accumulator(operand.dtype)
    return value if wide is operand.dtype else emitter.dialect.cast(value, emitter.type(wide))


def address_at(emitter: Emitter, array: Array, names: Names) -> str:
    """Where the element of a source for given variables lies, if there is one."""
    at = [index_at(p, names) if p.divisor == 1 else At(f"({index_at(p, names)}) / {p.divisor}") for p in array.places]
    return emitter.address(array.operand.view, at)


def element_at(emitter: Emitter, array: Array, names: Names) -> str:
    """The element of a source for given variables, where there is one."""
    return element(emitter, array, address_at(emitter, array, names))


class Access:
    """The elements of a source by two positions: one over ``fixed`` variables, one over ``moving`` ones.

    Args:
        emitter: of the kernel.
        array: the source.
        fixed: variables of the rows or columns, outermost first.
        moving: variables of the sum.
        sizes: of all variables.
    """

    def __init__(
        self, emitter: Emitter, array: Array, fixed: Variables, moving: Variables, sizes: Mapping[str, int]
    ) -> None:
        self.emitter, self.array = emitter, array
        self.fixed, self.moving = fixed, moving
        self.index = emitter.index_type
        self.suffix = "L" if self.index == "long" else ""
        view, fixes, moves = array.operand.view, {v.name for v in fixed}, {v.name for v in moving}
        # Axes whose index is needed as such: to be compared, or because the address is not linear in it.
        self.checked = [axis for axis, p in enumerate(array.places) if p.needs_check(sizes)]
        self.bent = [a for a, p in enumerate(array.places) if p.divisor > 1 or view.is_blocked(a)]
        self.homes: dict[int, str] = {}  # where the index is known: in one of the parts, or in both together
        for axis in {*self.checked, *self.bent}:
            names = {name for name, _ in array.places[axis].terms}
            self.homes[axis] = "fixed" if not names & moves else "both" if names & fixes else "moving"

    def _linear(self) -> list[int]:
        return [axis for axis in range(len(self.array.places)) if axis not in self.bent]

    def _coefficient(self, name: str) -> int:
        strides = self.array.operand.view.strides
        terms = ((strides[axis], term) for axis in self._linear() for term in self.array.places[axis].terms)
        return sum(stride * scale for stride, (variable, scale) in terms if variable == name)

    def _address(self, variables: Variables, flat: str, names: Names) -> list[str]:
        """Terms of the address; variables that one stride leads through are taken together."""
        terms, last = [], len(variables) - 1
        while last >= 0:
            step, first = self._coefficient(variables[last].name), last
            if variables[last].name in names:
                terms += [scaled(names[variables[last].name], step, self.suffix)] * (step != 0)
                last -= 1
                continue
            while (
                first > 0
                and variables[first - 1].name not in names
                and self._coefficient(variables[first - 1].name) == step * count(variables[first : last + 1])
            ):
                first -= 1
            if step:
                number = digit(flat, variables, first, last)
                terms.append(scaled(number if number == flat else f"({number})", step, self.suffix))
            last = first - 1
        return terms

    def part(self, tag: str, kind: str, flat: str, known: Names) -> tuple[list[str], list[str]]:
        """Statements for one position of a kind, and its conditions. They give ``{tag}`` and ``{tag}_{axis}``.

        Args:
            tag: what names begin with.
            kind: ``"fixed"`` or ``"moving"``.
            flat: the position.
            known: names of the other variables, those of the batch.
        """
        variables = self.fixed if kind == "fixed" else self.moving
        own = {v.name for v in variables}
        places = self.array.places
        homes = {axis: home for axis, home in self.homes.items() if home in (kind, "both")}
        needed = {name for axis in homes for name, _ in places[axis].terms} & own
        statements, names = [], {}
        for n, variable in enumerate(variables):
            if variable.name in needed:
                names[variable.name] = f"{tag}_{variable.name}"
                statements.append(f"const {self.index} {tag}_{variable.name} = {digit(flat, variables, n, n)};")
        address, conditions = self._address(variables, flat, names), []
        if kind == "fixed":
            address += self._rest(known)
        for axis, home in sorted(homes.items()):
            place = places[axis]
            if home == "both":  # the constants count with the fixed part
                mine = own if kind == "moving" else own | set(known)
                terms = tuple(term for term in place.terms if term[0] in mine)
                place = place._replace(terms=terms, offset=place.offset if kind == "fixed" else 0)
            value = str(index_at(place, {**known, **names}))
            statements.append(f"{self.index} {tag}_{axis} = {value};")  # if const, compilers warn of known results
            if home == kind:
                conditions += self._conditions(axis, f"{tag}_{axis}")
                address += self._bent_address(axis, f"{tag}_{axis}")
        statements.append(f"const {self.index} {tag} = {total(address)};")
        return statements, conditions

    def _offset(self) -> int:
        view = self.array.operand.view
        return view.offset + sum(view.strides[a] * self.array.places[a].offset for a in self._linear())

    def _rest(self, known: Names) -> list[str]:
        """Terms of the address that no position changes."""
        offset = self._offset()
        terms = [scaled(value, step, self.suffix) for n, value in known.items() if (step := self._coefficient(n))]
        return terms + [f"{offset}{self.suffix}"] * (offset != 0)

    def _conditions(self, axis: int, value: str) -> list[str]:
        return check(self.array.places[axis], value, self.index) if axis in self.checked else []

    def _bent_address(self, axis: int, value: str) -> list[str]:
        if axis not in self.bent:
            return []
        view, divisor = self.array.operand.view, self.array.places[axis].divisor
        blocks = view.blocks and (view.blocks[axis],)
        alone = View((view.shape[axis],), (view.strides[axis],), blocks=blocks)
        return [self.emitter.address(alone, [At(value if divisor == 1 else f"({value}) / {divisor}")])]

    def place(self, fixed: str, moving: str, conditions: Sequence[str]) -> tuple[str, list[str]]:
        """The address where two parts meet, and ``conditions`` and its own under which there is an element."""
        address, conditions = [fixed, moving], list(conditions)
        for axis in (axis for axis, home in sorted(self.homes.items()) if home == "both"):
            value = f"{fixed}_{axis} + {moving}_{axis}"
            conditions += self._conditions(axis, value)
            address += self._bent_address(axis, value)
        return total(address), conditions

    def load(self, fixed: str, moving: str, conditions: Sequence[str]) -> str:
        """The element where two parts meet, or 0 where there is none."""
        address, conditions = self.place(fixed, moving, conditions)
        loaded = element(self.emitter, self.array, address)
        return f"{' && '.join(conditions)} ? {loaded} : 0" if conditions else loaded

    def is_run(self, variables: Variables, length: int) -> bool:
        """Whether ``length`` values of the last variable, from a multiple on, are neighbours that exist together."""
        if not variables or variables[-1].size % length or self._coefficient(variables[-1].name) != 1:
            return False
        last, places = variables[-1].name, self.array.places
        if any(name == last for axis in self.homes for name, _ in places[axis].terms):
            return False
        others = {name for place in places for name, _ in place.terms} - {last}
        strides = self.array.operand.view.strides
        bent = [strides[axis] for axis in self.bent] + [outer for _, outer in self.array.operand.view.blocks or ()]
        steps = [self._offset(), *bent, *map(self._coefficient, others)]
        return all(step % length == 0 for step in steps)
