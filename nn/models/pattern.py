"""Networks from patterns such as ``[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX``, and patterns from networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from minigrad.config import settings
from minigrad.errors import ArgumentError, ArgumentTypeError, MinigradError, ShapeError
from minigrad.graph import Node
from minigrad.mode import no_grad
from minigrad.nn.activation import ReLU, Sigmoid, Tanh
from minigrad.nn.container import Sequential
from minigrad.nn.conv import Conv2d
from minigrad.nn.dropout import Dropout
from minigrad.nn.linear import Flatten, Identity, Linear
from minigrad.nn.models.alexnet import response_norm
from minigrad.nn.models.network import Network, he_init
from minigrad.nn.models.notation import WORDS, Word, fold, misread, parse
from minigrad.nn.module import Module
from minigrad.nn.norm import BatchNorm2d
from minigrad.nn.pool import AvgPool2d, MaxPool2d
from minigrad.nn.summary import output_size
from minigrad.nn.summary.trace import trace
from minigrad.shapes import per_axis
from minigrad.tensor import Tensor

Size = tuple[int, int, int]
WIDEST = 512  # filters, where they double after each pool


class PatternNet(Network):
    """A network whose layers stand in a row; :func:`from_pattern` makes it.

    Attributes:
        layers: the layers.
    """

    def __init__(self, layers: Sequence[Module], input_size: Size) -> None:
        super().__init__()
        self.input_size = input_size
        self.layers = Sequential(*layers)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_classes), or to what the last layer gives."""
        return self.layers(x)  # type: ignore[no-any-return]


def from_pattern(
    pattern: str,
    input_size: Size = (3, 32, 32),
    num_classes: int | None = None,
    *,
    width: int = 64,
    hidden: int = 512,
    optional: bool = True,
    strict: bool = False,
    **counts: int,
) -> PatternNet:
    """A new network, from the notation of :mod:`minigrad.nn.models.notation`.

    What the pattern leaves open: convolutions have extent 3 and as many filters as the one before, or twice as many
    after a pool, up to 512; at stride 1 they keep the size, at others nothing is padded. Pools are 2x2 at stride 2.
    The first ``FC`` flattens. ``SOFTMAX`` stands for the classifier, to whose logits ``predict_proba`` applies it: that
    is the ``FC`` right before it, or one that is added.

    Args:
        pattern: the layers, such as ``[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX``.
        input_size: (C, H, W) of the images.
        num_classes: number of logits; None is the width of an ``FC`` right before ``SOFTMAX``, or 10.
        width: filters of the first convolution, where it does not say.
        hidden: width of fully connected layers that do not say.
        optional: whether parts with ``?`` are there.
        strict: whether windows must fit without a rest; otherwise sizes are rounded down.
        counts: what the names after ``*`` stand for, such as ``N=2``.

    Raises:
        ArgumentError: pointing at the column that cannot be read, or has no place there.
        ShapeError: pointing at the layer that does not fit.

    >>> net = from_pattern("[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX", N=2, M=3, K=1)
    >>> net(Tensor.zeros(5, 3, 32, 32)).shape
    (5, 10)
    >>> print(to_pattern(net))
    (CONV3-64-RELU)*2-POOL-(CONV3-128-RELU)*2-POOL-(CONV3-256-RELU)*2-POOL-FC-512-RELU-FC-10,SOFTMAX
    """
    if not isinstance(pattern, str):
        raise ArgumentTypeError.of("from_pattern", "a pattern such as CONV-RELU-POOL", repr(pattern))
    sizes = {"num_classes": 1 if num_classes is None else num_classes, "width": width, "hidden": hidden}
    for name, value in sizes.items():
        per_axis("from_pattern", name, value, 1, 1)
    words = _with_classifier(pattern, parse(pattern, counts, optional), num_classes)
    layers: list[Module] = []
    with no_grad(), settings.override(eager=False):
        x = Tensor.zeros(1, *input_size)  # goes through the layers lazily: nothing but its shape is computed
        for word in _completed(words, width, hidden):
            if word.name == "FC" and x.ndim > 2:
                layers.append(Flatten())
                x = x.flatten(1)
            try:
                if strict and word.extent is not None:
                    output_size(x.shape[2:], word.extent, word.stride or 1, word.padding or 0)
                layers.append(_layer(word, x.shape[1]))
                x = layers[-1].eval()(x)
            except MinigradError as error:
                expected = f"{_shortened(word)} to fit {'x'.join(map(str, x.shape[1:]))}"
                reason = str(error).partition("\n")[0]
                if not isinstance(error, ShapeError):
                    raise misread(ArgumentError, pattern, word.column, expected, reason) from error
                got = f"{reason.removesuffix(': does not fit')}: does not fit"
                raise misread(ShapeError, pattern, word.column, expected, got) from error
    return PatternNet(layers, input_size).train()


