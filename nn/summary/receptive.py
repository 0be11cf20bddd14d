"""Receptive fields: which part of the image a value depends on, followed through the lazy graph.

Along one spatial dimension of the image, the value at position o of a map sees the pixels ``stride * o + low`` to
``stride * o + high``: a window of F taps, stride S, dilation D and P zeros in front makes of this

    low + stride * -P,  high + stride * (D (F - 1) - P),  stride * S

(Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019). Pixels beyond
the edges count like others: padding is ignored. Where branches meet, a value sees what any of them sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from minigrad.graph import Node
from minigrad.primitive import Kind
from minigrad.shapes import Shape, Window, row_major

_PIXELS = (Fraction(1), Fraction(0))


class Span(NamedTuple):
    """What a value sees along one dimension of the image, and which of its indices says where.

    Its position is ``index[axis] // inner % size``: reshapes join and split axes. ``axis`` is None where all values
    see the same pixels. Behind a transposed convolution or an upsampling, positions lie between those before: what is
    seen is then whole windows of those, each of ``grain[1] + 1`` pixels, ``grain[0]`` from one to the next.
    """

    axis: int | None
    inner: int
    size: int
    stride: Fraction
    low: Fraction
    high: Fraction
    grain: tuple[Fraction, Fraction] = _PIXELS

    @property
    def extent(self) -> int:
        """Pixels seen, at most."""
        step, width = self.grain
        return math.floor(step * math.floor((self.high - self.low - width) / step) + width) + 1

    def on(self, axis: int | None) -> Span:
        """The same along another axis."""
        return self._replace(axis=axis)

    def alone(self, shape: Shape) -> Span | None:
        """The same with every index of its axis in ``shape`` as a position; None if that axis holds more."""
        if self.axis is None or self.inner * self.size != shape[self.axis]:
            return None
        return self if self.inner == 1 else self.between(self.inner, 0, self.inner - 1)._replace(inner=1)

    def between(self, step: int, before: int, taps: int) -> Span:
        """Position p sees what positions (p + before - taps) / step to (p + before) / step have seen."""
        stride = self.stride / step
        ends = stride * (before - taps), stride * before
        grain = (abs(self.stride), self.high - self.low) if self.grain == _PIXELS else self.grain
        return self._replace(stride=stride, low=self.low + min(ends), high=self.high + max(ends), grain=grain)

    def moved(self, start: int, step: Fraction | int = 1, more: Fraction | int = 0) -> Span:
        """Position o sees what ``start + o * step`` and the positions up to ``more`` further have seen."""
        ends = self.stride * start, self.stride * (start + more)
        return self._replace(stride=self.stride * step, low=self.low + min(ends), high=self.high + max(ends))


Field = tuple[Span | None, ...]  # one entry per spatial dimension of the image; None: all of it, or not known better


def fields(nodes: Iterable[Node], image: Node) -> dict[int, Field]:
    """The receptive field of each node that depends on ``image``, (N, C, *S), by ``id``.

    Args:
        nodes: sources before users.
        image: the node of the input.
    """
    start = (Span(axis, 1, image.shape[axis], Fraction(1), Fraction(0), Fraction(0)) for axis in range(2, image.ndim))
    found: dict[int, Field] = {id(image): tuple(start)}
    for node in nodes:
        sources = [index for index, source in enumerate(node.sources) if id(source) in found]
        if sources and id(node) not in found:
            before = zip(*(found[id(node.sources[i])] for i in sources))
            found[id(node)] = tuple(_seen(node, sources, list(spans)) for spans in before)
    return found


def _seen(node: Node, sources: list[int], spans: list[Span | None]) -> Span | None:
    """What ``node`` sees along one dimension, where its sources of these indices see ``spans``."""
    if node.op.name == "cat" and len(sources) == node.shape[node.attrs.axis] > 1:
        rows = [span for span in spans if span is not None and span.axis == node.attrs.axis and span.size == 1]
        if len(rows) == len(sources):
            return _listed(rows)
    return _union([_through(node, index, span) for index, span in zip(sources, spans)])


def _listed(rows: list[Span]) -> Span:
    """Positions that each see something of their own, as an uneven adaptive pool gives them: the mean stride."""
    stride = (rows[-1].low - rows[0].low) / (len(rows) - 1)
    low = min(row.low - stride * o for o, row in enumerate(rows))
    high = max(row.high - stride * o for o, row in enumerate(rows))
    return rows[0]._replace(size=len(rows), stride=stride, low=low, high=high)


def _union(given: list[Span | None]) -> Span | None:
    """What is seen by any of several values; None where their windows move differently."""
    spans = [span for span in given if span is not None]
    if len(spans) < len(given):
        return None
    places = [span for span in spans if span.axis is not None and span.size > 1]
    if any(span[:4] != places[0][:4] for span in places) or places and len(places) < len(spans):
        return None
    first = (places or spans)[0]
    whole = first.grain if all(span.grain == first.grain for span in spans) else _PIXELS
    return first._replace(low=min(s.low for s in spans), high=max(s.high for s in spans), grain=whole)


def _through(node: Node, index: int, span: Span | None) -> Span | None:
    """What ``node`` sees by its source of that index, which sees ``span``."""
    if span is None or span.axis is None:
        return span
    source = node.sources[index]
    name, kind, attrs, axis = node.op.name, node.op.kind, node.attrs, span.axis
    lead = node.ndim - source.ndim
    single = span.on(None) if span.size == 1 else None
    if kind in (Kind.IDENTITY, Kind.PROJECTION, Kind.TRANSFER):
        return span
    if kind is Kind.ELEMENTWISE or name == "expand":
        return _spread(span, source.shape, node.shape, lead)
    if name == "reshape":
        return _reshaped(span, source.shape, node.shape)
    if name == "permute":
        return span.on(attrs.axes.index(axis))
    if kind is Kind.REDUCE or kind is Kind.SCAN:
        axes = getattr(attrs, "axes", None) or (attrs.axis,)
        return single if axis in axes else span
    if name == "matmul":
        inner = axis == source.ndim - 1 - index
        return single if inner else _spread(span, source.shape, node.shape, lead)
    if name in ("conv", "max_pool", "avg_pool") and index == 0:
        return _windowed(span, source, node)
    if name == "conv_input_grad" and index == 0:
        return _transposed(span, source, node)
    if name in ("slice", "pad", "cat"):
        return _placed(span, node, index)
    return single


def _spread(span: Span, before: Shape, after: Shape, lead: int) -> Span:
    """Through broadcasting: what is repeated sees the same everywhere."""
    assert span.axis is not None
    axis = span.axis + lead
    return span.on(None if before[span.axis] != after[axis] else axis)


def _reshaped(span: Span, before: Shape, after: Shape) -> Span | None:
    """The axis of ``after`` whose index holds the position as a digit of the row-major index.

    Where a position is split over axes, its upper part counts: a block of positions is seen together.
    """
    assert span.axis is not None
    if span.size == 1:
        return span.on(None)
    inner = span.inner * row_major(before)[span.axis]
    end = inner * span.size
    for axis, stride in enumerate(row_major(after)):
        if stride < end and (stride * after[axis]) % end == 0:
            if inner % stride == 0:
                return span._replace(axis=axis, inner=inner // stride)
            if stride % inner == 0:
                block = stride // inner
                return span.moved(0, block, block - 1)._replace(axis=axis, inner=1, size=span.size // block)
    return None


def _windowed(span: Span, source: Node, node: Node) -> Span | None:
    """Under the windows of a convolution or a pool."""
    window: Window = node.attrs.window
    place = (span.axis or 0) - 2
    if place == -1 and node.op.name == "conv":  # channels are summed
        return span.on(None) if span.size == 1 else None
    if place < 0:
        return span
    taps = window.extent(place) - 1
    if not taps and window.stride[place] == 1 and not any(window.padding[place]):
        return span
    alone = span.alone(source.shape)
    after = alone and alone.moved(-window.padding[place][0], window.stride[place], taps)
    return after and after._replace(size=node.shape[place + 2])


def _transposed(span: Span, source: Node, node: Node) -> Span | None:
    """Output p is reached from o = (p + P - tap * D)/S, where that is whole."""
    window: Window = node.attrs.window
    place = (span.axis or 0) - 2
    if place == -2:
        return span
    alone = span.alone(source.shape) if place >= 0 else None
    after = alone and alone.between(window.stride[place], window.padding[place][0], window.extent(place) - 1)
    return after and after._replace(size=node.shape[place + 2])


def _placed(span: Span, node: Node, index: int) -> Span | None:
    """In a part of a tensor, or as a part of one."""
    assert span.axis is not None
    source, axis, attrs = node.sources[index], span.axis, node.attrs
    if node.op.name == "slice":
        start, step = attrs.starts[axis], attrs.steps[axis]
    elif node.op.name == "pad":
        start, step = -attrs.padding[axis][0], 1
    else:
        start, step = -sum(s.shape[axis] for s in node.sources[:index]) if axis == attrs.axis else 0, 1
    if node.shape[axis] == source.shape[axis] and start == 0 and step == 1:
        return span
    alone = span.alone(source.shape)
    return alone and alone.moved(start, step)._replace(size=node.shape[axis])
