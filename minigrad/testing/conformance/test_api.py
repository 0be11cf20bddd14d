"""What users rely on whatever the backend: dtypes, shapes, errors, views, random streams, caches."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad
from minigrad import Tensor, dtypes, random, reference
from minigrad import device as devices
from minigrad.dtypes import DType
from minigrad.errors import ArgumentError, AxisError, DTypeError, GradientError, MinigradError, ShapeError
from minigrad.graph import Node, apply, create, full_like
from minigrad.primitive import Kind, Primitive
from minigrad.realize import realize
from minigrad.testing import strategies
from minigrad.testing.bounds import Bounded, bounded, compare
from minigrad.testing.conformance.support import ROWS, dtypes_of, in_groups, needs, some, supported
from minigrad.testing.evaluate import run, widen
from minigrad.testing.programs import on
from minigrad.testing.strategies import broadcastable, shapes


def promoted(a: DType, b: DType) -> DType:
    """PyTorch's rule for two tensors, from its documentation; NumPy's where PyTorch has none."""
    order = {"b": 0, "u": 1, "i": 1, "f": 2}
    if order[a.kind] != order[b.kind]:
        return max(a, b, key=lambda d: order[d.kind])
    if {a, b} == {dtypes.float16, dtypes.bfloat16}:
        return dtypes.float32
    if dtypes.bfloat16 in (a, b):
        return max(a, b, key=lambda d: d.itemsize)
    return dtypes.as_dtype(np.promote_types(a.numpy, b.numpy))


@pytest.mark.level(1)
def test_dtype_follows_promotion_table(device: str) -> None:
    kinds = dtypes_of(device)
    pairs = [(a, b) for n, a in enumerate(kinds) for b in kinds[n:] if promoted(a, b) in kinds]
    with devices.backend(device):
        for a, b in pairs:
            x, y = (Tensor.zeros(2, dtype=d) for d in (a, b))
            assert (x + y).dtype is (y + x).dtype is promoted(a, b), (a, b)
            weak = (x + Tensor(np.zeros((), b.numpy))).dtype
            assert weak is (b if b.category > a.category else a), f"{a} with a 0-d {b}"
        sums = [Tensor(np.ones(2, a.numpy)) + Tensor(np.ones(2, b.numpy)) for a, b in pairs[::3]]
        Tensor.realize(*sums)
        for (a, b), total in zip(pairs[::3], sums):
            expected = np.ones(2, bool) if promoted(a, b).kind == "b" else np.full(2, 2)
            assert total.numpy().dtype == promoted(a, b).numpy
            np.testing.assert_array_equal(total.numpy().astype(float), expected.astype(float), err_msg=f"{a} + {b}")


@pytest.mark.level(2)
@given(data=st.data())
def test_shape_follows_rule(device: str, data: st.DataObject) -> None:
    """NumPy's rule, asked of NumPy, before anything is computed."""
    whole = data.draw(shapes(most=4))
    a, b = (np.zeros(s, np.float32) for s in data.draw(broadcastable(2, whole)))
    with devices.backend(device):
        x, y, z = Tensor(a), Tensor(b), Tensor(np.zeros(whole, np.float32))
        assert (x + y).shape == (a + b).shape == whole
        axes = tuple(data.draw(st.sets(st.integers(0, len(whole) - 1)))) if whole else ()
        if axes:
            assert z.sum(axes).shape == np.zeros(whole).sum(axes).shape
            assert z.sum(axes, keepdim=True).shape == np.zeros(whole).sum(axes, keepdims=True).shape
        if len(whole) >= 2:
            other = Tensor.zeros(whole[-1], 3)
            assert (z @ other).shape == (np.zeros(whole) @ np.zeros((whole[-1], 3))).shape
            assert z.T.shape == np.zeros(whole).T.shape
            cut = (slice(None, None, 2), Ellipsis, slice(-1, None))
            assert z[cut].shape == np.zeros(whole)[cut].shape
        assert Tensor.stack([z, z], dim=0).shape == np.stack([np.zeros(whole)] * 2).shape


