"""Blocks: in views, in buffers, in printed and verified kernels, and on a device that wishes them."""

import math
import sys

import interpreter
import numpy as np
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from steps import arrays, training

import minigrad
from minigrad import Tensor, device, dtypes, jit, nn, reference
from minigrad.backends.base import Backend, Capabilities, Program
from minigrad.buffer import Buffer
from minigrad.errors import VerifyError
from minigrad.kernel import MAP, Instr, Kernel, Operand, verify
from minigrad.primitive import TABLE
from minigrad.testing import strategies
from minigrad.testing.evaluate import widen
from minigrad.view import Block, View, fits

BATCH = (0, 1, 2, 3, Block(0, 4))

# Views ---------------------------------------------------------------------------------------------------------------


def shown(view, flat):
    """What a view shows of a buffer: the definition, element by element."""
    out = np.empty(view.shape)
    blocks = view.blocks or ((0, 0),) * len(view.shape)
    bounds = view.bounds or tuple((0, n) for n in view.shape)
    for index in np.ndindex(*view.shape):
        at = view.offset
        for i, stride, (size, outer) in zip(index, view.strides, blocks):
            at += i // size * outer + i % size * stride if size else i * stride
        inside = all(low <= i < high for i, (low, high) in zip(index, bounds))
        assert not inside or 0 <= at < flat.size, "reads outside the buffer"
        out[index] = flat[at] if inside else view.fill
    return out


@st.composite
def blocked(draw, least=1):
    """A shape, an order with blocks, and an array with its elements in memory as the order says."""
    shape = list(draw(strategies.shapes(least=least, most=4, elements=60, zero=False)))
    order = list(draw(st.permutations(range(len(shape)))))
    axes = draw(st.permutations(range(len(shape))))[: draw(st.sampled_from([1, 1, 2]))]
    blocks = [Block(axis, draw(st.sampled_from([2, 4, 3]))) for axis in axes]
    for axis, size in blocks:
        shape[axis] = size * draw(st.sampled_from([2, 3, 1, 4]))
    assume(math.prod(shape) <= 300)
    array = 1.0 + np.arange(math.prod(shape)).reshape(shape)
    cut = array.reshape([m for a, n in enumerate(shape) for m in _parts(n, dict(blocks).get(a))])
    where = [(a, part) for a in range(len(shape)) for part in ((0, 1) if a in dict(blocks) else (0,))]
    lie = [where.index((entry.axis, 1) if isinstance(entry, Block) else (entry, 0)) for entry in order + blocks]
    return tuple(shape), tuple(order + blocks), array, cut.transpose(lie).ravel()


def _parts(n, size):
    return (n // size, size) if size else (n,)


@given(blocked())
def test_an_order_with_blocks_says_where_each_element_lies(case):
    shape, order, array, flat = case
    view = View.of(shape, order)
    assert fits(order, shape)
    np.testing.assert_array_equal(shown(view, flat), array)
    np.testing.assert_array_equal(shown(view.split(), flat), array.reshape(view.split().shape))
    assert view.span == (0, array.size)
    for axis, (size, outer) in enumerate(view.blocks or ()):
        assert size == 0 or (shape[axis] > size and outer != size * view.strides[axis]), "blocked in name only"


def test_only_sizes_that_the_block_divides_are_blocked():
    assert fits((1, 0, Block(0, 4)), (8, 3)) and fits((1, 0), (8, 3)) and fits((), (8, 3))
    assert not fits((1, 0, Block(0, 4)), (9, 3)) and not fits((0, Block(0, 4)), (8, 3)) and not fits((0,), ())


@given(blocked(), st.data())
def test_movement_of_blocked_views_is_what_the_reference_makes_of_it(case, data):
    shape, order, array, flat = case
    view = View.of(shape, order)
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(sorted(strategies.MOVEMENTS)))
        attrs = TABLE[name].attrs(**strategies.MOVEMENTS[name](data.draw, array.shape))
        assume(math.prod(TABLE[name].shape(attrs, array.shape)) <= 2000)
        moved = view.moved(name, attrs)
        event(f"{name} of {'blocks' if view.blocks else 'none'}: {'a view' if moved is not None else 'none'}")
        if moved is None:
            assert name != "permute" and (name not in ("slice", "pad") or view.blocks or view.bounds)
            continue
        view, array = moved, getattr(reference, name)(array, **attrs._asdict())
        assert view.shape == array.shape
        np.testing.assert_array_equal(shown(view, flat), array)


