"""The rows of a summary: a traced forward pass, layer by layer, in numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

from minigrad.graph import Node
from minigrad.nn.summary.receptive import Field, fields
from minigrad.nn.summary.trace import Call, Stretch, Trace
from minigrad.primitive import Kind
from minigrad.shapes import Shape, Window

CORES = (Kind.CONTRACTION, Kind.WINDOW)
COMPUTED = (*CORES, Kind.REDUCE, Kind.SCAN, Kind.INDEX)  # what ends in memory of its own
METHODS = {"conv": "conv", "conv_input_grad": "conv_transpose", "max_pool": "max_pool", "avg_pool": "avg_pool"}


class Core(NamedTuple):
    """A contraction or a pool inside a layer; shapes are those of one image.

    Attributes:
        op: name of the primitive.
        window: how it slides; None for a matrix product.
        groups: parts into which the channels are divided.
        input: what it reads.
        weight: shape of the second operand of a contraction; empty for a pool.
        output: what it gives.
        macs: its multiplications.
    """

    op: str
    window: Window | None
    groups: int
    input: Shape
    weight: Shape
    output: Shape
    macs: int


class Sight(NamedTuple):
    """What a value sees of the image, along each of the image's spatial dimensions.

    Attributes:
        receptive_field: pixels; None where it sees all of them.
        stride: pixels from one value to the next; None where there is only one place to be at.
    """

    receptive_field: tuple[int | None, ...]
    stride: tuple[int | Fraction | None, ...]


class Block(NamedTuple):
    """A call of a module that calls others."""

    number: int
    name: str
    kind: str
    output: Shape
    sight: Sight


@dataclass(frozen=True)
class Layer:
    """One row; all figures are for one image.

    Attributes:
        name: dotted path of the module; of what a forward computes itself, the path of its module and the operation.
            Another call of the same has ``#2`` after it.
        kind: class of the module, or the operation.
        input: shape of what it reads first, without the batch axis.
        output: shape of what it gives.
        params: numbers that are trained; of a tensor that several layers share, in the first of them.
        weights: the same without biases.
        activations: values that it adds to what is in memory; 0 for a concatenation, whose parts are written in place.
        activation_bytes: the same in bytes.
        macs: multiplications of convolutions and matrix products ("multiply-adds").
        receptive_field: pixels that an output value depends on, along each spatial dimension of the image; None: all.
            Padding counts as pixels.
        stride: pixels between the receptive fields of neighbours; None where there are none.
        then: what follows in place, such as a ReLU: it works value by value, in the kernel of the layer before it.
        tensors: name and shape of each parameter.
        cores: the convolutions, matrix products and pools inside.
        parts: of a module shown as one row, the layers inside.
        blocks: the modules that it is part of, the outermost first.
    """

    name: str
    kind: str
    input: Shape
    output: Shape
    params: int = 0
    weights: int = 0
    activations: int = 0
    activation_bytes: int = 0
    macs: int = 0
    receptive_field: tuple[int | None, ...] = ()
    stride: tuple[int | Fraction | None, ...] = ()
    then: tuple[str, ...] = ()
    tensors: tuple[tuple[str, Shape], ...] = ()
    cores: tuple[Core, ...] = field(default=(), repr=False)
    parts: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = field(default=(), repr=False)

    @property
    def window(self) -> Window | None:
        """How it slides over its input, where that is all that it does."""
        sliding = [core.window for core in self.cores if core.window is not None and core.input == self.input]
        return sliding[0] if len(self.cores) == 1 and sliding else None

    @property
    def is_convolution(self) -> bool:
        """Whether there is a convolution in it."""
        return any(core.op in ("conv", "conv_input_grad") for core in self.cores)

    @property
    def is_fully_connected(self) -> bool:
        """Whether there is a matrix product with parameters in it."""
        return bool(self.tensors) and any(core.op == "matmul" for core in self.cores)


def layers_of(trace: Trace) -> list[Layer]:
    """The rows of a traced forward pass, the input first."""
    return _Builder(trace).build()


def grouped(layers: Sequence[Layer], depth: int) -> list[Layer]:
    """The rows with everything inside a module ``depth`` levels down as one row for that module."""
    merged: dict[Any, list[Layer]] = {}
    for number, layer in enumerate(layers):
        inside = len(layer.blocks) >= depth > 0
        merged.setdefault(layer.blocks[depth - 1] if inside else number, []).append(layer)
    return [_joined(key, rows) if isinstance(key, Block) else rows[0] for key, rows in merged.items()]


def _joined(block: Block, rows: list[Layer]) -> Layer:
    """One row for a module, with the formulas of its only layer or else the names of its layers."""
    figures = ("params", "weights", "activations", "activation_bytes", "macs")
    only = rows[0] if len(rows) == 1 else None
    return Layer(
        block.name,
        block.kind,
        rows[0].input,
        block.output,
        **{name: sum(getattr(row, name) for row in rows) for name in figures},
        receptive_field=block.sight.receptive_field,
        stride=block.sight.stride,
        tensors=tuple(tensor for row in rows for tensor in row.tensors),
        cores=only.cores if only else (),
        parts=() if only else tuple(row.name for row in rows),
    )


class _Group(NamedTuple):
    """Nodes that make one row, or that belong to the row before."""

    name: str
    kind: str
    then: tuple[str, ...]
    nodes: list[Node]
    outputs: list[Node]


class _Builder:
    """Goes through the stretches in order; knows which row holds which node."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.seen = fields((node for stretch in trace.stretches for node in stretch.nodes), trace.image)
        self.rows: list[Layer] = []
        self.owner: dict[int, int] = {}  # id of a node that depends on the image -> index of its row
        self.waiting: list[Node] = []  # does not depend on the image and is for the next row, such as a scaled weight
        self.counted: set[int] = set()  # nodes of parameters that a row has, and others
        self.names: Counter[str] = Counter()
        self.blocks: dict[int, Block] = {}

    def build(self) -> list[Layer]:
        """All rows."""
        image = self.trace.image
        size = math.prod(image.shape[1:])
        first = Layer("input", "", image.shape[1:], image.shape[1:])
        self.rows.append(replace(first, activations=size, activation_bytes=size * image.dtype.itemsize))
        self.owner[id(image)] = 0
        for stretch in self.trace.stretches:
            for group in self._groups(stretch):
                self._add(group, stretch)
        return self.rows

    def _groups(self, stretch: Stretch) -> Iterator[_Group]:
        """One of ``nn``'s layers is a row; other code is one for each contraction, pool, reduction, sum and cat."""
        call, nodes = stretch.call, stretch.nodes
        live = [id(node) in self.seen for node in nodes]
        cores = sum(node.op.kind in CORES for node, depends in zip(nodes, live) if depends)
        if _is_layer(call) or not call.calls and cores < 2:
            kind = type(call.module).__name__
            yield _Group(call.path or kind, kind, (), nodes, call.outputs)
            return
        starts = [0]
        origin: dict[int, int] = {}  # of a value: the row, or the node that begins a group, whose values it is made of
        for i, node in enumerate(nodes):
            if not live[i]:
                continue
            sources = [id(source) for source in node.sources if id(source) in self.seen]
            found = {origin[s] if s in origin else self.owner[s] for s in sources}
            joins = node.op.kind is Kind.ELEMENTWISE and len(found) > 1
            if joins or node.op.kind in (*COMPUTED, Kind.STORE):
                found = {id(node)}
                start = i
                while start > starts[-1] and not live[start - 1]:  # what is made of weights goes with its reader
                    start -= 1
                starts.append(start)
            origin[id(node)] = found.pop()
        for start, end in zip(starts, [*starts[1:], len(nodes)]):
            part = nodes[start:end]
            if part:
                kind, *then = self._operations(part) or [""]
                yield _Group(".".join(filter(None, (call.path, kind))), kind, tuple(then), part, part[-1:])

    def _operations(self, nodes: list[Node]) -> list[str]:
        """What users call the operations in ``nodes``; movement and the addition of a bias if there is no other."""
        loud: dict[str, None] = {}
        quiet: dict[str, None] = {}
        for node in nodes:
            depends = [id(source) in self.seen for source in node.sources]
            if any(depends) and node.op.kind is not Kind.PROJECTION:
                method = METHODS.get(node.op.name)
                silent = node.op.kind is Kind.MOVEMENT or node.op.name == "add" and not all(depends)
                names = quiet if silent else loud
                names[f"{method}{node.attrs.window.rank}d" if method else node.op.name] = None
        return list(loud or quiet)

    def _add(self, group: _Group, stretch: Stretch) -> None:
        """Make a row of the group, or add it to the row that it continues."""
        live = [node for node in group.nodes if id(node) in self.seen]
        if not live:
            self.waiting += group.nodes
            return
        nodes = [*self.waiting, *group.nodes]
        self.waiting = []
        own = {id(node) for node in live}
        read = list(dict.fromkeys(s for node in live for s in node.sources if id(s) in self.seen and id(s) not in own))
        tensors = self._tensors(nodes)
        computes = bool(tensors) or any(node.op.kind in COMPUTED for node in live)
        joins = len({self.owner[id(source)] for source in read}) > 1
        if not computes and not joins:
            row = self.owner[id(read[0])]
            self.rows[row] = self._continued(self.rows[row], group, live)
        else:
            row = len(self.rows)
            stored = computes or any(node.op.kind is Kind.ELEMENTWISE for node in live)
            self.rows.append(self._row(group, stretch, live, read, tensors, stored))
        self.owner.update(dict.fromkeys(own, row))

    def _row(
        self,
        group: _Group,
        stretch: Stretch,
        live: list[Node],
        read: list[Node],
        tensors: list[tuple[str, Shape]],
        stored: bool,
    ) -> Layer:
        own = {id(node) for node in live}
        outputs = [node for node in group.outputs if id(node) in own] or live[-1:]
        self.names[group.name] += 1
        again = self.names[group.name]
        sizes = [math.prod(node.shape[1:]) for node in outputs if stored]
        cores = tuple(_core(node) for node in live if node.op.kind in CORES)
        sight = _sight(self.seen[id(outputs[0])])
        return Layer(
            group.name if again == 1 else f"{group.name}#{again}",
            group.kind,
            read[0].shape[1:],
            outputs[0].shape[1:],
            params=sum(math.prod(shape) for _, shape in tensors),
            weights=sum(math.prod(shape) for name, shape in tensors if not _is_bias(name)),
            activations=sum(sizes),
            activation_bytes=sum(size * node.dtype.itemsize for size, node in zip(sizes, outputs)),
            macs=sum(core.macs for core in cores),
            receptive_field=sight.receptive_field,
            stride=sight.stride,
            then=group.then,
            tensors=tuple(tensors),
            cores=cores,
            blocks=tuple(self._block(call) for call in stretch.call.chain()[1:] if call.calls),
        )

    def _continued(self, row: Layer, group: _Group, live: list[Node]) -> Layer:
        changes = any(node.op.kind is Kind.ELEMENTWISE for node in live)
        return replace(row, then=(*row.then, group.kind, *group.then)) if changes else row

    def _tensors(self, nodes: list[Node]) -> list[tuple[str, Shape]]:
        """The parameters that ``nodes`` read and no earlier row has."""
        read = {id(source) for node in nodes for source in node.sources} - self.counted
        self.counted |= read
        return [(name, tensor.shape) for key, (name, tensor) in self.trace.parameters.items() if key in read]

    def _block(self, call: Call) -> Block:
        if id(call) not in self.blocks:
            output = next((node for node in call.outputs if id(node) in self.seen), self.trace.image)
            sight = _sight(self.seen[id(output)])
            number = len(self.blocks)
            self.blocks[id(call)] = Block(number, call.path, type(call.module).__name__, output.shape[1:], sight)
        return self.blocks[id(call)]


def _is_layer(call: Call) -> bool:
    """Whether this is a call of one of the layers that ``nn`` has."""
    home = type(call.module).__module__
    return not call.calls and home.startswith("minigrad.nn.") and not home.startswith("minigrad.nn.models.")


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2].startswith("bias")


def _core(node: Node) -> Core:
    contraction = node.op.kind is Kind.CONTRACTION
    shapes = [source.shape for source in node.sources]
    return Core(
        node.op.name,
        getattr(node.attrs, "window", None),
        getattr(node.attrs, "groups", 1),
        shapes[0][1:],
        shapes[1] if contraction else (),
        node.shape[1:],
        node.op.flops(node.attrs, node.shape, *shapes) // 2 if contraction else 0,
    )


def _sight(seen: Field) -> Sight:
    strides = [None if span is None or span.axis is None else abs(span.stride) for span in seen]
    return Sight(
        tuple(None if span is None else span.extent for span in seen),
        tuple(int(s) if s is not None and s.denominator == 1 else s for s in strides),
    )