def to_pattern(model: Module, input_size: Size | None = None) -> str:
    """The pattern of a network whose layers stand in a row: :func:`from_pattern` makes the same layers of it.

    Args:
        model: LeNet-5, AlexNet, VGG, a :class:`PatternNet`, or another network of such layers.
        input_size: (C, H, W) of the images; None is that of the network.

    Raises:
        ArgumentError: if a layer does not read what the one before it gives, or the notation has nothing like it.

    >>> from minigrad.nn.models.lenet import lenet5
    >>> print(to_pattern(lenet5(padding=0)))
    CONV5-6p0-RELU-POOL-CONV5-16p0-RELU-POOL-CONV5-120p0-RELU-FC-84-RELU-FC-10,SOFTMAX
    """
    row = _row(model, input_size)
    words = [word for path, layer in row for word in _words(path, layer)]
    softmax = ",SOFTMAX" if isinstance(model, Network) and words and words[-1].name == "FC" else ""
    return fold([str(word) for word in words]) + softmax


# From words to layers.

POOLS: dict[str, Callable[..., Module]] = {"POOL": MaxPool2d, "AVGPOOL": AvgPool2d}
PLAIN: dict[str, Callable[[], Module]] = {"RELU": ReLU, "TANH": Tanh, "SIGMOID": Sigmoid, "LRN": response_norm}


def _with_classifier(pattern: str, words: list[Word], num_classes: int | None) -> list[Word]:
    """The words without ``SOFTMAX``, ending in the classifier that it stands for."""
    for word in words[:-1]:
        if word.name == "SOFTMAX":
            raise misread(ArgumentError, pattern, word.column, "SOFTMAX at the end", "more layers after it")
    if not words or words[-1].name != "SOFTMAX":
        if num_classes is not None:
            raise misread(ArgumentError, pattern, len(pattern), "SOFTMAX, where num_classes is given", "the end")
        return words
    *body, softmax = words
    classifier = body.pop() if body and body[-1].name == "FC" else Word("FC", column=softmax.column)
    classes = classifier.width or num_classes or 10
    if num_classes not in (None, classes):
        expected = f"FC of {num_classes} before SOFTMAX, as num_classes says"
        raise misread(ArgumentError, pattern, classifier.column, expected, str(classifier))
    return [*body, classifier._replace(width=classes)]


def _completed(words: Iterable[Word], width: int, hidden: int) -> Iterator[Word]:
    """The words with all their numbers."""
    filters: float = width
    for word in words:
        if word.name == "CONV":
            filters = word.width or filters
            extent, stride = word.extent or 3, word.stride or 1
            keeping = (extent - 1) // 2 if stride == 1 else 0
            padding = keeping if word.padding is None else word.padding
            yield word._replace(extent=extent, width=filters, stride=stride, padding=padding)
        elif word.name in POOLS:
            filters = max(filters, min(2 * filters, WIDEST))
            yield word._replace(extent=word.extent or 2, stride=word.stride or 2, padding=word.padding or 0)
        elif word.name == "FC":
            yield word._replace(width=word.width or hidden)
        elif word.name == "DROPOUT":
            yield word._replace(width=0.5 if word.width is None else word.width)
        else:
            yield word


