"""From graph to kernels without a device: what is simplified, what shares a kernel, where it lies, what is checked."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interpreter import addresses, folded

from minigrad import Tensor, dtypes, kernel, simplify
from minigrad.errors import VerifyError
from minigrad.graph import apply, constant, create, full, project, toposort, verify
from minigrad.kernel import MAP, Instr
from minigrad.layout import lay_out
from minigrad.order import put_in_order
from minigrad.plan import nbytes, plan
from minigrad.schedule import schedule
from minigrad.shapes import Window
from minigrad.testing.evaluate import evaluate, widen
from minigrad.testing.program_strategies import programs
from minigrad.testing.programs import nowhere, outcomes

EPILOGUES = frozenset({"conv", "conv_input_grad", "matmul", "max_pool", "avg_pool", "sum", "max", "min", "prod"})
PAIR = Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1))
THREE = Window((3, 3), (1, 1), ((1, 1),) * 2, (1, 1))


def tensor(*shape, dtype=dtypes.float32):
    """A leaf without memory."""
    return nowhere(np.empty(shape, dtype.numpy), dtype, ())


@dataclasses.dataclass
class Stages:
    """What each stage makes of a graph."""

    values: list
    inputs: frozenset
    outputs: frozenset
    schedule: object
    laid: object
    plan: object

    @property
    def kernels(self):
        return [launch.kernel for launch in self.laid.launches]

    @property
    def names(self):
        return [k.op for k in self.kernels]


def stages(*nodes, fuse=True, preference=None, epilogues=EPILOGUES):
    """Take a graph through every stage before a backend."""
    linear = simplify.linearize(toposort(nodes))
    values, renamed = simplify.simplify([linear.numbers[id(n)] for n in nodes])
    outputs = frozenset(renamed[linear.numbers[id(n)]] for n in nodes)
    scheduled = put_in_order(schedule(values, outputs, epilogues, fuse, frozenset()), outputs, {})
    laid = lay_out(scheduled, preference, {})
    inputs = frozenset(v for v, value in enumerate(values) if value.op.name == "buffer")
    return Stages(values, inputs, outputs, scheduled, laid, plan(laid, inputs, outputs - inputs, {}))


def softmax(x, axis):
    e = apply("exp", x - apply("max", x, axes=(axis,)))
    return e / e.sum((axis,))


# What shares a kernel ------------------------------------------------------------------------------------------------


def test_convolution_bias_and_relu_are_one_kernel():
    x, w, b = tensor(2, 3, 9, 7), tensor(4, 3, 3, 3), tensor(4, 1, 1)
    found = stages(apply("relu", apply("conv", x, w, window=THREE, groups=1) + b))
    assert found.names == ["conv"]
    assert [i.op for i in found.kernels[0].epilogue] == ["core", "load", "add", "relu"]
    assert found.plan.sizes == (), "nothing between them touches memory"


def test_without_an_epilogue_the_backend_gets_two_kernels():
    y = apply("relu", apply("conv", tensor(2, 3, 9, 7), tensor(4, 3, 3, 3), window=THREE, groups=1))
    assert stages(y, epilogues=frozenset()).names == ["conv", MAP]
    assert stages(y, fuse=False).names == ["conv", MAP]


def test_an_elementwise_chain_and_its_movement_are_one_kernel_and_no_memory():
    x = tensor(3, 4)
    y = apply("exp", x * 2.0 + 1.0).permute((1, 0)).reshape((2, 2, 3))
    y = apply("slice", y, starts=(1, 0, 2), sizes=(2, 1, 3), steps=(-1, 1, -1))
    found = stages(apply("tanh", y) - 3.0)
    assert found.names == [MAP] and found.plan.sizes == ()


def test_movement_alone_is_one_copy():
    x = tensor(3, 4)
    y = apply("slice", x.permute((1, 0)), starts=(3, 0), sizes=(2, 3), steps=(-2, 1))
    assert [k.name for k in stages(y).kernels] == ["copy"]


def test_a_reduction_takes_its_source_in_as_prologue_and_what_follows_as_epilogue():
    x = tensor(5, 7)
    found = stages(apply("sqrt", (x * x).sum((1,)) * (1 / 7)))
    assert found.names == ["sum"]
    assert [i.op for i in found.kernels[0].prologue] == ["load", "mul"]


def test_batch_norm_and_its_derivatives_take_two_sums_each_and_one_pass():
    x, g = (Tensor.wrap(tensor(6, 3, 5, 4)) for _ in range(2))
    w, b = (Tensor.wrap(tensor(3)) for _ in range(2))
    out = x.batch_norm(None, None, w, b, training=True)
    found = stages(out.node, *[d.node for d in (out * g).sum().gradient(x, w, b)])
    large = [k for k in found.kernels if math.prod(k.space) == 360]
    assert found.names.count("sum") == 4 and len(large) == 2
    assert max(found.plan.sizes) < 360, "nothing of the size of x is kept"


def test_softmax_is_four_kernels_of_which_two_reduce():
    found = stages(softmax(tensor(6, 9), 1))
    assert sorted(found.names) == [MAP, MAP, "max", "sum"] and count(found, "exp") == 1


def test_the_result_of_a_reduction_that_is_used_broadcast_is_not_computed_twice():
    x = tensor(5, 7)
    mean = x.sum((1,)) * (1 / 7)
    found = stages((x - mean) * (x + mean))
    assert found.names.count("sum") == 1 and len(found.kernels) == 2


def test_padding_before_a_reduction_needs_no_memory_and_before_a_convolution_it_does():
    padded = apply("pad", tensor(5, 7), padding=((1, 2), (0, 1)), value=0.0)
    assert stages(padded.sum((0,))).plan.sizes == ()
    images = apply("pad", tensor(2, 3, 5, 7), padding=((0, 0), (0, 0), (1, 1), (1, 1)), value=0.0)
    found = stages(apply("conv", images, tensor(4, 3, 3, 3), window=THREE, groups=1))
    assert len(found.plan.sizes) == 1


def test_a_shared_costly_value_is_kept_and_a_shared_cheap_one_is_computed_again():
    x = tensor(50, 70)
    costly, cheap = apply("exp", x), x * 2.0
    assert len(stages(costly.sum((0,)), costly.sum((1,))).kernels) == 3
    assert len(stages(cheap.sum((0,)), cheap.sum((1,))).kernels) == 2


def test_a_long_chain_is_cut_so_that_no_kernel_grows_without_end():
    y = tensor(3, 4)
    for n in range(500):
        y = apply("sin", y) if n % 2 else y * 1.5
    found = stages(y)
    assert 4 < len(found.kernels) < 40
    assert max(len(k.epilogue) for k in found.kernels) < 150


def test_outputs_that_others_read_are_stored_by_the_kernel_that_computes_them():
    a = tensor(3, 4) * 2.0
    b = apply("exp", a)
    found = stages(a, b)
    assert len(found.kernels) == 1 and len(found.kernels[0].outputs) == 2


def test_a_write_through_a_view_is_a_copy_and_a_store_in_that_order():
    base, value = tensor(4, 6), tensor(2, 3)
    found = stages(apply("assign_view", apply("exp", base), value, strides=(12, 2), offset=1))
    target = max(found.outputs)
    stores = [launch for launch in found.laid.launches if target in launch.values]
    views = [o.view for launch in stores for o in launch.kernel.outputs]
    assert [v.shape for v in views] == [(4, 6), (2, 3)]


# Common subexpressions and structure ---------------------------------------------------------------------------------


def count(found, name):
    return sum(value.op.name == name for value in found.values)


def test_equal_expressions_are_computed_once():
    x = tensor(3, 4)
    assert count(stages(apply("exp", x) + apply("exp", x)), "exp") == 1


def test_equal_expressions_on_two_sides_of_a_barrier_are_two():
    x = tensor(3, 4)
    again = apply("barrier", x, x, token=object())
    assert count(stages(apply("exp", x) + apply("exp", again)), "exp") == 2
    one, two = (apply("barrier", x, x, token=object()) for _ in range(2))
    assert count(stages(apply("exp", one) + apply("exp", two)), "exp") == 2


def test_equal_leaves_are_two_values():
    x, y = tensor(3, 4), tensor(3, 4)
    assert count(stages(apply("exp", x) + apply("exp", y)), "exp") == 2


def test_zero_and_minus_zero_are_two_values():
    x = tensor(3)
    found = stages(apply("atan2", constant(0.0, dtypes.float32, "nowhere"), x),
                   apply("atan2", constant(-0.0, dtypes.float32, "nowhere"), x))  # fmt: skip
    assert count(found, "atan2") == 2


@given(programs())
def test_a_program_built_again_has_the_same_structure(program):
    """What the schedule cache is keyed by, barriers included."""
    keys = []
    for _ in range(2):
        wanted = outcomes(program, program.build(nowhere))
        linear = simplify.linearize(toposort(wanted))
        keys.append([linear.numbers[id(node)] for node in wanted])
    assert keys[0] == keys[1]


# Simplification ------------------------------------------------------------------------------------------------------


def simplified(wanted, leaves):
    """The values of a graph before and after simplification, on the oracle; ``leaves`` maps nodes to arrays."""
    before = evaluate(wanted, leaves)
    linear = simplify.linearize(toposort(wanted))
    numbers = [linear.numbers[id(node)] for node in wanted]
    values, renamed = simplify.simplify(numbers)
    found = folded(values, [leaves[node] for node in linear.inputs])
    after = [np.broadcast_to(found[n], values[n].shape) for n in (renamed[n] for n in numbers)]
    return before, after, _reachable(values, [renamed[n] for n in numbers])


def _reachable(values, roots):
    seen, stack = set(), list(roots)
    while stack:
        v = stack.pop()
        if v not in seen:
            seen.add(v)
            stack.extend(values[v].sources)
    return [values[v] for v in sorted(seen)]


ROUNDED = 1e-6  # a folded constant is rounded to its dtype, here float32


@given(programs())
def test_simplification_preserves_every_value(program):
    built = program.build(nowhere)
    leaves = {node: widen(i.buffer(), i.dtype) for node, i in zip(built.buffers, program.inputs)}
    before, after, _ = simplified(outcomes(program, built), leaves)
    for a, b in zip(before, after):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(b, a, rtol=ROUNDED, atol=1e-30)
        else:
            np.testing.assert_array_equal(b, a)


X = np.array([[0.0, -0.0, 1.5, -2.0], [np.nan, np.inf, -np.inf, 1e-40], [3.0, 0.5, -0.25, 7.0]])


def c(value, shape=(), dtype=dtypes.float32):
    return full(shape, value, dtype, "nowhere")


def pooled_gradient(x, window=PAIR):
    """relu's mask on the scattered gradient of a max pool: what the backward pass of a block makes."""
    y = apply("relu", x.reshape((1, 1, 3, 4)))
    pool = apply("max_pool", y, window=window)
    g = project(pool, 0) * 3.0
    scattered = apply("window_scatter", g, project(pool, 1), window=window, spatial=(3, 4))
    return (y <= 0.0).where(0.0, scattered), scattered


