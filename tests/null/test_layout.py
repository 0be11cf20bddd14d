"""Orders and blocks without a device: whatever a backend wishes, kernels compute the same values."""

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from interpreter import folded, run_all
from test_schedule import EPILOGUES, PAIR, THREE, check_stages, stages, tensor

from minigrad import dtypes, simplify
from minigrad.autograd import gradient
from minigrad.graph import apply, project, set_grad_enabled, toposort
from minigrad.kernel import MAP, Kernel
from minigrad.layout import lay_out
from minigrad.plan import plan
from minigrad.shapes import Window
from minigrad.testing.evaluate import widen
from minigrad.testing.program_strategies import programs
from minigrad.testing.programs import nowhere, outcomes
from minigrad.view import Block, View

# Whatever is wished --------------------------------------------------------------------------------------------------


@st.composite
def orders(draw, shape):
    """Row-major, a permutation, or a permutation with blocks of some axes."""
    if not shape or draw(st.integers(0, 5)) == 5:
        return ()
    order = tuple(draw(st.permutations(range(len(shape)))))
    sizes = {axis: [s for s in (2, 3, 4, 8) if n > s and n % s == 0] for axis, n in enumerate(shape)}
    axes = [axis for axis in sizes if sizes[axis]]
    for axis in draw(st.permutations(axes))[: draw(st.sampled_from([1, 1, 2, 0]))]:
        order += (Block(axis, draw(st.sampled_from(sizes[axis]))),)
    return order


class Asked:
    """A backend that wishes what ``wish(op, shapes, views)`` says, and remembers what it was told."""

    def __init__(self, wish):
        self.wish, self.calls = wish, []

    def __call__(self, op, attrs, shapes, views):
        assert all(v is None or (v.shape, v.bounds) == (s, None) for s, v in zip(shapes[1:], views, strict=True))
        wishes = self.wish(op, shapes, views)
        self.calls.append((op, views, wishes))
        return wishes


def anything(data):
    """A backend that wishes anything."""

    def wish(op, shapes, views):
        if data.draw(st.integers(0, 5)) == 5:
            return None
        return [data.draw(st.one_of(orders(shape), orders(shape), st.none())) for shape in shapes]

    return Asked(wish)


def check_told(asked, kernels):
    """What a backend was told of its sources is so, and what it wished for them it has got."""
    cores = [k for k in kernels if k.op != MAP]
    assert [op for op, _, _ in asked.calls] == [k.op for k in cores]
    for (_, views, wishes), k in zip(asked.calls, cores):
        lines = [k.prologue[s] for s in k.sources]
        if wishes is None or len(set(k.sources)) < len(lines):  # one operand twice, with two wishes
            continue
        for line, told, wish in zip(lines, views, wishes[1:], strict=True):
            if line.op != "load" or k.inputs[line.attr].view.bounds is not None:
                assert told is None
                continue
            view = k.inputs[line.attr].view
            if wish is None:
                assert view == told
            elif 0 not in view.shape:
                flat, like = view.split(), View.of(view.shape, wish).split()
                assert flat.shape == like.shape
                axes = sorted((a for a, n in enumerate(flat.shape) if n > 1), key=lambda a: -like.strides[a])
                strides = [flat.strides[a] for a in axes]
                assert strides == sorted(strides, reverse=True) and 0 not in strides


def check_values(wanted, leaves, data):
    """Interpreted kernels of ``wanted`` compute what the oracle says, bit by bit, row-major and in drawn orders."""
    arrays = [leaves[node] for node in simplify.linearize(toposort(wanted)).inputs]
    epilogues = data.draw(st.sampled_from([EPILOGUES, frozenset()]))
    asked = anything(data)
    for preference in (None, asked):
        found = stages(*wanted, preference=preference, epilogues=epilogues)
        check_stages(found)
        expected = folded(found.values, arrays)
        given = {v: arrays[found.values[v].attrs[0]] for v in found.inputs}
        for seen_as in (lambda k: k, Kernel.in_core_shape):
            computed = run_all(found.laid, given, seen_as)
            for v in found.outputs:
                np.testing.assert_array_equal(computed[v], expected[v])
    check_told(asked, found.kernels)
    event(f"blocks: {any(o.view.blocks for k in found.kernels for o in (*k.inputs, *k.outputs))}")