def _layer(word: Word, features: int) -> Module:
    """The layer of a word with all its numbers, on so many channels or features."""
    extent, stride, padding, width = word.extent or 0, word.stride or 0, word.padding or 0, word.width or 0
    if word.name == "CONV":
        return Conv2d(features, int(width), extent, stride, padding)
    if word.name == "FC":
        return Linear(features, int(width))
    if word.name == "DROPOUT":
        return Dropout(width)
    if word.name == "BN":
        return BatchNorm2d(features)
    return POOLS[word.name](extent, stride, padding) if word.name in POOLS else PLAIN[word.name]()


# From layers to words.


def _row(model: Module, input_size: Size | None) -> list[tuple[str, Module]]:
    """The layers of a network with their paths, each of which reads what the one before it gives."""
    size = getattr(model, "input_size", None) if input_size is None else input_size
    if size is None:
        raise ArgumentTypeError.of("to_pattern", "an input_size (C, H, W)", "none", "the network has none either")
    like = next(model.parameters(), Tensor.zeros(1))
    traced = trace(model, (1, *size), like.dtype, like.device, training=False)
    value, before = traced.image, "the image"
    row = []
    for call in (stretch.call for stretch in traced.stretches if not stretch.call.calls):
        path = call.path or type(model).__name__
        if [_unflattened(node) for node in call.inputs] != [_unflattened(value)] or len(call.outputs) != 1:
            raise _outside(f"{path}, which takes more or something else than {before}")
        row.append((path, call.module))
        (value,), before = call.outputs, f"what {path} gives"
    if [_unflattened(node) for node in traced.stretches[0].call.outputs] != [_unflattened(value)]:
        raise _outside(f"{type(model).__name__}, which gives something else than {before}")
    return row


def _unflattened(node: Node) -> Node:
    """What a node is a reshaped view of."""
    while node.op.name == "reshape":
        (node,) = node.sources
    return node


def _words(path: str, layer: Module) -> list[Word]:
    """The word of a layer, if it needs one."""
    if isinstance(layer, (Flatten, Identity)):
        return []
    features, words = 0, [Word(name) for name in PLAIN]
    if isinstance(layer, (Conv2d, MaxPool2d, AvgPool2d)):
        features = layer.in_channels if isinstance(layer, Conv2d) else 0
        width = layer.out_channels if isinstance(layer, Conv2d) else None
        extent, stride, padding = (_first(size) for size in (layer.kernel_size, layer.stride, layer.padding))
        words = [Word(name, extent, width, stride, padding) for name in ("CONV", *POOLS)]
    elif isinstance(layer, Linear):
        features, words = layer.in_features, [Word("FC", width=layer.out_features)]
    elif isinstance(layer, Dropout):
        words = [Word("DROPOUT", width=layer.p)]
    elif isinstance(layer, BatchNorm2d):
        features, words = layer.num_features, [Word("BN")]
    for word in words:
        if _settings(_layer(word, features)) == _settings(layer):  # also those that the notation lacks
            return [_shortened(word)]
    raise _outside(f"{path}: {layer!r}")


def _first(size: Any) -> int | None:
    """A size, or that of the first axis; None for padding by name."""
    return size[0] if isinstance(size, tuple) else size if isinstance(size, int) else None


def _settings(layer: Module) -> str:
    """How a layer prints, where sizes that are equal along both axes are written once."""
    return re.sub(r"\((\d+), \1\)", r"\1", repr(layer))


def _shortened(word: Word) -> Word:
    """A word without the numbers that it has anyway."""
    for kinds in (("padding",), ("stride",), ("stride", "extent"), ("width",)):
        shorter = Word(**{**word._asdict(), **dict.fromkeys(kinds)})
        kept = word.name == "CONV" and "extent" in kinds
        if not kept and list(_completed([shorter], 0, 0)) == list(_completed([word], 0, 0)):
            word = shorter
    return word


def _outside(what: str) -> MinigradError:
    expected = "a row of layers that the notation has"
    return ArgumentError.of("to_pattern", expected, what, f"these are {', '.join(WORDS)}")