WIDE = Window((2, 3), (1, 2), ((1, 0), (1, 1)), (1, 1), True)
# By rule: expressions of x in which it finds something, and the largest number of values that may be left.
REWRITES = {
    "_fold_constants": [
        (lambda x: x * apply("exp", c(0.5) + 1.0), 3),
        (lambda x: x + c(2.0, (4, 3)).permute((1, 0)), 4),
        (lambda x: x - apply("cast", c(7, (), dtypes.int32), dtype=dtypes.float32), 3),
    ],
    "_drop_expand": [(lambda x: x * c(2.0, (3, 4)), 3)],
    "_drop_neutral": [
        (lambda x: x * 1.0, 1), (lambda x: c(1.0) * x, 1), (lambda x: x / 1.0, 1), (lambda x: x - 0.0, 1),
        (lambda x: x + -0.0, 1), (lambda x: x + 0.0, 3), (lambda x: x - -0.0, 3),
        (lambda x: apply("mul", c(1.0, (3, 4)), apply("slice", x, starts=(0, 2), sizes=(3, 1), steps=(1, 1))), 3),
    ],
    "_power": [
        (lambda x: apply("pow", x, c(1.0)), 1), (lambda x: apply("pow", x, c(2.0)), 2),
        (lambda x: apply("pow", x, c(-1.0)), 2), (lambda x: apply("pow", x, c(3.0)), 3),
        (lambda x: apply("pow", apply("cast", apply("isnan", x), dtype=dtypes.int32), c(-1, (), dtypes.int32)), 5),
    ],
    "_divide": [
        (lambda x: x / 4.0, 3), (lambda x: x / -0.5, 3), (lambda x: x / 3.0, 3), (lambda x: x / 0.0, 3),
        (lambda x: apply("slice", x, starts=(0, 0), sizes=(1, 4), steps=(1, 1)) / c(2.0, (5, 4)), 5),
    ],
    "_drop_copy": [(lambda x: apply("copy", x * 3.0), 3), (lambda x: apply("copy", x), 2)],
    "_drop_identity": [
        (lambda x: apply("neg", -x), 1), (lambda x: x.reshape((12,)).reshape((4, 3)).reshape((3, 4)), 1),
        (lambda x: x.permute((1, 0)).permute((1, 0)), 1), (lambda x: apply("max", x.reshape((3, 1, 4)), axes=(1,)), 2),
        (lambda x: apply("expand", apply("expand", x, shape=(1, 3, 4)), shape=(2, 3, 4)), 2),
    ],
    "_mask_before_scatter": [
        (lambda x: pooled_gradient(x)[0], 12), (lambda x: pooled_gradient(x, WIDE)[0], 12),
    ],
    "_sum_before_scatter": [
        (lambda x: pooled_gradient(x)[1].sum((2, 3)), 9), (lambda x: pooled_gradient(x)[1].sum((0, 1, 2, 3)), 9),
        (lambda x: pooled_gradient(x, WIDE)[1].sum((2, 3)), 10), (lambda x: pooled_gradient(x)[1].sum((2,)), 10),
    ],
}  # fmt: skip


