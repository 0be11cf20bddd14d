"""The matrix product in a matrix product, a convolution and its two adjoints: which elements meet in which sum.

Each is ``out[b, m, n] = sum over k of left[b, m, k] * right[b, k, n]``, where b, m, n and k stand for several variables
each, and an index along an axis of an array is a weighted sum of such variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minigrad.kernel import Kernel, Operand
from minigrad.shapes import Shape
from minigrad.view import View


class Variable(NamedTuple):
    """What runs over ``range(size)``."""

    name: str
    size: int


class Place(NamedTuple):
    """An index along one axis of an array: ``(offset + sum of scale * variable) / divisor``.

    There is no element, a zero instead, where the index is not in ``range(size)`` or the division leaves a rest.
    """

    terms: tuple[tuple[str, int], ...]
    size: int
    offset: int = 0
    divisor: int = 1

    def needs_check(self, sizes: Mapping[str, int]) -> bool:
        """Whether some values of the variables have no element."""
        ends = [scale * (sizes[name] - 1) for name, scale in self.terms]
        low = self.offset + sum(e for e in ends if e < 0)
        high = self.offset + sum(e for e in ends if e > 0)
        return self.divisor > 1 or low < 0 or high >= self.size


Variables = tuple[Variable, ...]
Places = tuple[Place, ...]


class Array(NamedTuple):
    """A source: where it lies, and which of its elements is meant."""

    operand: Operand
    places: Places


@dataclass(frozen=True)
class Product:
    """A core as ``out[b, m, n] = sum over k of left[b, m, k] * right[b, k, n]``.

    Attributes:
        batch: variables of b, outermost first.
        m: variables of the rows.
        n: variables of the columns: neighbours are neighbours in the output's memory, if any are.
        k: variables of the sum.
        left: the source that depends on b, m and k.
        right: the source that depends on b, k and n.
        out: index of the output.
        omits: terms without an element are no terms at all; otherwise zeros, and zero times infinity is NaN.
    """

    batch: Variables
    m: Variables
    n: Variables
    k: Variables
    left: Array
    right: Array
    out: Places
    omits: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes by name."""
        return dict((*self.batch, *self.m, *self.n, *self.k))

    @property
    def swapped(self) -> Product:
        """The same sums of the transposed output."""
        return replace(self, m=self.n, n=self.m, left=self.right, right=self.left)


def count(variables: Iterable[Variable]) -> int:
    """How many values variables have together."""
    return math.prod(v.size for v in variables)


def product_of(kernel: Kernel) -> Product:
    """A kernel's core as a product, its variables in the order in which memory is best walked through."""
    a, b = (_source(kernel, n) for n in (0, 1))
    found = _PRODUCTS[kernel.op](kernel.attrs, a, b, kernel.core_shapes[0])
    stored = kernel.outputs[kernel.stores[0][1]].view

    def ordered(variables: Variables, view: View, places: Places) -> Variables:
        kept = [v for v in variables if v.size != 1]
        return tuple(sorted(kept, key=lambda v: -abs(step(view, places, v.name))))

    def nearest(variables: Variables) -> float:
        steps = [abs(step(stored, found.out, v.name)) for v in variables if v.size != 1]
        return min(filter(None, steps), default=math.inf)

    def moving(places: Places) -> Places:
        return tuple(p._replace(terms=tuple(term for term in p.terms if sizes[term[0]] != 1)) for p in places)

    if nearest(found.m) < nearest(found.n):
        found = found.swapped
    sizes = found.sizes
    left, right = ((array.operand.view, array.places) for array in (found.left, found.right))
    larger = max(left, right, key=lambda side: math.prod(side[0].shape))
    return Product(
        batch=ordered(found.batch, stored, found.out),
        m=ordered(found.m, *left),
        n=ordered(found.n, *right),
        k=ordered(found.k, *larger),
        left=found.left._replace(places=moving(found.left.places)),
        right=found.right._replace(places=moving(found.right.places)),
        out=moving(found.out),
        omits=found.omits,
    )


def _source(kernel: Kernel, number: int) -> Operand:
    operand: Operand = kernel.inputs[kernel.prologue[kernel.sources[number]].attr]
    view = operand.view.moved("reshape", (kernel.source_shapes[number],))
    assert view is not None, "axes of size 1 come and go"
    return operand._replace(view=view)


def step(view: View, places: Places, name: str) -> int:
    """How far apart in memory neighbouring values of a variable lie."""
    total = 0
    for axis, place in enumerate(places):
        size, outer = view.blocks[axis] if view.blocks is not None else (0, 0)
        for variable, scale in place.terms:
            if variable == name:
                total += scale // size * outer if size and scale % size == 0 else scale * view.strides[axis]
    return total


def _at(size: int, *names: str) -> Place:
    """An index that is a variable, or 0 where there is one element."""
    return Place(tuple((name, 1) for name in names), size)


def _matmul(attrs: Any, a: Operand, b: Operand, out: Shape) -> Product:
    rank = len(out)
    groups: dict[str, list[Variable]] = {"b": [], "m": [Variable("m", out[-2])], "n": [Variable("n", out[-1])]}
    places: tuple[list[Place], list[Place], list[Place]] = ([], [], [])
    for axis, size in enumerate(out[:-2]):
        name, owns = f"z{axis}", []
        for view, mine in zip((a.view, b.view), places):
            own = axis - rank + len(view.shape)
            if own >= 0:
                owns.append(view.shape[own] != 1 and view.strides[own] != 0)
                mine.append(_at(view.shape[own], *[name] * owns[-1]))
            else:
                owns.append(False)
        # What one source alone depends on is more rows or more columns.
        role = "m" if owns == [True, False] else "n" if owns == [False, True] else "b"
        groups[role].insert(-1 if role != "b" else len(groups["b"]), Variable(name, size))
        places[2].append(_at(size, name))
    inner = a.view.shape[-1]
    places[0].extend([_at(out[-2], "m"), _at(inner, "k")])
    places[1].extend([_at(inner, "k"), _at(out[-1], "n")])
    places[2].extend([_at(out[-2], "m"), _at(out[-1], "n")])
    left, right, target = map(tuple, places)
    batch, m, n = (tuple(groups[role]) for role in "bmn")
    return Product(batch, m, n, (Variable("k", inner),), Array(a, left), Array(b, right), target)


