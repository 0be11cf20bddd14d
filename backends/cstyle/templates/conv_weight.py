"""The weight gradient of a convolution on CPUs: sums over images and positions in registers, tap by tap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from minigrad.backends.cstyle.body import At, Lanes
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.conv_tiles import LONGEST, block_of, even_width, itemsize
from minigrad.backends.cstyle.templates.conv_walk import Walker, decoded
from minigrad.backends.cstyle.templates.taps import Phase, Run, phases, runs, shares
from minigrad.dtypes import DType
from minigrad.kernel import Kernel
from minigrad.shapes import Window
from minigrad.view import View

PER_CORE = 8  # groups per core: some finish sooner than others
GROUP_FLOPS = 2**17  # that are worth a group of their own
NEAR = 2**14  # bytes of both sources that all taps read before the next ones
PRIVATE = 2**14  # bytes of accumulators that a task keeps
CACHED = 2**19  # bytes of both sources that stay in cache while all filters and channels take their turn

X, G = 0, 1


class WeightTile(NamedTuple):
    """Accumulators that stay in registers.

    Attributes:
        lanes: what the lanes of a vector are: ``"n"`` images, ``"f"`` filters, ``"w"`` positions of the last axis, or
            ``""``.
        width: of a vector.
        filters: vectors of filters with lanes ``"f"``, else filters.
        channels: of a group.
        taps: neighbours along the last axis.
    """

    lanes: str
    width: int
    filters: int
    channels: int
    taps: int


class Product:
    """The weight gradient as ``out[f, c, tap] = sum over n and o of g[n, f, o] * x[n, c, o * stride + offset]``."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.window: Window = kernel.attrs.window
        self.x, self.g = (int(kernel.prologue[s].attr) for s in kernel.sources)
        self.dtype = kernel.prologue[kernel.sources[0]].dtype
        x, g = kernel.source_shapes
        self.groups: int = kernel.attrs.groups
        self.batch, rank = x[0], self.window.rank
        self.filters, self.channels = g[1] // self.groups, x[1] // self.groups
        self.depthwise = self.groups > 1 and self.filters == self.channels == 1
        if self.depthwise:
            self.filters, self.groups = self.groups, 1
        blocked = any(view.is_blocked(rank + 1) for view in (self.xv, self.gv))
        self.leading = rank if blocked or self.window.kernel[-1] > LONGEST else rank - 1
        self.spread = self.leading == rank
        (phase,) = phases(self.window, rank - 1, g[-1], False)
        self.phase = Phase(0, 1, 1, 1, ((0, 0),)) if self.spread else phase
        self.width = 1 if self.spread else x[-1]
        self.spatial, self.rows = x[2 : 2 + self.leading], g[2 : 2 + self.leading]

    @property
    def xv(self) -> View:
        """How the input lies."""
        return self.kernel.inputs[self.x].view

    @property
    def gv(self) -> View:
        """How the output's gradient lies."""
        return self.kernel.inputs[self.g].view


def weight_tiles(kernel: Kernel, target: Target) -> list[WeightTile]:
    """Tiles that fit ``target``, best first by estimate."""
    return [tile for _, tile in sorted(_candidates(Product(kernel), target))]


