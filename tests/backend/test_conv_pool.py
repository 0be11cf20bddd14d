"""Convolution and pooling methods: exactly the oracle on integers, and PyTorch with two orders of derivatives."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad import Tensor, dtypes, reference
from minigrad.shapes import Window

SIZES = {1: (11,), 2: (11, 9), 3: (7, 6, 5)}  # by spatial dimensions
KERNELS = {1: (3,), 2: (3, 2), 3: (3, 2, 3)}


def exactly(tensor, expected):
    array = tensor.numpy()
    assert array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


def integers(rng, *shape):
    return rng.integers(-4, 5, shape).astype("float32")


# Drawn attributes against the oracle: small integers, so every sum is exact ------------------------------------------


@st.composite
def windows(draw, pool=False):
    """A window and sizes that it fits on, made from the output sizes."""
    rank = draw(st.integers(1, 3))
    side = st.integers(1, 3)
    kernel, stride, dilation = (tuple(draw(side) for _ in range(rank)) for _ in range(3))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    most = [e // 2 if pool else e for e in extent]
    padding = tuple((draw(st.integers(0, m)), draw(st.integers(0, m))) for m in most)
    spatial = tuple(
        max(1, draw(st.integers(0, 3)) * s + draw(st.integers(0, s - 1)) + e - sum(p))
        for s, e, p in zip(stride, extent, padding)
    )
    return Window(kernel, stride, padding, dilation, pool and draw(st.booleans())), spatial


@given(windows(), st.sampled_from([1, 2, 3]), st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_conv_is_the_oracles(case, groups, batch, batched):
    window, spatial = case
    rng = np.random.default_rng(0)
    batch = batch if batched else 1
    x = integers(rng, batch, 2 * groups, *spatial)
    w, b = integers(rng, 3 * groups, 2, *window.kernel), integers(rng, 3 * groups)
    expected = reference.conv(x, w, window=window, groups=groups) + b.reshape(-1, *(1,) * window.rank)
    conv = getattr(Tensor, f"conv{window.rank}d")
    attributes = dict(stride=window.stride, padding=window.padding, dilation=window.dilation, groups=groups)
    given = Tensor(x if batched else x[0])
    exactly(conv(given, Tensor(w), Tensor(b), **attributes), expected if batched else expected[0])


@given(windows(), st.sampled_from([1, 2]), st.data())
@settings(deadline=None, max_examples=60)
def test_conv_transpose_is_the_adjoint(case, groups, data):
    """<conv(x, w), y> = <x, conv_transpose(y, w)> where conv_transpose gives the size of x."""
    window, spatial = case
    window = window._replace(padding=tuple((a, a) for a, _ in window.padding))
    rng = np.random.default_rng(0)
    if any(n + 2 * p[0] < window.extent(i) for i, (n, p) in enumerate(zip(spatial, window.padding))):
        return
    outputs = window.output_size("conv", spatial)
    least = [(o - 1) * s + window.extent(i) - 2 * window.padding[i][0]
             for i, (o, s) in enumerate(zip(outputs, window.stride))]  # fmt: skip
    more = tuple(n - low for n, low in zip(spatial, least))
    x, y = integers(rng, 2, 2 * groups, *spatial), integers(rng, 2, 3 * groups, *outputs)
    w = integers(rng, 3 * groups, 2, *window.kernel)
    attributes = dict(stride=window.stride, padding=[p for p, _ in window.padding], dilation=window.dilation)
    there = getattr(Tensor, f"conv{window.rank}d")(Tensor(x), Tensor(w), groups=groups, **attributes).numpy()
    back = getattr(Tensor, f"conv_transpose{window.rank}d")(
        Tensor(y), Tensor(w), groups=groups, output_padding=more, **attributes
    ).numpy()
    assert back.shape == x.shape
    assert (there * y).sum() == (x * back).sum()


@given(windows(pool=True), st.booleans())
@settings(deadline=None, max_examples=60)
def test_pools_are_the_oracles(case, include):
    window, spatial = case
    rng = np.random.default_rng(0)
    if any(n + sum(p) < window.extent(i) for i, (n, p) in enumerate(zip(spatial, window.padding))):
        return
    x = integers(rng, 2, 3, *spatial)
    shared = dict(kernel_size=window.kernel, stride=window.stride, padding=window.padding, ceil_mode=window.ceil_mode)
    values, indices = getattr(Tensor, f"max_pool{window.rank}d")(
        Tensor(x), dilation=window.dilation, return_indices=True, **shared
    )
    expected, taps = reference.max_pool(x, window=window)
    exactly(values, expected)
    assert indices.dtype is dtypes.int64
    if np.isfinite(expected).all():  # else a window has nothing but padding
        exactly(Tensor(x).flatten(2).gather(2, indices.flatten(2)).reshape(expected.shape), expected)
        tap = np.unravel_index(taps, window.kernel)
        first = np.indices(taps.shape[2:]).reshape(window.rank, 1, 1, *taps.shape[2:])
        at = [o * s - p[0] + t * d for o, s, p, t, d in zip(first, window.stride, window.padding, tap, window.dilation)]
        exactly(indices, np.ravel_multi_index(at, spatial))
    window = window._replace(dilation=(1,) * window.rank)
    if all(2 * max(p) <= k for p, k in zip(window.padding, window.kernel)):
        average = getattr(Tensor, f"avg_pool{window.rank}d")(Tensor(x), count_include_pad=include, **shared)
        mean = reference.avg_pool(x.astype("float64"), window=window, count_include_pad=include)
        np.testing.assert_allclose(average.numpy(), mean, rtol=1e-6, atol=1e-6)


# Named attributes against PyTorch, in float64, with first and second derivatives --------------------------------------


def agree(ours, theirs, *shapes, seed=0, rounded=False):
    """Values, gradients of sum(out**2 * c), and gradients of a weighting of those."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    arrays = [np.round(a) for a in arrays] if rounded else arrays
    x, y = [Tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*x), theirs(*y)
    assert out.shape == tuple(expected.shape) and out.dtype is dtypes.float64
    scale = rng.standard_normal(out.shape)
    first = (out * out * Tensor(scale)).sum().gradient(*x)
    wanted = torch.autograd.grad((expected * expected * torch.tensor(scale)).sum(), y, create_graph=True)
    weights = [rng.standard_normal(shape) for shape in shapes]
    second = sum((g * Tensor(c)).sum() for g, c in zip(first, weights)).gradient(*x)
    last = torch.autograd.grad(sum((g * torch.tensor(c)).sum() for g, c in zip(wanted, weights)), y)
    for got, right in zip((out, *first, *second), (expected, *wanted, *last)):
        np.testing.assert_allclose(got.numpy(), right.detach().numpy(), rtol=1e-8, atol=1e-8)


