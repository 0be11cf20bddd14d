"""What conv and its input gradient have in common, and how their sums are cut into register tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.taps import Phase, phases, runs, shares
from minigrad.dtypes import DType
from minigrad.kernel import Kernel, Operand
from minigrad.shapes import Shape, Window
from minigrad.view import Block, Order, View

LONGEST = 16  # taps, or phases, of the last axis that are written out
CACHED = 3 * 2**17  # bytes of one source that stay in cache while the other passes by
NEAR = 2**14  # bytes that stay in the first cache
BATCH = 16  # images from which batch lanes pay
COLOURS = 4  # channels of an image at most


class Sum:
    """Conv or its input gradient as ``out[n, f, q] = sum over c and taps of x[n, c, position] * w[f, c, tap]``.

    Attributes:
        x: operand number of the first source; ``w`` of the second.
        batch: images; ``filters`` and ``channels`` of a group: what of the output is computed from what of ``x``.
        groups: how many; 1 where each group has one of both.
        depthwise: whether filter ``f`` reads channel ``f`` alone.
        leading: spatial axes whose bounds are found at run time.
        phases: of the last spatial axis; a single position where that axis is among the leading ones.
        filter_axis: of the weight; ``channel_axis`` likewise.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.adjoint = kernel, kernel.op == "conv_input_grad"
        self.window: Window = kernel.attrs.window
        self.x, self.w = (int(kernel.prologue[s].attr) for s in kernel.sources)
        self.dtype = kernel.prologue[kernel.sources[0]].dtype
        self.outputs, inputs = kernel.core_shapes[0], kernel.source_shapes[0]
        self.groups: int = kernel.attrs.groups
        self.batch = self.outputs[0]
        self.filters, self.channels = self.outputs[1] // self.groups, inputs[1] // self.groups
        self.filter_axis, self.channel_axis = (1, 0) if self.adjoint else (0, 1)
        self.depthwise = self.groups > 1 and self.filters == self.channels == 1
        if self.depthwise:
            self.filters, self.groups = self.groups, 1
            self.filter_axis, self.channel_axis = 0, 1
        rank: int = self.window.rank
        self.spatial = inputs[2:]
        found = phases(self.window, rank - 1, self.outputs[-1], self.adjoint)
        blocked = any(operand.view.is_blocked(rank + 1) for operand in (self.source, self.weight))
        taps = max((len(p.taps) for p in found), default=0)
        spread = blocked or len(found) > LONGEST or taps > LONGEST
        self.leading: int = rank if spread else rank - 1
        self.phases = [Phase(0, 1, 1, 1, ((0, 0),))] if spread else found
        self.width = 1 if spread else self.spatial[-1]

    @property
    def source(self) -> Operand:
        """The operand that is read in windows."""
        return self.kernel.inputs[self.x]

    @property
    def weight(self) -> Operand:
        """The operand that every position reads."""
        return self.kernel.inputs[self.w]

    @property
    def spread(self) -> bool:
        """Whether the last axis is among the leading ones."""
        return self.leading == self.window.rank

    @property
    def rows(self) -> Shape:
        """Output sizes of the leading axes."""
        return self.outputs[2 : 2 + self.leading]


class Tile(NamedTuple):
    """Accumulators that stay in registers.

    Attributes:
        lanes: what the lanes of a vector are: ``"n"`` images, ``"f"`` filters, ``"w"`` positions of the last axis, or
            ``""``.
        width: of a vector.
        images: vectors of images with lanes ``"n"``, else images.
        points: along the last axis: vectors with lanes ``"w"``, else positions.
        filters: vectors of filters with lanes ``"f"``, else filters.
    """

    lanes: str
    width: int
    images: int
    points: int
    filters: int


def tiles(kernel: Kernel, target: Target) -> list[Tile]:
    """Tiles that fit ``target``, best first by estimate."""
    return [tile for _, tile in sorted(_candidates(Sum(kernel), target))]


class _Work(NamedTuple):
    """What a tile does for one channel and one tap of the leading axes, per image and filter."""

    tiles: int
    points: int
    products: int
    loads: int  # of the source
    taps: int  # that are read of the weight
    longest: int  # products in a row on one accumulator


def _work(sum_: Sum, lanes: str, width: int, points: int) -> list[_Work]:
    found = []
    for phase in sum_.phases:
        for run in runs(phase, sum_.width, points, width if lanes == "w" else 1):
            used = [
                (start * phase.move + offset, valid)
                for (_, offset), inside in zip(phase.taps, run.valid)
                for start, valid in zip(run.points, inside)
                if valid[0] < valid[1]
            ]
            # With filter lanes taps are passes of their own; otherwise they share what they read.
            places = used if lanes == "f" else set(used)
            loads = sum(1 if lanes != "w" or valid == (0, width) else width for _, valid in places)
            taps = [sum(low < high for low, high in inside) for inside in run.valid]
            each = [sum(inside[n][0] < inside[n][1] for inside in run.valid) for n in range(len(run.points))]
            found.append(_Work(run.tiles, len(each), len(used), loads, sum(map(bool, taps)), max(each)))
    return found


