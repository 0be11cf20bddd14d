"""Convolution and its input gradient on CPUs: one loop nest around a tile of accumulators in registers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from minigrad.backends.cstyle.body import At, Lanes
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.conv_tiles import CACHED, Sum, Tile, block_of, tiles
from minigrad.backends.cstyle.templates.conv_walk import Walker, decoded
from minigrad.backends.cstyle.templates.taps import Phase, Run, runs
from minigrad.kernel import Kernel

PER_CORE = 8  # groups per core: some finish sooner than others
GROUP_FLOPS = 2**17  # that are worth a group of their own

# Next to nothing costs as much as waiting for the source of the next tile: its lines lie too far apart to be guessed.
PREFETCH = {"opencl-clang": "__builtin_prefetch((const void *)(size_t)({pointer}));"}
LINE = 64  # bytes that are fetched together
FEW = 4  # channels over which the loop is unrolled
UNROLL = "#pragma clang loop unroll({})"

X, W = 0, 1
NOWHERE = MappingProxyType({"x": "", "w": ""})


class Tap(NamedTuple):
    """A tap of the last axis: its place in the weight, and for each point that in the source and the lanes inside."""

    weight: int
    offsets: list[int]
    valid: tuple[tuple[int, int], ...]


def render_conv(kernel: Kernel, target: Target, tile: Tile | None = None) -> Rendered:
    """A convolution, or its input gradient, with the given tile or the one that :func:`tiles` puts first."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    return _Conv(Sum(kernel), target, tile or tiles(kernel, target)[0]).render()


