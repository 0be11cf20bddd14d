"""Square brackets, gather and scatter against NumPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad import Tensor, dtypes, jit
from minigrad.errors import AxisError

S = np.s_
X = np.random.default_rng(0).permutation(60).reshape(3, 4, 5)


def same(tensor, expected):
    array = tensor.numpy()
    assert array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


BASIC = [
    S[0], S[-1], S[1, 2, 3], S[()], S[...], S[1:], S[::2, 1], S[::-1], S[::-2, 3:0:-1], S[5:2], S[-100:100],
    S[..., 0], S[0, ..., 1:], S[None], S[None, :, None, 2], S[..., None], S[1, None, ..., None],
    S[np.int64(1), np.array(2)],
]  # fmt: skip
FANCY = [
    S[[0, 2]], S[[]], S[[-1, 0, -1]], S[:, [1, 1, 3]], S[[0, 1], :, [2, 3]], S[[0, 1], [2, 3]], S[:, [0, 1], [2, 3]],
    S[0, :, [1, 2]], S[0, [1, 2]], S[[1, 2], 0], S[:, 0, [1, 2]], S[None, [0, 1], :, [2, 3]], S[[0, 1], None, [2, 3]],
    S[[[0, 1], [2, -1]], :2], S[[[0], [1]], [[2, 3]]], S[:, [0], ..., [1]], S[..., [0, 1]], S[[0, 1], [1, 2], [2, 3]],
    S[::-1, [3, 0]], S[1:, :, [[0, 1, 2]]], S[np.array([2, 0], "uint8")], S[np.array([], "int64"), 1],
]  # fmt: skip
MASKS = [
    S[X > 30], S[X[:, :, 0] > 30], S[:, X[0] > 30], S[:, X[0, :, 0] > 30, 1], S[X[:, 0, 0] > 30, :, [1]],
    S[[True, False, True]], S[X[:, :, 0] > 99], S[..., X[0, 0] > 30], S[None, X[:, :, 0] > 30, 2:],
]  # fmt: skip


@pytest.mark.parametrize("key", BASIC + FANCY + MASKS, ids=str)
def test_reading(key):
    same(Tensor(X)[key], X[key])


@pytest.mark.parametrize("key", FANCY + MASKS, ids=str)
def test_reading_at_tensors(key):
    key = key if isinstance(key, tuple) else (key,)
    tensors = tuple(Tensor(np.asarray(k, bool if k and k[0] is True else int)) if isinstance(k, list) else
                    Tensor(k) if isinstance(k, np.ndarray) else k for k in key)  # fmt: skip
    same(Tensor(X)[tensors], X[key])


@pytest.mark.parametrize("key", BASIC + FANCY + MASKS, ids=str)
@pytest.mark.parametrize("broadcast", ["number", "full", "row"])
def test_writing(key, broadcast):
    expected, tensor = X.copy(), Tensor(X)
    shape = X[key].shape
    if broadcast == "number":
        value = 99
    else:
        if broadcast == "row":
            shape = shape[-1:] if shape else ()
        value = 100 + np.arange(np.prod(shape, dtype=int)).reshape(shape)
    expected[key] = value
    tensor[key] = Tensor(value) if isinstance(value, np.ndarray) else value
    same(tensor, expected)


def test_the_last_of_several_writes_stays():
    x = Tensor([0, 0, 0])
    x[[1, 2, 1]] = Tensor([5, 6, 7])
    assert x.tolist() == [0, 7, 6]


def test_writing_a_value_with_leading_ones_and_another_dtype():
    x = Tensor(np.zeros((2, 3), "float32"))
    x[0] = np.ones((1, 1, 3))
    x[1] = 2
    assert x.tolist() == [[1.0] * 3, [2.0] * 3] and x.dtype is dtypes.float32


def test_masked_write_needs_no_count():
    """A value that does not depend on how many elements are chosen is written without reading the mask."""

    @jit
    def clipped(x):
        x = x.clone()
        x[x < 0] = 0
        x[:, 1] = 5
        return x

    for _ in range(3):
        x = np.random.default_rng(0).standard_normal((2, 3)).astype("float32")
        expected = np.where(x < 0, 0, x)
        expected[:, 1] = 5
        same(clipped(Tensor(x)), expected)


def test_reading_by_mask_inside_a_captured_step_raises():
    @jit
    def step(x):
        return x[x > 0]

    with pytest.raises(RuntimeError, match="captured"):
        step(Tensor([1.0, -1.0]))


@pytest.mark.parametrize("key", [
    3, -4, S[0, 4], S[0, 0, 0, 0], S[..., ...], [3], S[:, [0, -5]], np.array([7]), 1.5, "a", [0.5], True, S[[True] * 2],
    S[np.ones((3, 5), bool)],
], ids=str)  # fmt: skip
def test_keys_that_raise(key):
    with pytest.raises(IndexError, match="index: expected"):
        Tensor(X)[key]
    with pytest.raises(IndexError):
        Tensor(X)[key] = 0


def test_positions_in_a_tensor_are_clamped():
    assert Tensor([10, 11, 12])[Tensor([-9, -1, 3, 9])].tolist() == [10, 12, 12, 12]
    assert Tensor(X)[Tensor([9]), Tensor([9])].tolist() == X[[2], [3]].tolist()
    with pytest.raises(IndexError):
        Tensor(X)[Tensor([0.5])]


def test_a_lazy_integer_index():
    i = Tensor(4) - 2
    same(Tensor(X)[i], X[2])
    same(Tensor(X)[:, i], X[:, 2])
    same(Tensor(X)[i, :, i], X[2, :, 2])


def test_iteration():
    assert [row.tolist() for row in Tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    assert list(Tensor(np.zeros((0, 2)))) == []
    with pytest.raises(TypeError):
        iter(Tensor(1))


@st.composite
def indexed(draw):
    """A shape and a key that fits it: for each axis something, then perhaps nothing for the last ones."""
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), min_size=1, max_size=4)))
    common = draw(st.sampled_from([(), (1,), (3,), (2, 3), (0,)]))  # what the integer arrays broadcast to
    bound = st.none() | st.integers(-7, 7)
    key, axis = [], 0
    while axis < len(shape):
        size = shape[axis]
        kinds = ["slice", "slice", "None"] + ["int", "array"] * (size > 0)
        dots = any(k is Ellipsis for k in key)  # these stand for what is left of the axes, so all others must follow
        kinds += ["..."] * (not dots) + ["stop"] * (not dots)
        kinds += ["mask"] * all(not isinstance(k, np.ndarray) for k in key)
        kind = draw(st.sampled_from(kinds))
        if kind == "stop":
            break
        if kind == "None":
            key.append(None)
            continue
        if kind == "...":
            key.append(Ellipsis)
            axis += draw(st.integers(0, len(shape) - axis))
            continue
        if kind == "mask":
            dims = draw(st.integers(len(shape) - axis if dots else 1, len(shape) - axis))
            key.append(np.random.default_rng(draw(st.integers(0, 9))).random(shape[axis : axis + dims]) < 0.5)
            break  # one mask and no arrays: they would have to broadcast together
        if kind == "slice":
            key.append(slice(draw(bound), draw(bound), draw(st.sampled_from([None, 1, 2, 3, -1, -2]))))
        elif kind == "int":
            key.append(draw(st.integers(-size, size - 1)))
        else:
            mine = common[draw(st.integers(0, len(common))) :]
            count = math.prod(mine)
            numbers = draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
            key.append(np.array(numbers, int).reshape(mine))
        axis += 1
    return shape, tuple(key)


@given(indexed())
@settings(deadline=None)
def test_any_key(case):
    shape, key = case
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    same(Tensor(x)[key], x[key])
    expected, tensor = x.copy(), Tensor(x)
    expected[key] = tensor[key] = 1000 + np.arange(x[key].size).reshape(x[key].shape)
    same(tensor, expected)


@pytest.mark.parametrize("key", BASIC[:12] + FANCY[:12] + MASKS[:3], ids=str)
def test_gradient_of_reading(key):
    """d sum(x[key] * y) / dx holds each y at the position it weighs, added where positions repeat."""
    x = Tensor(X.astype("float64"), requires_grad=True)
    out = x[key]
    y = np.arange(1.0, out.numel() + 1).reshape(out.shape)
    (gradient,) = (out * Tensor(y)).sum().gradient(x)
    expected = np.zeros(X.shape)
    np.add.at(expected, key, y)
    same(gradient, expected)


@pytest.mark.parametrize("key", BASIC[:6] + FANCY[4:12] + MASKS[:3], ids=str)
def test_gradient_of_writing(key):
    x = Tensor(X.astype("float64"), requires_grad=True)
    value = Tensor(np.arange(1.0, X[key].size + 1).reshape(X[key].shape), requires_grad=True)
    out = x * 1
    out[key] = value * 2
    y = np.random.default_rng(1).integers(1, 9, X.shape).astype("float64")
    by_x, by_value = (out * Tensor(y)).sum().gradient(x, value)
    kept = y.copy()
    kept[key] = 0
    same(by_x, kept)
    same(by_value, 2 * y[key])


# Gather and scatter.

INDEX = np.random.default_rng(1).integers(0, 4, (2, 3, 5))
SOURCE = np.random.default_rng(2).integers(-50, 50, (2, 3, 5))


def at_index():
    """The key that scatter along axis 1 writes at."""
    i, _, k = np.indices(INDEX.shape)
    return i, INDEX, k


def test_gather():
    for index in (Tensor(INDEX), INDEX, INDEX.tolist(), INDEX - 4 * (INDEX % 2), Tensor(INDEX - 4)):
        same(Tensor(X).gather(1, index), X[at_index()])
    same(Tensor(X).gather(dim=1, index=Tensor(INDEX, dtype="int32")), X[at_index()])
    same(Tensor([5, 6]).gather(0, [1, 1, 0]), [6, 6, 5])


def test_scatter():
    expected = X.copy()
    expected[at_index()] = SOURCE
    same(Tensor(X).scatter(1, Tensor(INDEX), Tensor(SOURCE)), expected)
    same(Tensor(X).scatter(dim=1, index=INDEX, src=np.pad(SOURCE, 1)[1:, 1:, 1:]), expected)
    expected[at_index()] = 7
    same(Tensor(X).scatter(1, INDEX, 7), expected)
    expected = X.copy()
    np.add.at(expected, at_index(), SOURCE)
    same(Tensor(X).scatter_add(1, INDEX, Tensor(SOURCE)), expected)
    same(Tensor(X).scatter(1, INDEX, Tensor(SOURCE), reduce="add"), expected)
    expected = X.copy()
    np.maximum.at(expected, at_index(), SOURCE)
    same(Tensor(X).scatter(1, INDEX, Tensor(SOURCE), reduce="amax"), expected)


def test_gradients_of_gather_and_scatter():
    x, source = (Tensor(a.astype("float64"), requires_grad=True) for a in (X, SOURCE))
    y = np.random.default_rng(3).integers(1, 9, X.shape).astype("float64")
    (gradient,) = (x.gather(1, INDEX) * Tensor(y[:2, :3])).sum().gradient(x)
    expected = np.zeros(X.shape)
    np.add.at(expected, at_index(), y[:2, :3])
    same(gradient, expected)
    by_x, by_source = (x.scatter_add(1, INDEX, source) * Tensor(y)).sum().gradient(x, source)
    same(by_x, y)
    same(by_source, y[at_index()])
    by_x, by_source = (x.scatter(1, INDEX, source) * Tensor(y)).sum().gradient(x, source)
    kept = y.copy()
    kept[at_index()] = 0
    same(by_x, kept)
    owner = np.full(X.shape, -1)
    owner[at_index()] = np.arange(INDEX.size).reshape(INDEX.shape)  # what overwrites what
    same(by_source, np.where(owner[at_index()] == np.arange(INDEX.size).reshape(INDEX.shape), y[at_index()], 0))


def test_relatives():
    t = Tensor(X)
    same(t.index_select(2, [1, -1, 1]), X[:, :, [1, -1, 1]])
    same(t.index_select(dim=0, index=Tensor([2])), X[[2]])
    order = X.argsort(1)
    same(t.take_along_axis(Tensor(order), 1), np.take_along_axis(X, order, 1))
    same(t.take_along_axis(order[:1], axis=1), np.take_along_axis(X, order[:1], 1))
    same(t.take_along_axis(np.array([3, 50])), np.take_along_axis(X, np.array([3, 50]), None))
    added = X.copy()
    np.add.at(added, (slice(None), [1, 1]), SOURCE[:1, :2])
    same(t.index_add(1, [1, 1], Tensor(SOURCE[:1, :2]).broadcast_to(3, 2, 5)), added)
    same(t.masked_fill(t > 30, -1), np.where(X > 30, -1, X))
    same(t.masked_fill(Tensor([True, False, False, True, False]), Tensor(0.0)), X * [0, 1, 1, 0, 1])
    same(t.masked_select(t > 30), X[X > 30])
    same(t[0].masked_select(t > 30), np.broadcast_to(X[0], X.shape)[X > 30])
    same((t > 30).nonzero(), np.argwhere(X > 30))
    for ours, expected in zip((t > 30).nonzero(as_tuple=True), np.nonzero(X > 30)):
        same(ours, expected)
    same(Tensor([[0, 2], [1, 1]]).embedding(t[0]), X[0][[[0, 2], [1, 1]]])


@pytest.mark.parametrize("offset", [-9, -1, 0, 2, 9])
@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 0), (-1, 1)], ids=str)
def test_diagonal(offset, axes):
    view = np.diagonal(X, min(max(offset, -X.shape[axes[0]]), X.shape[axes[1]]), *axes)  # NumPy raises beyond
    same(Tensor(X).diagonal(offset, *axes), view)
    same(Tensor(X[::-1])[::-1].diagonal(offset, *axes), view)


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda t: t.gather(3, [0]), IndexError, r"an axis in \[-3, 2\]"),
    (lambda t: t.gather(0, [0]), RuntimeError, "as many axes"),
    (lambda t: t.gather(0, np.zeros((1, 5, 1), int)), RuntimeError, "none but the indexed one longer"),
    (lambda t: t.gather(0, np.full((1, 1, 1), 3)), IndexError, r"integers in \[-3, 2\], got 3"),
    (lambda t: t.gather(0, np.zeros((1, 1, 1))), IndexError, "integers"),
    (lambda t: t.gather(0), IndexError, "integers"),
    (lambda t: t.gather(index=[0]), TypeError, "one of axis and dim"),
    (lambda t: t.scatter(0, np.zeros((2, 1, 1), int), t[:1]), RuntimeError, "at least the index's shape"),
    (lambda t: t.scatter(0, np.zeros((2, 1, 1), int), t, reduce="mean"), ValueError, "None, 'add' or 'amax'"),
    (lambda t: t.index_select(0, [[0]]), RuntimeError, "1-d index"),
    (lambda t: t.index_add(0, [0, 1], t), RuntimeError, "one slice per index"),
    (lambda t: t.masked_fill(t, 0), RuntimeError, "bool"),
    (lambda t: t.masked_fill(t[None] > 0, 0), RuntimeError, "masked_fill"),
    (lambda t: t.masked_fill(t > 0, t), RuntimeError, "one number"),
    (lambda t: t.diagonal(0, 1, -2), ValueError, "two axes that differ"),
    (lambda t: Tensor([0]).embedding(t), RuntimeError, r"\(n, width\)"),
    (lambda t: t.__setitem__(0, np.zeros(4)), RuntimeError, "broadcast together"),
    (lambda t: t.__setitem__([0], np.zeros((2, 4, 5))), RuntimeError, "a value that broadcasts to"),
])  # fmt: skip
def test_errors(call, error, says):
    with pytest.raises(error, match=says):
        call(Tensor(X))


def test_out_of_range_is_an_index_error_of_ours():
    with pytest.raises(AxisError, match=r"an integer in \[-3, 2\], got 3"):
        Tensor(X)[3]
