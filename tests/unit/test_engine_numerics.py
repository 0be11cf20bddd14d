"""Rounding inside fused kernels, NaN, ties: what fusion and laziness must not change."""

import ml_dtypes
import numpy as np
import pytest

import minigrad
from minigrad import Tensor, config, jit

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture(params=HALVES)
def half(request):
    return request.param, HALVES[request.param]


def random(kind, *shape, scale=1.0):
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(kind)


def same_bits(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.astype("f8"), expected.astype("f8"))


# Every fused half intermediate rounds to its dtype.


def test_fused_chains_round_each_step(half):
    name, kind = half
    a, b, c = (random(kind, 500 + i)[:500] for i in range(3))
    expected = (((a * b).astype(kind) + c).astype(kind) - (a * b).astype(kind)).astype(kind)
    fused = lambda: (Tensor(a) * Tensor(b) + Tensor(c)) - Tensor(a) * Tensor(b)  # noqa: E731
    assert fused().dtype.name == name
    same_bits(fused().numpy(), expected)
    assert (expected.astype("f4") != c.astype("f4")).any()  # in wider arithmetic it would be c
    with config.settings.override(fuse=False):
        same_bits(fused().numpy(), expected)
    same_bits(jit(lambda x, y, z: (x * y + z) - x * y)(Tensor(a), Tensor(b), Tensor(c)).numpy(), expected)


def test_a_large_intermediate_overflows_where_its_dtype_does():
    x = Tensor(np.array([300.0, 2.0], "f2"))
    np.testing.assert_array_equal((x * x / x).numpy(), np.array([np.inf, 2.0], "f2"))
    y = Tensor(np.array([300.0, 2.0], "f4"))
    np.testing.assert_array_equal((y.half() * y.half()).float().numpy(), np.array([np.inf, 4.0], "f4"))


def test_casts_inside_a_kernel_round(half):
    name, kind = half
    x = random("f4", 300)
    same_bits((Tensor(x).cast(name).cast("float32") * 3).numpy(), x.astype(kind).astype("f4") * np.float32(3))


def test_a_prologue_rounds_before_a_sum_and_an_epilogue_after_a_product(half):
    name, kind = half
    a, b = random(kind, 64, 50), random(kind, 50, 64).T
    product = (a * np.asarray(b)).astype(kind)
    found = (Tensor(a) * Tensor(np.ascontiguousarray(b))).sum(1)
    exact = product.astype("f8").sum(1)
    allowed = float(ml_dtypes.finfo(kind).eps) * np.abs(exact) + 1e-5 * np.abs(product.astype("f8")).sum(1)
    assert (np.abs(found.numpy().astype("f8") - exact) <= allowed).all()
    x, w = Tensor(random(kind, 4, 30)), Tensor(random(kind, 30, 5))
    plain = x.matmul(w).realize()
    shifted = (x.matmul(w) + 1 - 1).numpy()
    same_bits(shifted, ((plain.numpy() + kind(1)).astype(kind) - kind(1)).astype(kind))


def test_sums_of_halves_accumulate_in_float32(half):
    name, kind = half
    x = np.ones(5000, kind)
    assert Tensor(x).sum().item() == pytest.approx(5000, rel=float(ml_dtypes.finfo(kind).eps))
    assert Tensor(x).mean().item() == 1
    assert (Tensor(x[None]) @ Tensor(x[:, None])).item() == pytest.approx(5000, rel=float(ml_dtypes.finfo(kind).eps))


def test_fused_and_unfused_agree_bitwise_on_small_integers():
    x = Tensor(np.arange(-60.0, 60.0, dtype="f4").reshape(4, 5, 6))

    def program():
        y = (x * 2 + 1).relu().transpose(0, 2).pad(((1, 0), (0, 2), (0, 0)), value=3.0)
        return (y.flip(1) - y.sum(0, keepdim=True)).max(2) * y[..., 0] + y.cumsum(1)[:, :, 1]

    fused = program().numpy()
    with config.settings.override(fuse=False):
        np.testing.assert_array_equal(program().numpy(), fused)
    with config.settings.override(eager=True, fuse=False):
        np.testing.assert_array_equal(program().numpy(), fused)


# NaN and ties.

NAN = float("nan")