IMAGES = View.of((8, 6, 5, 4), BATCH)


def test_what_passes_the_batch_by_keeps_its_blocks():
    flat = IMAGES.moved("reshape", ((8, 120),))
    assert flat == View.of((8, 120), (0, 1, Block(0, 4)))
    assert flat.moved("reshape", ((1, 8, 1, 6, 20),)).blocks == ((0, 0), (4, 480), (0, 0), (0, 0), (0, 0))
    padded = IMAGES.moved("pad", (((0, 0), (0, 0), (1, 1), (2, 0)), 0.0))
    assert padded.blocks == IMAGES.blocks and padded.bounds == ((0, 8), (0, 6), (1, 6), (2, 6))
    assert padded.moved("reshape", ((8, 1, 6, 7, 6),)).blocks[0] == (4, 480)
    turned = IMAGES.moved("permute", ((2, 0, 3, 1),))
    assert turned.blocks == ((0, 0), (4, 480), (0, 0), (0, 0))
    assert turned.moved("expand", ((9, 5, 8, 4, 6),)).blocks == ((0, 0), *turned.blocks)


@pytest.mark.parametrize("start, size, step, blocks", [
    (4, 4, 1, None), (0, 8, 1, (4, 480)), (5, 3, 1, None), (7, 4, -1, None), (3, 1, 1, None), (2, 2, 4, None),
])  # fmt: skip
def test_slices_of_blocks_that_are_views(start, size, step, blocks):
    starts, sizes, steps = (start, 0, 0, 0), (size, 6, 5, 4), (step, 1, 1, 1)
    found = IMAGES.moved("slice", (starts, sizes, steps))
    assert found.blocks == (blocks and (blocks, (0, 0), (0, 0), (0, 0)))
    memory = np.arange(960.0)
    every = shown(IMAGES, memory)
    np.testing.assert_array_equal(shown(found, memory), reference.slice(every, starts, sizes, steps))


def test_what_cuts_across_blocks_is_no_view():
    for starts, sizes, steps in [((2,), (4,), 1), ((0,), (4,), 2), ((7,), (8,), -1), ((0,), (6,), 1)]:
        assert IMAGES.moved("slice", ((*starts, 0, 0, 0), (*sizes, 6, 5, 4), (steps, 1, 1, 1))) is None
    assert IMAGES.moved("pad", (((0, 4), (0, 0), (0, 0), (0, 0)), 0.0)) is None
    assert IMAGES.moved("reshape", ((2, 4, 6, 5, 4),)) is None
    assert IMAGES.moved("reshape", ((48, 5, 4),)) is None
    assert IMAGES.moved("strided_view", ((3,), (1,), 0)) is None


# Buffers -------------------------------------------------------------------------------------------------------------


@given(blocked(), st.data())
def test_buffers_hold_arrays_in_blocks_and_show_parts_of_them(case, data):
    shape, order, array, flat = case
    buffer = Buffer.of(device.get("numpy"), array, order)
    memory = np.empty_like(flat)
    buffer.device.backend.copy_out(buffer.memory, memory)
    np.testing.assert_array_equal(memory, flat)
    view = buffer.view(shape)
    np.testing.assert_array_equal(buffer.read(view, dtypes.float64), array)
    np.testing.assert_array_equal(buffer.clone().read(view, dtypes.float64), array)
    attrs = TABLE["slice"].attrs(**strategies.MOVEMENTS["slice"](data.draw, shape))
    part = view.moved("slice", attrs)
    if part is not None:
        found = buffer.read(part, dtypes.float64)
        np.testing.assert_array_equal(found, reference.slice(array, *attrs))
        assert found.flags.c_contiguous


# Kernels -------------------------------------------------------------------------------------------------------------