@given(programs(most=6), st.data())
def test_programs_compute_the_same_values_in_whatever_order_they_lie(program, data):
    leaves = {}

    def make(array, dtype, order):
        node = nowhere(array, dtype, data.draw(orders(array.shape)))
        leaves[node] = widen(array, dtype)
        return node

    check_values(outcomes(program, program.build(make)), leaves, data)


class Network:
    """Layers drawn one by one over images whose batch and channels can be blocked; with gradients."""

    def __init__(self, data):
        self.data, self.leaves = data, {}
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
        self.x = self.leaf(data.draw(st.sampled_from([8, 16, 4, 6])), data.draw(st.sampled_from([3, 4, 8])), 7, 5)
        self.older = [self.x]

    def leaf(self, *shape):
        """An input of small integers: sums of them are exact."""
        array = self.rng.integers(-3, 4, shape).astype(np.float32)
        node = nowhere(array, dtypes.float32, self.data.draw(orders(shape)))
        node.requires_grad = True
        self.leaves[node] = widen(array, dtypes.float32)
        return node

    def conv(self):
        groups = self.data.draw(st.sampled_from([1, 1, 2])) if self.x.shape[1] % 2 == 0 else 1
        filters = self.data.draw(st.sampled_from([4, 6, 8]))
        w = self.leaf(filters, self.x.shape[1] // groups, 3, 3)
        self.x = apply("conv", self.x, w, window=THREE, groups=groups)

    def bias_and_relu(self):
        self.x = apply("relu", self.x + self.leaf(self.x.shape[1], 1, 1))

    def pool(self):
        same = Window((2, 2), (1, 1), ((1, 0), (0, 1)), (1, 1))
        if self.data.draw(st.booleans()):
            self.x = project(apply("max_pool", self.x, window=same), 0)
        else:
            self.x = apply("avg_pool", self.x, window=same, count_include_pad=True)

    def residual(self):
        alike = [node for node in self.older if node.shape == self.x.shape]
        self.x = self.x + (self.data.draw(st.sampled_from(alike)) if alike else self.leaf(*self.x.shape))

    def normalize(self):
        self.x = self.x - self.x.sum((0, 2, 3)) * (1 / 256) + apply("max", self.x, axes=(1,))

    def slice(self):
        axis, last = self.data.draw(st.integers(0, 3)), self.x.shape
        start, step = self.data.draw(st.sampled_from([(0, 1), (last[axis] // 2, 1), (last[axis] - 1, -1), (0, 2)]))
        size = -(-(last[axis] - start) // step) if step > 0 else last[axis]
        starts, steps = [0] * 4, [1] * 4
        sizes = list(last)
        starts[axis], steps[axis], sizes[axis] = start, step, size
        self.x = apply("slice", self.x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))

    def pad(self):
        axis = self.data.draw(st.sampled_from([2, 3, 1, 0]))
        self.x = apply("pad", self.x, padding=tuple((1, 1) if a == axis else (0, 0) for a in range(4)), value=2.0)

    def cat(self):
        self.x = apply("cat", self.x, self.x * 2.0, axis=self.data.draw(st.integers(0, 3)))

    def movement(self):
        n, c, h, w = self.x.shape
        which = self.data.draw(st.integers(0, 3))
        if which == 0:
            self.x = self.x.permute((1, 0, 2, 3))
        elif which == 1:
            self.x = self.x.permute((0, 1, 3, 2))
        elif which == 2 and c % 2 == 0:
            self.x = self.x.reshape((n, 2, c // 2, h, w)).permute((0, 2, 1, 3, 4)).reshape((n, c, h, w))
        else:
            self.x = self.x.reshape((n, c, h * w)).permute((0, 2, 1)).reshape((n, h * w, c, 1))

    def finish(self):
        """Perhaps a dense layer; results, and gradients by all inputs."""
        if self.data.draw(st.booleans()):
            n = self.x.shape[0]
            flat = self.x.reshape((n, int(np.prod(self.x.shape[1:]))))
            self.x = apply("relu", apply("matmul", flat, self.leaf(flat.shape[1], 6)) + self.leaf(6))
        with set_grad_enabled(False):
            grads = gradient(self.x, list(self.leaves), self.x) if self.data.draw(st.booleans()) else []
        return [self.x, *(g for g in grads if g is not None)]


LAYERS = (Network.conv, Network.conv, Network.bias_and_relu, Network.pool, Network.residual, Network.normalize,
          Network.slice, Network.pad, Network.cat, Network.movement)  # fmt: skip


@given(st.data())
def test_networks_compute_the_same_values_in_whatever_order_they_lie(data):
    network = Network(data)
    for layer in data.draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=6)):
        if np.prod(network.x.shape) < 4000:
            layer(network)
            network.older.append(network.x)
    check_values(network.finish(), network.leaves, data)


# What a backend is told, and what follows from its wishes ------------------------------------------------------------

BATCH, FLAT = (0, 1, 2, 3, Block(0, 4)), (0, 1, Block(0, 4))


def batch_blocks(op, shapes, views):
    """Blocks of the batch around windows; a dense layer goes on with what it reads, for the loss it is row-major."""
    axes = {"conv": (0, 1), "conv_input_grad": (0, 1), "conv_weight_grad": (1, 2), "max_pool": (0, 1),
            "avg_pool": (0, 1), "window_scatter": (0, 1, 2)}.get(op)  # fmt: skip
    if axes is not None:
        return [BATCH if n in axes else None for n in range(len(shapes))]
    if op == "matmul" and views[0] is not None and views[0].is_blocked(0):
        return [FLAT, FLAT, None]
    return None


def layers(x, w, v):
    y = apply("relu", apply("conv", x, w, window=THREE, groups=1))
    y = project(apply("max_pool", y, window=PAIR), 0)
    return apply("tanh", apply("conv", y, v, window=THREE, groups=1))


def test_blocks_flow_through_layers_into_the_dense_layer_without_copies():
    x, w, v, m = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3), tensor(5, 4, 3, 3), tensor(60, 10)
    y = layers(x, w, v).reshape((8, 60))
    asked = Asked(batch_blocks)
    found = stages(apply("relu", apply("matmul", y, m)) * 2.0, preference=asked)
    assert found.names == [MAP, "conv", "max_pool", "conv", "matmul"], "the images are copied, nothing between"
    told = dict((op, views) for op, views, _ in asked.calls)["matmul"][0]
    assert told == View.of((8, 60), FLAT)
    (result,) = found.outputs
    assert found.laid.orders[result] == FLAT


def test_elementwise_kernels_between_cores_keep_blocks():
    x, w, v, b = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3), tensor(5, 4, 3, 3), tensor(4, 1, 1)
    y = apply("conv", x, w, window=THREE, groups=1)
    z = apply("exp", y + b)
    after = apply("conv", apply("tanh", z), v, window=THREE, groups=1)
    found = stages(after, z.sum((0, 2, 3)), preference=Asked(batch_blocks), epilogues=frozenset())
    images = [v for v, shape in found.laid.shapes.items() if shape == (8, 4, 9, 7)]
    assert len(images) >= 3 and {found.laid.orders[v] for v in images} == {BATCH}
    assert found.names.count(MAP) == len(found.names) - 3
    assert len([k for k in found.kernels if k.name == "copy"]) == 1, "only that of the images"


def test_a_dense_layer_is_told_of_blocks_that_an_elementwise_kernel_passed_on():
    x, w, b = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3), tensor(4, 1, 1)
    z = apply("relu", apply("conv", x, w, window=THREE, groups=1) + b).reshape((8, 252))
    asked = Asked(batch_blocks)
    found = stages(apply("matmul", z, tensor(252, 5)), preference=asked, epilogues=frozenset())
    assert found.names == [MAP, "conv", MAP, "matmul"]
    assert asked.calls[-1][1] == [View.of((8, 252), FLAT), View.of((252, 5))]


def test_what_was_made_from_a_value_before_a_later_core_wished_it_lies_alike():
    x, w = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3)
    u = apply("exp", x)
    r = u - u.sum((1,))
    found = stages(r, apply("conv", u, w, window=THREE, groups=1), preference=Asked(batch_blocks))
    assert {found.laid.orders[v] for v in found.outputs} == {BATCH}
    assert "copy" not in [k.name for k in found.kernels]


def test_what_is_read_beside_a_wished_result_lies_as_it_does():
    x, w, other = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3), tensor(8, 4, 9, 7)
    skip = apply("exp", other)
    y = apply("conv", x, w, window=THREE, groups=1) + skip
    found = stages(y, skip, preference=Asked(batch_blocks))
    assert {found.laid.orders[v] for v in found.outputs} == {BATCH}


