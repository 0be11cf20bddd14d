"""Level 3, and 5 for nets: laws that tie primitives to each other and to NumPy, whatever the oracle says of one.

Small integers have exact products and sums, so most laws are equalities of bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Tensor, dtypes, no_grad
from minigrad import device as devices
from minigrad.dtypes import DType
from minigrad.graph import Node, apply, full_like, project
from minigrad.primitive import TABLE
from minigrad.shapes import Shape, Window
from minigrad.testing import strategies
from minigrad.testing.bounds import Bounded
from minigrad.testing.conformance.support import dtypes_of, needs, some
from minigrad.testing.evaluate import Array, run
from minigrad.testing.laws import check_alike, measured
from minigrad.testing.programs import on
from minigrad.testing.training import TrainingRun
from minigrad.testing.training_strategies import training_runs

KINDS = (dtypes.float32, dtypes.int32, dtypes.float64)  # with room for the sums of small integers
level3 = pytest.mark.level(3)


class Conv(NamedTuple):
    """A drawn convolution: whole numbers, and leaves of them on the device."""

    x: Array
    w: Array
    window: Window
    groups: int
    device: str
    dtype: DType

    def leaf(self, array: Array) -> Node:
        return on(self.device)(np.ascontiguousarray(array, self.dtype.numpy), self.dtype, ())

    def of(self, x: Array, w: Array, window: Window | None = None, groups: int | None = None) -> Node:
        """Another convolution, by the same attributes unless given."""
        groups = self.groups if groups is None else groups
        return apply("conv", self.leaf(x), self.leaf(w), window=window or self.window, groups=groups)

    @property
    def node(self) -> Node:
        return self.of(self.x, self.w)

    def like(self, shape: Shape, data: st.DataObject) -> Array:
        """More whole numbers."""
        return np.random.default_rng(data.draw(strategies.seeds)).integers(-3, 4, shape).astype(self.dtype.numpy)


def draw_conv(data: st.DataObject, device: str, kinds: Sequence[DType] = KINDS) -> Conv:
    """A convolution over one to three dimensions, with strides, dilations, groups and padding on each side."""
    needs(device, "conv")
    program = data.draw(strategies.cases(TABLE["conv"], kinds=["integers"], only=dtypes_of(device, kinds)))
    x, w = program.inputs
    attrs = program.steps[0].attrs
    return Conv(x.array, w.array, attrs["window"], attrs["groups"], device, x.dtype)


def windows_of(x: Array, window: Window, padding: float) -> Array:
    """What each window covers, by NumPy: (N, C, *O, *kernel); beyond the input is ``padding``."""
    sizes = window.output_size("windows", x.shape[2:])
    room = []
    for axis, (size, out) in enumerate(zip(x.shape[2:], sizes)):
        before = window.padding[axis][0]
        reach = (out - 1) * window.stride[axis] + window.extent(axis)
        room.append((before, max(reach - size - before, 0)))
    padded = np.pad(x, [(0, 0), (0, 0), *room], constant_values=padding)
    steps = padded.strides[2:]
    strides = (
        *padded.strides[:2],
        *(s * n for s, n in zip(steps, window.stride)),
        *(s * n for s, n in zip(steps, window.dilation)),
    )
    return np.lib.stride_tricks.as_strided(padded, (*x.shape[:2], *sizes, *window.kernel), strides)


def same(got: Array, expected: Array, what: str) -> None:
    """Equal, and of one dtype and shape."""
    np.testing.assert_array_equal(got, expected, err_msg=what, strict=True)


@level3
@some(0.25)
@given(data=st.data())
def test_conv_equals_im2col_matmul(device: str, data: st.DataObject) -> None:
    """A convolution is the product of its weight with the contents of all windows, taken out by NumPy."""
    needs(device, "matmul")
    conv = draw_conv(data, device)
    n, c = conv.x.shape[:2]
    contents = windows_of(conv.x, conv.window, 0)
    rank, g = conv.window.rank, conv.groups
    sizes = contents.shape[2 : 2 + rank]
    taps_first = np.moveaxis(contents, range(2 + rank, 2 + 2 * rank), range(2, 2 + rank))
    columns = taps_first.reshape(n, g, c // g * int(np.prod(conv.window.kernel)), int(np.prod(sizes)))
    weight = conv.w.reshape(1, g, conv.w.shape[0] // g, -1)
    product = apply("matmul", conv.leaf(weight), conv.leaf(columns))
    by_matmul, found = run([product, conv.node])
    same(found, by_matmul.reshape(found.shape), "conv against matmul of im2col")
    same(found, (weight @ columns).reshape(found.shape), "conv against NumPy")


@level3
@some(0.15)
@given(data=st.data())
def test_conv_is_linear(device: str, data: st.DataObject) -> None:
    """In its input and in its weight."""
    conv = draw_conv(data, device)
    x, w = conv.like(conv.x.shape, data), conv.like(conv.w.shape, data)
    mixed_x, mixed_w = (a * 2 - b * 3 for a, b in ((conv.x, x), (conv.w, w)))
    nodes = [conv.node, conv.of(x, conv.w), conv.of(conv.x, w), conv.of(mixed_x, conv.w), conv.of(conv.x, mixed_w)]
    here, by_x, by_w, found_x, found_w = run(nodes)
    same(found_x, here * 2 - by_x * 3, "linear in the input")
    same(found_w, here * 2 - by_w * 3, "linear in the weight")


def spaced(steps: Sequence[int]) -> Any:
    """The index of every so manieth element along the last axes."""
    return (..., *(slice(None, None, step) for step in steps))


def dot(a: Array, b: Array) -> float:
    """The scalar product of arrays of whole numbers."""
    return float((a.astype(np.float64) * b.astype(np.float64)).sum())


@level3
@some(0.25)
@given(data=st.data())
def test_conv_transpose_is_adjoint_of_conv(device: str, data: st.DataObject) -> None:
    """<conv(x, w), y> = <x, conv_input_grad(y, w)> = <w, conv_weight_grad(x, y)>."""
    needs(device, "conv_input_grad", "conv_weight_grad")
    conv = draw_conv(data, device)
    y = conv.like((out := run([conv.node])[0]).shape, data)
    attrs = {"window": conv.window, "groups": conv.groups}
    back = apply("conv_input_grad", conv.leaf(y), conv.leaf(conv.w), **attrs, spatial=conv.x.shape[2:])
    by_weight = apply("conv_weight_grad", conv.leaf(conv.x), conv.leaf(y), **attrs)
    found_x, found_w = run([back, by_weight])
    assert dot(out, y) == dot(conv.x, found_x) == dot(conv.w, found_w)


@level3
@some(0.15)
@given(data=st.data())
def test_conv_transpose_layer_is_adjoint_of_conv_layer(device: str, data: st.DataObject) -> None:
    """The same of the methods of tensors, where the output padding makes up for what the stride left over."""
    needs(device, "conv_input_grad", "pad")
    conv = draw_conv(data, device, (dtypes.float32,))
    window, rank = conv.window, conv.window.rank
    padding = [max(pair) for pair in window.padding]
    numbers: dict[str, Any] = dict(stride=window.stride, padding=padding, dilation=window.dilation, groups=conv.groups)
    x, w = Tensor(conv.x, device=device), Tensor(conv.w, device=device)
    out = (x.conv1d, x.conv2d, x.conv3d)[rank - 1](w, **numbers).numpy()
    y = conv.like(out.shape, data)
    back = Tensor(y, device=device)
    left = [
        size - (o - 1) * s + 2 * p - window.extent(axis)
        for axis, (size, o, s, p) in enumerate(zip(conv.x.shape[2:], out.shape[2:], window.stride, padding))
    ]
    transposed = (back.conv_transpose1d, back.conv_transpose2d, back.conv_transpose3d)[rank - 1]
    assert dot(out, y) == dot(conv.x, transposed(w, output_padding=left, **numbers).numpy())


@level3
@some(0.25)
@given(data=st.data())
def test_grouped_conv_equals_split(device: str, data: st.DataObject) -> None:
    """Each group is a convolution of its own."""
    conv = draw_conv(data, device)
    parts = zip(np.split(conv.x, conv.groups, 1), np.split(conv.w, conv.groups))
    whole, *found = run([conv.node, *(conv.of(x, w, groups=1) for x, w in parts)])
    same(whole, np.concatenate(found, 1), f"{conv.groups} groups")


@level3
@some(0.25)
@given(data=st.data())
def test_dilated_strided_padded_conv_equals_stuffed_sampled_and_extended(device: str, data: st.DataObject) -> None:
    """Dilation is a weight with zeros in between, stride is leaving outputs out, padding is zeros around the input."""
    conv = draw_conv(data, device)
    window, rank = conv.window, conv.window.rank
    extents = tuple(window.extent(axis) for axis in range(rank))
    stuffed = np.zeros((*conv.w.shape[:2], *extents), conv.w.dtype)
    stuffed[spaced(window.dilation)] = conv.w
    extended = np.pad(conv.x, [(0, 0), (0, 0), *window.padding])
    ones = (1,) * rank
    dense = Window(extents, ones, ((0, 0),) * rank, ones)
    found, every = run([conv.node, conv.of(extended, stuffed, dense)])
    same(found, every[spaced(window.stride)], "conv without attributes")


@level3
@some(0.15)
@given(data=st.data())
def test_bn_folds_into_conv(device: str, data: st.DataObject) -> None:
    """Normalizing by running statistics is a convolution with a scaled weight and another bias."""
    needs(device, "rsqrt", "add", "sub", "mul", "reshape")
    conv = draw_conv(data, device, (dtypes.float32, dtypes.float64))
    k, rank = conv.w.shape[0], conv.window.rank
    rng = np.random.default_rng(data.draw(strategies.seeds))

    def fresh() -> list[Node]:
        return [conv.leaf(v) for v in numbers]

    numbers: list[Array] = [rng.uniform(low, 2, (k,)) for low in (-2.0, 0.5, -2.0, -2.0, -2.0)]

    def per_channel(node: Node, axes: int = rank) -> Node:
        return node.reshape((k, *(1,) * axes))

    mean, variance, gamma, beta, bias = fresh()
    out = conv.node + per_channel(bias)
    scale = apply("rsqrt", variance + 1e-5) * gamma
    normalized = (out - per_channel(mean)) * per_channel(scale) + per_channel(beta)
    expected = measured([normalized])
    mean, variance, gamma, beta, bias = fresh()
    scale = apply("rsqrt", variance + 1e-5) * gamma
    weight = conv.leaf(conv.w) * per_channel(scale, rank + 1)
    folded = apply("conv", conv.leaf(conv.x), weight, window=conv.window, groups=conv.groups)
    folded = folded + per_channel((bias - mean) * scale + beta)
    assert check_alike([folded], expected, "folded into the convolution").is_conclusive


@level3
@some(0.25)
@given(data=st.data())
def test_matmul_of_blocks_and_of_transposes(device: str, data: st.DataObject) -> None:
    """(ab)^T = b^T a^T; and the inner axis may be cut anywhere."""
    needs(device, "matmul")
    program = data.draw(strategies.cases(TABLE["matmul"], kinds=["integers"], only=dtypes_of(device, KINDS)))
    a, b = (i.array for i in program.inputs)
    make, dtype = on(device), program.inputs[0].dtype
    cut = data.draw(st.integers(0, a.shape[-1]))

    def product(x: Array, y: Array) -> Node:
        return apply("matmul", *(make(np.ascontiguousarray(v), dtype, ()) for v in (x, y)))

    pairs = [(a, b), (b.swapaxes(-1, -2), a.swapaxes(-1, -2)), (a[..., :cut], b[..., :cut, :]),
             (a[..., cut:], b[..., cut:, :])]  # fmt: skip
    whole, transposed, head, tail = run([product(x, y) for x, y in pairs])
    same(whole, transposed.swapaxes(-1, -2), "transposed")
    same(whole, head + tail, f"cut at {cut}")


class Pool(NamedTuple):
    """A drawn pool: input, window, whether zeros of the padding count."""

    x: Array
    window: Window
    counts_padding: bool


def draw_pool(data: st.DataObject, device: str) -> tuple[Pool, Node]:
    needs(device, "avg_pool", "max_pool")
    kinds = dtypes_of(device, (dtypes.float32, dtypes.float64))
    program = data.draw(strategies.cases(TABLE["avg_pool"], kinds=["integers"], only=kinds))
    (given,), attrs = program.inputs, program.steps[0].attrs
    return Pool(given.array, attrs["window"], attrs["count_include_pad"]), on(device)(given.array, given.dtype, ())


@level3
@some(0.25)
@given(data=st.data())
def test_pool_equals_unfold_reduce(device: str, data: st.DataObject) -> None:
    """The maximum, its first place, and the mean of what NumPy finds in each window."""
    pool, x = draw_pool(data, device)
    window, rank = pool.window, pool.window.rank
    pooled = apply("max_pool", x, window=window)
    values, taps = run([project(pooled, 0), project(pooled, 1)])
    axes = tuple(range(-rank, 0))
    contents = windows_of(pool.x, window, -np.inf)
    same(values, contents.max(axes), "maximum")
    flat = contents.reshape(*values.shape, -1)
    np.testing.assert_array_equal(taps, flat.argmax(-1), "place of the maximum")
    sums = windows_of(pool.x, window, 0).sum(axes, dtype=np.float64)
    inside = np.ones_like(pool.x)
    if pool.counts_padding:  # the padding counts, but not what rounding the size up adds beyond it
        inside = np.pad(inside, [(0, 0), (0, 0), *window.padding], constant_values=1)
        counts = windows_of(inside, window._replace(padding=((0, 0),) * rank), 0).sum(axes)
    else:
        counts = windows_of(inside, window, 0).sum(axes)
    means = apply("avg_pool", on(device)(pool.x, x.dtype, ()), window=window, count_include_pad=pool.counts_padding)
    check_alike([means], [Bounded(sums / counts, np.zeros(sums.shape))], "mean")


@level3
@some(0.15)
@given(data=st.data())
def test_pool_of_constant(device: str, data: st.DataObject) -> None:
    """A constant stays itself, where no zeros of the padding count."""
    pool, x = draw_pool(data, device)
    value = data.draw(st.sampled_from([1, -3, 2.5]))
    constant = full_like(x, value)
    pooled = apply("max_pool", constant, window=pool.window)
    mean = apply("avg_pool", full_like(x, value), window=pool.window, count_include_pad=False)
    (found,) = run([project(pooled, 0)])
    same(found, np.full(mean.shape, value, found.dtype), "maximum")
    check_alike([mean], [Bounded(np.full(mean.shape, value, np.float64), np.zeros(mean.shape))], "mean")


@level3
@some(0.25)
@given(data=st.data())
def test_window_scatter_is_adjoint_of_window_gather(device: str, data: st.DataObject) -> None:
    """<window_gather(x), y> = <x, window_scatter(y)>, also of all ones: what taps in the padding take is lost."""
    needs(device, "window_gather", "window_scatter", "sum")
    kinds = dtypes_of(device, (dtypes.float32, dtypes.float64))
    program = data.draw(strategies.cases(TABLE["window_gather"], kinds=["integers"], only=kinds))
    x, taps = (on(device)(i.array, i.dtype, ()) for i in program.inputs)
    window, dtype = program.steps[0].attrs["window"], x.dtype
    rng = np.random.default_rng(data.draw(strategies.seeds))
    y = rng.integers(-3, 4, taps.shape).astype(dtype.numpy)
    gathered = apply("window_gather", x, taps, window=window)
    inside = apply("window_gather", full_like(x, 1), taps, window=window)
    scattered = apply("window_scatter", on(device)(y, dtype, ()), taps, window=window, spatial=x.shape[2:])
    total = scattered.sum(tuple(range(x.ndim)))
    values, ones, back, whole = run([gathered, inside, scattered, total])
    assert dot(values, y) == dot(program.inputs[0].array, back)
    assert dot(ones, y) == float(whole.sum())


@level3
@some(0.15)
@given(data=st.data())
def test_gradient_of_mean_pool_is_its_adjoint(device: str, data: st.DataObject) -> None:
    """<avg_pool(x), y> = <x, avg_pool_grad(y)>, within the errors of both."""
    needs(device, "avg_pool_grad")
    pool, x = draw_pool(data, device)
    attrs = {"window": pool.window, "count_include_pad": pool.counts_padding}
    (mean,) = measured([apply("avg_pool", x, **attrs)])
    y = np.random.default_rng(data.draw(strategies.seeds)).integers(-3, 4, mean.value.shape).astype(pool.x.dtype)
    spread = apply("avg_pool_grad", on(device)(y, x.dtype, ()), **attrs, spatial=pool.x.shape[2:])
    (back,) = measured([spread])
    allowed = dot(np.abs(y), mean.error) + dot(np.abs(pool.x), back.error)
    assert abs(dot(mean.value, y) - dot(pool.x, back.value)) <= allowed


@pytest.mark.level(5)
@some(0.15)
@given(training=training_runs(), data=st.data())
def test_batch_split_equals_whole_in_eval(device: str, training: TrainingRun, data: st.DataObject) -> None:
    """In a net that is not being trained no example knows of another."""
    with devices.backend(device), no_grad():
        net = training.net().eval()
        rng = np.random.default_rng(training.seed)
        x = rng.integers(-2, 3, (training.batch, *training.sample)).astype(np.float32)
        cut = data.draw(st.integers(0, training.batch))
        parts = [part for part in np.split(x, [cut]) if len(part)]
        (whole,) = measured([net(Tensor(x)).node])
        at = np.cumsum([len(part) for part in parts])[:-1]
        values, errors = (np.split(v, at) for v in whole)
        for part, value, error in zip(parts, values, errors):
            check_alike([net(Tensor(part)).node], [Bounded(value, error)], f"{len(part)} of {training.batch} examples")