def _candidates(product: Product, target: Target) -> Iterator[tuple[float, WeightTile]]:
    taps = len(product.phase.taps)
    for lanes, width in _lanes(product, target):
        vector = max(width * itemsize(product.dtype), target.lanes * 4)
        registers = max(3, target.registers * target.lanes * 4 // vector)
        filters = product.filters // (width if lanes == "f" else 1)
        for f in range(1, min(filters, registers) + 1):
            for c in range(1, min(product.channels, registers // f) + 1):
                for j in range(1, min(taps, registers // (f * c)) + 1):
                    if f * c * j + f + 1 > registers:
                        continue
                    cycles = 0.0
                    for (some, m), (channels, n), (near, o) in itertools.product(
                        shares(filters, f), shares(product.channels, c), shares(taps, j)
                    ):
                        sums = some * channels * near
                        loads = (some if product.depthwise else 1) * channels * near + some
                        # Two products or loads a cycle, one in five to the same sum; few places to read from.
                        cycles += m * n * o * (max(sums / 2, 5, loads / 2) + (some + channels) / 10)
                    if block_of(product.xv, 1) % c:
                        cycles *= 1.5  # channels of two blocks: addresses of their own
                    yield (
                        cycles / (width * product.channels * taps * filters),
                        WeightTile(lanes, width, f, c, j),
                    )


def _lanes(product: Product, target: Target) -> Iterator[tuple[str, int]]:
    most = max(1, target.lanes * 4 // max(4, itemsize(product.dtype)))
    x, g = product.xv, product.gv
    yield "", 1
    if x.strides[0] == g.strides[0] == 1:
        yield from even_width("n", product.batch, [block_of(x, 0), block_of(g, 0)], most)
    if g.strides[1] == 1 and (x.strides[1] == 1 or not product.depthwise):
        yield from even_width("f", product.filters, [block_of(g, 1)] + [block_of(x, 1)] * product.depthwise, most)
    if not product.spread and product.phase.move * x.strides[-1] == g.strides[-1] == 1 and product.phase.length > 1:
        width = most
        while width >= 2 * product.phase.length:
            width //= 2
        if width > 1:
            yield "w", width


def render_conv_weight_grad(kernel: Kernel, target: Target, tile: WeightTile | None = None) -> Rendered:
    """The weight gradient, with the given tile or the one that :func:`weight_tiles` puts first."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    return _WeightGrad(Product(kernel), target, tile or weight_tiles(kernel, target)[0]).render()


class _WeightGrad:
    def __init__(self, product: Product, target: Target, tile: WeightTile) -> None:
        self.product, self.target, self.tile = product, target, tile
        x, g = product.xv, product.gv
        self.x, self.g = x, g
        strides = {
            "": (0, 0),
            "n": (x.strides[0], g.strides[0]),
            "f": (x.strides[1] if product.depthwise else 0, g.strides[1]),
            "w": (x.strides[-1] * product.phase.move, g.strides[-1]),
        }[tile.lanes]
        self.walker = Walker(product.kernel, target, (product.x, product.g), strides, tile.width)
        self.emitter, self.index = self.walker.emitter, self.walker.index
        self.unit = tile.width if tile.lanes == "f" else 1
        self.images = product.batch // (tile.width if tile.lanes == "n" else 1)
        self.units = product.filters // self.unit
        self.lead: int = math.prod(product.window.kernel[: product.leading])
        self.taps = len(product.phase.taps)
        self.cells = tile.filters * tile.channels
        # What a task keeps, and what it reads before it goes on.
        vector = tile.width * itemsize(product.dtype)
        bytes_kept = self.lead * self.taps * self.cells * vector
        self.apart = bytes_kept > PRIVATE  # leading taps are tasks of their own
        self.channel_tiles = -(-product.channels // tile.channels)
        self.kept = self.taps * self.cells * (1 if self.apart else self.lead)  # sums of a tile
        most = 1 if self.apart else max(1, PRIVATE // bytes_kept)
        self.tiles = shares(self.channel_tiles, most)[0][0]  # of channels, in a task
        images = tile.width if tile.lanes == "n" else 1
        g_row = math.prod(product.rows[1:]) * product.phase.length * tile.filters * self.unit
        x_row = math.prod(product.spatial[1:]) * product.width * tile.channels
        per_row = (
            images * (g_row + x_row * (product.window.stride[0] if product.leading else 1)) * itemsize(product.dtype)
        )
        rows = product.rows[0] if product.leading else 1
        self.near_images: int = max(1, min(self.images, NEAR // max(per_row * rows, 1)))
        self.near_rows = rows if self.near_images > 1 else max(1, min(rows, NEAR // max(per_row, 1)))
        self.row_blocks = -(-rows // self.near_rows)
        self.blocks: int = -(-self.images // self.near_images) * self.row_blocks
        self.chunks = self._chunks()

    def _chunks(self) -> int:
        """Into how many parts images and rows are split: enough tasks for all cores, over what stays in cache."""
        product, tile = self.product, self.tile
        tasks = product.groups * -(-self.units // tile.filters) * -(-self.channel_tiles // self.tiles)
        tasks *= self.lead if self.apart else 1
        size = sum(math.prod(shape) for shape in product.kernel.source_shapes) * itemsize(product.dtype)
        result: int = math.prod(product.kernel.core_shapes[0]) * itemsize(product.dtype)
        wanted: int = max(-(-4 * self.target.cores // tasks), min(-(-size // CACHED), size // (4 * result)))
        if product.kernel.flops < 4 * GROUP_FLOPS:
            wanted = 1
        return max(1, min(wanted, self.blocks))

    def render(self) -> Rendered:
        product, tile = self.product, self.tile
        tasks = [
            ("chunk", self.chunks),
            ("g", product.groups),
            ("jf", -(-self.units // tile.filters)),
            ("jcs", -(-self.channel_tiles // self.tiles)),
            ("part", self.lead if self.apart else 1),
        ]
        body = decoded("t", tasks) + self._task()
        partial = self.chunks > 1
        scratch = [self.walker.dtype] if partial else []
        stages = [self._stage(math.prod(n for _, n in tasks), product.kernel.flops, body, scratch)]
        if partial:
            stages.append(self._collect(scratch))
        count = math.prod(product.kernel.core_shapes[0]) * self.chunks
        sizes = (count * self.walker.dtype.itemsize,) if partial else ()
        return Rendered(tuple(stages), self.walker.functions.used(), sizes)

    def _stage(self, tasks: int, flops: int, body: list[str], scratch: list[DType]) -> Stage:
        each, groups = split(tasks, min(PER_CORE * self.target.cores, max(1, flops // GROUP_FLOPS)))
        first = f"{self.target.dialect.group_id(0)} * {each}"
        stop = f"{first} + {each}"
        if each * groups != tasks:
            stop = f"({stop} < {tasks} ? {stop} : {tasks})"
        head = self.target.dialect.kernel(self.emitter.parameters(scratch), (1,))
        text = block(head, [loop("t", first, stop, body)])
        return Stage(text, (groups,), (1,), self.emitter.buffers, tuple(range(len(scratch))))

    # A task: some filters and channels, all taps.

    def _task(self) -> list[str]:
        """Some filters, and as many tiles of channels as have their sums in private memory; blocks pass by."""
        walker = self.walker
        start: list[str] = []
        filters = _sizes("f", "jf", self.units, self.tile.filters, start)
        most = self.tiles * self.kept
        stop = f"(jcs + 1) * {self.tiles}"
        start += [
            f"const int jc0 = jcs * {self.tiles};",
            f"const int jc1 = {stop if self.channel_tiles % self.tiles == 0 else _least(stop, self.channel_tiles)};",
            f"{walker.type()} sums[{most}];",
            loop("s", 0, most, [f"sums[s] = {walker.zero()};"]),
        ]
        each = -(-self.blocks // self.chunks)
        first, last = "0", str(self.blocks)
        if self.chunks > 1:
            first, last = f"chunk * {each}", _least(f"chunk * {each} + {each}", self.blocks)
        place = decoded("q", [("m", -(-self.images // self.near_images)), ("r", self.row_blocks)])
        place.append(f"const int beyond = {_least(f'm * {self.near_images} + {self.near_images}', self.images)};")
        start.append(f"const int last = {last};")
        for condition, some in filters:
            lines = [
                loop("q", first, "last", [*place, self._per_tile(some, self._sums)]),
                self._per_tile(some, self._results),
            ]
            start.append(block(f"if ({condition})" if condition else "", lines))
        return start

    def _per_tile(self, filters: int, body: Callable[[int, int], list[str]]) -> str:
        """A loop over the tiles of channels."""
        lines = [f"const int z = (jc - jc0) * {self.kept};"]
        for condition, channels in _sizes("c", "jc", self.product.channels, self.tile.channels, lines):
            lines.append(block(f"if ({condition})" if condition else "", body(filters, channels)))
        return loop("jc", "jc0", "jc1", lines)

    def _leads(self, body: list[str]) -> list[str]:
        """A loop over leading taps, with where their sums begin."""
        window = self.product.window
        taps = decoded("i", [(f"i{a}", window.kernel[a]) for a in range(self.product.leading)])
        first, last = ("part", "part + 1") if self.apart else ("0", str(self.lead))
        place = "z" if self.apart else f"z + i * {self.taps * self.cells}"
        return [loop("i", first, last, [*taps, f"const int y = {place};", *body])]

    def _sums(self, filters: int, channels: int) -> list[str]:
        """What a block of images and rows adds to the sums of a tile."""
        taps: list[str] = []
        at = 0
        for near in [size for size, count in shares(self.taps, self.tile.taps) for _ in range(count)]:
            taps.append(block("", self._near(range(at, at + near), filters, channels)))
            at += near
        return self._leads(taps)

    def _near(self, taps: range, filters: int, channels: int) -> list[str]:
        """What the images and rows of a block add to the sums of neighbouring taps."""
        product, walker = self.product, self.walker
        phase = product.phase._replace(taps=product.phase.taps[taps.start : taps.stop])
        names = {
            f"a{j}_{f}_{c}": f"sums[y + {(taps[j] * filters + f) * channels + c}]"
            for j in range(len(taps))
            for f in range(filters)
            for c in range(channels)
        }
        row = [f"const {self.index} {v}r = {v}n{self._row(v[0])};" for v in self._variables(filters, channels)]
        unit = self.tile.width if self.tile.lanes == "w" else 1
        for run in runs(phase, product.width, 1, unit, overlap=False):
            if not any(low < high for valid in run.valid for low, high in valid):
                continue
            if run.tiles == 1:
                row.append(block("", self._position(phase, run, At(offset=run.first), filters, channels)))
            else:
                body = self._position(phase, run, At("k"), filters, channels)
                row.append(loop("k", run.first, run.first + run.tiles * run.step, body, run.step))
        for axis in reversed(range(product.leading)):
            row = self._leading(axis, row)
        body = self._bases(filters, channels) + row
        lines = [f"{walker.type()} {name} = {place};" for name, place in names.items()]
        lines.append(loop("n", f"m * {self.near_images}", "beyond", body))
        return lines + [f"{place} = {name};" for name, place in names.items()]

    def _leading(self, axis: int, body: list[str]) -> list[str]:
        """A loop over the positions of a leading axis from which the tap reads inside."""
        product = self.product
        window, size, rows = product.window, product.spatial[axis], product.rows[axis]
        stride, before = window.stride[axis], window.padding[axis][0]
        shift = f"{before} - i{axis} * {window.dilation[axis]}"
        low, high = "0", str(rows)
        if axis == 0 and self.row_blocks > 1:
            low, high = f"r * {self.near_rows}", _least(f"r * {self.near_rows} + {self.near_rows}", rows)
        lines = [
            f"const int d{axis} = {shift};",
            f"const int e{axis} = d{axis} + {size - 1};",
            f"int low{axis} = d{axis} > 0 ? (d{axis} + {stride - 1}) / {stride} : 0;",
            f"int high{axis} = e{axis} < 0 ? 0 : e{axis} / {stride} + 1;",
            f"if (low{axis} < {low}) low{axis} = {low};",
            f"if (high{axis} > {high}) high{axis} = {high};",
        ]
        place = [f"const int p{axis} = o{axis} * {stride} - d{axis};"]
        return [*lines, loop(f"o{axis}", f"low{axis}", f"high{axis}", place + body)]

    # Indices.

    def _variables(self, filters: int, channels: int) -> list[str]:
        sources = filters if self.product.depthwise else channels
        return [f"g{f}" for f in range(filters)] + [f"x{c}" for c in range(sources)]

    def _filter(self, number: int) -> At:
        expr = "f" if self.product.groups == 1 else f"g * {self.product.filters // self.unit} + f"
        return At(expr, self.unit, number * self.unit)

    def _bases(self, filters: int, channels: int) -> list[str]:
        """Where images, filters and channels begin in both sources."""
        product, part = self.product, self.walker.part
        image = At("n", self.tile.width if self.tile.lanes == "n" else 1)
        lines = []
        for number in range(filters):
            place = f"{self.g.offset} + {part(self.g, 0, image)} + {part(self.g, 1, self._filter(number))}"
            lines.append(f"const {self.index} g{number}n = {place};")
        for number in range(filters if product.depthwise else channels):
            at = At("c" if product.groups == 1 else f"g * {product.channels} + c", 1, number)
            at = self._filter(number) if product.depthwise else at
            place = f"{self.x.offset} + {part(self.x, 0, image)} + {part(self.x, 1, at)}"
            if number and not product.depthwise and self._adjoining():
                place = f"x0n + {number * self.x.strides[1]}"
            lines.append(f"const {self.index} x{number}n = {place};")
        return lines

    def _adjoining(self) -> bool:
        """Whether the channels of a tile lie evenly, in one block if there are blocks."""
        size, channels = block_of(self.x, 1), self.tile.channels
        return not size or size % channels == 0 and self.product.channels % channels == 0

    def _row(self, source: str) -> str:
        view, name = (self.x, "p") if source == "x" else (self.g, "o")
        return "".join(f" + {self.walker.part(view, 2 + a, At(f'{name}{a}'))}" for a in range(self.product.leading))

    def _position(self, phase: Phase, run: Run, k: At, filters: int, channels: int) -> list[str]:
        """The products of one position (a vector of them with lanes ``"w"``)."""
        product, walker = self.product, self.walker
        steps = (0, 0) if product.spread else (self.x.strides[-1], self.g.strides[-1])
        partial = self.tile.lanes == "w"
        lines = []
        for name, step in (("x", steps[0] * phase.move), ("g", steps[1])):
            place = self.emitter.address(walker.line(step), [k])
            lines += [
                f"const {self.index} {v}k = {v}r + {place};" for v in self._variables(filters, channels) if v[0] == name
            ]
        kept = (0, min(self.tile.width, phase.length - run.first)) if partial else None
        values = [f"const {walker.type()} v{f} = {walker.load(G, f'g{f}k', 0, kept)};" for f in range(filters)]
        for j, (_, offset) in enumerate(phase.taps):
            valid = run.valid[j][0]
            if valid[0] == valid[1]:
                continue
            for c in range(channels):
                inner: list[str] = []
                for f in range(filters):
                    if product.depthwise or not inner:
                        load = walker.load(
                            X, f"x{f if product.depthwise else c}k", offset * steps[0], valid if partial else None
                        )
                        name = f"x{f}"
                        inner.append(f"const {walker.type()} {name} = {load};")
                    inner.append(walker.multiplied(f"a{j}_{f}_{c}", f"v{f}", name))
                values.append(block("", inner))
        return lines + values

    # Results.

    def _results(self, filters: int, channels: int) -> list[str]:
        """The sums of all taps: into scratch memory or to the epilogue."""
        walker, tile = self.walker, self.tile
        cells = [(f, c) for f in range(filters) for c in range(channels)]
        names = [f"a{n}" for n in range(len(cells))]
        lines = [f"const {walker.type()} {name} = sums[y + b * {len(cells)} + {n}];" for n, name in enumerate(names)]
        if tile.width > 1 and tile.lanes != "f":
            names, extra = walker.lane_sums(names)
            lines += extra
        for (f, c), value in zip(cells, names):
            lines.append(block("", self._store(self._filter(f), At("c", 1, c), value, self.unit)))
        return self._leads([loop("b", 0, self.taps, lines)])

    def _store(self, filter_: At, channel: At, value: str, width: int) -> list[str]:
        if self.chunks == 1:
            return self._finish(filter_, channel, value, width)
        place = self._place("chunk", filter_, channel, f"i * {self.taps} + b")
        storage = self.emitter.dialect.compute[self.walker.dtype]
        return [self.emitter.dialect.store(storage, width, f"s0 + {place}", value)]

    def _place(self, chunk: str, filter_: At, channel: At, tap: str) -> str:
        """Where a partial sum lies: the lanes of a vector of filters next to each other."""
        product = self.product
        weights, taps = math.prod(product.kernel.core_shapes[0]), self.lead * self.taps
        row = product.channels * taps * self.unit
        vector = f"({At(filter_.expr, 1, filter_.offset // self.unit)})"
        return f"{chunk} * {weights} + {vector} * {row} + (({channel}) * {taps} + {tap}) * {self.unit}"

    def _finish(self, filter_: At, channel: At, value: str, width: int) -> list[str]:
        taps = [At(f"i{a}") for a in range(self.product.leading)] + ([] if self.product.spread else [At("b")])
        lanes = Lanes(0, width) if width > 1 else Lanes()
        core = f"({self.walker.result(value, width)})"
        return self.emitter.finish([filter_, channel, *taps], lanes, [core])

    def _collect(self, scratch: list[DType]) -> Stage:
        """The second launch: adds up what the chunks found."""
        product, walker, width = self.product, self.walker, self.unit
        taps = [(f"i{a}", product.window.kernel[a]) for a in range(product.leading)] + [("b", self.taps)]
        count = self.units * product.groups
        body = decoded("t", [("f", count), ("c", product.channels)])
        sizes = product.window.kernel[: product.leading]
        lead = " + ".join(f"i{a} * {math.prod(sizes[a + 1 :])}" for a in range(len(sizes)))
        filter_, channel = At("f", width), At("c")
        place = self._place("chunk", filter_, channel, f"({lead or 0}) * {self.taps} + b")
        storage = self.emitter.dialect.compute[walker.dtype]
        load = self.emitter.dialect.load(storage, width, f"s0 + {place}")
        inner = [f"{walker.type(width)} total = {walker.zero(width)};"]
        inner.append(loop("chunk", 0, self.chunks, [f"total = {walker.add('total', load, width)};"]))
        inner += self._finish(filter_, channel, "total", width)
        for name, size in reversed(taps):
            inner = [loop(name, 0, size, inner)]
        work = math.prod(product.kernel.core_shapes[0]) * (self.chunks + 8) * 8
        return self._stage(count * product.channels, work, body + inner, scratch)


def _sizes(variable: str, tile: str, total: int, most: int, lines: list[str]) -> list[tuple[str, int]]:
    """Even tiles: adds the start of tile number ``tile`` to ``lines``; gives the sizes, each under a condition."""
    count = -(-total // most)
    each, more = divmod(total, count) if count else (0, 0)
    if not more:
        lines.append(f"const int {variable} = {tile} * {each};")
        return [("", each)]
    lines.append(f"const int {variable} = {tile} * {each} + ({tile} < {more} ? {tile} : {more});")
    return [(f"{tile} < {more}", each + 1), (f"{tile} >= {more}", each)]


def _least(a: str | int, b: str | int) -> str:
    return f"({a} < {b} ? {a} : {b})"
