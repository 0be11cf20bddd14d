"""Rows of the table that are no cases by themselves, and named cases: found once, or drawn rarely."""

import numpy as np
import pytest

from minigrad import Tensor, dtypes
from minigrad import device as devices
from minigrad.autograd import gradient
from minigrad.errors import DTypeError
from minigrad.graph import apply, constant, transfer
from minigrad.testing.checks import check_program
from minigrad.testing.evaluate import run
from minigrad.testing.gradients import check_vjps
from minigrad.testing.programs import Input, on, one_step

# Rows that are no cases by themselves --------------------------------------------------------------------------------


def test_transfer_copies_and_differentiates(device, monkeypatch):
    other = f"{device} again"
    monkeypatch.setitem(devices._devices, other, devices.Device(other, type(devices.get(device).backend)()))
    x = on(device)(np.arange(6, dtype=np.float32).reshape(2, 3), dtypes.float32, (1, 0))
    moved = transfer(x, other)
    assert (moved.device, moved.shape, moved.dtype) == (other, x.shape, x.dtype)
    (there,) = run([moved * 2.0])
    np.testing.assert_array_equal(there, 2 * np.arange(6).reshape(2, 3))
    (g,) = gradient(transfer(x, other) * 3.0, [x], constant(1, dtypes.float32, other).expand((2, 3)))
    assert g is not None and g.device == device
    np.testing.assert_array_equal(run([g])[0], np.full((2, 3), 3.0))
    assert transfer(x, device) is x


def test_custom_has_the_value_of_its_first_source_and_the_derivative_it_is_given(device):
    class Doubled:
        def vjp(self, index, g, out, *sources):
            return g * 2.0

        def forget(self):
            pass

    value = on(device)(np.array([5.0, 7.0, 9.0]), dtypes.float64, ())
    x = on(device)(np.array([1.0, 2.0, 3.0]), dtypes.float64, ())
    node = apply("custom", value, x, function=Doubled())
    (g,) = gradient(node, [x], constant(1, dtypes.float64, device).expand((3,)))
    got, slope = run([node, g])
    assert got.tolist() == [5.0, 7.0, 9.0] and slope.tolist() == [2.0, 2.0, 2.0]


# Named cases: what the strategies found once, or draw rarely ---------------------------------------------------------


def test_no_derivative_passes_through_integers(device):
    x = Tensor([0.5, 2.5, -1.5], device=device)
    through = x.node.cast(dtypes.int32).cast(dtypes.float32)
    assert gradient(through, [x.node], x.node) == [None]


def test_threefry_takes_words_of_32_bits_only():
    words = [constant(1, dtypes.uint64, "numpy") for _ in range(4)]
    with pytest.raises(DTypeError, match="uint32"):
        apply("threefry", *words)


def test_a_bfloat16_view_can_be_read(device):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).astype(dtypes.bfloat16.numpy)
    x = on(device)(array, dtypes.bfloat16, ())
    np.testing.assert_array_equal(run([x.permute((1, 0))])[0].astype(np.float32), array.astype(np.float32).T)


@pytest.mark.parametrize("values", [[0, 2, 3], [0, 0, 3, 2], [0, 0, 0], [4], [-1, 2, 0.5, 3, 1.5]], ids=str)
def test_derivatives_of_a_product_are_right_where_factors_are_zero(device, values):
    rows = np.array([values, values[::-1], np.linspace(0.5, 2, len(values))], np.float64)
    program = one_step("prod", (Input(rows),), {"axes": (1,)})
    built = program.build(on(device))
    assert check_vjps(built.results, built.values[:1], order=3) == 0


def test_half_sigmoid_is_rounded_once(device):
    x = np.linspace(-9, 9, 181).astype(np.float16)
    check_program(one_step("sigmoid", (Input(x),), {}), device)
    check_program(one_step("rsqrt", (Input(np.abs(x) + np.float16(0.01)),), {}), device)
