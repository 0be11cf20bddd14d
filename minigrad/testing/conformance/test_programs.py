"""Level 5: random lazy programs. However the engine cuts and orders a graph, the values are those of the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from minigrad import device as devices
from minigrad import dtypes
from minigrad.config import settings as engine
from minigrad.dtypes import DType
from minigrad.graph import toposort
from minigrad.realize import realize
from minigrad.shapes import Shape, Window
from minigrad.testing.bounds import bounded
from minigrad.testing.checks import WAYS, Tally, check_program, in_one_way, with_gradients
from minigrad.testing.conformance.support import dtypes_of, needs, some, unsupported
from minigrad.testing.evaluate import read, run, widen
from minigrad.testing.program_strategies import programs
from minigrad.testing.programs import Input, Program, Step, nowhere, on, one_step, outcomes

pytestmark = pytest.mark.level(5)
KINDS = (dtypes.float32, dtypes.float16, dtypes.int32)


def drawn(device: str, kinds: Sequence[DType], **limits: Any) -> st.SearchStrategy[Program]:
    """Programs of what the backend declares that it has, from inputs of some of ``kinds``."""
    can = dtypes_of(device)
    return programs(kinds=[d for d in kinds if d in can], without=unsupported(device), only=can, **limits)


def test_program_matches_float64_oracle(device: str) -> None:
    """Fused equals unfused, chosen layouts equal none, and realizing more, or nothing before the end, changes nothing.

    Each way is compared with the oracle, and with the first way.
    """
    tally = Tally()

    @given(drawn(device, KINDS))
    @some(3)
    def property_(program: Program) -> None:
        found = check_program(program, device, WAYS)
        tally.add(found)
        target(found.worst)

    property_()
    assert tally.elements > 1000
    assert tally.decided > 0.9 * tally.elements, "too much is undecided: the programs drawn test little"


def test_small_integer_programs_are_exact(device: str) -> None:
    """Where no digit can be lost, none may be, in whatever way the engine runs the graph."""
    exact, elements = 0, 0

    @given(drawn(device, (dtypes.int32, dtypes.int64, dtypes.bool_)))
    @some(0.4)
    def property_(program: Program) -> None:
        nonlocal exact, elements
        for value in bounded(program.build(on(device)).results):
            exact += int(np.count_nonzero(value.error == 0))
            elements += value.value.size
        check_program(program, device, ["lazy", "unfused", "eager"])  # equal where the bound is 0

    property_()
    assert exact > 0.2 * elements > 0, "too little is exact: the programs drawn test little"


def test_large_programs_match_float64_oracle(device: str) -> None:
    """Large enough that each kernel runs in blocks, on several threads."""
    tally = Tally()

    @given(drawn(device, (dtypes.float32, dtypes.float32, dtypes.bfloat16, dtypes.int64), most=4, large=True))
    @some(0.7)
    def property_(program: Program) -> None:
        found = check_program(program, device, ["lazy", "unfused"])
        tally.add(found)
        target(found.worst)

    property_()
    # Few programs, of equal size: one that ends in a jump (a comparison, a sort) leaves all of its elements undecided.
    assert tally.decided > 0.4 * tally.elements


def _of_integers(op: str, *shapes: Shape, **attrs: Any) -> Program:
    rng = np.random.default_rng(0)
    inputs = tuple(Input(rng.integers(-3, 4, shape).astype(np.float32)) for shape in shapes)
    return one_step(op, inputs, attrs)


def _window(kernel: int, stride: int, padding: tuple[int, int]) -> Window:
    return Window((kernel,) * 2, (stride,) * 2, (padding,) * 2, (1, 1))


TUNED = {
    "matmul": _of_integers("matmul", (2, 33, 40), (40, 24)),
    "conv": with_gradients(_of_integers("conv", (3, 4, 11, 9), (6, 2, 3, 3), window=_window(3, 2, (1, 0)), groups=2)),
    "sum": _of_integers("sum", (37, 129), axes=(1,)),
}


@pytest.mark.parametrize("name", TUNED)
def test_tuned_equals_untuned(device: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever a backend chooses by measurement, the values are the same; it measures for a cache of its own here."""
    program = TUNED[name]
    needs(device, *(node.op.name for node in toposort(outcomes(program, program.build(nowhere)))))
    untuned = in_one_way(program, device)
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    kind = devices.get(device).backend
    other = f"{device}_tuned_{name}"  # another device of the kind: what was compiled is remembered by device
    monkeypatch.setitem(devices._devices, other, devices.Device(other, type(kind)(kind.requested)))
    with engine.override(tune=True):
        tuned = in_one_way(program, other)
    for a, b in zip(untuned, tuned, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def parts_of(images: int) -> Program:
    """A convolution of 48 channels, and parts of what it gives: to add to something, and for another convolution."""
    rng = np.random.default_rng(0)
    shapes: list[Shape] = [(images, 4, 5, 5), (48, 4, 3, 3), (8, 32, 3, 3)]
    inputs = tuple(Input(rng.integers(-3, 4, shape).astype(np.float32)) for shape in shapes)
    same: dict[str, Any] = {"window": _window(3, 1, (1, 1)), "groups": 1}
    steps = [Step("conv", (0, 1), same), Step("relu", (3,), {})]
    results = []
    cuts = [(0, images, 16, 32, 1), (0, images, 4, 8, 1), (0, images, 1, 3, 16), (images // 2, images // 2, 0, 48, 1)]
    for first, count, channel, channels, step in cuts:
        where = {"starts": (first, channel, 0, 0), "sizes": (count, channels, 5, 5), "steps": (1, step, 1, 1)}
        steps.append(Step("slice", (4,), where))
        steps.append(Step("add", (2 + len(steps), 2 + len(steps)), {}))
        results.append(2 + len(steps))
    steps.append(Step("conv", (5, 2), same))
    return Program(inputs, tuple(steps), (*results, 2 + len(steps)))


@pytest.mark.parametrize("images", [2, 32])
def test_parts_of_images_and_channels(device: str, images: int) -> None:
    """A backend may lay activations out in blocks, of which whole ones, parts, and one element of each are read."""
    program = with_gradients(parts_of(images))
    needs(device, *(node.op.name for node in toposort(outcomes(program, program.build(nowhere)))))
    check_program(program, device, WAYS)


@pytest.mark.parametrize("way", WAYS)
def test_schedule_order_is_irrelevant(device: str, way: str) -> None:
    """Results realized one by one, the last first, are those realized together."""

    @given(drawn(device, KINDS, most=5))
    @some(0.3)
    def property_(program: Program) -> None:
        settings, when, every = WAYS[way]
        with engine.override(**settings):
            together = run(outcomes(program, program.build(on(device))))
            built = outcomes(program, program.build(on(device), when, every))
            for node in reversed(built):
                realize([node])
        for a, node in zip(together, built):
            got, expected = widen(read(node), node.dtype), widen(a, node.dtype)
            np.testing.assert_allclose(got, expected, rtol=2e-2, atol=1e-2, equal_nan=True)

    property_()
