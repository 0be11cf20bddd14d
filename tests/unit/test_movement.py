"""Movement methods against NumPy (values and errors) and, by exact adjoints, their gradients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad import Tensor, dtypes

X = np.arange(24).reshape(2, 3, 4)


def same(tensor, expected):
    array = tensor.numpy()
    assert array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


CASES = {
    "reshape": (lambda t: t.reshape(4, 6), lambda x: x.reshape(4, 6)),
    "reshape a tuple with -1": (lambda t: t.reshape((-1, 8)), lambda x: x.reshape(-1, 8)),
    "view": (lambda t: t.view(6, -1), lambda x: x.reshape(6, -1)),
    "flatten": (lambda t: t.flatten(1), lambda x: x.reshape(2, 12)),
    "flatten some": (lambda t: t.flatten(0, -2), lambda x: x.reshape(6, 4)),
    "unflatten": (lambda t: t.unflatten(-1, (2, -1)), lambda x: x.reshape(2, 3, 2, 2)),
    "unflatten dim": (lambda t: t.unflatten(dim=1, sizes=(3, 1)), lambda x: x.reshape(2, 3, 1, 4)),
    "unsqueeze": (lambda t: t.unsqueeze(-1), lambda x: x[..., None]),
    "unsqueeze dim": (lambda t: t.unsqueeze(dim=1), lambda x: x[:, None]),
    "squeeze": (lambda t: t[:, :1].squeeze(), lambda x: x[:, 0]),
    "squeeze one": (lambda t: t[:1, :1].squeeze(1), lambda x: x[:1, 0]),
    "squeeze several": (lambda t: t[:1, :1].squeeze((0, 2)), lambda x: x[0, :1]),
    "permute": (lambda t: t.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "permute a tuple": (lambda t: t.permute((-1, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "transpose": (lambda t: t.transpose(0, -1), lambda x: x.swapaxes(0, -1)),
    "swapaxes": (lambda t: t.swapaxes(0, 1), lambda x: x.swapaxes(0, 1)),
    "T": (lambda t: t.T, lambda x: x.T),
    "mT": (lambda t: t.mT, lambda x: x.swapaxes(-1, -2)),
    "movedim": (lambda t: t.movedim(0, -1), lambda x: np.moveaxis(x, 0, -1)),
    "movedim several": (lambda t: t.movedim((0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0))),
    "flip": (lambda t: t.flip(), np.flip),
    "flip some": (lambda t: t.flip(0, -1), lambda x: np.flip(x, (0, -1))),
    "flip a list": (lambda t: t.flip([1]), lambda x: np.flip(x, 1)),
    "flip axis": (lambda t: t.flip(axis=1), lambda x: np.flip(x, 1)),
    "roll": (lambda t: t.roll(5), lambda x: np.roll(x, 5)),
    "roll along axes": (lambda t: t.roll((1, -6), (0, 2)), lambda x: np.roll(x, (1, -6), (0, 2))),
    "roll by nothing": (lambda t: t.roll(3, 1), lambda x: x),
    "expand": (lambda t: t[:, :1].expand(5, -1, 3, 4), lambda x: np.broadcast_to(x[:, :1], (5, 2, 3, 4))),
    "broadcast_to": (lambda t: t.broadcast_to(2, 2, 3, 4), lambda x: np.broadcast_to(x, (2, 2, 3, 4))),
    "repeat": (lambda t: t.repeat(2, 1, 0, 3), lambda x: np.tile(x, (2, 1, 0, 3))),
    "tile": (lambda t: t.tile(2), lambda x: np.tile(x, 2)),
    "repeat_interleave": (lambda t: t.repeat_interleave(3, dim=1), lambda x: np.repeat(x, 3, 1)),
    "repeat_interleave flat": (lambda t: t.repeat_interleave(2), lambda x: np.repeat(x, 2)),
    "shrink": (lambda t: t.shrink(((1, 2), None, (1, 3))), lambda x: x[1:2, :, 1:3]),
    "cat": (lambda t: t.cat(t.flip(1), axis=1), lambda x: np.concatenate([x, np.flip(x, 1)], 1)),
    "cat of a list": (lambda t: Tensor.cat([t, t], -1), lambda x: np.concatenate([x, x], -1)),
    "concat": (lambda t: Tensor.concat(t, t, dim=0), lambda x: np.concatenate([x, x])),
    "cat of one": (lambda t: Tensor.cat([t]), lambda x: x),
    "stack": (lambda t: Tensor.stack(t, t.flip(0)), lambda x: np.stack([x, np.flip(x, 0)])),
    "stack last": (lambda t: Tensor.stack([t, t], dim=-1), lambda x: np.stack([x, x], -1)),
    "clone": (lambda t: t.clone(), lambda x: x),
    "contiguous": (lambda t: t.T.contiguous(), lambda x: x.T),
    "pad last axes, flat": (lambda t: t.pad((1, 2, 0, 1), value=7),
                            lambda x: np.pad(x, ((0, 0), (0, 1), (1, 2)), constant_values=7)),
    "pad pairs": (lambda t: t.pad(((1, 0), (0, 0), (2, 3))), lambda x: np.pad(x, ((1, 0), (0, 0), (2, 3)))),
    "pad by negative sizes": (lambda t: t.pad((-1, 1, 1, -2)),
                              lambda x: np.pad(x[:, :1, 1:], ((0, 0), (1, 0), (0, 1)))),
    "pad nothing": (lambda t: t.pad((0, 0)), lambda x: x),
    "pad reflect": (lambda t: t.pad(((1, 1), (2, 0), (0, 3)), mode="reflect"),
                    lambda x: np.pad(x, ((1, 1), (2, 0), (0, 3)), mode="reflect")),
    "pad replicate": (lambda t: t.pad((5, 1, 0, 2), mode="replicate"),
                      lambda x: np.pad(x, ((0, 0), (0, 2), (5, 1)), mode="edge")),
    "pad circular": (lambda t: t.pad((4, 1), mode="circular"),
                     lambda x: np.pad(x, ((0, 0), (0, 0), (4, 1)), mode="wrap")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    ours, numpys = CASES[name]
    same(ours(Tensor(X)), numpys(X))
    same(ours(Tensor(X % 2 == 0)), numpys(X % 2 == 0).astype(bool))


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_adjoint(name):
    """Movement is linear: <f(x), y> = <x, f'(y)> for all y, exactly in integers that floats hold. (Padding is 0.)"""
    ours, _ = CASES[name]
    x = Tensor(X.astype("float64"), requires_grad=True)
    out = ours(x)
    y = np.random.default_rng(0).integers(-4, 5, out.shape).astype("float64")
    base = ours(Tensor(np.zeros_like(X, "float64"))).numpy()  # what is left where x is 0: padding
    (gradient,) = (out * Tensor(y)).sum().gradient(x)
    assert (gradient.numpy() * X).sum() == ((out.numpy() - base) * y).sum()
    again = (gradient * x).sum().gradient(x)[0]  # linear in x: the second derivative is that of a constant
    same(again, gradient.numpy())