def functional(name):
    return getattr(pytest.importorskip("torch").nn.functional, name)


@pytest.mark.parametrize("attributes", [
    dict(),
    dict(stride=2, padding=1),
    dict(dilation=2, groups=2),
    dict(stride=3, padding="valid", groups=4),
    dict(padding="same", dilation=2),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_conv(rank, attributes):
    shapes = (2, 4, *SIZES[rank]), (8, 4 // attributes.get("groups", 1), *KERNELS[rank]), (8,)
    name = f"conv{rank}d"
    agree(lambda x, w, b: getattr(x, name)(w, b, **attributes),
          lambda x, w, b: functional(name)(x, w, b, **attributes), *shapes)  # fmt: skip


@pytest.mark.parametrize("attributes", [
    dict(),
    dict(stride=2, padding=1, output_padding=1),
    dict(dilation=2, groups=2, output_padding=1),
    dict(stride=2, dilation=4, output_padding=3),
    dict(stride=1, dilation=4, padding=1, output_padding=3),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose(rank, attributes):
    groups = attributes.get("groups", 1)
    shapes = (2, 4, *SIZES[rank]), (4, 6 // groups, *KERNELS[rank]), (6,)
    name = f"conv_transpose{rank}d"
    agree(lambda x, w, b: getattr(x, name)(w, b, **attributes),
          lambda x, w, b: functional(name)(x, w, b, **attributes), *shapes)  # fmt: skip


@pytest.mark.parametrize("attributes", [
    dict(kernel_size=2),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=3, stride=2, ceil_mode=True),
    dict(kernel_size=2, stride=1, dilation=2, padding=1),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool(rank, attributes):
    torch = pytest.importorskip("torch")
    name, shape = f"max_pool{rank}d", (2, 3, *SIZES[rank])
    agree(lambda x: getattr(x, name)(**attributes), lambda x: functional(name)(x, **attributes), shape)
    agree(lambda x: getattr(x, name)(**attributes), lambda x: functional(name)(x, **attributes), shape, rounded=True)
    x = np.random.default_rng(0).standard_normal(shape).round(1)
    values, indices = getattr(Tensor(x), name)(**attributes, return_indices=True)
    expected, positions = functional(name)(torch.tensor(x), **attributes, return_indices=True)
    exactly(values, expected.numpy())
    exactly(indices, positions.numpy())


@pytest.mark.parametrize("attributes", [
    dict(kernel_size=2),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=3, stride=2, ceil_mode=True),
    dict(kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_avg_pool(rank, attributes):
    name = f"avg_pool{rank}d"
    agree(lambda x: getattr(x, name)(**attributes), lambda x: functional(name)(x, **attributes), (2, 3, *SIZES[rank]))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("attributes", [dict(kernel_size=2), dict(kernel_size=3, stride=2, padding=1)], ids=str)
def test_max_unpool_inverts_max_pool(rank, attributes):
    """What was pooled is back in its place, everything else is 0; also where windows overlap and indices repeat."""
    x = np.random.default_rng(0).integers(1, 999, (2, 3, *SIZES[rank])).astype("float32")
    values, indices = getattr(Tensor(x), f"max_pool{rank}d")(**attributes, return_indices=True)
    whole = getattr(values, f"max_unpool{rank}d")(indices, **attributes, output_size=SIZES[rank])
    flat = np.zeros((2, 3, math.prod(SIZES[rank])), "float32")
    np.put_along_axis(flat, indices.numpy().reshape(2, 3, -1), values.numpy().reshape(2, 3, -1), 2)
    exactly(whole, flat.reshape(x.shape))
    default = getattr(values, f"max_unpool{rank}d")(indices.clone() * 0, **attributes)
    stride, twice = attributes.get("stride", 2), 2 * attributes.get("padding", 0)
    assert default.shape == (2, 3, *((o - 1) * stride - twice + attributes["kernel_size"] for o in values.shape[2:]))


def test_max_unpool_is_pytorchs_with_gradient():
    torch = pytest.importorskip("torch")
    indices = functional("max_pool2d")(torch.randn(2, 3, 6, 8), 2, return_indices=True)[1]
    agree(
        lambda x: x.max_unpool2d(Tensor(indices.numpy()), 2, output_size=(2, 3, 7, 8)),
        lambda x: functional("max_unpool2d")(x, indices, 2, output_size=(2, 3, 7, 8)),
        (2, 3, 3, 4),
    )


@pytest.mark.parametrize("size", [1, 3, (4, 7), (11, 9), (None, 2), (13, 12)], ids=str)
def test_adaptive_pools(size):
    shape = (2, 3, 11, 9)
    agree(lambda x: x.adaptive_avg_pool2d(size), lambda x: functional("adaptive_avg_pool2d")(x, size), shape)
    for rounded in (False, True):
        agree(lambda x: x.adaptive_max_pool2d(size), lambda x: functional("adaptive_max_pool2d")(x, size), shape,
              rounded=rounded)  # fmt: skip
    if isinstance(size, int):
        agree(lambda x: x.adaptive_avg_pool1d(size), lambda x: functional("adaptive_avg_pool1d")(x, size), (2, 3, 11))


def test_an_adaptive_window_keeps_infinity_to_itself():
    x = np.zeros((1, 1, 5), "float32")
    x[..., 0] = np.inf
    assert Tensor(x).adaptive_avg_pool1d(3).tolist() == [[[math.inf, 0.0, 0.0]]]


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("shape", [(2, 7), (2, 7, 3), (2, 7, 3, 4), (2, 3, 2, 3, 4)], ids=str)
def test_local_response_norm(size, shape):
    if len(shape) > 2:  # PyTorch's needs three dimensions
        arguments = (size, 0.1, 0.75, 2.0)
        agree(lambda x: x.local_response_norm(*arguments),
              lambda x: functional("local_response_norm")(x, *arguments), shape)  # fmt: skip
    x = np.random.default_rng(0).standard_normal(shape)
    squares = np.pad(x**2, [(0, 0), (size // 2, (size - 1) // 2)] + [(0, 0)] * (len(shape) - 2))
    sums = sum(squares[:, i : i + shape[1]] for i in range(size))
    expected = x / (1 + 1e-4 / size * sums) ** 0.75
    np.testing.assert_allclose(Tensor(x).local_response_norm(size).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("attributes", [
    dict(kernel_size=2), dict(kernel_size=(3, 2), dilation=(2, 1), padding=(1, 0), stride=(2, 3)),
], ids=str)  # fmt: skip
def test_unfold(attributes):
    agree(lambda x: x.unfold(**attributes), lambda x: functional("unfold")(x, **attributes), (2, 3, 8, 9))
    agree(lambda x: x.unfold(**attributes), lambda x: functional("unfold")(x, **attributes), (3, 8, 9))


def test_conv_is_unfold_and_matmul():
    rng = np.random.default_rng(0)
    x, w = Tensor(integers(rng, 2, 3, 8, 9)), Tensor(integers(rng, 4, 3, 3, 2))
    columns = x.unfold((3, 2), padding=1, stride=2)
    exactly(w.flatten(1).matmul(columns), x.conv2d(w, padding=1, stride=2).flatten(2).numpy())


def test_conv_is_convolution_with_the_flipped_kernel():
    rng = np.random.default_rng(0)
    x, w = integers(rng, 9), integers(rng, 4)
    out = Tensor(x)[None].conv1d(Tensor(w).flip()[None, None], padding=3)
    exactly(out[0], np.convolve(x, w))


def test_without_a_batch_axis():
    rng = np.random.default_rng(0)
    x, w, t = integers(rng, 4, 7, 8), Tensor(integers(rng, 6, 4, 3, 3)), Tensor(integers(rng, 4, 6, 3, 3))
    for f in (
        lambda x: x.conv2d(w, stride=2),
        lambda x: x.conv_transpose2d(t, stride=2),
        lambda x: x.max_pool2d(2),
        lambda x: x.max_pool2d(2, return_indices=True)[1],
        lambda x: x.avg_pool2d(3, 2),
        lambda x: x.adaptive_avg_pool2d((3, 5)),
    ):
        exactly(f(Tensor(x)), f(Tensor(x[None])).numpy()[0])


@pytest.mark.parametrize("call", [
    lambda x, w: x.conv2d(w, padding=1),
    lambda x, w: x.conv_transpose2d(w.transpose(0, 1), stride=2),
    lambda x, w: x.max_pool2d(2),
    lambda x, w: x.max_pool2d(2, return_indices=True)[1],
    lambda x, w: x.avg_pool2d(3, 1, 1),
    lambda x, w: x.adaptive_avg_pool2d((3, 5)),
    lambda x, w: x.local_response_norm(3),
    lambda x, w: x.unfold(2),
])  # fmt: skip
def test_an_empty_batch(call):
    x, w = Tensor(np.zeros((0, 4, 7, 8), "float32"), requires_grad=True), Tensor(np.zeros((6, 4, 3, 3), "float32"))
    out = call(x, w)
    if out.dtype.is_float:
        assert out.sum().gradient(x)[0].numpy().shape == x.shape
    assert out.shape[0] == 0 and out.numpy().shape == out.shape


def test_weights_of_an_empty_batch_have_no_gradient_but_zeros():
    x, w = Tensor(np.zeros((0, 4, 7, 8), "float32")), Tensor(np.ones((6, 4, 3, 3), "float32"), requires_grad=True)
    (gradient,) = x.conv2d(w).sum().gradient(w)
    exactly(gradient, np.zeros((6, 4, 3, 3)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_accumulate_in_float32(dtype):
    x, w = Tensor(np.ones((1, 64, 9, 9)), dtype=dtype), Tensor(np.ones((1, 64, 8, 8)), dtype=dtype)
    assert x.conv2d(w).dtype is dtypes.as_dtype(dtype)
    exactly(x.conv2d(w).float(), np.full((1, 1, 2, 2), 4096.0))  # a half type cannot count so far by ones
    exactly(x.avg_pool2d(9).float(), np.ones((1, 64, 1, 1)))
    exactly(x.max_pool2d(3).float(), np.ones((1, 64, 3, 3)))


@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("batch", [3, 16])  # 16 images may lie in the lanes of vectors, where true is another number
def test_max_pool_of_bools(batch, indices):
    given = np.random.default_rng(0).random((batch, 3, 7, 5)) < 0.3
    pooled = Tensor(given).max_pool2d(2, stride=1, return_indices=indices)
    windows = np.lib.stride_tricks.sliding_window_view(given, (2, 2), (2, 3))
    np.testing.assert_array_equal((pooled[0] if indices else pooled).numpy(), windows.any((-2, -1)))


def test_nan_wins_and_padding_does_not():
    x = Tensor([[[[-5.0, float("nan")], [-7.0, -6.0]]]])
    exactly(x.max_pool2d(2), [[[[np.nan]]]])
    exactly(Tensor([[[-5.0, -7.0]]]).max_pool1d(2, padding=1), [[[-5.0, -7.0]]])


X, W = (1, 4, 7, 8), (6, 4, 3, 3)


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda x, w: x.conv2d(w, padding=(0, 1, 0)), ValueError, "conv2d: expected padding as one integer or 2"),
    (lambda x, w: x.conv2d(w, stride=0), ValueError, "stride of at least 1"),
    (lambda x, w: x.conv2d(w, stride=1.5), TypeError, "stride of integers"),
    (lambda x, w: x.conv2d(w, padding="full"), ValueError, "'valid', or 'same' with stride 1"),
    (lambda x, w: x.conv2d(w, padding="same", stride=2), ValueError, "'same' with stride 1"),
    (lambda x, w: x.conv2d(w, groups=3), RuntimeError, "groups that divide both channel counts"),
    (lambda x, w: x.conv2d(w, groups=2), RuntimeError, "input channels"),
    (lambda x, w: x.conv2d(w[0]), RuntimeError, "a weight of 4 dimensions"),
    (lambda x, w: x[0, 0].conv2d(w), RuntimeError, "an input of 4 dimensions"),
    (lambda x, w: x.conv1d(w), RuntimeError, "a weight of 3 dimensions"),
    (lambda x, w: x.conv2d(w, w[0, :, 0, 0]), RuntimeError, r"a bias of shape \(6,\)"),
    (lambda x, w: x.conv2d(w, dilation=4),
     RuntimeError, r"\(N - F \+ P\)/S \+ 1 of at least 1, got \(7 - 9 \+ 0\)/1 \+ 1 along spatial axis 0"),
    (lambda x, w: x.conv2d(w.half()), RuntimeError, "one numeric dtype"),
    (lambda x, w: x.conv_transpose2d(w), RuntimeError, "an input of weight.shape"),
    (lambda x, w: x.conv_transpose2d(w[:4], output_padding=1), ValueError, "less than stride or dilation"),
    (lambda x, w: x[..., :1].conv_transpose2d(w[:4], padding=2),
     RuntimeError, r"\(N - 1\)\*S \+ F - 2P \+ output_padding of at least 1, got \(1 - 1\)\*1 \+ 3 - 4 \+ 0"),
    (lambda x, w: x.max_pool2d(2, padding=2), RuntimeError, "at most half the window"),
    (lambda x, w: x.avg_pool2d(3, padding=2), RuntimeError, "at most half the window"),
    (lambda x, w: x.max_pool2d(8), RuntimeError, r"max_pool2d: expected an output size \(N - F \+ P\)/S \+ 1"),
    (lambda x, w: x.max_pool2d((2, 2, 2)), ValueError, "kernel_size as one integer or 2"),
    (lambda x, w: x.int().avg_pool2d(2), RuntimeError, "floating"),
    (lambda x, w: x.max_unpool2d(x, 2), RuntimeError, "integer indices"),
    (lambda x, w: x.max_unpool2d(x.int(), 2, output_size=(9, 9)), ValueError, "within less than the stride"),
    (lambda x, w: x.adaptive_avg_pool2d(0), ValueError, "output_size of at least 1"),
    (lambda x, w: x.adaptive_avg_pool2d((1, 2, 3)), ValueError, "output_size as one integer or 2"),
    (lambda x, w: x[0, 0, 0].local_response_norm(3), RuntimeError, "at least 2 dimensions"),
    (lambda x, w: x.local_response_norm(0), ValueError, "size of at least 1"),
])  # fmt: skip
def test_errors(call, error, says):
    with pytest.raises(error, match=says):
        call(Tensor(np.ones(X, "float32")), Tensor(np.ones(W, "float32")))