class _Conv:
    def __init__(self, sum_: Sum, target: Target, tile: Tile) -> None:
        self.sum, self.target, self.tile = sum_, target, tile
        x, w = sum_.source.view, sum_.weight.view
        self.x, self.w = x, w
        width = tile.width
        strides = {
            "": (0, 0),
            "n": (x.strides[0], 0),
            "f": (x.strides[1] if sum_.depthwise else 0, w.strides[sum_.filter_axis]),
            "w": (x.strides[-1] * sum_.phases[0].move, 0),
        }[tile.lanes]
        self.walker = Walker(sum_.kernel, target, (sum_.x, sum_.w), strides, width)
        self.emitter, self.index = self.walker.emitter, self.walker.index
        axis = {"": None, "n": 0, "f": 1, "w": len(sum_.outputs) - 1}[tile.lanes]
        self.lanes = Lanes(axis, width)
        self.unit = width if tile.lanes == "f" else 1  # filters of a vector
        # Channels are walked block by block where either source has them in blocks.
        size = 0 if sum_.depthwise else math.gcd(block_of(x, 1), block_of(w, sum_.channel_axis))
        self.block = math.gcd(size, sum_.channels) if size else 0

    # The loop over tasks: images, groups, rows and filters, shared out to groups.

    def render(self) -> Rendered:
        sum_, tile = self.sum, self.tile
        units = sum_.filters // self.unit
        images = sum_.batch // (tile.images * (tile.width if tile.lanes == "n" else 1))
        rows = [("n", images)] + [(f"h{axis}", size) for axis, size in enumerate(sum_.rows)]
        places = math.prod(size for _, size in rows)
        # Places in turns, all filters in each: what a turn reads of the source stays in cache, so does a small weight.
        itemsize = sum_.weight.dtype.itemsize
        images_read = sum_.kernel.source_shapes[0][0] // images
        row = math.prod(sum_.kernel.source_shapes[0][1:]) // max(math.prod(sum_.rows), 1) * images_read * itemsize
        turn = 1 if math.prod(self.w.shape) * itemsize <= CACHED else max(1, min(places, CACHED // max(row, 1)))
        turns = -(-places // turn)
        order = [("turn", turns), ("g", sum_.groups), ("j", -(-units // tile.filters)), ("place", turn)]
        tasks = math.prod(size for _, size in order)
        each, groups = split(tasks, min(PER_CORE * self.target.cores, max(1, sum_.kernel.flops // GROUP_FLOPS)))
        body = decoded("t", order) + [f"const int p = turn * {turn} + place;"]
        if turns * turn != places:
            body.append(f"if (p >= {places}) continue;")
        body += decoded("p", rows) + self._row(units)
        first = f"{self.target.dialect.group_id(0)} * {each}"
        stop = f"{first} + {each}"
        if each * groups != tasks:
            stop = f"({stop} < {tasks} ? {stop} : {tasks})"
        text = block(self.target.dialect.kernel(self.emitter.parameters(), (1,)), [loop("t", first, stop, body)])
        return Rendered((Stage(text, (groups,), (1,), self.emitter.buffers),), self.walker.functions.used())

    def _row(self, units: int) -> list[str]:
        """One row of some images and filters: all tiles along the last axis."""
        lines = self._leading()
        most = self.tile.filters
        tiles = -(-units // most)
        each, more = divmod(units, tiles)
        if not more:
            return [*lines, f"const int f = j * {each};", *self._tiles(each)]
        lines.append(f"const int f = j * {each} + (j < {more} ? j : {more});")
        return [*lines, block(f"if (j < {more})", self._tiles(each + 1)), block("else", self._tiles(each))]

    def _leading(self) -> list[str]:
        """The taps of the leading axes that read inside: how far each is from the first element of both sources."""
        sum_, window = self.sum, self.sum.window
        if not sum_.leading:
            return []
        x = " + ".join(self.walker.part(self.x, 2 + a, At(f"p{a}")) for a in range(sum_.leading))
        w = " + ".join(self.walker.part(self.w, 2 + a, At(f"i{a}")) for a in range(sum_.leading))
        lines = [f"xs[count] = {x};", f"ws[count] = {w};", "++count;"]
        for axis in reversed(range(sum_.leading)):
            size, kernel, stride = sum_.spatial[axis], window.kernel[axis], window.stride[axis]
            dilation, before = window.dilation[axis], window.padding[axis][0]
            if sum_.adjoint:
                place = [f"const int r = h{axis} + {before} - i{axis} * {dilation};", "if (r < 0) continue;"]
                if stride > 1:
                    place.append(f"if (r % {stride}) continue;")
                place += [f"const int p{axis} = r / {stride};", f"if (p{axis} >= {size}) continue;"]
            else:
                place = [f"const int p{axis} = h{axis} * {stride} + i{axis} * {dilation} - {before};"]
                place.append(f"if (p{axis} < 0 || p{axis} >= {size}) continue;")
            lines = [loop(f"i{axis}", 0, kernel, place + lines)]
        most = math.prod(window.kernel[: sum_.leading])
        return [f"{self.index} xs[{most}], ws[{most}];", "int count = 0;", *lines]

    def _tiles(self, filters: int) -> list[str]:
        """All tiles of a row, for a number of filters (vectors of them with filter lanes)."""
        sum_, tile, lines = self.sum, self.tile, []
        unit = tile.width if tile.lanes == "w" else 1
        lines += self._bases(filters)
        for phase in sum_.phases:
            for run in runs(phase, sum_.width, tile.points, unit):
                if run.tiles == 1:
                    lines.append(block("", self._tile(phase, run, At(offset=run.first), filters)))
                else:
                    body = self._tile(phase, run, At("k"), filters)
                    lines.append(loop("k", run.first, run.first + run.tiles * run.step, body, run.step))
        return lines

    # Indices.

    def _image(self, image: int) -> At:
        width = self.tile.width if self.tile.lanes == "n" else 1
        return At("n", self.tile.images * width, image * width)

    def _filter(self, filter_: int, of_group: bool = False) -> At:
        """A filter among all, or among those of its group."""
        expr = "f" if of_group or self.sum.groups == 1 else f"g * {self.sum.filters // self.unit} + f"
        return At(expr, self.unit, filter_ * self.unit)

    def _channel(self, of_group: bool) -> At:
        size, var = (self.block, "cb") if self.block else (1, "c")
        expr = var if of_group or self.sum.groups == 1 else f"g * {self.sum.channels // size} + {var}"
        return At(expr, size)

    def _bases(self, filters: int) -> list[str]:
        """Where images and filters begin in both sources."""
        sum_, part = self.sum, self.walker.part
        lines = []
        for image in range(self.tile.images):
            base = f"{self.x.offset} + {part(self.x, 0, self._image(image))}"
            for number in range(filters) if sum_.depthwise else [0]:
                channel = f" + {part(self.x, 1, self._filter(number))}" if sum_.depthwise else ""
                lines.append(f"const {self.index} x{image}_{number} = {base}{channel};")
        for number in range(filters):
            at = self._filter(number, of_group=sum_.adjoint)
            lines.append(f"const {self.index} w{number} = {self.w.offset} + {part(self.w, sum_.filter_axis, at)};")
        return lines

    # A tile.

    def _tile(self, phase: Phase, run: Run, k: At, filters: int) -> list[str]:
        sum_, walker = self.sum, self.walker
        images, points = range(self.tile.images), range(len(run.points))
        names = [f"a{i}_{p}_{f}" for i in images for p in points for f in range(filters)]
        lines = [f"{walker.type()} {name} = {walker.zero()};" for name in names]
        if any(low < high for valid in run.valid for low, high in valid):
            lines += self._accumulate(phase, run, k, filters)
        axis = 2 + sum_.leading
        for image in images:
            for point, start in enumerate(run.points):
                column = At(k.expr, k.scale * phase.step, (k.offset + start) * phase.step + phase.start)
                rows = [At(f"h{a}") for a in range(sum_.leading)]
                for number in range(filters):
                    index = [self._image(image), self._filter(number), *rows, column][: axis + (not sum_.spread)]
                    value = walker.result(f"a{image}_{point}_{number}")
                    lines.append(block("", self.emitter.finish(index, self.lanes, [f"({value})"])))
        return lines

    def _accumulate(self, phase: Phase, run: Run, k: At, filters: int) -> list[str]:
        """The loops over leading taps and channels, with the taps of the last axis written out."""
        sum_ = self.sum
        step = 0 if sum_.spread else self.x.strides[-1]
        tap_step = 0 if sum_.spread else self.w.strides[-1]
        taps = [
            Tap(tap * tap_step, [(start * phase.move + offset) * step for start in run.points], valid)
            for (tap, offset), valid in zip(phase.taps, run.valid)
            if any(low < high for low, high in valid)
        ]
        variables = [f"x{i}_{n}" for i in range(self.tile.images) for n in (range(filters) if sum_.depthwise else [0])]
        column = self.emitter.address(self.walker.line(step * phase.move), [k])
        lead = [" + xs[i]", " + ws[i]"] if sum_.leading else ["", ""]
        bases = [f"const {self.index} {v}r = {v}{lead[0]} + {column};" for v in variables]
        bases += [f"const {self.index} w{f}r = w{f}{lead[1]};" for f in range(filters)]
        if self.tile.lanes == "f":
            ahead = self._ahead(run.step * phase.move * step, variables)
            inner = self._by_filters(taps, filters, variables, ahead)
        else:
            inner = self._channels(variables, filters, lambda: self._by_positions(taps, filters))
        if not sum_.leading:
            return [*bases, *inner]
        return [loop("i", 0, "count", bases + inner)]

    def _channels(self, variables: list[str], filters: int, body: Callable[[], list[str]]) -> list[str]:
        """A loop over channels, outside the taps."""
        return self._blocks(variables, filters, lambda: self._within(variables, filters, body()))

    def _blocks(self, variables: list[str], filters: int, body: Callable[[], list[str]]) -> list[str]:
        """A loop over blocks of channels, where there are any."""
        names = [*variables, *(f"w{f}" for f in range(filters))]
        if not self.block:
            return [f"const {self.index} {v}b = {v}r;" for v in names] + body()
        x = "" if self.sum.depthwise else f" + {self.walker.part(self.x, 1, self._channel(False))}"
        w = f" + {self.walker.part(self.w, self.sum.channel_axis, self._channel(not self.sum.adjoint))}"
        lines = [f"const {self.index} {v}b = {v}r{x if v[0] == 'x' else w};" for v in names]
        return [loop("cb", 0, self.sum.channels // self.block, lines + body())]

    def _within(
        self, variables: list[str], filters: int, body: list[str], moved: Mapping[str, str] = NOWHERE
    ) -> list[str]:
        """A loop over the channels of a block, or over all."""
        sum_, walker = self.sum, self.walker
        if self.block:
            steps = (self.x.strides[1], self.w.strides[sum_.channel_axis])
            x, w = (self.emitter.address(walker.line(step), [At("c")]) for step in steps)
        else:
            x = walker.part(self.x, 1, self._channel(False))
            w = walker.part(self.w, sum_.channel_axis, self._channel(not sum_.adjoint))
        x = "" if sum_.depthwise else f" + {x}"
        lines = [f"const {self.index} {v}c = {v}b{moved['x']}{x};" for v in variables]
        lines += [f"const {self.index} w{f}c = w{f}b{moved['w']} + {w};" for f in range(filters)]
        return [loop("c", 0, self.block or sum_.channels, lines + body)]

    def _by_positions(self, taps: list[Tap], filters: int) -> list[str]:
        """Products of one channel: positions that several taps read are loaded once."""
        walker, lines = self.walker, []
        loaded: dict[tuple[str, int, tuple[int, int]], str] = {}
        for weight, offsets, valid in taps:
            used = [(p, o, v) for p, (o, v) in enumerate(zip(offsets, valid)) if v[0] < v[1]]
            for number in range(filters):
                products = [f"const {walker.type()} w = {walker.load(W, f'w{number}c', weight)};"]
                for image in range(self.tile.images):
                    base = f"x{image}_{number if self.sum.depthwise else 0}c"
                    for point, offset, lanes in used:
                        key = (base, offset, lanes)
                        if key not in loaded:
                            loaded[key] = f"v{len(loaded)}"
                            load = walker.load(X, base, offset, lanes if self.tile.lanes == "w" else None)
                            lines.append(f"const {walker.type()} {loaded[key]} = {load};")
                        products.append(walker.multiplied(f"a{image}_{point}_{number}", loaded[key], "w"))
                lines.append(block("", products))
        return lines

    def _ahead(self, step: int, variables: list[str]) -> list[str]:
        """Statements that fetch a block of channels of the next tile, ``step`` elements further on."""
        text = PREFETCH.get(self.target.dialect.name)
        if text is None or not self.block or abs(self.x.strides[1]) != 1:
            return []
        near = LINE // self.sum.source.dtype.itemsize
        base = f"b{self.sum.source.buffer}"
        places = [f"{v}b + {step + at}" for v in variables for at in range(0, abs(step), near)]
        return [text.format(pointer=f"{base} + {place}") for place in places]

    def _by_filters(self, taps: list[Tap], filters: int, variables: list[str], ahead: list[str]) -> list[str]:
        """Products with vectors of filters, tap by tap, each over the channels of a block."""
        weight, offsets, valid = taps[0]
        if len(taps) > 1 and all(tap.valid == valid for tap in taps) and all(low < high for low, high in valid):
            # Taps are evenly apart.
            steps = {"x": taps[1].offsets[0] - offsets[0], "w": taps[1].weight - weight}
            body = self._products(taps[0], filters, variables, {v: f" + tap * {step}" for v, step in steps.items()})
            inner = [UNROLL.format("disable"), loop("tap", 0, len(taps), body)]
        else:
            inner = [line for tap in taps for line in self._products(tap, filters, variables, {"x": "", "w": ""})]
        return self._blocks(variables, filters, lambda: ahead + inner)

    def _products(self, tap: Tap, filters: int, variables: list[str], moved: dict[str, str]) -> list[str]:
        walker, depthwise = self.walker, self.sum.depthwise
        lines = [f"const {walker.type()} v{f} = {walker.load(W, f'w{f}c', tap.weight)};" for f in range(filters)]
        for image in range(self.tile.images):
            for point, (offset, lanes) in enumerate(zip(tap.offsets, tap.valid)):
                if lanes[0] == lanes[1]:
                    continue
                products: list[str] = []
                for number in range(filters):
                    if depthwise or not products:
                        load = walker.load(X, f"x{image}_{number if depthwise else 0}c", offset)
                        name = f"x{number}"
                        products.append(f"const {walker.type()} {name} = {load};")
                    products.append(walker.multiplied(f"a{image}_{point}_{number}", name, f"v{number}"))
                lines.append(block("", products))
        unroll = "full" if (self.block or self.sum.channels) <= FEW else "disable"
        return [UNROLL.format(unroll), *self._within(variables, filters, lines, moved)]
