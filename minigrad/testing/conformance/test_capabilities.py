"""What a backend declares is what it does: every claim of its capabilities is put to the test.

Those about memory are in the level of memory, the others where the primitives are that they speak of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Tensor, dtypes
from minigrad import device as devices
from minigrad.errors import MinigradError, OutOfMemory, Unsupported
from minigrad.graph import apply
from minigrad.primitive import TABLE
from minigrad.testing import strategies
from minigrad.testing.bounds import beside_oracle, compare
from minigrad.testing.checks import check_untouched
from minigrad.testing.conformance.support import ROWS, dtypes_of, needs, some, unsupported
from minigrad.testing.evaluate import run
from minigrad.testing.plugin import DECLARED
from minigrad.testing.programs import on


def has_all(device: str, what: str) -> None:
    """Skip a test of what a backend lacks: it lacks nothing."""
    pytest.skip(f"{DECLARED}{device} has every {what}")


@pytest.mark.level(1)
def test_declared_dtypes_are_stored_and_computed_with(device: str) -> None:
    nodes = []
    for dtype in dtypes_of(device):
        values = (np.arange(15) % 4).reshape(3, 5).astype(dtype.numpy)
        x = on(device)(values, dtype, ())
        nodes += [apply("copy", x), apply("bitwise_xor", x, x) if dtype.kind == "b" else x + x]
        nodes += [x.cast(other) for other in dtypes_of(device)[::6]]
    for got, expected, node in beside_oracle(nodes):
        compare(got, expected, node.dtype, f"{node.op.name} of {node.dtype.name}")


@pytest.mark.level(1)
def test_other_dtypes_are_refused_by_name(device: str) -> None:
    """Where a user realizes, naming primitive, dtype and backend; and nothing is half done."""
    can = devices.get(device).backend.capabilities
    others = [d for d in dtypes.ALL if d not in can.dtypes]
    if not others:
        has_all(device, "dtype")
    name = device.partition(":")[0]
    kind = dtypes_of(device, [d for d in dtypes.ALL if d.kind != "b"])[0]
    x = Tensor(np.array([1, 0, 1], kind.numpy), device=device)
    for dtype in others:
        with pytest.raises(Unsupported, match=f"^cast: .*{name}.*{dtype.name}$"):
            x.cast(dtype).realize()
        with pytest.raises(Unsupported, match=f"{name}.*{dtype.name}"):
            Tensor(np.array([1, 0, 1], dtype.numpy), device=device).ne(0).realize()
    assert x.tolist() == [1, 0, 1] and (x + x).tolist() == [2, 0, 2]


@pytest.mark.level(3)
@some(0.2)
@given(data=st.data())
def test_unsupported_primitives_are_refused_by_name(device: str, data: st.DataObject) -> None:
    """Where a user realizes, naming primitive, dtype and backend; and nothing is half done."""
    missing = sorted(unsupported(device))
    if not missing:
        has_all(device, "primitive")
    for name in missing:
        program = data.draw(strategies.cases(TABLE[name], only=dtypes_of(device)))
        built = program.build(on(device))
        kept = (
            built.values[0] + built.values[0] if program.inputs[0].dtype.kind != "b" else apply("copy", built.values[0])
        )
        with pytest.raises(Unsupported, match=f"^{name}: .*{device.partition(':')[0]}") as raised:
            run([kept, *built.results])
        assert any(d.name in str(raised.value) for d in dtypes.ALL)
        check_untouched(program, built, name)
        ((got, expected, _),) = beside_oracle([kept])
        compare(got, expected, kept.dtype, f"what was asked for together with {name}")


@pytest.mark.level(3)
@some(0.05)
@given(data=st.data())
def test_declared_epilogues_are_computed(device: str, data: st.DataObject) -> None:
    """A core whose kernels take an epilogue gives the same with one as without."""
    declared = devices.get(device).backend.capabilities.epilogues
    cores = [op for op in ROWS if op.name in declared - unsupported(device)]
    if not cores:
        pytest.skip(f"{DECLARED}{device} declares no epilogues")
    only = dtypes_of(device, [d for d in dtypes.ALL if d.kind != "b"])
    nodes, names = [], []
    for op in cores:
        program = data.draw(strategies.cases(op, only=only))
        first, *others = program.build(on(device)).results
        nodes += [first * -first, *others]
        names += [op.name] * (1 + len(others))
    for (got, expected, node), name in zip(beside_oracle(nodes), names):
        compare(got, expected, node.dtype, f"{name} with an epilogue")


@pytest.mark.level(1)
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_products_are_rounded_as_declared(device: str, name: str) -> None:
    """Without contraction ``x * y + z`` in one kernel is rounded twice, to the last bit; with it, once or twice."""
    (dtype,) = dtypes_of(device, [getattr(dtypes, name)])
    contracts = devices.get(device).backend.capabilities.contracts_fma
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal((33, 31)).astype(dtype.numpy) for _ in range(3))
    a, b, c = (on(device)(array, dtype, ()) for array in (x, y, z))
    (got,) = run([a * b + c])
    twice = x * y + z
    same = got == twice
    if contracts:
        wide = np.longdouble if dtype.itemsize == 8 else np.float64
        once = x.astype(wide) * y.astype(wide) + z.astype(wide)
        same |= np.abs(got - once) <= np.multiply(np.spacing(np.abs(got)), 0.501, dtype=wide)
    assert same.all(), f"{np.count_nonzero(~same)} of {same.size} sums differ"


def _runs(device: str) -> dict[str, Callable[[], Tensor]]:
    """Computations in which threads could add up in any order."""
    rng = np.random.default_rng(0)
    rows, places = rng.standard_normal((300, 701)).astype(np.float32), rng.integers(0, 5, 300)
    images, filters = rng.standard_normal((19, 3, 13, 11)).astype(np.float32), rng.standard_normal((4, 3, 3, 3))

    def tensor(array: np.ndarray) -> Tensor:
        return Tensor(array, device=device)

    def weight_gradient() -> Tensor:
        w = Tensor(filters.astype(np.float32), device=device, requires_grad=True)
        return tensor(images).conv2d(w, padding=1).square().sum().gradient(w)[0]

    def scatter() -> Tensor:
        index, source = (on(device)(a, dtypes.as_dtype(a.dtype), ()) for a in (places, rows))
        return Tensor.wrap(apply("scatter", index, source, length=5, reduce="sum"))

    runs = {
        "sum": lambda: tensor(rows).sum(),
        "sum of columns": lambda: tensor(rows).sum(0),
        "matmul": lambda: tensor(rows).T @ tensor(rows),
        "conv_weight_grad": weight_gradient,
    }
    return runs if "scatter" in unsupported(device) else runs | {"scatter": scatter}


@pytest.mark.level(3)
def test_deterministic_means_the_same_bits(device: str) -> None:
    """A program that is run again on the same inputs gives the same, to the last bit."""
    if not devices.get(device).backend.capabilities.deterministic:
        pytest.skip(f"{DECLARED}{device} is not deterministic")
    needs(device, "sum", "matmul", "conv", "conv_weight_grad")
    dtypes_of(device, [dtypes.float32])
    for what, compute in _runs(device).items():
        bits = {compute().numpy().tobytes() for _ in range(4)}
        assert len(bits) == 1, f"{what}: expected the same bits 4 times, as deterministic=True declares, got others"


@pytest.mark.level(0)
def test_one_byte_more_than_max_allocation_is_refused(device: str) -> None:
    most = devices.get(device).backend.capabilities.max_allocation
    if most is None:
        pytest.skip(f"{DECLARED}{device} has no limit to one allocation")
    pool = devices.get(device).pool
    held = pool.held
    with pytest.raises(OutOfMemory, match=str(most)):
        pool.take(most + 1)
    assert pool.held == held


@pytest.mark.level(0)
def test_a_device_that_does_not_exist_is_refused(device: str) -> None:
    kind = device.partition(":")[0]
    with pytest.raises(MinigradError, match=kind):
        devices.canonical(f"{kind}:{len(devices.device_names(kind))}")
