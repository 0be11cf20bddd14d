"""The algebra of views against NumPy: whatever movement does to an array, a view of its buffer says the same."""

import math

import numpy as np
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from minigrad import reference
from minigrad.primitive import TABLE
from minigrad.testing import strategies
from minigrad.view import View, _valid_steps


def shown(view, flat):
    """What a view shows of a buffer, element by element."""
    index = np.array(view.offset)
    inside = np.array(True)
    for axis, (size, stride) in enumerate(zip(view.shape, view.strides)):
        steps = np.arange(size)
        low, high = (0, size) if view.bounds is None else view.bounds[axis]
        index = np.add.outer(index, steps * stride)
        inside = np.logical_and.outer(inside, (low <= steps) & (steps < high))
    positions = index[inside]
    assert positions.size == 0 or 0 <= positions.min() <= positions.max() < flat.size, "reads outside the buffer"
    out = np.full(view.shape, view.fill)
    out[inside] = flat[positions]
    return out


@st.composite
def moves(draw, shape):
    """A movement primitive and attributes that fit a source of ``shape``."""
    name = draw(st.sampled_from(sorted(strategies.MOVEMENTS)))
    op = TABLE[name]
    attrs = op.attrs(**strategies.MOVEMENTS[name](draw, shape))
    assume(math.prod(op.shape(attrs, shape)) <= 5000)
    return name, attrs


@given(st.data())
def test_any_chain_of_movement_is_what_the_reference_makes_of_it(data):
    shape = data.draw(strategies.shapes(elements=120))
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    array = 1.0 + np.arange(math.prod(shape)).reshape(shape)
    flat = array.transpose(order).ravel()
    view = View.of(shape, order)
    for _ in range(data.draw(st.integers(1, 6))):
        name, attrs = data.draw(moves(array.shape))
        moved = view.moved(name, attrs)
        event(f"{name}: {'a view' if moved is not None else 'none'}")
        if moved is None:
            assert name in ("reshape", "strided_view", "pad", "expand"), f"{name} of any view is a view"
            continue
        array = getattr(reference, name)(array, **attrs._asdict())
        view = moved
        assert view.shape == array.shape
        np.testing.assert_array_equal(shown(view, flat), array)


@given(st.data())
def test_reshape_is_a_view_exactly_where_numpy_needs_no_copy(data):
    shape = data.draw(strategies.shapes(least=1, elements=120, zero=False))
    array = np.arange(math.prod(shape)).reshape(shape)
    view = View.of(shape)
    for name in ("permute", "slice"):
        attrs = TABLE[name].attrs(**strategies.MOVEMENTS[name](data.draw, array.shape))
        array = array.transpose(attrs.axes) if name == "permute" else array[_slices(array.shape, attrs)]
        view = view.moved(name, attrs)
    target = strategies.MOVEMENTS["reshape"](data.draw, array.shape)["shape"]
    if array.size:
        assert (view.moved("reshape", (target,)) is not None) == np.shares_memory(array, array.reshape(target))


def _slices(shape, attrs):
    out = []
    for start, size, step in zip(attrs.starts, attrs.sizes, attrs.steps):
        stop = start + size * step
        out.append(slice(start, None if stop < 0 else stop, step) if size else slice(0, 0))
    return tuple(out)


@given(strategies.shapes(zero=False), st.data())
def test_row_major_means_one_element_after_the_other(shape, data):
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    count = math.prod(shape)
    expected = np.array_equal(shown(View.of(shape, order), np.arange(count)), np.arange(count).reshape(shape))
    assert View.of(shape, order).is_row_major == expected


sizes = st.integers(0, 9)


@given(sizes, sizes, st.sampled_from([-3, -2, -1, 1, 2, 3]), sizes, sizes)
def test_valid_steps_of_a_slice_are_those_inside(start, size, step, low, high):
    inside = [i for i in range(size) if low <= start + i * step < high]
    first, last = _valid_steps(start, size, step, low, high)
    assert list(range(first, last)) == inside


def test_padding_twice_with_one_value_is_one_view_and_with_two_is_none():
    view = View.of((2, 3)).moved("pad", (((1, 0), (0, 2)), 0.0))
    assert view is not None and view.bounds == ((1, 3), (0, 3))
    again = view.moved("pad", (((0, 1), (1, 0)), 0.0))
    assert again is not None and again.bounds == ((1, 3), (1, 4))
    assert view.moved("pad", (((0, 1), (1, 0)), 1.0)) is None
    assert View.of((2, 3)).moved("pad", (((0, 0), (0, 0)), 5.0)) == View.of((2, 3))


def test_a_slice_inside_the_padding_needs_no_bounds():
    view = View.of((4, 3)).moved("pad", (((1, 1), (0, 0)), 7.0))
    inner = view.moved("slice", ((1, 0), (4, 3), (1, 1)))
    assert inner.bounds is None
    np.testing.assert_array_equal(shown(inner, np.arange(12.0)), np.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_views_of_nothing_reshape_to_anything_empty(shape):
    view = View.of(shape).moved("reshape", ((5, 0, 2),))
    assert view is not None and view.shape == (5, 0, 2)
