"""What a template gives: the text of one or more launches, and how to launch them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

NAME = "NAME"  # stands for the function's name in the text of a stage


class Stage(NamedTuple):
    """One launch.

    Attributes:
        text: the function, its name written as :data:`NAME`.
        groups: work-groups per dimension, one to three.
        local: work-items per group in the same dimensions.
        buffers: the kernel's buffers that are arguments, by position; then come the
        scratch: pieces of :attr:`Rendered.scratch` that are arguments.
        dynamic: bytes of local memory that the launch has to ask for.
    """

    text: str
    groups: tuple[int, ...]
    local: tuple[int, ...]
    buffers: tuple[int, ...]
    scratch: tuple[int, ...] = ()
    dynamic: int = 0


@dataclass(frozen=True)
class Rendered:
    """A kernel as source.

    Attributes:
        stages: launches, in order. None where the kernel has nothing to do.
        library: text of the functions that the stages call, each with its name so that equal ones are written once.
        scratch: bytes of each piece of memory that the stages share.
    """

    stages: tuple[Stage, ...]
    library: tuple[tuple[str, str], ...] = ()
    scratch: tuple[int, ...] = ()


def function_names(rendered: Rendered, label: str, number: int) -> list[str]:
    """Names for the functions of the kernel ``number`` of a program; ``label`` goes into them."""
    stem = f"k{number}_{re.sub(r'[^A-Za-z0-9_]', '_', label)[:40]}"
    return [f"{stem}_{n}" if n else stem for n in range(len(rendered.stages))]


def assembled(prelude: str, functions: Mapping[Rendered, Sequence[str]]) -> str:
    """The source of several kernels: what it begins with, the library, and each stage under its name."""
    library = {name: text for one in functions for name, text in one.library}
    stages = [stage.text.replace(NAME, name) for one in functions for stage, name in zip(one.stages, functions[one])]
    return "\n\n".join([prelude, *library.values(), *stages]) + "\n"


def indented(lines: Iterable[str], by: int = 1) -> list[str]:
    """Lines (which may hold several) further to the right."""
    return ["    " * by + part for line in lines for part in line.split("\n")]


def block(head: str, lines: Iterable[str]) -> str:
    """``head { lines }``: a loop, a condition, a scope."""
    return "\n".join([head + " {" if head else "{", *indented(lines), "}"])


def loop(
    variable: str, start: str | int, stop: str | int, lines: Iterable[str], step: int = 1, index: str = "int"
) -> str:
    """A counting loop over a variable of type ``index``."""
    move = f"++{variable}" if step == 1 else f"{variable} += {step}"
    return block(f"for ({index} {variable} = {start}; {variable} < {stop}; {move})", lines)


def split(total: int, parts: int) -> tuple[int, int]:
    """``total`` things shared out evenly: things per part, and parts that get any."""
    each = -(-total // max(1, min(parts, total))) if total else 1
    return each, -(-total // each)
