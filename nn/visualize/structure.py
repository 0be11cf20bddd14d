"""The structure of a network between its input and a layer: what a value sees, and what signals pass on the way back.

It is read from the lazy graph of a forward pass that is never run, as by ``nn.summary``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minigrad import device, dtypes
from minigrad.errors import ArgumentTypeError
from minigrad.graph import Node
from minigrad.nn.activation import ReLU
from minigrad.nn.module import Module
from minigrad.nn.norm import LocalResponseNorm
from minigrad.nn.summary.receptive import Field, fields
from minigrad.nn.summary.trace import trace
from minigrad.nn.visualize.probe import chosen, numbered
from minigrad.primitive import Kind

LINEAR_KINDS = (Kind.IDENTITY, Kind.PROJECTION, Kind.TRANSFER, Kind.MOVEMENT, Kind.STORE, Kind.INDEX)
LINEAR = {"copy", "cast", "neg", "add", "sub", "sum", "cumsum", "max_pool", "window_gather", "avg_pool", "max", "sort"}
PRODUCTS = {"mul", "matmul", "conv", "conv_input_grad", "where"}  # linear in one factor


class Window(NamedTuple):
    """Pixels from a first one to before a last one; they may lie beyond the edges of the image."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels a layer's values depend on; padding counts as pixels.

    Attributes:
        shape: that of the layer's output for one image.
        size: height and width of the image.
        spans: what is seen along each of the two, as :mod:`minigrad.nn.summary.receptive` has it.
    """

    shape: tuple[int, ...]
    size: tuple[int, int]
    spans: Field

    def window(self, index: Sequence[int]) -> Window:
        """What the value at ``index``, such as (unit, row, column), sees; the whole image where it is not known better.

        >>> from minigrad import nn
        >>> receptive_field(nn.models.lenet5(), "s2", (1, 28, 28)).window((0, 0, 13))
        Window(top=-2, bottom=4, left=24, right=30)
        """
        ends: list[int] = []
        for span, length in zip(self.spans, self.size):
            if span is None:
                ends += [0, length]
                continue
            place = 0 if span.axis is None else index[span.axis - 1] // span.inner % span.size
            offset = span.stride * place
            ends += [math.ceil(span.low + offset), math.floor(span.high + offset) + 1]
        return Window(*ends)


def receptive_field(model: Module, layer: str, input_size: Sequence[int]) -> ReceptiveField:
    """The receptive field of a layer's values, for images of ``input_size``, (C, H, W).

    Raises:
        ArgumentError: if there is no such layer; lists those that there are.
        ShapeError: if such images do not fit the network.
    """
    found = Structure(model, input_size)
    node = found.node(layer)
    whole: Field = (None, None)
    return ReceptiveField(node.shape[1:], (input_size[1], input_size[2]), found.seen.get(id(node), whole))


class Structure:
    """The graph of a forward pass and which module made which part of it.

    Attributes:
        output: the node that the network gives.
        outputs: those that its layers give, by name.
        seen: the receptive fields of the nodes that depend on the image, by id.
    """

    def __init__(self, model: Module, input_size: Sequence[int]) -> None:
        first = next(model.parameters(), None)
        place = first.device if first is not None else device.canonical(None)
        kind = first.dtype if first is not None else dtypes.float32
        traced = trace(model, (1, *input_size), kind, place, training=False)
        self._nodes = [(node, stretch.call) for stretch in traced.stretches for node in stretch.nodes]
        self.seen = fields((node for node, _ in self._nodes), traced.image)
        network, *layers = {id(stretch.call): stretch.call for stretch in traced.stretches}.values()
        self.output = network.outputs[0]
        calls: Counter[str] = Counter()
        names = [numbered(call.path, calls) for call in layers]
        self.outputs = {name: call.outputs[0] for name, call in zip(names, layers) if len(call.outputs) == 1}

    def node(self, layer: str | None) -> Node:
        """What a layer gives; None is the network.

        Raises:
            ArgumentError: if there is none of that name; lists those that there are.
        """
        return self.output if layer is None else chosen("layer", layer, self.outputs)

    def check_guided(self, op: str, layer: str | None) -> None:
        """That each ReLU before a layer is a module, and that there is one.

        Raises:
            ArgumentTypeError: naming the module that applies ReLU itself.
        """
        hooked = 0
        for node, path, module in self._before(layer):
            if node.op.name == "relu":
                hooked += 1
                if not isinstance(module, ReLU):
                    raise ArgumentTypeError.of(op, "ReLU as layers (nn.ReLU)", f"relu in the forward of {path}")
        if not hooked:
            raise ArgumentTypeError.of(op, "a network with ReLU before the layer", "none")

    def check_linear(self, op: str, layer: str | None) -> None:
        """That all before a layer, but ReLU layers and local response normalisation, is linear once pools have chosen.

        Raises:
            ArgumentTypeError: naming the module that does something else.
        """
        for node, path, module in self._before(layer):
            if isinstance(module, (ReLU, LocalResponseNorm)):
                continue
            varying = sum(id(source) in self.seen for source in node.sources)
            name = node.op.name
            linear = node.op.kind in LINEAR_KINDS or name in LINEAR or name in PRODUCTS and varying == 1
            if not linear and not (name == "div" and id(node.sources[1]) not in self.seen):
                expected = "convolutions, pools, linear layers and ReLU (nn.ReLU) only"
                got = f"{path} ({type(module).__name__}), which computes {name}"
                raise ArgumentTypeError.of(op, expected, got, "saliency goes back through any layer")

    def _before(self, layer: str | None) -> list[tuple[Node, str, Module]]:
        """The nodes from the image to a layer, each with its module."""
        stack = [self.node(layer)]
        wanted: set[int] = set()
        while stack:
            node = stack.pop()
            if id(node) in self.seen and id(node) not in wanted:
                wanted.add(id(node))
                stack.extend(node.sources)
        return [
            (node, call.path or type(call.module).__name__, call.module)
            for node, call in self._nodes
            if id(node) in wanted
        ]