def test_nan_is_the_maximum_and_the_minimum():
    """Tinygrad #862: max([1, nan]) was 1."""
    for values in ([1.0, NAN], [NAN, 1.0], [NAN, NAN], [1.0, NAN, 2.0]):
        x = Tensor(values)
        assert np.isnan(x.max().item()) and np.isnan(x.min().item())
        assert x.argmax().item() == x.argmin().item() == values.index(NAN)
        assert np.isnan(x.maximum(0.5).numpy()).tolist() == np.isnan(values).tolist()
        assert np.isnan(x.relu().numpy()).tolist() == np.isnan(values).tolist()
        pooled = x.reshape(1, 1, -1).max_pool1d(len(values))
        assert np.isnan(pooled.item())
        assert np.isnan(x.sort()[0].numpy()[-1])
    assert np.isnan(Tensor(np.full((3, 70), NAN, "f4")).max(1).numpy()).all()


def test_the_gradient_of_max_is_shared_evenly():
    x = Tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    x.max(1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0.5, 0.5], [1 / 3] * 3], rtol=1e-6)


@pytest.mark.parametrize("n", [3000, 70000])
def test_the_gradient_of_max_does_not_underflow_in_half(n):
    """Tinygrad #12296: the count of ties, or one over it, left the range of float16."""
    x = Tensor(np.ones(n, "f2"), requires_grad=True)
    (x.max() * 512).backward()
    grad = x.grad.numpy().astype("f8")
    assert x.grad.dtype.name == "float16"
    np.testing.assert_allclose(grad, 512 / n, rtol=1e-3)


def test_the_first_maximum_of_a_window_gets_the_gradient():
    x = Tensor([[[1.0, 1.0, 0.0, 1.0]]], requires_grad=True)
    x.max_pool1d(2, stride=1).sum().backward()
    assert x.grad.tolist() == [[[1, 1, 0, 1]]]


ONE_ELEMENT = {
    "matmul": (lambda x, w, b: (x @ w + b) * 2, 6),
    "linear": (lambda x, w, b: (x.linear(w, b) * 2 - 1) * 3, 15),
    "square": (lambda x, w, b: (w @ w + b) * 2 - 3, 7),
    "dot": (lambda x, w, b: (b @ b) * 3 + 1 - w.sum(), 2),
    "row by column": (lambda x, w, b: (w.expand(1, 3) @ w.expand(3, 1) + b.sum()).sqrt() * 2, 2 * 13**0.5),
    "sum": (lambda x, w, b: (w.sum() + b) * 2 - 3, 3),
    "conv": (lambda x, w, b: (w[None, None].conv2d(w[None, None]) + b) * 2 - 3, 7),
    "pool": (lambda x, w, b: (w[None, None].max_pool2d(1) + b) * 2 - 3, 3),
}


@pytest.mark.parametrize("name", ONE_ELEMENT)
def test_one_element(name):
    """Contractions and reductions to one element, with something after them."""
    f, expected = ONE_ELEMENT[name]
    found = f(Tensor([1.0]), Tensor([[2.0]]), Tensor([1.0]))
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16", "int32", "uint8", "bool"])
def test_empty_tensors_go_everywhere(name):
    x = Tensor.zeros(0, 3, dtype=name)
    assert (x + x).shape == (0, 3) and x.sum(1).shape == (0,) and x.T[1:].numpy().shape == (2, 0)
    assert x.sum(0).tolist() == [0] * 3 and x.prod().item() == 1
    assert Tensor.cat([x, x, Tensor.ones(1, 3, dtype=name)]).numpy().tolist() == [[1, 1, 1]]
    x.assign(x)
    assert x.tolist() == [] and jit(lambda y: (y * 2).sum(0))(x).tolist() == [0] * 3


def test_infinities_and_signed_zeros_survive_fusion():
    x = Tensor([np.inf, -np.inf, -0.0, 0.0])
    np.testing.assert_array_equal((x * 0 + 1).numpy(), [NAN, NAN, 1, 1])
    assert np.signbit((x * 1 + -0.0).numpy()).tolist() == [False, True, True, False]
    assert np.signbit((x - 0.0).numpy()).tolist() == [False, True, True, False]
    np.testing.assert_array_equal((1 / x).numpy(), [0, -0.0, -np.inf, np.inf])
    np.testing.assert_array_equal((x - x).numpy(), [NAN, NAN, 0, 0])
    with minigrad.no_grad():
        assert np.signbit((0.0 * Tensor([-1.0])).item())
