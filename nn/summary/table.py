"""A summary as a table for terminals of 80 columns and more, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from minigrad.nn.summary.layers import Layer
from minigrad.shapes import Shape

if TYPE_CHECKING:
    from rich.table import Table

    from minigrad.nn.summary.report import Summary

HEADINGS = {
    "layer": "layer",
    "kind": "kind",
    "output": "output",
    "params": "parameters",
    "weights": "without biases",
    "activations": "activations",
    "activation_bytes": "bytes",
    "macs": "multiply-adds",
    "receptive_field": "field",
    "stride": "stride",
}
BRIEF = {"params": "params", "activations": "activ.", "macs": "macs", "weights": "weights"}


def times(sizes: Shape | tuple[object, ...]) -> str:
    """Sizes as they are written.

    >>> times((96, 55, 55))
    '96x55x55'
    """
    return "x".join(map(str, sizes))


def brief(number: int) -> str:
    """A number in three digits.

    >>> brief(1792), brief(15_470_264_320), brief(999_999)
    ('1.79K', '15.5G', '1M')
    """
    value, units = float(number), ["", "K", "M", "G", "T"]
    while len(units) > 1 and float(f"{value:.3g}") >= 1000:
        value, units = value / 1000, units[1:]
    return f"{value:.3g}{units[0]}"


def size(nbytes: int) -> str:
    """Bytes, in decimal units.

    >>> size(60_950_432), size(12)
    ('61 MB', '12 bytes')
    """
    text = brief(nbytes)
    return f"{text[:-1]} {text[-1].replace('K', 'k')}B" if text[-1].isalpha() else f"{text} bytes"


def title(layer: Layer, then: bool = True) -> str:
    """What a layer is: its kind, its window and step, and what follows in place."""
    parts = [layer.kind]
    window = layer.window
    if window is not None:
        step = times(window.stride) if len(set(window.stride)) > 1 else str(window.stride[0])
        parts[0] += f" {times(window.kernel)}" + (f"/{step}" if step != "1" else "")
        if set(window.dilation) != {1}:
            parts.append(f"dilation {times(tuple(dict.fromkeys(window.dilation)))}")
    if any(core.groups > 1 for core in layer.cores):
        parts.append(f"{layer.cores[0].groups} groups")
    return ", ".join([*parts, *(layer.then if then else ())])


def _along(values: tuple[int | Fraction | None, ...], unknown: str) -> str:
    """One number where all are equal."""
    shown = [unknown if v is None else str(v) if v.denominator == 1 else f"{float(v):g}" for v in values]
    return "x".join(shown[:1] if len(set(shown)) == 1 else shown)


def _cells(layer: Layer, columns: tuple[str, ...], short: bool, then: bool) -> Iterator[str]:
    for column in columns:
        if column == "layer":
            yield layer.name
        elif column == "kind":
            text = title(layer, then) if layer.kind else ", ".join(layer.then)
            yield text if then else re.sub(r"(?<=[a-z])\dd\b", "", text)  # Conv2d and conv2d without their 2d
        elif column == "output":
            yield times(layer.output)
        elif column == "receptive_field":
            yield _along(layer.receptive_field, "all")
        elif column == "stride":
            yield _along(layer.stride, "") if any(layer.stride) else ""
        else:
            number = getattr(layer, column)
            yield brief(number) if short else f"{number:,}"


_FULL = tuple(HEADINGS)
_PLAIN = tuple(c for c in HEADINGS if c not in ("weights", "activation_bytes"))


class _Form(NamedTuple):
    """One way to show the table."""

    columns: tuple[str, ...]
    short: bool = False  # numbers in three digits
    then: bool = True  # with what follows in place
    gap: int = 3  # blanks between columns


_FORMS = (  # the widest first
    _Form(_FULL),
    _Form(_PLAIN),
    _Form(_PLAIN, short=True, gap=2),
    _Form(_PLAIN, short=True, then=False, gap=2),
    _Form(_PLAIN, short=True, then=False, gap=1),
    _Form(_PLAIN[:-1], short=True, then=False, gap=1),
)


def table(summary: Summary, width: int) -> Table:
    """The table in the widest form that ``width`` columns hold; at 80 it has numbers in three digits."""
    for columns, short, then, gap in _FORMS:
        headings = [BRIEF.get(column, HEADINGS[column]) if short else HEADINGS[column] for column in columns]
        rows = [list(_cells(layer, columns, short, then)) for layer in (summary.input, *summary.rows)]
        widths = [max(map(len, cells)) for cells in zip(headings, *rows)]
        if sum(widths) + gap * len(widths) + 1 <= width:
            break
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False)
    for column, heading in zip(columns, headings):
        left = column in ("layer", "kind")  # where nothing fits, kinds go on in a second line
        made.add_column(heading, justify="left" if left else "right", no_wrap=column != "kind", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def lines(summary: Summary) -> Iterator[str]:
    """The totals, in sentences."""
    memory = summary.memory()
    early, dense = summary.early_convolutions, summary.fully_connected
    yield (
        f"{summary.model}: {summary.total_params:,} parameters ({summary.total_weights:,} without biases), "
        f"{summary.total_macs:,} multiply-adds for one image"
    )
    yield (
        f"activations of one image, its pixels included: {summary.total_activations:,} values, "
        f"{summary.total_activation_bytes:,} bytes"
    )
    parts = [f"parameters {size(memory.parameters)}", f"gradients {size(memory.gradients)}"]
    parts.append(f"state of {memory.optimizer} {size(memory.optimizer_state)}")
    if memory.buffers:
        parts.append(f"buffers {size(memory.buffers)}")
    parts.append(f"activations {memory.batch_size} * {size(summary.total_activation_bytes)}")
    yield (
        f"training memory at batch size {memory.batch_size}: {' + '.join(parts)} = {size(memory.total)}, "
        f"up to {size(memory.peak)} with gradients of activations"
    )
    count = sum(layer.is_convolution for layer in summary.layers)
    if count:
        these = f"the first {len(early.layers)} of {count}" if count > 1 else "the only one"
        yield f"early convolutions ({these}): {100 * early.fraction:.1f} % of the activations"
    if dense.layers:
        yield f"fully connected layers: {100 * dense.fraction:.1f} % of the parameters"
    if summary.unused:
        number = sum(weight.numel for weight in summary.unused)
        names = dict.fromkeys(weight.name.partition(".")[0] for weight in summary.unused)
        yield f"not used in this mode: {number:,} parameters of {', '.join(names)}"


def markdown(summary: Summary) -> str:
    """The table and the totals as Markdown, every number in full."""
    rows = [[HEADINGS[column] for column in _FULL]]
    rows.append(["---" if column in ("layer", "kind") else "---:" for column in _FULL])
    rows += [list(_cells(layer, _FULL, False, True)) for layer in (summary.input, *summary.rows)]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*text, "", *(f"- {line}" for line in lines(summary))])