def test_every_rewrite_rule_has_expressions_here():
    assert {rule.__name__ for rule in simplify._RULES} == set(REWRITES)


@pytest.mark.parametrize("name", REWRITES)
def test_each_rewrite_rule_alone_preserves_values_and_the_signs_of_zeros(name, monkeypatch):
    (rule,) = [rule for rule in simplify._RULES if rule.__name__ == name]
    fired = 0

    def counted(graph, value):
        nonlocal fired
        found = rule(graph, value)
        fired += found is not None
        return found

    monkeypatch.setattr(simplify, "_RULES", (counted,))
    for expression, _ in REWRITES[name]:
        x = tensor(3, 4)
        before, after, _ = simplified([expression(x)], {x: X})
        np.testing.assert_allclose(after[0], before[0], rtol=ROUNDED)
        np.testing.assert_array_equal(np.signbit(after[0]), np.signbit(before[0]))
    assert fired, "the rule found nothing to rewrite"


@pytest.mark.parametrize("name", REWRITES)
def test_all_rewrite_rules_together_leave_little(name):
    for expression, most in REWRITES[name]:
        x = tensor(3, 4)
        before, after, values = simplified([expression(x)], {x: X})
        np.testing.assert_allclose(after[0], before[0], rtol=ROUNDED)
        assert len(values) <= most, [v.op.name for v in values]