def test_a_value_that_no_view_shows_in_blocks_stays_row_major():
    x, w = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3)
    y = apply("conv", x, w, window=THREE, groups=1)
    turned = y.reshape((32, 63))
    asked = Asked(batch_blocks)
    found = stages(apply("matmul", turned, tensor(63, 5)), preference=asked)
    assert asked.calls[-1][1][0] == View.of((32, 63)), "the matmul is told so"
    assert [k.name for k in found.kernels] == ["copy", "conv", "matmul"]


def test_a_source_that_is_wished_row_major_is_copied():
    x, m = tensor(4, 6), tensor(6, 6)
    found = stages(apply("matmul", x.permute((1, 0)), tensor(4, 3)), preference=Asked(lambda *_: [None, (), None]))
    assert found.names == [MAP, "matmul"]
    assert found.kernels[1].inputs[0].view.is_row_major
    found = stages(apply("matmul", x, m), preference=Asked(lambda *_: [None, (), ()]))
    assert found.names == ["matmul"]


def test_cutting_across_blocks_goes_through_a_copy():
    x = nowhere(np.zeros((8, 3, 9, 7), np.float32), dtypes.float32, BATCH)
    for starts, sizes, names in [((2, 0, 0, 0), (4, 3, 9, 7), [MAP, MAP]), ((4, 0, 2, 0), (4, 3, 5, 7), [MAP])]:
        part = apply("slice", x, starts=starts, sizes=sizes, steps=(1,) * 4)
        assert stages(apply("exp", part)).names == names


@pytest.mark.parametrize("lies", [(), (1, 0, 2, 3), (0, 1, 2, 3, Block(0, 4))])
def test_a_result_that_may_overwrite_an_input_lies_as_that_does(lies):
    """The gradient of a weight in an order of its own does not move the weight."""
    x, g = tensor(8, 3, 9, 7), tensor(8, 8, 9, 7)
    w = nowhere(np.zeros((8, 3, 3, 3), np.float32), dtypes.float32, lies)
    grad = apply("conv_weight_grad", x, g, window=THREE, groups=1)
    packed = Asked(lambda op, shapes, views: [(1, 2, 3, 0), BATCH, BATCH])
    for epilogues in (EPILOGUES, EPILOGUES | {"conv_weight_grad"}):
        found = stages(w - grad * 0.1, preference=packed, epilogues=epilogues)
        (new,) = found.outputs
        (old,) = (v for v in found.inputs if found.values[v].shape == w.shape)
        if not lies:
            assert found.laid.orders[new] == (1, 2, 3, 0), "as it would lie otherwise"
        laid = lay_out(found.schedule, packed, {new: old})
        assert laid.orders[new] == laid.orders[old] == lies
        assert plan(laid, found.inputs, found.outputs, {new: old}).donated == {new: old}