@pytest.mark.parametrize(("ours", "numpys"), [
    (lambda t: t.split(2, 2), lambda x: np.split(x, 2, 2)),
    (lambda t: t.split([1, 3], axis=-1), lambda x: np.split(x, [1], -1)),
    (lambda t: t.split(2, dim=1), lambda x: np.split(x, [2], 1)),
    (lambda t: t.split(9), lambda x: [x]),
    (lambda t: t.chunk(2, 1), lambda x: np.split(x, [2], 1)),
    (lambda t: t.chunk(3, dim=2), lambda x: np.split(x, [2], 2)),
    (lambda t: t.unbind(1), lambda x: [x[:, 0], x[:, 1], x[:, 2]]),
    (lambda t: tuple(t), lambda x: [x[0], x[1]]),
])  # fmt: skip
def test_parts(ours, numpys):
    parts = ours(Tensor(X))
    assert isinstance(parts, tuple) and len(parts) == len(numpys(X))
    for part, expected in zip(parts, numpys(X)):
        same(part, expected)


@pytest.mark.parametrize("indexing", ["ij", "xy"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_meshgrid(indexing, count):
    lines = [np.array([1, 2]), np.array([3, 4, 5]), np.array([6])][:count]
    for ours, expected in zip(
        Tensor.meshgrid(*map(Tensor, lines), indexing=indexing), np.meshgrid(*lines, indexing=indexing)
    ):
        same(ours, expected)


def test_dimensions():
    x = Tensor(X)
    assert (x.size(), x.size(1), x.size(dim=-1), x.dim()) == ((2, 3, 4), 3, 4, 3)


def test_zero_dimensional_and_empty():
    scalar, empty = Tensor(3), Tensor(np.zeros((2, 0, 3), "float32"))
    assert scalar.flatten().shape == scalar.reshape(1).shape == scalar.unsqueeze(0).shape == (1,)
    assert scalar.T.shape == scalar.permute().shape == scalar.squeeze().shape == scalar.flip().shape == ()
    assert Tensor.stack(scalar, scalar).tolist() == [3, 3]
    assert empty.reshape(0, 7).shape == (0, 7)
    assert empty.flip().roll(1, 1).permute(1, 0, 2).shape == (0, 2, 3)
    assert [p.shape for p in empty.split(1, 1)] == [(2, 0, 3)]
    assert empty.unbind(1) == ()
    assert empty.pad((0, 0, 1, 1), value=2).tolist() == [[[2.0] * 3] * 2] * 2
    same(Tensor.cat(empty, empty, axis=1), np.zeros((2, 0, 3), "float32"))


def test_joining_promotes():
    assert Tensor.cat([Tensor([1, 2]), Tensor([1.5])]).dtype is dtypes.float32
    assert Tensor.stack(Tensor([1, 2], dtype="int8"), Tensor([3, 4], dtype="uint8")).dtype is dtypes.int16
    assert Tensor.stack([Tensor(1.0), 2]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda t: t.reshape(5, -1), RuntimeError, "reshape: expected a shape of 24 elements"),
    (lambda t: t.reshape(-1, -1), RuntimeError, "at most one -1"),
    (lambda t: t.T.view(24), RuntimeError, "use .reshape"),
    (lambda t: t.permute(0, 1), ValueError, "each axis"),
    (lambda t: t.permute(0, 1, 3), IndexError, r"an axis in \[-3, 2\]"),
    (lambda t: t.transpose(0, 3), IndexError, "transpose"),
    (lambda t: t.flip(3), IndexError, "flip"),
    (lambda t: t.flip(0, 0), ValueError, "axes that differ"),
    (lambda t: t.expand(2, 5, 4), RuntimeError, "expand"),
    (lambda t: t.repeat(2, 2), RuntimeError, "repeat"),
    (lambda t: t.unsqueeze(4), IndexError, "unsqueeze"),
    (lambda t: t.unsqueeze(), TypeError, "one of axis and dim"),
    (lambda t: t.unsqueeze(1, dim=1), TypeError, "one of axis and dim"),
    (lambda t: t.flatten(2, 1), ValueError, "start_dim before end_dim"),
    (lambda t: t.roll((1, 2), 0), ValueError, "one shift per axis"),
    (lambda t: t.movedim((0, 1), (0, 0)), ValueError, "movedim"),
    (lambda t: t.pad(1), TypeError, "pad: expected a sequence"),
    (lambda t: t.pad((1, 2, 3)), ValueError, "an even number"),
    (lambda t: t.pad(((1, 2),)), ValueError, "one pair"),
    (lambda t: t.pad((1, 1), mode="wrap"), ValueError, "constant, reflect, replicate, circular"),
    (lambda t: t.pad((4, 0), mode="reflect"), RuntimeError, "reflect padding of at most 3"),
    (lambda t: t.pad((5, 0), mode="circular"), RuntimeError, "circular padding of at most 4"),
    (lambda t: t.pad((-3, -2)), RuntimeError, "negative padding of at most the size"),
    (lambda t: t.shrink(((0, 3), None, None)), RuntimeError, "bounds inside"),
    (lambda t: t.shrink((None, None)), ValueError, "one pair"),
    (lambda t: t.cat(t[:, :2], axis=0), RuntimeError, "differ along axis 0 only"),
    (lambda t: t[0, 0, 0].cat(t), RuntimeError, "use stack"),
    (lambda t: Tensor.cat([]), TypeError, "at least one tensor"),
    (lambda t: t.stack(t[0]), RuntimeError, "one shape"),
    (lambda t: t.split([1, 2]), RuntimeError, "sum up to 2"),
    (lambda t: t.split(0), ValueError, "at least 1"),
    (lambda t: t.chunk(0), ValueError, "at least 1 chunk"),
    (lambda t: t.meshgrid(t), RuntimeError, "at most one dimension"),
    (lambda t: t[0, 0].meshgrid(indexing="ji"), ValueError, "'ij' or 'xy'"),
])  # fmt: skip
def test_errors(call, error, says):
    with pytest.raises(error, match=says):
        call(Tensor(X))


