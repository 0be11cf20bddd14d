"""What a captured step reads and writes besides its arguments: versions, aliases, leftovers."""

import copy
import gc
import weakref

import numpy as np
import pytest
from steps import arrays, classes, net, same_with_jit, training

from minigrad import Tensor, device, jit, nn, no_grad, realize
from minigrad.errors import OutOfMemory
from minigrad.nn import optim


def counter(wrap, start=(1.0, 2.0)):
    w = Tensor(list(start))

    def step(x):
        w.assign(w + x)
        return (w * x).sum()

    return w, wrap(step)


def test_lazy_readers_of_an_old_version_keep_it():
    def scenario(wrap):
        w, step = counter(wrap)
        readers = []
        for x in arrays(2):
            readers += [w * 1, w + w, Tensor(w), w.clone(), w.sum(0)]
            step(x)
        return readers, w

    same_with_jit(scenario, captures=1)


def test_what_was_made_before_the_step_is_an_input():
    """Also lazily, also from a tensor that the step writes."""

    def scenario(wrap):
        w = Tensor([1.0, 2.0])
        doubled, snapshot, draw, later = w * 2, Tensor(w), Tensor.rand(2), w.sum(0).exp()
        returned = w * 3

        @wrap
        def step(x):
            y = (x + doubled + snapshot + draw * later).sum()
            w.assign(w + 1)
            return y, returned, returned[0]

        return [step(x) for x in arrays(2)], w, doubled, snapshot, draw, later

    same_with_jit(scenario, captures=1)


def test_outside_work_is_not_done_again_at_each_call(launched):
    heavy = (Tensor(arrays(8, 8)[0]) @ Tensor(arrays(8, 8)[1])).sum()
    calls = []

    @jit
    def step(x):
        calls.append(1)
        return x * heavy

    step(Tensor([1.0]))
    (capture,) = captured(step)
    assert [kernel.op for kernel in launched].count("matmul") == 1
    assert "matmul" not in [kernel.op for _, _, kernel in capture.run.compiled.launches]


def test_a_number_that_changes_between_steps_makes_no_kernel_and_leaves_memory_bound(launched):
    def scenario(wrap):
        rate, w, kept = Tensor(1.0), Tensor([1.0, 2.0]), []

        @wrap
        def step(x):
            w.assign(w - rate * x)
            return w.sum()

        results = []
        for number in (0.5, 0.25, 3, 0.125, -2.0):
            kept += [rate, rate * 2, rate.clone()][: 3 * (number == 0.25)]  # who has read it before keeps what it was
            rate.assign(number)
            results.append(step(Tensor([1.0, 3.0])))
        return results, w, kept

    same_with_jit(scenario, captures=1)
    rate = Tensor(1.0)
    step = jit(lambda x: x * rate)
    step(Tensor([1.0, 3.0]))
    (capture,) = captured(step)
    bound, programs = [], []
    launched.clear()
    for number in (0.5, 0.25, 3, 0.125, -2.0):
        rate.assign(number)
        assert step(Tensor([1.0, 3.0])).tolist() == [number, 3 * number]
        bound.append(capture.bound)
        programs.append(len(device.get("numpy").programs))
    assert len(set(bound[1:])) == 1 and len(set(programs)) == 1
    assert launched == []


def captured(step):
    """The captures of a jitted function."""
    cells = [cell.cell_contents for cell in step.__closure__]
    (found,) = [c for c in cells if isinstance(c, list)]
    return [capture for _, capture in found]


def test_a_snapshot_of_what_was_written_since():
    def scenario(wrap):
        w = Tensor([1.0])
        snapshot = Tensor(w)
        w.assign(w + 1)
        step = wrap(lambda: snapshot * 3)
        return [step() for _ in range(3)], w

    same_with_jit(scenario, captures=1)


def test_aliases_show_each_call_and_writes_through_them_are_seen():
    def scenario(wrap):
        w = Tensor(arrays(3, 4)[0])
        views = [w.detach(), w[1], w.T, w[::2, 1:], w.reshape(12), w.flip(0)]

        @wrap
        def step(x):
            w.assign(w * 0.5 + x)
            return w.sum(1)

        out = []
        for i, x in enumerate(arrays(3, 4)):
            out.append(step(x))
            out += [Tensor(v.numpy()) for v in views]
            with no_grad():
                views[i % len(views)].assign(float(i))
            out.append(Tensor(w.numpy()))
        return out

    same_with_jit(scenario, captures=1)


