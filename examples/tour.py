"""A tour: one tensor on its way through every stage, on each backend; every claim that is printed is asserted too.

``python examples/tour.py`` visits NumPy and, where it is installed, OpenCL; ``python examples/tour.py numpy`` one.
The tensor is the gradient of a convolution's weight: graph, gradient, simplification, schedule, layout, memory, source,
launch.
"""

import sys
from contextlib import contextmanager

import numpy as np

import minigrad
from minigrad import Tensor, device, reference
from minigrad.graph import format_graph, toposort
from minigrad.kernel import Kernel
from minigrad.layout import lay_out
from minigrad.plan import plan
from minigrad.realize import Run, view_of
from minigrad.schedule import schedule
from minigrad.simplify import linearize, simplify


def heading(number, title):
    """Announce a stage."""
    print(f"\n--- {number}. {title} " + "-" * (90 - len(title)))


def visit(name):
    """Follow the gradient of ``w`` on the backend ``name``; returns its value."""
    print(f"\n=== {name} " + "=" * 90)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((16, 3, 8, 8)).astype(np.float32)
    weights = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    biases = rng.standard_normal(8).astype(np.float32)

    heading(1, "Tensors: memory on a device, and nothing computed yet")
    with minigrad.backend(name):
        x, w = Tensor(images), Tensor(weights, requires_grad=True)
        b = Tensor(biases)
        y = (x.conv2d(w, padding=1) + b.reshape(1, 8, 1, 1)).relu().max_pool2d(2)
        loss = (y * y).mean()
    print(f"w is {w.node!r} in memory, y is {y.node!r}, to be computed when somebody looks")
    assert view_of(w.node) is not None and view_of(y.node) is None and y.shape == (16, 8, 4, 4)

    heading(2, "Graph: one node per call, shapes and dtypes checked as it grows")
    graph = toposort([loss.node])
    print(format_graph([loss.node]))
    assert [n.op.name for n in graph].count("conv") == 1 and all(s.serial < n.serial for n in graph for s in n.sources)

    heading(3, "Gradient: more nodes of the same kind, made of the same primitives")
    (grad,) = loss.gradient(w)
    more = [n for n in toposort([grad.node]) if n not in graph]
    print(format_graph([grad.node]))
    assert grad.shape == w.shape and "conv_weight_grad" in {n.op.name for n in more} and grad.node.buffer is None

    heading(4, "Simplify: equal expressions once, constants folded, movement merged")
    linear = linearize(toposort([grad.node]))
    root = linear.numbers[id(grad.node)]
    values, renamed = simplify((root,))
    live = {renamed[root]}
    for number in range(len(values) - 1, -1, -1):  # sources have smaller numbers
        if number in live:
            live.update(values[number].sources)
    for number in sorted(live):
        value = values[number]
        print(f"%{number:<4}{value.dtype.name:<9}{value.op.name:<18}{list(value.shape)} from {list(value.sources)}")
    assert len(live) < len(linear.nodes)
    assert {x.node, b.node} < set(linear.inputs)  # what is in memory, w among it

    heading(5, "Schedule: what becomes one kernel")
    backend = device.get(name).backend
    target = renamed[root]
    cut = schedule(values, {target}, backend.capabilities.epilogues, True, frozenset())
    for draft in cut.drafts:
        core = "map" if draft.core is None else values[draft.core].op.name
        reads, stores = sorted({load.base for load in draft.loads}), [store.target for store in draft.stores]
        print(f"{core:<18} reads {reads}, stores {stores}")
    cores = [values[d.core].op.name for d in cut.drafts if d.core is not None]
    assert cores.count("conv") == 1 and len(cut.drafts) < len(values)

    heading(6, "Layout: in which order axes lie in memory is the backend's wish")
    laid = lay_out(cut, backend.preferred_orders, {})
    for number, order in laid.orders.items():
        print(f"%{number:<4}{list(laid.shapes[number])} lies as {order or 'row-major'}")
    kernels = [launch.kernel for launch in laid.launches]
    print(*kernels, sep="\n")
    assert not laid.orders[target] and any(laid.orders.values())  # weights row-major, activations as the backend likes

    heading(7, "Plan: values whose lives do not overlap share memory")
    inputs = frozenset(v for v, value in enumerate(values) if value.op.name == "buffer")
    memory = plan(laid, inputs, frozenset({target}), {})
    print(f"{len(memory.slot)} temporary values in {len(memory.sizes)} pieces of {sum(memory.sizes)} bytes")
    assert len(memory.sizes) <= len(memory.slot)

    heading(8, "Compile: kernels become programs, each structure once")
    programs = device.get(name).compile(kernels)
    for program in programs:
        print(program.source or f"{type(program).__name__}: interpreted, there is no source")
    assert device.get(name).compile(kernels) == programs
    assert bool(programs[0].source) == (name != "numpy")

    heading(9, "Launch: the kernels run in order; the node has its buffer")
    with launches() as seen:
        result = grad.numpy()
    print(f"{len(seen)} kernels: {', '.join(k.name for k in seen)}", repr(grad), sep="\n")
    assert [k.name for k in seen] == [k.name for k in kernels] and grad.node.buffer is not None
    with launches() as seen:
        grad.numpy()
    assert not seen  # what is in memory is not computed again

    heading(10, "The oracle: the same in naive float64")
    expected = oracle(images, weights, biases)
    print(f"greatest difference {np.abs(result - expected).max():.2e} of values up to {np.abs(expected).max():.2e}")
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return result


def oracle(images, weights, biases):
    """The gradient by central differences of the loss in float64: none of the engine's rules."""
    window = minigrad.shapes.Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    halves = minigrad.shapes.Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))

    def loss(w):
        y = reference.conv(images.astype(float), w, window=window, groups=1) + biases.reshape(1, -1, 1, 1)
        return np.mean(reference.max_pool(np.maximum(y, 0), window=halves)[0] ** 2)

    grad, step = np.zeros(weights.shape), 1e-6
    for at in np.ndindex(weights.shape):
        moved = weights.astype(float)
        moved[at] += step
        ahead = loss(moved)
        moved[at] -= 2 * step
        grad[at] = (ahead - loss(moved)) / (2 * step)
    return grad


@contextmanager
def launches():
    """The kernels that are launched within the block."""
    seen: list[Kernel] = []
    original = Run.launch

    def launch(run):
        seen.extend(kernel for _, _, kernel in run.compiled.launches)
        original(run)

    Run.launch = launch
    try:
        yield seen
    finally:
        Run.launch = original


def main(names):
    """Visit the backends and compare what they found."""
    results = {name: visit(name) for name in names}
    first, *others = results
    for other in others:
        apart = np.abs(results[first] - results[other]).max()
        print(f"\n{first} and {other} differ by {apart:.2e} at most")
        assert apart <= 1e-5 * np.abs(results[first]).max()


if __name__ == "__main__":
    available = [n for n, reason in minigrad.available_backends().items() if reason is None]
    main(sys.argv[1:] or [name for name in ("numpy", "opencl") if name in available])