def test_a_mask_before_a_scatter_of_another_dtype_keeps_both_dtypes():
    x = tensor(1, 1, 3, 4, dtype=dtypes.float16)
    pool = apply("max_pool", x, window=PAIR)
    g = project(pool, 0).cast(dtypes.float32) * 3.0
    scattered = apply("window_scatter", g, project(pool, 1), window=PAIR, spatial=(3, 4))
    masked = (x <= 0.0).where(0.0, scattered)
    before, after, _ = simplified([masked], {x: np.arange(-6.0, 6.0).reshape(1, 1, 3, 4)})
    np.testing.assert_array_equal(after[0], before[0])
    for k in stages(masked).kernels:
        kernel.verify(k)


def test_what_a_tap_beyond_the_input_takes_is_not_summed():
    beyond = Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1), ceil_mode=True)
    g, taps = tensor(1, 1, 2, 2), tensor(1, 1, 2, 2, dtype=dtypes.uint8)
    total = apply("window_scatter", g, taps, window=beyond, spatial=(3, 4)).sum((2, 3))
    leaves = {g: np.array([[[[1.0, 2.0], [4.0, 8.0]]]]), taps: np.array([[[[0, 3], [2, 1]]]], np.uint8)}
    before, after, _ = simplified([total], leaves)
    assert before[0].item() == after[0].item() == 11.0


# Schedules, layouts and plans of random programs ---------------------------------------------------------------------


def batch_last(op, attrs, shapes, views):
    """A backend that wants the batch innermost around windows, whatever its size."""
    axes = {"conv": (0, 1), "conv_input_grad": (0, 1), "conv_weight_grad": (1, 2), "max_pool": (0, 1),
            "avg_pool": (0, 1), "avg_pool_grad": (0, 1), "window_scatter": (0, 1, 2)}.get(op)  # fmt: skip
    if axes is None:
        return None
    last = (*range(1, len(shapes[axes[0]])), 0)
    return [last if n in axes else None for n in range(len(shapes))]