def test_writes_through_views_inside():
    def scenario(wrap):
        w, row = Tensor(arrays(3, 4)[0]), None
        row = w[1]

        @wrap
        def step(x):
            row.assign(x)
            w[:, 1] += 1.0
            before = w.T[2] * 1
            w[w.shape[0] - 1] = before.sum()
            return before, row

        return [[Tensor(t.numpy()) for t in step(x)] for x in arrays(4)], w, row

    same_with_jit(scenario, captures=1)


def test_outside_writes_between_calls():
    def scenario(wrap):
        w, step = counter(wrap)
        out = []
        for i, x in enumerate(arrays(2)):
            out.append(step(x))
            if i == 1:
                w.assign(7.0)
            if i == 2:
                w += w
            if i == 3:
                w[0] = -1.0
        return out, w

    same_with_jit(scenario, captures=1)


def test_swapping_and_writing_twice():
    def scenario(wrap):
        a, b, c, d = (Tensor(x) for x in arrays(3, count=4))

        @wrap
        def step(x):
            old = a * 1
            a.assign(b)
            b.assign(old)  # a swap
            c.assign(x)
            d.assign(x)  # two tensors of one value
            c.assign(c + a)
            c.assign(c * 2)
            return a - b

        out = []
        for x in arrays(3):
            out += [step(x), a * 1, d * 1]
        d += 1
        return out, a, b, c, d

    same_with_jit(scenario, captures=1)


def test_a_rotation_of_three_tensors():
    def scenario(wrap):
        ring = [Tensor(x) for x in arrays(3, count=3)]

        @wrap
        def step():
            old = [t * 1 for t in ring]
            for i, t in enumerate(ring):
                t.assign(old[i - 1] + 1)

        for _ in range(5):
            step()
        return ring

    same_with_jit(scenario, captures=1)


def test_state_that_is_a_reduction_or_shares_a_value():
    """A reduction without kept dims shows its memory under another shape; equal values are computed once."""

    def scenario(wrap):
        data = Tensor(arrays(6, 4)[0])
        running = data.mean(0)
        twins = wrap(lambda x: (x * 2, x * 2))(Tensor([1.0, 2.0]))

        @wrap
        def step(x):
            running.assign(0.9 * running + 0.1 * x.mean(0))
            twins[0].assign(twins[0] + 1)
            return running.sum() + twins[1]

        out = [step(x) for x in arrays(6, 4)]
        running.assign(0.0)
        return out, step(arrays(6, 4)[0]), running, twins

    same_with_jit(scenario)


def test_written_but_never_read():
    def scenario(wrap):
        last, total = Tensor.zeros(3), Tensor.zeros(3)
        store = wrap(lambda x: [last.assign(x * 2)] and None)
        add = wrap(lambda: [total.assign(total + last)] and None)
        kept = []
        for x in arrays(3):
            store(x)
            kept.append(last + 0)
            add()
        return last, total, kept

    same_with_jit(scenario, captures=2)


def test_results_own_their_memory():
    def scenario(wrap):
        w = Tensor(arrays(2, 3)[0])

        @wrap
        def step(x):
            w.assign(w + x)
            return w * 1, x * 1, (w + x)[0], (w * 2).T, (x + 1).reshape(3, 2), {"loss": (w * x).sum()}

        out = [step(x) for x in arrays(2, 3)]
        for n, result in enumerate(out):
            result[3].assign(float(n))
            result[2][0] = -float(n)
        return out, step(arrays(2, 3)[0])

    same_with_jit(scenario, captures=1)


def test_a_returned_parameter_is_a_copy():
    w = Tensor([1.0, 2.0])
    step = jit(lambda: [w.assign(w + 1)] and (w, w[0], w.detach()))
    results = [step() for _ in range(3)]
    assert [r[0].tolist() for r in results] == [[2, 3], [3, 4], [4, 5]]
    assert [(r[1].item(), r[2].tolist()) for r in results] == [(2, [2, 3]), (3, [3, 4]), (4, [4, 5])]
    results[2][0].assign(0.0)
    assert w.tolist() == [4, 5]


def test_tensors_left_elsewhere_keep_the_value_of_the_capture():
    w, kept = Tensor([1.0, 2.0]), []

    @jit
    def step(x):
        y = x * w
        kept.extend([y, y.sum(), y.T, Tensor(w), y + 1])
        w.assign(w + 1)
        return kept[-1]

    first = step(Tensor([1.0, 10.0]))
    expected = [t.tolist() for t in kept]
    assert expected == [[1, 20], 21, [1, 20], [1, 2], [2, 21]] and first.tolist() == [2, 21]
    for _ in range(3):
        step(Tensor([5.0, 5.0]))
    assert [t.tolist() for t in kept] == expected and len(kept) == 5