@st.composite
def chains(draw):
    """A shape and steps of movement that fit it, as (name, arguments of the tensor's method, the same in NumPy)."""
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=1, max_size=4)))
    x, steps = np.zeros(shape), []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["permute", "flip", "slice", "reshape", "unsqueeze", "squeeze", "pad", "expand"]))
        rank = x.ndim
        if kind == "permute":
            order = draw(st.permutations(range(rank)))
            step = (lambda t, o=order: t.permute(*o)), (lambda a, o=order: a.transpose(o))
        elif kind == "flip":
            axes = tuple(a for a in range(rank) if draw(st.booleans()))
            step = (lambda t, a=axes: t.flip(a)), (lambda a, axes=axes: np.flip(a, axes))
        elif kind == "slice":
            key = tuple(
                slice(draw(st.integers(-5, 5)), draw(st.integers(-5, 5)), draw(st.sampled_from([1, 2, -1, -2])))
                for _ in range(rank)
            )
            step = (lambda t, k=key: t[k]), (lambda a, k=key: a[k])
        elif kind == "reshape":
            new = draw(st.sampled_from([(x.size,), (1, x.size), x.shape[::-1], (*x.shape, 1)]))
            step = (lambda t, s=new: t.reshape(s)), (lambda a, s=new: a.reshape(s))
        elif kind == "unsqueeze":
            at = draw(st.integers(0, rank))
            step = (lambda t, a=at: t.unsqueeze(a)), (lambda a, at=at: np.expand_dims(a, at))
        elif kind == "squeeze":
            step = (lambda t: t.squeeze()), np.squeeze
        elif kind == "pad":
            pairs = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank)]
            value = draw(st.sampled_from([0, 1]))
            step = (
                (lambda t, p=pairs, v=value: t.pad(p, value=v) if p else t),
                (lambda a, p=pairs, v=value: np.pad(a, p, constant_values=v) if p else a),
            )
        else:
            wide = tuple(2 if n == 1 else n for n in x.shape)
            step = (lambda t, s=wide: t.expand(s)), (lambda a, s=wide: np.broadcast_to(a, s))
        x = step[1](x)
        if x.size > 2000 or x.ndim > 6:
            break
        steps.append(step)
    return shape, steps


@given(chains())
@settings(deadline=None)
def test_chains(chain):
    shape, steps = chain
    x = np.arange(np.prod(shape)).reshape(shape)
    tensor = Tensor(x)
    for ours, numpys in steps:
        tensor, x = ours(tensor), numpys(x)
    same(tensor, x)