def copy_kernel(view):
    operand = Operand(1, dtypes.float32, View.of(view.shape))
    body = (Instr("load", (), 0, dtypes.float32),)
    return Kernel(
        MAP, None, (), (), (), (), view.shape, body, ((0, 0),), (Operand(0, dtypes.float32, view),), (operand,), 2
    )


def test_kernels_print_and_check_blocks():
    k = copy_kernel(IMAGES)
    verify(k)
    assert "strides [480, 80, 16, 4]" not in str(k) and "axis 0 in blocks of 4 every 480" in str(k)
    for changes in (
        {"blocks": ((3, 480), (0, 0), (0, 0), (0, 0))},
        {"blocks": ((8, 480), (0, 0), (0, 0), (0, 0))},
        {"blocks": ((4, 480),)},
        {"bounds": ((1, 8), (0, 6), (0, 5), (0, 4))},
    ):
        with pytest.raises(VerifyError, match="blocks"):
            verify(copy_kernel(IMAGES._replace(**changes)))


def test_a_source_that_the_epilogue_reads_too_keeps_its_shape():
    square = View.of((5, 5))
    flat = square.moved("reshape", ((1, 5, 5),))
    f = dtypes.float32
    load = (Instr("load", (), 0, f),)
    prologue = (*load, Instr("load", (), 1, f))
    epilogue = (Instr("core", (), 0, f), *load, Instr("add", (0, 1), None, f))
    inputs = (Operand(0, f, square), Operand(1, f, flat))
    attrs = TABLE["matmul"].attrs()
    k = Kernel(
        "matmul", attrs, prologue, (0, 1), ((5, 5), (1, 5, 5)), ((1, 5, 5),), (5, 5), epilogue, ((2, 0),), inputs,
        (Operand(2, f, square),), 3,
    )  # fmt: skip
    verify(k)
    moved = k.in_core_shape()
    verify(moved)
    assert moved.space == (1, 5, 5) and moved.inputs == (*inputs, Operand(0, f, flat))
    assert moved.in_core_shape() is moved
    a, b = (np.array(x, np.float64).ravel() for x in arrays(5, 5, count=2))
    results = []
    for each in (k, moved):
        memory = [a, b, np.zeros(25)]
        interpreter.run(each, memory)
        results.append(memory[2])
    np.testing.assert_array_equal(*results)


# A device that wishes blocks -----------------------------------------------------------------------------------------