@pytest.mark.level(3)
@pytest.mark.parametrize("size, kernel, stride, padding, expected", [(7, 3, 2, 0, 3), (8, 3, 2, 1, 4), (5, 5, 1, 2, 5)])
def test_window_shapes_follow_the_formula(
    device: str, size: int, kernel: int, stride: int, padding: int, expected: int
) -> None:
    """(N - F + 2P) / S + 1, rounded down."""
    with devices.backend(device):
        x, w = Tensor.ones(2, 3, size, size + 1), Tensor.ones(5, 3, kernel, kernel)
        y = x.conv2d(w, stride=stride, padding=padding)
        assert y.shape == y.numpy().shape == (2, 5, expected, (size + 1 - kernel + 2 * padding) // stride + 1)


WRONG = {
    "shapes that do not broadcast": (lambda x: x + x[:, :2], ShapeError, RuntimeError),
    "inner sizes": (lambda x: x @ x, ShapeError, RuntimeError),
    "reshape": (lambda x: x.reshape(5), ShapeError, RuntimeError),
    "axis": (lambda x: x.sum(2), AxisError, IndexError),
    "index": (lambda x: x[2], AxisError, IndexError),
    "axis twice": (lambda x: x.sum((0, 0)), ArgumentError, ValueError),
    "maximum of nothing": (lambda x: x[:0].max(), MinigradError, RuntimeError),
    "dtype": (lambda x: ~x, DTypeError, RuntimeError),
    "window": (lambda x: x.reshape(1, 1, 2, 3).conv2d(Tensor.ones(1, 1, 3, 3)), ShapeError, RuntimeError),
    "gradient of nothing": (lambda x: x.sum().backward(), GradientError, RuntimeError),
}


@pytest.mark.level(1)
@pytest.mark.parametrize("what", WRONG)
def test_errors_have_same_class_on_all_backends(device: str, what: str) -> None:
    """The classes of minigrad and of PyTorch or NumPy, at the call; the backend stays usable."""
    call, ours, builtin = WRONG[what]
    with devices.backend(device):
        x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
        with pytest.raises(ours) as raised:
            call(x)
        assert isinstance(raised.value, builtin) and ": expected " in str(raised.value)
        np.testing.assert_array_equal((x + 1).numpy(), np.arange(1, 7).reshape(2, 3))


@pytest.mark.level(2)
@pytest.mark.parametrize("realized", [False, True])
def test_views_alias_as_documented(device: str, realized: bool) -> None:
    """What is written through a view shows in its base and in other views, as in NumPy; a copy is a copy."""
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    with devices.backend(device):
        x = Tensor(a) + 0 if not realized else (Tensor(a) + 0).realize()
        a = a.copy()
        pairs = [(x.T[1:4], a.T[1:4]), (x[::-1, ::2], a[::-1, ::2]), (x.reshape(24)[5:20], a.reshape(24)[5:20])]
        copied = x.clone()
        for n, (ours, numpys) in enumerate(pairs):
            ours += 10 * n + 1
            numpys += 10 * n + 1
            ours[0] = -1
            numpys[0] = -1
        x[1:3, 2] = 77
        a[1:3, 2] = 77
        for ours, numpys in (*pairs, (x, a)):
            np.testing.assert_array_equal(ours.numpy(), numpys)
        np.testing.assert_array_equal(copied.numpy(), np.arange(24).reshape(4, 6))


VECTORS = [  # of the Threefry-2x32-20 of Random123: counter, key, first word
    ((0, 0), (0, 0), 0x6B200159),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), 0x1CB996FC),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), 0xC4923A9C),
]


@pytest.mark.level(2)
def test_same_seed_same_random_stream_on_all_backends(device: str) -> None:
    """Bits are those that are published, uniform numbers bitwise those of every backend, normal ones within bounds."""
    needs(device, "threefry")
    dtypes_of(device, [dtypes.uint32])
    for counter, key, word in VECTORS:
        random.set_rng_state((key[0] | key[1] << 32, counter[0] | counter[1] << 32))
        assert run([random.bits(1, device)])[0].tolist() == [word]
    count = 1001
    minigrad.manual_seed(7)
    bits = run([random.bits(count, device)])[0]
    words = [np.full(count, w, np.uint32) for w in (7, 0, 0, 0)]
    words[2] = np.arange(count, dtype=np.uint32)
    np.testing.assert_array_equal(bits, reference.threefry(*words))
    with devices.backend(device):
        minigrad.manual_seed(7)
        np.testing.assert_array_equal(Tensor.rand(count).numpy(), (bits >> 8).astype("f4") * np.float32(2**-24))
        minigrad.manual_seed(7)
        normal = Tensor.randn(count)
        node = normal.node
    (expected,) = bounded([node])
    compare(normal.numpy(), expected, node.dtype, "randn")