def check_stages(found):
    """Re-derive what must hold between the kernels of one schedule."""
    laid = found.laid
    written, first, last = set(found.inputs), {}, {}
    filled = {v: np.zeros(math.prod(shape), int) for v, shape in laid.shapes.items() if v not in found.inputs}
    for index, (k, values) in enumerate(laid.launches):
        kernel.verify(k)
        assert len(set(values)) == len(values) == k.buffers
        for operand in k.inputs:
            assert values[operand.buffer] in written, "a kernel reads what no kernel before it has written"
            assert laid.dtypes[values[operand.buffer]] is operand.dtype
        for operand in k.outputs:
            v = values[operand.buffer]
            assert v not in found.inputs, "an input is written"
            assert laid.dtypes[v] is operand.dtype
            filled[v][addresses(operand.view)[0].ravel()] += 1
        for v in values:
            first.setdefault(v, index)
            last[v] = index
        written |= {values[o.buffer] for o in k.outputs}
    assert found.outputs <= written
    assigned = {v for v, value in enumerate(found.values) if value.op.name == "assign_view"}
    for v, times in filled.items():
        if v in first:
            assert (times >= 1).all() if v in assigned else (times == 1).all(), "an element is written twice or never"
    slots = found.plan.slot
    assert not set(slots) & (found.outputs | found.inputs)
    for v, slot in slots.items():
        assert found.plan.sizes[slot] >= nbytes(laid, v)
        for w, other in slots.items():
            if v < w and slot == other:
                assert last[v] < first[w] or last[w] < first[v], "two live values share memory"
    assert set(first) - found.inputs - found.outputs == set(slots)


@given(programs())
def test_kernels_run_in_order_write_each_element_once_and_share_no_live_memory(program):
    fused = stages(*outcomes(program, program.build(nowhere)))
    single = stages(*outcomes(program, program.build(nowhere)), fuse=False)
    turned = stages(*outcomes(program, program.build(nowhere)), preference=batch_last)
    for found in (fused, single, turned):
        check_stages(found)
    assert len(fused.kernels) <= len(single.kernels)


@given(programs(most=12))
def test_memory_is_reused(program):
    """Peak memory of temporaries is at most their sum, and less as soon as one is dead before another is written."""
    found = stages(*outcomes(program, program.build(nowhere)), fuse=False)
    total = sum(nbytes(found.laid, v) for v in found.plan.slot)
    assert sum(found.plan.sizes) <= total
    assert sorted(set(found.plan.slot.values())) == list(range(len(found.plan.sizes)))


def test_a_chain_of_temporaries_needs_two_pieces():
    y = tensor(40, 50)
    for n in range(20):
        y = apply("exp", y) if n % 2 else y * 1.5
    found = stages(y, fuse=False)
    assert len(found.plan.slot) == 19 and len(found.plan.sizes) == 2


# Layouts -------------------------------------------------------------------------------------------------------------


def test_conversions_between_layers_cancel():
    x, w, v = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3), tensor(5, 4, 3, 3)
    y = apply("relu", apply("conv", x, w, window=THREE, groups=1))
    y = project(apply("max_pool", y, window=PAIR), 0)
    y = apply("tanh", apply("conv", y, v, window=THREE, groups=1))
    plain, turned = stages(y), stages(y, preference=batch_last)
    assert plain.names == ["conv", "max_pool", "conv"]
    assert turned.names == [MAP, "conv", "max_pool", "conv"], "one copy of the images, and none between the layers"
    assert {turned.laid.orders[v] for v in turned.plan.slot if v < len(turned.values)} == {(1, 2, 3, 0)}


def test_without_a_preference_everything_is_row_major():
    found = stages(apply("conv", tensor(8, 3, 9, 7), tensor(4, 3, 3, 3), window=THREE, groups=1))
    assert set(found.laid.orders.values()) == {()}


def test_an_elementwise_step_that_changes_the_shape_between_layers_still_gives_correct_views():
    x, w = tensor(8, 3, 9, 7), tensor(4, 3, 3, 3)
    y = apply("conv", x, w, window=THREE, groups=1).reshape((8, 4 * 63))
    found = stages(apply("exp", y).sum((1,)), preference=batch_last)
    check_stages(found)