class Interpreted(Program):
    """A kernel run by the interpreter on memory of the right dtypes."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.dtypes = {o.buffer: o.dtype for o in (*kernel.inputs, *kernel.outputs)}

    def __call__(self, buffers):
        typed = [memory[: memory.size // d.itemsize * d.itemsize].view(d.numpy)
                 for memory, d in ((m, self.dtypes[n]) for n, m in enumerate(buffers))]  # fmt: skip
        wide = [np.array(widen(memory, self.dtypes[n])) for n, memory in enumerate(typed)]
        interpreter.run(self.kernel, wide)
        for n in {o.buffer for o in self.kernel.outputs}:
            typed[n][:] = wide[n].astype(typed[n].dtype)


class Blocks(Backend):
    """Wishes blocks of four images around windows and after them, and weights in an order of their own."""

    name = "blocks"
    capabilities = Capabilities(epilogues=frozenset({"conv", "matmul", "max_pool", "conv_input_grad", "sum"}))

    def allocate(self, nbytes):
        return np.full(nbytes, 0xFF, np.uint8)

    def copy_in(self, memory, array):
        memory[: array.nbytes].view(array.dtype).reshape(array.shape)[...] = array

    def copy_out(self, memory, array, offset=0):
        array[...] = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)

    def lower(self, kernel):
        return Interpreted(kernel)

    def preferred_orders(self, op, attrs, shapes, views):
        if op == "matmul" and views[0] is not None and views[0].is_blocked(0) and len(shapes[0]) == 2:
            return [(0, 1, Block(0, 4)), (0, 1, Block(0, 4)), None]
        axes = {"conv": (0, 1), "conv_input_grad": (0, 1), "conv_weight_grad": (1, 2), "max_pool": (0, 1),
                "window_scatter": (0, 1, 2)}.get(op)  # fmt: skip
        if axes is None or shapes[axes[0]][0] % 4:
            return None
        return [BATCH if n in axes else (1, 2, 3, 0) for n in range(len(shapes))]


@pytest.fixture
def blocks(backends):
    """The device that wishes blocks, as the default."""
    backends(blocks=f"{__name__}:Blocks")
    with minigrad.device.backend("blocks"):
        yield "blocks"


def small_net():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip


def trained(name, wrap):
    with minigrad.device.backend(name):
        minigrad.manual_seed(3)
        model = small_net()
        step = training(wrap, model, nn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        labels = np.arange(8) % 3
        losses = [step(Tensor(x), Tensor(labels)).item() for x in arrays(8, 1, 8, 8, count=4)]
        return losses, [p for p in model.parameters()]


@pytest.mark.parametrize("wrap", [lambda f: f, jit], ids=["lazy", "jit"])
def test_training_in_blocks_is_training(blocks, wrap):
    losses, parameters = trained(blocks, wrap)
    expected, others = trained("numpy", wrap)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for p, q in zip(parameters, others):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-3, atol=1e-5)


def test_captured_weights_stay_row_major_and_are_written_in_place(blocks, monkeypatch):
    captures = []
    capture_step = sys.modules["minigrad.jit"].capture_step

    def spy(*args):
        made, result = capture_step(*args)
        captures.append(made)
        return made, result

    monkeypatch.setattr(sys.modules["minigrad.jit"], "capture_step", spy)
    _, parameters = trained(blocks, jit)
    trained("numpy", jit)
    here, there = captures
    assert len(here.copies) == len(there.copies), "no state is moved because of how a gradient lies"
    for p in parameters:
        assert p.node.buffer is None or p.node.buffer.order == ()


def test_results_and_state_in_blocks_are_read_like_any_other(blocks):
    w = Tensor(arrays(4, 3, 3, 3)[0])
    state = Tensor.zeros(8, 4, 6, 6)

    @jit
    def step(x):
        y = x.conv2d(w, padding=1)
        state.assign(y)
        return y, y.reshape(32, 36), y[3:, 1]

    for x in arrays(8, 3, 6, 6, count=3):
        y, flat, part = step(Tensor(x))
        with minigrad.device.backend("numpy"):
            expected = Tensor(x).conv2d(Tensor(w.numpy()), padding=1).numpy()
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(flat.numpy(), expected.reshape(32, 36), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(part.numpy(), expected[3:, 1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.numpy(), expected, rtol=1e-4, atol=1e-5)
        state.assign(state * 2.0)
        np.testing.assert_allclose(state.numpy(), expected * 2, rtol=1e-4, atol=1e-5)


def test_a_value_in_blocks_is_written_and_viewed_like_any_other(blocks):
    x, w = arrays(8, 3, 6, 6)[0], arrays(4, 3, 3, 3)[0]
    y = Tensor(x).conv2d(Tensor(w)).realize()
    assert y.node.buffer.order == BATCH
    expected = y.numpy()
    for f in (
        lambda t: t.reshape(32, 16), lambda t: t[2:7], lambda t: t.flip(0), lambda t: t[5], lambda t: t[1::2],
        lambda t: t.permute(1, 0, 2, 3)[:, 4:], lambda t: t.sum((0, 2, 3)), lambda t: t.reshape(8, 64),
    ):  # fmt: skip
        np.testing.assert_allclose(f(y).numpy(), f(Tensor(expected)).numpy(), rtol=1e-5)
        np.testing.assert_allclose((f(y) * 2).numpy(), 2 * f(Tensor(expected)).numpy(), rtol=1e-5)
    y[1:6, 2] = 0.0
    expected[1:6, 2] = 0.0
    np.testing.assert_array_equal(y.numpy(), expected)


def test_movement_above_a_value_in_an_order_that_cannot_say_it_is_computed():
    x, w = Tensor(arrays(16, 3, 6, 6)[0]), Tensor(arrays(4, 3, 3, 3)[0])
    expected = x.conv2d(w).numpy()
    y = x.conv2d(w).reshape(64, 4, 4)  # batch last on NumPy: no view merges batch and channels
    np.testing.assert_array_equal(y.numpy(), expected.reshape(64, 4, 4))
