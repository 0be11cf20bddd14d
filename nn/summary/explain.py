"""How the figures of a layer come about: the formulas with their numbers, and whether a window fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, overload

from minigrad.errors import ShapeError
from minigrad.nn.summary.layers import Core, Layer
from minigrad.nn.summary.table import times, title
from minigrad.shapes import Shape, Window, per_axis, per_axis_padding

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


class Fit(NamedTuple):
    """A window along one axis: N positions, extent F, padding, stride S."""

    size: int
    extent: int
    before: int
    after: int
    stride: int
    ceil_mode: bool
    outputs: int

    @property
    def room(self) -> int:
        """N - F + 2P."""
        return self.size - self.extent + self.before + self.after

    @property
    def formula(self) -> str:
        """The output formula with its numbers."""
        pads = f"2*{self.before}" if self.before == self.after else f"{self.before} + {self.after}"
        return f"({self.size} - {self.extent} + {pads})/{self.stride} + 1"

    @property
    def exact(self) -> str:
        """What the formula gives, to two digits where that is no whole number."""
        value = Fraction(self.room, self.stride) + 1
        return str(value) if value.denominator == 1 else f"{float(value):.2f}".rstrip("0")

    @property
    def fits(self) -> bool:
        """Whether (N - F + 2P)/S is whole."""
        return self.room % self.stride == 0

    @property
    def rounding(self) -> str:
        """What was made of a number that is not whole."""
        rest = self.room - (self.outputs - 1) * self.stride
        if rest < 0:
            return f"rounded up to {self.outputs}, the last window hangs over the end by {_positions(-rest)}"
        down = f"rounded down to {self.outputs}, "
        if self.ceil_mode:
            down += "as one more window would begin beyond the input, "
        unseen = rest - self.after
        return down + (f"the last {_positions(unseen)} of {self.size} unseen" if unseen > 0 else "only padding unseen")

    def better_padding(self) -> int | None:
        """The least symmetric padding, smaller than the window, with which it fits."""
        return next((p for p in range(self.extent) if (self.size - self.extent + 2 * p) % self.stride == 0), None)


def _fits(window: Window, spatial: Shape, counts: Shape) -> list[Fit]:
    return [
        Fit(size, window.extent(axis), *window.padding[axis], window.stride[axis], window.ceil_mode, counts[axis])
        for axis, size in enumerate(spatial)
    ]


@overload
def output_size(size: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int: ...
@overload
def output_size(
    size: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
) -> Shape: ...
def output_size(size, kernel_size, stride=1, padding=0, dilation=1):  # type: ignore[no-untyped-def]
    """(N - F + 2P)/S + 1 where that is whole; the layers themselves round it down, or up with ``ceil_mode``.

    Args:
        size: N, one number or one per axis; so the next four.
        kernel_size: taps of the window; it spans F = dilation * (kernel_size - 1) + 1 positions.
        stride: S.
        padding: P, or pairs (before, after).
        dilation: distance between taps.

    Raises:
        ShapeError: if the window does not fit: the number is not whole, or less than 1.

    >>> output_size(7, 3), output_size(7, 3, stride=2), output_size((227, 227), 11, stride=4)
    (5, 3, (55, 55))
    >>> output_size(7, 3, stride=3)
    Traceback (most recent call last):
    minigrad.errors.ShapeError: output_size: expected (N - F + 2P)/S + 1 to be whole,
      got (7 - 3 + 2*0)/3 + 1 = 2.33: does not fit
      hint: rounded down to 2, the last 1 position of 7 unseen; padding=1 fits
    """
    op, one = "output_size", not isinstance(size, Sequence)
    spatial = (size,) if one else tuple(size)
    rank = len(spatial)
    window = Window(
        per_axis(op, "kernel_size", kernel_size, rank, 1),
        per_axis(op, "stride", stride, rank, 1),
        per_axis_padding(op, padding, rank),
        per_axis(op, "dilation", dilation, rank, 1),
    )
    counts = window.output_size(op, spatial)
    for fit in _fits(window, spatial, counts):
        if not fit.fits:
            better = fit.better_padding()
            hint = fit.rounding + (f"; padding={better} fits" if better is not None else "")
            got = f"{fit.formula} = {fit.exact}: does not fit"
            raise ShapeError.of(op, "(N - F + 2P)/S + 1 to be whole", got, hint)
    return counts[0] if one else counts


def explained(layer: Layer) -> str:
    """The figures of ``layer``, each with its formula."""
    found = [("input", times(layer.input))]
    core = layer.cores[0] if len(layer.cores) == 1 else None
    if core is not None and (core.window is None or core.input == layer.input):
        found += [("output", line) for line in _sizes(core)]
    if core is None or core.output != layer.output or core.input != layer.input:
        found.append(("output", times(layer.output)))
    found.append(("parameters", _parameters(layer)))
    found += [("multiply-adds", _products(core)) for core in layer.cores if core.macs]
    if layer.parts:
        found.append(("multiply-adds", f"{layer.macs:,}, in {', '.join(layer.parts)}"))
    found.append(("activations", _activations(layer)))
    found += [("receptive field", line) for line in _field(layer)]
    labels = [label if label != before else "" for (label, _), (before, _) in zip(found, [("", ""), *found])]
    rows = (f"  {label:<15}  {text}" for label, (_, text) in zip(labels, found))
    return "\n".join([f"{layer.name}: {title(layer)}", *rows])


def _sizes(core: Core) -> Iterator[str]:
    """The output formula along each axis, or along all where it is the same."""
    window = core.window
    if window is None:
        yield times(core.output)
        return
    if core.op == "conv_input_grad":
        found = [_transposed(window, axis, *sizes) for axis, sizes in enumerate(zip(core.input[1:], core.output[1:]))]
    else:
        found = [_sliding(fit, window, axis) for axis, fit in enumerate(_fits(window, core.input[1:], core.output[1:]))]
    yield from _by_axis(found)
    what = "filter" if core.op == "conv" else "channel"
    yield f"{core.output[0]} {what}{'s' * (core.output[0] != 1)}: {times(core.output)}"


def _sliding(fit: Fit, window: Window, axis: int) -> str:
    start = ""
    if window.dilation[axis] > 1:
        start = f"F = {window.dilation[axis]}*({window.kernel[axis]} - 1) + 1 = {fit.extent}, "
    text = f"{start}(N - F + 2P)/S + 1 = {fit.formula} = {fit.exact}"
    return text if fit.fits else f"{text}: does not fit; {fit.rounding}"


def _transposed(window: Window, axis: int, size: int, count: int) -> str:
    before, after = window.padding[axis]
    numbers = f"({size} - 1)*{window.stride[axis]} + {window.extent(axis)} - {before} - {after}"
    more = count - (size - 1) * window.stride[axis] - window.extent(axis) + before + after
    return f"(N - 1)*S + F - 2P = {numbers}{f' + {more}' if more else ''} = {count}"


def _by_axis(texts: list[str]) -> Iterator[str]:
    if len(set(texts)) == 1:
        yield (f"{' and '.join(AXES[len(texts)])}: " if len(texts) > 1 else "") + texts[0]
    else:
        yield from (f"{name}: {text}" for name, text in zip(AXES[len(texts)], texts))


def _parameters(layer: Layer) -> str:
    """The formula of a convolution or a matrix product; for other layers the sizes of their tensors."""
    total = f"{layer.params:,}" + (f" ({layer.weights:,} without biases)" if layer.weights != layer.params else "")
    shapes = [shape for _, shape in layer.tensors]
    if not shapes or layer.parts:
        return total
    core = layer.cores[0] if len(layer.cores) == 1 else None
    if core is not None and core.macs and len(shapes[0]) > 1 and all(len(shape) == 1 for shape in shapes[1:]):
        biases = "".join(f" + {shape[0]}" for shape in shapes[1:])
        symbols = ("D1*K" if core.window is None else _filter(core)[0] + "*K") + " + K" * len(shapes[1:])
        weight = f"{shapes[0][1]}*{shapes[0][0]}" if core.window is None else f"{_filter(core)[1]}*{core.output[0]}"
        return f"{symbols} = {weight}{biases} = {total}"
    named = (f"{name.rpartition('.')[2]} {times(shape) or 1}" for name, shape in layer.tensors)
    return f"{' + '.join(named)} = {total}"


def _filter(core: Core) -> tuple[str, str]:
    """The weights of one filter of a convolution, in symbols and in numbers."""
    assert core.window is not None
    dilated = set(core.window.dilation) != {1}
    depth = "D1" if core.groups == 1 else f"(D1/{core.groups})"
    symbols = "*".join([*("k" if dilated else "F") * core.window.rank, depth])
    return symbols, "*".join(map(str, (*core.window.kernel, core.input[0] // core.groups)))


def _products(core: Core) -> str:
    if core.window is None:
        inner = core.input[-1]
        return f"D1 for each value: {inner} * {_product(core.output)} = {core.macs:,}"
    if core.op == "conv_input_grad":
        return f"{_product(core.weight[1:])} for each value of the input: {_product(core.input)} = {core.macs:,}"
    symbols, numbers = _filter(core)
    return f"{symbols} for each value: {numbers} * {_product(core.output)} = {core.macs:,}"


def _activations(layer: Layer) -> str:
    if not layer.activations:
        return "none of its own: its parts are written in place"
    written_out = len(layer.output) > 1 and math.prod(layer.output) == layer.activations
    product = f"{_product(layer.output)} = " if written_out else ""
    return f"{product}{layer.activations:,} values, {layer.activation_bytes:,} bytes"


def _field(layer: Layer) -> Iterator[str]:
    """How the receptive field grew, along each dimension of the image."""
    if set(layer.receptive_field) <= {None}:
        if layer.receptive_field:
            yield "all pixels"
        return
    window = layer.window
    found = []
    for axis, (extent, stride) in enumerate(zip(layer.receptive_field, layer.stride)):
        if extent is None:
            found.append("all pixels")
            continue
        text = f"{extent} pixel{'s' * (extent != 1)}"
        if window is not None and stride is not None and layer.cores[0].op != "conv_input_grad":
            taps, step = window.extent(axis) - 1, Fraction(stride, window.stride[axis])
            text = f"R + (F - 1)*T = {extent - taps * step} + ({taps + 1} - 1)*{step} = {text}"
        found.append(text + (f", {stride} from one to the next" if stride is not None else ""))
    yield from _by_axis(found)


def _product(shape: Shape) -> str:
    return "*".join(map(str, shape))


def _positions(count: int) -> str:
    return f"{count} position{'s' * (count != 1)}"