def test_a_captured_model_is_copied():
    model = net()
    step = training(jit, model, optim.SGD(model.parameters(), 0.1))
    data = list(zip(arrays(6, 4), classes(6)))
    step(*data[0])
    twin = copy.deepcopy(model)
    values = [p.numpy() for p in twin.parameters()]
    assert all((a.numpy() == b).all() for a, b in zip(model.parameters(), values))
    step(*data[1])
    assert all((a.numpy() == b).all() for a, b in zip(twin.parameters(), values))
    assert all((a.numpy() != b.numpy()).any() for a, b in zip(model.parameters(), twin.parameters()))


def test_an_exception_inside_leaves_everything_usable():
    def scenario(wrap):
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.3))
        optimizer = optim.SGD(model.parameters(), 0.1)
        total = Tensor(0.0)

        @wrap
        def step(x, y, fail=False):
            total.assign(total + 1)
            optimizer.zero_grad()
            loss = model(x).cross_entropy(y)
            loss.backward()
            if fail:
                raise KeyError("as it happens")
            optimizer.step()
            return loss

        out = []
        for i, (x, y) in enumerate(zip(arrays(6, 4), classes(6))):
            if i in (0, 3):
                with pytest.raises(KeyError, match="as it happens"):
                    step(x, y, fail=True)
                out.append(Tensor(total.numpy()))
            out.append(step(x, y))
        return out, total, Tensor.rand(2), list(model.parameters())

    same_with_jit(scenario)


def test_what_is_only_read_is_not_copied():
    data = Tensor(np.ones((300, 100), "f4"))
    buffer = data.node.buffer
    step = jit(lambda n: data[:3].sum() * n)
    assert [step(Tensor(float(n))).item() for n in (1, 2)] == [300, 600]
    assert data.node.buffer is buffer
    reader = data + 0
    write = jit(lambda x: [data.assign(data * x)] and None)  # another capture, which must not write there
    for _ in range(2):
        write(Tensor(2.0))
    assert step(Tensor(1.0)).item() == 1200 and reader.sum().item() == 30000
    other = Tensor(np.zeros((300, 100), "f4"))
    data.assign(other)
    assert step(Tensor(1.0)).item() == 0
    write(Tensor(2.0))
    data += 1
    assert step(Tensor(1.0)).item() == 300 and other.sum().item() == 0


def test_running_out_of_memory_while_capturing(monkeypatch):
    w = Tensor([1.0, 2.0])
    pool = device.get("numpy").pool

    @jit
    def step(x):
        w.assign(w + x)
        return (w * 3).exp()

    x, prepare, take, compiling = Tensor([1.0, 1.0]), realize._prepare, pool.take, []

    def limited(nbytes):
        if compiling:
            raise OutOfMemory.of("allocate", f"{nbytes} bytes", "none left")
        return take(nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(realize, "_prepare", lambda *args: compiling.append(1) or prepare(*args))
        patch.setattr(pool, "take", limited)
        with pytest.raises(OutOfMemory):
            step(x)
    assert w.tolist() == [2, 3]  # as without jit, where it fails when the result is wanted
    np.testing.assert_allclose(step(x).numpy(), np.exp([9, 12]), rtol=1e-6)
    assert step(x).shape == (2,) and w.tolist() == [4, 5]


def test_memory_of_a_dropped_function_is_given_back():
    def make():
        big = Tensor(np.zeros(1000, "f4"))
        step = jit(lambda x: [big.assign(big + x)] and None)
        step(Tensor(1.0))
        return weakref.ref(big.node.buffer), weakref.ref(big), step

    buffer, tensor, step = make()
    assert buffer() is not None and tensor() is not None
    del step
    gc.collect()
    assert buffer() is None and tensor() is None


def test_captures_that_are_gone_hold_no_memory_of_a_tensor():
    w = Tensor(np.zeros(1000, "f4"))
    step = jit(lambda x: [w.assign(w + x)] and None)
    step(Tensor(1.0))
    buffer = weakref.ref(w.node.buffer)
    del step
    gc.collect()
    w.assign(0.0)
    w.realize()
    assert buffer() is None