CONSTANT = [op for op in ROWS if op.kind is Kind.ELEMENTWISE]


@in_groups(CONSTANT, 30)
@some(0.05)
@given(data=st.data())
def test_constant_folding_equals_runtime(device: str, ops: list[Primitive], data: st.DataObject) -> None:
    """What the engine computes beforehand, from constants, is what the device computes from memory."""
    folded, computed = [], []
    for op in supported(device, ops):
        program = data.draw(strategies.cases(op, kinds=["uniform"], only=dtypes_of(device)))
        attrs = program.steps[0].attrs
        numbers = [i.array.ravel()[:1] for i in program.inputs]
        if any(number.size == 0 for number in numbers):
            continue
        leaves = [on(device)(n, i.dtype, ()) for n, i in zip(numbers, program.inputs)]
        constants = [constant_of(n, i.dtype, device) for n, i in zip(numbers, program.inputs)]
        computed.append(apply(op.name, *leaves, **attrs))
        folded.append(apply(op.name, *constants, **attrs))
    expected = bounded(computed)
    values = run([*folded, *computed])
    for n, (node, bound) in enumerate(zip(computed, expected)):
        there = Bounded(widen(values[len(folded) + n], node.dtype), 2 * bound.error)
        compare(values[n], there, node.dtype, f"{node.op.name} of constants")


def constant_of(number: np.ndarray, dtype: DType, device: str) -> Node:
    """One number, known when the graph is written."""
    value = number.item()
    return create("const", device, value=value, sign=float(np.copysign(1, value)), dtype=dtype).expand((1,))


BINARY = [op for op in CONSTANT if op.arity == 2 and op.vjp is not None]
NUMBERS = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.5, -1.5], np.float32)


@pytest.mark.level(1)
def test_number_as_operand_equals_number_in_memory(device: str) -> None:
    """What is known of ``x * 1``, ``x + 0``, ``x ** 2`` or ``x / 2`` changes nothing, not even the sign of a zero."""
    (dtype,) = dtypes_of(device, [dtypes.float32])
    needs(device, "where", "eq", "iota")
    make, cases = on(device), list(product(NUMBERS, (False, True)))
    shape = (len(cases), SPECIAL.size)
    row = create("iota", device, length=len(cases), dtype=dtypes.int32).reshape((len(cases), 1))
    known, computed = [], []
    for op in supported(device, BINARY):
        x, numbers, first = (make(a, dtypes.as_dtype(a.dtype), ()) for a in (
            SPECIAL, *(np.array(column, kind)[:, None] for column, kind in zip(zip(*cases), (np.float32, np.bool_)))
        ))  # fmt: skip
        computed.append(first.where(apply(op.name, numbers, x), apply(op.name, x, numbers)))
        chosen = full_like(computed[-1], 0)
        for n, (number, is_first) in enumerate(cases):  # each in its row, as one kernel costs less than sixteen
            if is_first:  # computed beforehand
                each = apply(op.name, -constant_of(np.array(-number), dtype, device), x)
            else:
                each = apply(op.name, x, constant_of(np.array(number), dtype, device))
            chosen = row.equals(n).where(each.expand(shape), chosen)
        known.append(chosen)
    values = run([*known, *computed])
    for op, got, there, bound in zip(supported(device, BINARY), values, values[len(known) :], bounded(computed)):
        expected = Bounded(widen(there, dtype), 2 * bound.error)
        compare(got, expected, dtype, f"{op.name} of a number", signed_zero=True)


@pytest.mark.level(1)
def test_kernel_cache_hit_equals_miss(device: str) -> None:
    """The same structure on other data compiles nothing, and gives what a fresh kernel gives."""
    opened, rng = devices.get(device), np.random.default_rng(0)
    (kind,) = dtypes_of(device, [dtypes.float32])
    arrays = [rng.standard_normal((23, 29)).astype(np.float32) for _ in range(4)]

    def compute(array: np.ndarray) -> bytes:
        x = on(device)(array, kind, ())
        node = (x * 3.0 + 0.5) * x.permute((1, 0)).permute((1, 0))
        realize([node])
        return run([node])[0].tobytes()

    compute(arrays[0])
    before = len(opened.programs)
    hits = [compute(array) for array in arrays]
    assert len(opened.programs) == before, "a structure was compiled twice"
    for array, hit in zip(arrays, hits):
        opened.programs.clear()
        assert compute(array) == hit
