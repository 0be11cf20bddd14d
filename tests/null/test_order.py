"""The order of kernels: each after what it needs, memory freed early, inputs overwritten late."""

import math

from hypothesis import given
from test_schedule import THREE, stages, tensor

from minigrad import dtypes, simplify
from minigrad.autograd import gradient
from minigrad.graph import apply, full, toposort
from minigrad.order import put_in_order
from minigrad.schedule import schedule
from minigrad.testing.program_strategies import programs
from minigrad.testing.programs import nowhere, outcomes


def scheduled(*nodes):
    """The schedule of a graph before it is put in order, and its outputs."""
    linear = simplify.linearize(toposort(nodes))
    values, renamed = simplify.simplify([linear.numbers[id(n)] for n in nodes])
    outputs = frozenset(renamed[linear.numbers[id(n)]] for n in nodes)
    return schedule(values, outputs, frozenset({"conv", "conv_input_grad"}), True, frozenset()), outputs


def peak(found, outputs):
    """Bytes of temporaries that are alive at once."""
    last = {}
    for n, draft in enumerate(found.drafts):
        for v in [*(load.base for load in draft.loads), *(store.target for store in draft.stores)]:
            last[v] = n
    alive, most = set(), 0
    for n, draft in enumerate(found.drafts):
        alive |= {store.target for store in draft.stores} - outputs
        most = max(most, sum(math.prod(found.values[v].shape) * found.values[v].dtype.itemsize for v in alive))
        alive = {v for v in alive if last[v] > n}
    return most


@given(programs())
def test_every_draft_runs_once_and_after_what_it_needs(program):
    before, outputs = scheduled(*outcomes(program, program.build(nowhere)))
    after = put_in_order(before, outputs, {})
    assert sorted(map(id, after.drafts)) == sorted(map(id, before.drafts))
    unwritten = {}
    for draft in after.drafts:
        for store in draft.stores:
            unwritten[store.target] = unwritten.get(store.target, 0) + 1
    done = set()
    for draft in after.drafts:
        assert done.issuperset(draft.after)
        own = {store.target for store in draft.stores}
        assert not any(unwritten.get(v) for v in draft.needs() if v not in own)
        for store in draft.stores:
            unwritten[store.target] -= 1
        done.add(draft)


def chain(depth):
    """A network of convolutions: its weights, all activations, and its output; it requires gradients."""
    weights = [tensor(6, 6, 3, 3) for _ in range(depth)]
    for weight in weights:
        weight.requires_grad = True
    h = tensor(4, 6, 9, 7)
    for weight in weights:
        h = apply("relu", apply("conv", h, weight, window=THREE, groups=1))
    return weights, h


def test_weight_gradients_do_not_wait_for_the_end_of_the_backward_pass():
    depth, activation = 8, 4 * 6 * 9 * 7 * 4
    weights, h = chain(depth)
    grads = gradient(h, weights, tensor(4, 6, 9, 7))
    before, outputs = scheduled(*grads)
    after = put_in_order(before, outputs, {})
    assert peak(after, outputs) <= (depth + 2) * activation, "activations, the last two gradients, and no others"
    assert peak(before, outputs) >= (2 * depth - 2) * activation, "each beside its gradient"


def test_what_overwrites_an_input_waits_for_its_readers():
    w, x = tensor(5, 3), tensor(3, 4)
    x.requires_grad = True
    new = w - apply("exp", w) * 0.1
    used = apply("matmul", w, apply("matmul", apply("exp", x), tensor(4, 4)))
    for roots in ((new, used), (used, new)):
        before, outputs = scheduled(*roots)
        (target,) = [v for v in outputs if before.values[v].shape == (5, 3)]
        (source,) = [v for v, value in enumerate(before.values) if value.op.name == "buffer" and value.shape == (5, 3)]
        after = put_in_order(before, outputs, {target: source})
        readers = [n for n, d in enumerate(after.drafts) if source in {load.base for load in d.loads}]
        (writer,) = [n for n, d in enumerate(after.drafts) if target in {store.target for store in d.stores}]
        assert len(readers) == 2 and writer == max(readers)


def test_a_reader_that_needs_the_new_value_is_not_waited_for():
    """Then there are two memories: no order lets the new value overwrite the old one."""
    w = tensor(5, 3)
    new = apply("exp", w)
    both = apply("matmul", apply("matmul", new, tensor(3, 3)), apply("permute", w, axes=(1, 0)))
    before, outputs = scheduled(new, both)
    (target,) = [v for v in outputs if before.values[v].shape == (5, 3)]
    (source,) = [v for v, value in enumerate(before.values) if value.op.name == "buffer" and value.shape == (5, 3)]
    after = put_in_order(before, outputs, {target: source})
    assert len(after.drafts) == len(before.drafts) == 3


# Barriers -------------------------------------------------------------------------------------------------------------


def test_what_is_computed_from_a_barrier_waits_for_its_second_source():
    x, y = tensor(3, 4), tensor(4, 5)
    awaited = apply("matmul", apply("matmul", x, y), tensor(5, 5))
    late = apply("matmul", apply("barrier", x, awaited, token=object()), tensor(4, 6))
    for roots in ((late, awaited), (awaited, late)):
        found = stages(*roots)
        assert [k.space[-1] for k in found.kernels] == [5, 5, 6]


def test_what_is_waited_for_has_memory_though_nobody_reads_it():
    x = tensor(3, 4)
    awaited = apply("exp", x)
    late = apply("tanh", apply("barrier", x, awaited, token=object()))
    found = stages(late)
    assert [len(k.outputs) for k in found.kernels] == [1, 1]
    assert found.plan.sizes == (3 * 4 * dtypes.float32.itemsize,)


def test_constants_and_what_is_in_memory_are_not_waited_for():
    x = tensor(3, 4)
    for awaited in (x, tensor(2), apply("permute", tensor(2, 3), axes=(1, 0)), full((2, 3), 1.0, x.dtype, x.device)):
        late = apply("tanh", apply("barrier", x, awaited, token=object()))
        assert len(stages(late).kernels) == 1
