"""The functions of :mod:`minigrad.backends.cstyle.mathematics` that some source calls, in a dialect."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from minigrad import dtypes
from minigrad.backends.cstyle.dialect import Dialect
from minigrad.backends.cstyle.mathematics import BUILT_IN, DOUBLE, FLOAT, LANES, SIGNED, UNSIGNED
from minigrad.dtypes import DType


class Functions:
    """The functions that some source calls.

    >>> from minigrad.backends.cstyle.dialect import OPENCL
    >>> functions = Functions(OPENCL)
    >>> functions.call("sigmoid", 4)
    'sigmoid_float4'
    >>> [name for name, _ in functions.used()]
    ['scaled_float4', 'exp_float4', 'sigmoid_float4']
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._texts: dict[str, str] = {}

    def call(self, name: str, width: int, dtype: DType = dtypes.float32) -> str:
        """The C function for a primitive, or another function of this library, on ``width`` values of ``dtype``."""
        full = self._name(name, width, dtype)
        if full not in self._texts:
            text = self._text(name, width, dtype, full)  # first, as it adds what it calls
            self._texts[full] = text
        return full

    def _name(self, name: str, width: int, dtype: DType) -> str:
        return f"{name}_{self.dialect.vector(self.dialect.compute[dtype], width)}"

    def used(self) -> tuple[tuple[str, str], ...]:
        """Names and texts; every function comes after those that it calls."""
        return tuple(self._texts.items())

    def text(self) -> str:
        """All of them as source."""
        return "\n".join(self._texts.values())

    def _text(self, name: str, width: int, dtype: DType, full: str) -> str:
        text = self.dialect.functions.get(name) or _generic(name, width, dtype, self.dialect.denormals)
        text = text.replace(f"@{name}(", f"{full}(", 1)
        for word, number in (("WIDTH", width), ("BITS", 8 * dtype.itemsize)):
            text = text.replace(word, str(number))
        text = re.sub(r"@(@?)(\w+)", lambda m: self._called(m[2], width // (2 if m[1] else 1), dtype), text)
        text = _expanded(text, "root", self.dialect.sqrt)
        for letter, element in _elements(self.dialect, dtype).items():
            type_ = self.dialect.vector(element, width)
            text = _expanded(text, f"to_{letter}", partial(self.dialect.convert, type_=type_))
            text = _expanded(text, f"as_{letter}", partial(self.dialect.reinterpret, type_=type_))
            text = _expanded(text, letter, partial(self.dialect.cast, type_=type_))
            text = re.sub(rf"\b{letter}\b", type_, text)
        return f"{self.dialect.function} {text.strip()}\n"

    def _called(self, name: str, width: int, dtype: DType) -> str:
        if name == "any":
            dtype = dtypes.int32
        return self.call(name, width, dtype)


def _generic(name: str, width: int, dtype: DType, denormals: bool) -> str:
    """The text of a function in the language of the texts."""
    if name == "any":
        return f"int @any(I x) {{\n    return {'x' if width == 1 else '@@any(x.lo | x.hi)'};\n}}"
    if dtype is not dtypes.float64:
        return (FLOAT if dtype.is_float else SIGNED if dtype.is_signed else UNSIGNED)[name]
    if name not in BUILT_IN:
        return DOUBLE[name]
    arguments = BUILT_IN[name].split()
    result = f"{name}({', '.join(arguments)})"
    if name == "pow" and not denormals:  # PoCL's takes them for normal numbers: 5e-324 ** 2 would be 4e-5
        least = "D(2.2250738585072014e-308)"
        result = f"pow(((x < {least}) & (x > -{least})) ? x * D(0.0) : x, y)"
    if width > LANES:
        halves = [f"@@{name}({', '.join(f'{a}.{half}' for a in arguments)})" for half in ("lo", "hi")]
        result = f"(D)({', '.join(halves)})"
    return f"D @{name}({', '.join(f'D {a}' for a in arguments)}) {{\n    return {result};\n}}"


def _elements(dialect: Dialect, dtype: DType) -> dict[str, str]:
    """What the letters stand for, without the width."""
    c = dialect.storage
    fixed = {
        "F": c[dtypes.float32], "D": c[dtypes.float64], "I": c[dtypes.int32], "U": c[dtypes.uint32],
        "L": c[dtypes.int64], "W": c[dtypes.uint64], "H": c[dtypes.uint16],
    }  # fmt: skip
    if not dtype.is_integer:
        return fixed
    unsigned = dtypes.as_dtype(f"uint{8 * dtype.itemsize}")
    return fixed | {"T": c[dtype], "V": c[unsigned], "P": fixed["W" if dtype.itemsize == 8 else "U"]}


def _expanded(text: str, word: str, spell: Callable[[str], str]) -> str:
    """``text`` with every ``word(x)`` replaced by ``spell(x)``."""
    found = re.search(rf"(?<!\w){word}\(", text)
    if found is None:
        return text
    depth, end = 1, found.end()
    while depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    value = _expanded(text[found.end() : end - 1], word, spell)
    return text[: found.start()] + spell(value) + _expanded(text[end:], word, spell)