class _Channels(NamedTuple):
    """The variables of filters f and channels c within group g, and their indices."""

    group: Variable
    f: Variable
    c: Variable
    filters: Place
    channels: Place

    @classmethod
    def of(cls, groups: int, filters: int, channels: int) -> _Channels:
        f, c = Variable("f", filters // groups), Variable("c", channels // groups)
        return cls(
            Variable("g", groups),
            f,
            c,
            Place((("g", f.size), ("f", 1)), filters),
            Place((("g", c.size), ("c", 1)), channels),
        )


def _spatial(prefix: str, sizes: Sequence[int]) -> Variables:
    return tuple(Variable(f"{prefix}{axis}", size) for axis, size in enumerate(sizes))


def _places(variables: Variables) -> Places:
    return tuple(_at(v.size, v.name) for v in variables)


def _read(window: Any, sizes: Sequence[int]) -> Places:
    """Where tap t of output o reads the input."""
    return tuple(
        Place(((f"o{axis}", window.stride[axis]), (f"t{axis}", window.dilation[axis])), size, -window.padding[axis][0])
        for axis, size in enumerate(sizes)
    )


def _conv(attrs: Any, x: Operand, w: Operand, out: Shape) -> Product:
    window, (samples, _, *sizes) = attrs.window, x.view.shape
    ch = _Channels.of(attrs.groups, out[1], x.view.shape[1])
    s, o, t = Variable("s", samples), _spatial("o", out[2:]), _spatial("t", window.kernel)
    return Product(
        batch=(ch.group,),
        m=(ch.f,),
        n=(s, *o),
        k=(ch.c, *t),
        left=Array(w, (ch.filters, _at(ch.c.size, "c"), *_places(t))),
        right=Array(x, (_at(samples, "s"), ch.channels, *_read(window, sizes))),
        out=(_at(samples, "s"), ch.filters, *_places(o)),
    )


def _weight_grad(attrs: Any, x: Operand, g: Operand, out: Shape) -> Product:
    window, (samples, channels, *sizes) = attrs.window, x.view.shape
    ch = _Channels.of(attrs.groups, out[0], channels)
    s, o, t = Variable("s", samples), _spatial("o", g.view.shape[2:]), _spatial("t", window.kernel)
    return Product(
        batch=(ch.group,),
        m=(ch.f,),
        n=(ch.c, *t),
        k=(s, *o),
        left=Array(g, (_at(samples, "s"), ch.filters, *_places(o))),
        right=Array(x, (_at(samples, "s"), ch.channels, *_read(window, sizes))),
        out=(ch.filters, _at(ch.c.size, "c"), *_places(t)),
    )


def _input_grad(attrs: Any, g: Operand, w: Operand, out: Shape) -> Product:
    """With strides, input positions of one phase (position modulo stride) meet the same taps: each is a batch."""
    window, (samples, filters, *outputs) = attrs.window, g.view.shape
    ch = _Channels.of(attrs.groups, filters, out[1])
    s = Variable("s", samples)
    phases: list[Variable] = []
    positions: list[Variable] = []
    taps: list[Variable] = []
    weight: list[Place] = []
    given: list[Place] = []
    target: list[Place] = []
    for axis, (size, kernel, stride, (before, _)) in enumerate(
        zip(out[2:], window.kernel, window.stride, window.padding)
    ):
        p, t, r = f"p{axis}", f"t{axis}", f"r{axis}"
        dilation = window.dilation[axis] if kernel > 1 else 1
        if stride == 1 or dilation > 1:
            positions.append(Variable(p, size))
            taps.append(Variable(t, kernel))
            weight.append(_at(kernel, t))
            given.append(Place(((p, 1), (t, -dilation)), outputs[axis], before, stride))
            target.append(_at(size, p))
            continue
        # Position stride * (first + p) + r - before takes tap stride * t + r of output first + p - t.
        first, last = before // stride, (size - 1 + before) // stride
        phases.append(Variable(r, stride))
        positions.append(Variable(p, last - first + 1))
        taps.append(Variable(t, -(-kernel // stride)))
        weight.append(Place(((r, 1), (t, stride)), kernel))
        given.append(Place(((p, 1), (t, -1)), outputs[axis], first))
        target.append(Place(((p, stride), (r, 1)), size, stride * first - before))
    return Product(
        batch=(ch.group, *phases),
        m=(ch.c,),
        n=(s, *positions),
        k=(ch.f, *taps),
        left=Array(w, (ch.filters, _at(ch.c.size, "c"), *weight)),
        right=Array(g, (_at(samples, "s"), ch.filters, *given)),
        out=(_at(samples, "s"), ch.channels, *target),
        omits=True,
    )


_PRODUCTS: dict[str, Callable[[Any, Operand, Operand, Shape], Product]] = {
    "matmul": _matmul,
    "conv": _conv,
    "conv_input_grad": _input_grad,
    "conv_weight_grad": _weight_grad,
}
CORES = tuple(_PRODUCTS)
