"""Shared by the tests of the suite: rows by level, and what a backend declares."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

from minigrad import device as devices
from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.primitive import Kind, Primitive
from minigrad.testing import strategies
from minigrad.testing.plugin import DECLARED

_LEVELS = {
    1: (Kind.CREATION, Kind.ELEMENTWISE, Kind.IDENTITY),
    2: (Kind.MOVEMENT, Kind.STORE, Kind.REDUCE, Kind.SCAN, Kind.INDEX),
    3: (Kind.CONTRACTION, Kind.WINDOW),
}
LEVEL = {kind: level for level, kinds in _LEVELS.items() for kind in kinds}
ROWS = strategies.rows()


def by_level(ops: Iterable[Primitive]) -> Any:
    """``pytest.mark.parametrize`` over rows of the table, each at its level."""
    found = [pytest.param(op, id=op.name, marks=pytest.mark.level(LEVEL[op.kind])) for op in ops]
    return pytest.mark.parametrize("op", found)


def in_groups(ops: Iterable[Primitive], size: int = 10) -> Any:
    """``pytest.mark.parametrize`` over groups of rows of one level: compiled together, kernels cost less."""
    found: dict[int, list[Primitive]] = {}
    for op in ops:
        found.setdefault(LEVEL[op.kind], []).append(op)
    groups = [(level, row[n : n + size]) for level, row in found.items() for n in range(0, len(row), size)]
    cases = [
        pytest.param(part, id=f"{part[0]} to {part[-1]}", marks=pytest.mark.level(level)) for level, part in groups
    ]
    return pytest.mark.parametrize("ops", cases)


def supported(device: str, ops: Iterable[Primitive]) -> list[Primitive]:
    """Those of ``ops`` that the backend has; skips a test for which there is none."""
    wanted = list(ops)
    found = [op for op in wanted if op.name not in unsupported(device)]
    if not found:
        needs(device, *(op.name for op in wanted))
    return found


def some(share: float) -> Any:
    """Settings with a share of the profile's examples."""
    return settings(max_examples=max(1, math.ceil(settings().max_examples * share)))


def unsupported(device: str) -> frozenset[str]:
    """The primitives that a backend declares that it does not have."""
    return devices.get(device).backend.capabilities.unsupported


def needs(device: str, *ops: str) -> None:
    """Skip a test whose primitives the backend declares that it does not have."""
    missing = sorted(set(ops) & unsupported(device))
    if missing:
        pytest.skip(f"{DECLARED}{device} does not have {', '.join(missing)}")


def dtypes_of(device: str, among: Iterable[DType] = dtypes.ALL) -> list[DType]:
    """The dtypes that a backend declares, in the order of the table; skips a test for which there is none."""
    can = devices.get(device).backend.capabilities.dtypes
    found = [d for d in among if d in can]
    if not found:
        pytest.skip(f"{DECLARED}{device} does not have {', '.join(d.name for d in among)}")
    return found