# Verification --------------------------------------------------------------------------------------------------------


def _line(body, number, **changes):
    return (*body[:number], body[number]._replace(**changes), *body[number + 1 :])


def conv_kernel():
    x, w, b = tensor(2, 3, 9, 7), tensor(4, 3, 3, 3), tensor(4, 1, 1)
    (k,) = stages(apply("relu", apply("conv", x, w, window=THREE, groups=1) + b)).kernels
    return k


def _operand(operands, number, **changes):
    return (*operands[:number], operands[number]._replace(**changes), *operands[number + 1 :])


CORRUPTIONS = {
    "a line that reads a later one": lambda k: {"epilogue": _line(k.epilogue, 2, args=(0, 3))},
    "a line that reads itself": lambda k: {"epilogue": _line(k.epilogue, 3, args=(3,))},
    "a line of another dtype": lambda k: {"epilogue": _line(k.epilogue, 2, dtype=dtypes.float64)},
    "a line that is no elementwise primitive": lambda k: {"epilogue": _line(k.epilogue, 3, op="reshape")},
    "a line that does not exist": lambda k: {"epilogue": _line(k.epilogue, 3, op="rectify")},
    "a missing source": lambda k: {"epilogue": _line(k.epilogue, 2, args=(0,))},
    "a load of no operand": lambda k: {"epilogue": _line(k.epilogue, 1, attr=9)},
    "a load of another dtype": lambda k: {"inputs": _operand(k.inputs, 2, dtype=dtypes.float64)},
    "an output of the core that it has not": lambda k: {"epilogue": _line(k.epilogue, 0, attr=1)},
    "a core in a prologue": lambda k: {"prologue": (Instr("core", (), 0, dtypes.float32), *k.prologue[1:])},
    "a core where there is none": lambda k: {"op": MAP},
    "a space unlike the core's output": lambda k: {"space": (2, 4, 7, 9)},
    "a source of another shape": lambda k: {"source_shapes": ((2, 3, 7, 9), k.source_shapes[1])},
    "an operand outside the buffers": lambda k: {"buffers": k.buffers - 1},
    "a store of another dtype": lambda k: {"outputs": _operand(k.outputs, 0, dtype=dtypes.float16)},
    "a store of another shape": lambda k: {
        "outputs": _operand(k.outputs, 0, view=k.outputs[0].view._replace(shape=(2, 4, 9, 6)))
    },
    "a store through padding": lambda k: {
        "outputs": _operand(k.outputs, 0, view=k.outputs[0].view._replace(bounds=((0, 1), (0, 4), (0, 9), (0, 7))))
    },
    "a store of no line": lambda k: {"stores": ((7, 0),)},
    "a store to no operand": lambda k: {"stores": ((3, 5),)},
    "nothing stored": lambda k: {"stores": ()},
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_kernel_is_rejected(name):
    k = conv_kernel()
    kernel.verify(k)
    with pytest.raises(VerifyError, match="verify"):
        kernel.verify(dataclasses.replace(k, **CORRUPTIONS[name](k)))


@pytest.mark.parametrize("field, value", [("shape", (4, 3)), ("dtype", dtypes.float64), ("device", "elsewhere")])
def test_a_corrupted_graph_is_rejected(field, value):
    x = tensor(3, 4)
    y = apply("exp", x * 2.0)
    z = apply("tanh", y)
    verify([z])
    setattr(y, field, value)
    with pytest.raises(VerifyError, match="exp" if field != "device" else "verify"):
        verify([z])


def test_a_node_with_a_source_exchanged_is_rejected():
    x = tensor(3, 4)
    y = apply("exp", x)
    y.sources = (tensor(4, 3),)
    with pytest.raises(VerifyError):
        verify([y])


@given(programs(most=4), st.integers(0, 2**16))
def test_kernels_print_every_line(program, seed):
    found = stages(*outcomes(program, program.build(nowhere)))
    for k in found.kernels:
        lines = str(k).splitlines()
        assert len(lines) == 1 + len(k.prologue) + (k.op != MAP) + len(k.epilogue) + len(k.stores)
        assert k.flops >= 0 and k.bytes_moved >= 0 and k.name


def test_creation_without_a_device_is_scheduled_too():
    found = stages(create("iota", "nowhere", length=5, dtype=dtypes.int64) + 1)
    assert found.names == [MAP] and found.inputs == frozenset()
