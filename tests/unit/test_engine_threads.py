"""Threads build graphs of their own and share devices; a forked child computes or is told that it cannot."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, jit, nn, no_grad
from minigrad.graph import grad_enabled
from minigrad.nn import optim


def in_threads(count, work):
    """Run ``work(i)`` in ``count`` threads at once; raises what the first to fail raised."""
    results, errors, start = [None] * count, [], threading.Barrier(count)

    def body(i):
        try:
            start.wait(10)
            results[i] = work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    if errors:
        raise errors[0]
    return results


def test_gradient_mode_is_per_thread():
    with no_grad():
        assert in_threads(2, lambda i: grad_enabled()) == [True, True] and not grad_enabled()

    def work(i):
        w = Tensor([float(i)], requires_grad=True)
        for _ in range(30):
            if i % 2:
                with no_grad():
                    assert not (w * 2).requires_grad
            else:
                assert (w * 2).requires_grad
        return True

    assert all(in_threads(4, work))


def test_each_thread_trains_its_own_model():
    def work(i):
        rng = np.random.default_rng(i)
        w = Tensor(rng.standard_normal(4).astype("f4"), requires_grad=True)
        optimizer = optim.SGD([w], 0.1, momentum=0.9)
        for _ in range(30):
            optimizer.zero_grad()
            ((w - i) ** 2).sum().backward()
            optimizer.step()
            w[:1].item()
        return w.numpy()

    alone = [work(i) for i in range(4)]
    for together, expected in zip(in_threads(4, work), alone):
        np.testing.assert_array_equal(together, expected)


def test_many_threads_want_one_lazy_value():
    for _ in range(30):
        x = Tensor(np.linspace(0, 1, 20_000, dtype="f4"))
        y = ((x * 2 + 1).exp().log() @ x / 20_000).exp()
        total = Tensor(0.0)
        total += y * 0 + 1
        found = in_threads(4, lambda i, y=y, total=total: (y.item(), total.item()))
        assert len(set(found)) == 1 and found[0][1] == 1


def test_one_captured_function_in_many_threads():
    w = Tensor([2.0])
    f = jit(lambda x: ((x * w).sum(), x + 1))

    def work(i):
        for k in range(100):
            n = float(1000 * i + k)
            total, more = f(Tensor([n, n]))
            assert (total.item(), more.tolist()) == (4 * n, [n + 1, n + 1])
        return True

    assert all(in_threads(4, work))


def test_captures_and_training_side_by_side():
    def work(i):
        minigrad.Tensor.rand(1)
        model = nn.Linear(3, 1)
        with no_grad():
            model.weight.assign(1.0)
            model.bias.assign(0.0)
        optimizer = optim.Adam(model.parameters(), 0.1)

        def step(x):
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        if i % 2:
            step = jit(step)
        return [step(Tensor(np.full((2, 3), k + 1, "f4"))).item() for k in range(20)]

    first, *others = in_threads(4, work)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5)


def test_random_numbers_of_threads_do_not_overlap():
    draws = in_threads(4, lambda i: [tuple(Tensor.rand(4).tolist()) for _ in range(50)])
    assert len({draw for thread in draws for draw in thread}) == 200


def test_two_devices_copy_both_ways_without_a_deadlock(twin):
    def work(i):
        here, there = ("numpy", twin) if i % 2 else (twin, "numpy")
        x = Tensor(np.full(1000, i, "f4"), device=here)
        for _ in range(50):
            x = ((x + 1).to(there) * 1.0).to(here)
        return x[0].item()

    assert in_threads(4, work) == [i + 50.0 for i in range(4)]


def child(body):
    """Run a script in a new interpreter, as forking this one with its threads would warn."""
    code = textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@forks
def test_a_forked_child_computes():
    result = child(
        """
        import os, sys
        import numpy as np
        from minigrad import Tensor, jit
        x = Tensor(np.arange(250_000, dtype="f4").reshape(500, 500))
        f = jit(lambda x: (x @ x).sum() + (x.exp() * 0).sum())
        expected = f(x * 1e-6).item()   # the thread pool runs
        pid = os.fork()
        if pid == 0:
            ok = f(x * 1e-6).item() == expected and np.allclose((x @ x)[0, 0].item(), x.numpy()[0] @ x.numpy()[:, 0])
            os._exit(0 if ok else 3)
        _, status = os.waitpid(pid, 0)
        assert f(x * 1e-6).item() == expected
        sys.exit(os.waitstatus_to_exitcode(status))
        """
    )
    assert result.returncode == 0, result.stderr


@forks
def test_a_child_does_not_wait_for_threads_that_it_lacks():
    result = child(
        """
        import os, signal, sys, threading
        from minigrad import Tensor, device
        x = Tensor([1.0, 2.0])
        x.sum().item()
        held, done = threading.Event(), threading.Event()

        def hold():
            with device.get("numpy").lock:
                held.set()
                done.wait(30)

        threading.Thread(target=hold, daemon=True).start()
        held.wait(10)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            os._exit(0 if (x * 2).sum().item() == 6 else 3)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        done.set()
        sys.exit(status)
        """
    )
    assert result.returncode == 0, result.stderr or result.returncode


@forks
def test_a_device_that_does_not_survive_a_fork_says_so():
    result = child(
        """
        import os, sys
        from minigrad import Tensor
        from minigrad.backends.numpy import NumpyBackend
        NumpyBackend.survives_fork = False
        x = Tensor([1.0])
        if pid := os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        try:
            (x * 2).item()
        except RuntimeError as error:
            text = str(error)
            os._exit(0 if "opened by the parent" in text and "hint: use the 'spawn' start method" in text else 4)
        os._exit(5)
        """
    )
    assert result.returncode == 0, result.stderr