def _candidates(sum_: Sum, target: Target) -> Iterator[tuple[float, Tile]]:
    leading = math.prod(sum_.window.kernel[: sum_.leading]) * sum_.channels
    for lanes, width in _lanes(sum_, target):
        vector = width * itemsize(sum_.dtype)
        registers = max(3, target.registers * target.lanes * 4 // max(vector, target.lanes * 4))
        filters = sum_.filters // (width if lanes == "f" else 1)
        images = sum_.batch // (width if lanes == "n" else 1)
        longest = max(-(-p.length // (width if lanes == "w" else 1)) for p in sum_.phases)
        scattered = any(not _stored(sum_, lanes, o) for o in sum_.kernel.outputs)
        kernel_bytes = vector * math.prod(sum_.window.kernel) * sum_.channels
        for q in range(1, min(longest, registers) + 1):
            work = _work(sum_, lanes, width, q)
            for f in range(1, min(filters, registers // q) + 1):
                for b in (b for b in range(1, registers // (f * q) + 1) if images % b == 0):
                    # Beside the sums: vectors of filters and a position, or positions and a weight.
                    if b * q * f + (f if lanes == "f" else b * q) + 1 > registers:
                        continue
                    cycles = 0.0
                    for some, often in shares(filters, f):
                        # Weights come from the second cache, or from beyond; single ones by the line.
                        far = some * (1 + (some * kernel_bytes > CACHED))
                        far = far if lanes == "f" else 2 * far * (some * kernel_bytes > NEAR * width)
                        for w in work:
                            loads = b * w.loads * (some if sum_.depthwise else 1) + w.taps * some
                            # Two products or loads a cycle, one in five to the same accumulator.
                            waits = far * (w.taps if lanes == "f" else 1)
                            least = max(b * w.products * some / 2, 5 * w.longest, loads / 2, waits)
                            ends = b * w.points * some * (width if scattered else 1) * 2 / max(leading, 1)
                            cycles += often * w.tiles * (least + (loads + waits) / 10 + ends)
                    # Each image is one more place to read from, so is a vector of filters; two share what is loaded.
                    cycles *= 1 + 0.15 * (b - 1) + 0.05 * abs(f - 2) if lanes == "f" else 1 + 0.05 * (b - 1)
                    yield cycles / (b * width * filters), Tile(lanes, width, b, q, f)


def itemsize(dtype: DType) -> int:
    """Bytes of an accumulator."""
    return 4 if dtype.is_half else dtype.itemsize


def _lanes(sum_: Sum, target: Target) -> Iterator[tuple[str, int]]:
    """Along what vectors can be loaded, and the widest there."""
    most = max(1, target.lanes * 4 // max(4, itemsize(sum_.dtype)))
    x, w = sum_.source.view, sum_.weight.view
    yield "", 1
    if x.strides[0] == 1:
        yield from even_width("n", sum_.batch, [block_of(x, 0)], most)
    if w.strides[sum_.filter_axis] == 1 and (x.strides[1] == 1 or not sum_.depthwise):
        blocks = [block_of(w, sum_.filter_axis)] + [block_of(x, 1)] * sum_.depthwise
        yield from even_width("f", sum_.filters, blocks, most)
    phase = sum_.phases[0] if sum_.phases else None
    if not sum_.spread and phase and phase.step == 1 and phase.move * x.strides[-1] == 1:
        width = most
        while width > phase.length:
            width //= 2
        if width > 1:
            yield "w", width


def even_width(lanes: str, size: int, blocks: Sequence[int], most: int) -> Iterator[tuple[str, int]]:
    """The widest vectors that divide an axis of ``size`` and its blocks."""
    width = math.gcd(size, most, *blocks)
    if width > 1:
        yield lanes, width


def block_of(view: View, axis: int) -> int:
    """The size of an axis' blocks, 0 where it is not blocked."""
    return view.blocks[axis][0] if view.blocks is not None else 0


def _stored(sum_: Sum, lanes: str, output: Operand) -> bool:
    axis = {"n": 0, "f": 1, "w": -1, "": 0}[lanes]
    return not lanes or output.view.strides[axis] == 1


def preferred(op: str, attrs: Any, shapes: Sequence[Shape], target: Target) -> list[Order | None] | None:
    """The orders that suit conv and its adjoints best, for the output and both sources; None where none helps.

    Blocks of channels where both sides have enough of them, else blocks of images. A kernel over the whole input is a
    dense layer at the end of a network of few channels: images.
    """
    weight, out, inputs = {"conv": (2, 0, 1), "conv_input_grad": (2, 1, 0), "conv_weight_grad": (0, 2, 1)}[op]
    rank = attrs.window.rank
    batch, filters, *positions = shapes[out]
    channels = shapes[inputs][1]
    images = math.gcd(batch, target.lanes)
    few = channels <= COLOURS and attrs.groups == 1  # the first layer: sources are read one by one
    width = math.gcd(filters // attrs.groups, target.lanes, 0 if few else channels // attrs.groups)
    depthwise = attrs.groups == filters == channels
    if depthwise:
        width = math.gcd(filters, target.lanes)
    dense = images == target.lanes and batch >= BATCH and math.prod(positions) == 1
    if max(width, images) < max(2, target.lanes // 2):
        return None  # vectors along the last axis of a row-major value are wider
    axes: Order = tuple(range(rank + 2))
    orders: list[Order | None] = [()] * 3
    if width < images or dense or few and op == "conv_input_grad":
        orders[out] = orders[inputs] = (*axes, Block(0, images)) if images > 1 else ()
        return orders
    orders[out] = (*axes, Block(1, width))
    orders[inputs] = () if few else orders[out]
    if op == "conv" or depthwise and op == "conv_input_grad":
        orders[weight] = (0, *axes[2:], 1, Block(0, width))
    elif op == "conv_input_grad":
        orders[weight] = (1, *axes[2:], 0, Block(1, width))
    return orders
