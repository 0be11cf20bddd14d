"""Devices, one node per call, and which primitives derivatives are made of."""

import threading

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import DeviceError, VerifyError
from minigrad.graph import Node, apply, toposort, verify
from minigrad.nn import optim
from minigrad.primitive import Kind


def a(*shape):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype("f4"))


# A tensor's device is fixed when it is made.


def test_the_default_device_is_for_new_tensors_only(twin):
    here = Tensor([1.0])
    minigrad.set_backend(twin)
    there = Tensor([2.0])
    assert (here.device, there.device, Tensor.zeros(2).device, Tensor.rand(2).device) == ("numpy", twin, twin, twin)
    minigrad.set_backend("numpy")
    assert (here + 1).device == "numpy" and (there * 2).exp().sum().device == twin
    assert (there + np.ones(1, "f4")).device == twin and Tensor.ones_like(there).device == twin
    assert (there + 1).item() == 3


def test_backend_is_a_block_of_one_thread(twin):
    seen = []
    with pytest.raises(KeyError):
        with minigrad.backend(twin):
            assert Tensor([1.0]).device == twin
            thread = threading.Thread(target=lambda: seen.append(Tensor([1.0]).device))
            thread.start()
            thread.join()
            with minigrad.backend("numpy"):
                assert Tensor([1.0]).device == "numpy"
            assert Tensor([1.0]).device == twin
            raise KeyError
    assert seen == ["numpy"] and Tensor([1.0]).device == "numpy"


MIXED = {
    "add": lambda x, y: x + y,
    "a 0-d tensor": lambda x, y: x * y.sum(),
    "comparison": lambda x, y: x < y,
    "matmul": lambda x, y: x @ y,
    "where": lambda x, y: Tensor.where(x > 0, x, y),
    "cat": lambda x, y: Tensor.cat([x, y]),
    "stack": lambda x, y: Tensor.stack([x, y]),
    "assign": lambda x, y: x.assign(y),
    "in place": lambda x, y: x.__iadd__(y),
    "item assignment": lambda x, y: x.__setitem__(0, y[0]),
    "index": lambda x, y: x[y.cast("int64")],
    "gather": lambda x, y: x.gather(0, y.cast("int64")),
    "linear": lambda x, y: x.linear(y),
    "einsum": lambda x, y: Tensor.einsum("ij,jk->ik", x, y),
    "conv1d": lambda x, y: x[None].conv1d(y[..., None]),
    "loss": lambda x, y: x.mse_loss(y),
    "gradient": lambda x, y: (x * 2).gradient(x, gradient=y),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_devices_raise_at_the_call(name, twin):
    x, y = Tensor.ones(3, 3), Tensor.ones(3, 3, device=twin)
    for pair in ((x, y), (y, x)):
        with pytest.raises(DeviceError, match="tensors on one device") as raised:
            MIXED[name](*pair)
        assert "numpy and twin" in str(raised.value) and "hint: move one with .to(device)" in str(raised.value)
    assert x.tolist() == y.tolist() == [[1.0] * 3] * 3


def test_to_copies_differentiably(twin):
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).to(twin)
    z = (y * y).sum().to("numpy")
    assert y.device == twin and z.device == "numpy" and y.requires_grad
    z.backward()
    assert x.grad.device == "numpy" and x.grad.tolist() == [4.0, 32.0]
    assert x.to("numpy") is x and x.to(twin, "float64").dtype is minigrad.dtypes.float64
    x.realize(y)
    there = x.detach().to(twin)
    with minigrad.no_grad():
        x.assign(0.0)
    assert there.tolist() == [1.0, 2.0]


def test_a_model_trains_on_another_device(twin):
    minigrad.manual_seed(0)
    models = [nn.Linear(3, 2)]
    models.append(nn.Linear(3, 2).to(twin))
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        place = model.weight.device
        optimizer = optim.Adam(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (model(a(4, 3).to(place)) ** 2).mean().backward()
            optimizer.step()
    assert [m.weight.device for m in models] == ["numpy", twin]
    np.testing.assert_array_equal(models[0].weight.numpy(), models[1].weight.numpy())


def test_random_numbers_do_not_depend_on_the_device(twin):
    draws = []
    for name in ("numpy", twin):
        minigrad.manual_seed(5)
        draws.append([Tensor.rand(5, device=name).numpy(), Tensor.randn(5, device=name).numpy()])
    np.testing.assert_array_equal(*draws)


# One call, one node; equal nodes are computed once.


def test_equal_expressions_are_two_nodes():
    x = Tensor([3.0, 4.0])
    left, right = 2 * x, 2 * x
    assert left.node is not right.node
    (g,) = (left * right).sum().gradient(left)
    np.testing.assert_array_equal(g.numpy(), right.numpy())


CONSTANTS = {
    "Tensor": lambda: Tensor(2.0),
    "Tensor of a list": lambda: Tensor([2.0, 2.0]),
    "full": lambda: Tensor.full((), 2.0),
    "ones": lambda: Tensor.ones(()),
    "zeros": lambda: Tensor.zeros(2),
    "eye": lambda: Tensor.eye(2),
    "arange": lambda: Tensor.arange(3.0),
    "ones_like": lambda: Tensor.ones_like(Tensor(1.0)),
    "detach": lambda: Tensor(2.0).detach(),
    "cast": lambda: Tensor.ones(2).cast("float64"),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_equal_constants_have_gradients_of_their_own(name):
    """Tinygrad #9597: equal constants shared one node, so each got the gradient of both."""
    x, y = CONSTANTS[name](), CONSTANTS[name]()
    gx, gy = (x * 3 + y * 5).sum().gradient(x, y)
    assert (gx.numpy() == 3).all() and (gy.numpy() == 5).all()
    x, y = CONSTANTS[name]().requires_grad_(), CONSTANTS[name]().requires_grad_()
    (x * 3 + y * 5).sum().backward()
    assert (x.grad.numpy() == 3).all() and (y.grad.numpy() == 5).all()


def lines(kernels, op):
    """How often an elementwise op stands in kernels."""
    return sum(instr.op == op for k in kernels for instr in (*k.prologue, *k.epilogue))


def test_equal_expressions_are_computed_once(launched):
    x = a(5)
    y = x.exp().sum() + x.exp().max() + (x.exp() * 2).prod()
    y.realize()
    assert lines(launched, "exp") == 1


def test_sharing_stops_at_writes_and_barriers(launched):
    x = Tensor([1.0, 2.0])
    before = x.exp()
    x.assign(x + 1)
    after = x.exp()
    np.testing.assert_allclose((after / before).numpy(), [np.e, np.e], rtol=1e-6)
    launched.clear()
    node = a(2).node
    once = apply("exp", node)
    again = apply("exp", apply("barrier", node, node, token=None))
    Tensor.wrap(once + again).realize()
    assert lines(launched, "exp") == 2


# Closed families of derivatives.


def ops(*tensors):
    """Primitives other than elementwise, movement and sums in the graph of tensors."""
    plain = (Kind.ELEMENTWISE, Kind.MOVEMENT, Kind.CREATION, Kind.IDENTITY, Kind.REDUCE)
    return {n.op.name for n in toposort([t.node for t in tensors]) if n.op.kind not in plain}


def orders(f, *inputs):
    """The primitives of a function, its gradient, the gradient of that, and the third."""
    value, found = f(*inputs), []
    for _ in range(4):
        found.append(ops(value))
        value = sum((g * g).sum() for g in (value * value).sum().gradient(*inputs))
    return found


POOLS = {"max_pool", "window_gather", "window_scatter", "project"}
CONVS = {"conv", "conv_input_grad", "conv_weight_grad"}
FAMILIES = {
    "conv1d": (lambda x, w: x.conv1d(w, stride=2, padding=1), [(2, 3, 7), (4, 3, 3)], CONVS),
    "conv2d": (lambda x, w: x.conv2d(w, groups=2, dilation=2), [(2, 4, 6, 5), (2, 2, 2, 2)], CONVS),
    "conv3d": (lambda x, w: x.conv3d(w), [(1, 1, 3, 3, 3), (2, 1, 2, 2, 2)], CONVS),
    "conv_transpose2d": (lambda x, w: x.conv_transpose2d(w, stride=2), [(1, 2, 3, 3), (2, 3, 2, 2)], CONVS),
    "max_pool1d": (lambda x: x.max_pool1d(2), [(2, 3, 7)], POOLS),
    "max_pool2d": (lambda x: x.max_pool2d(2), [(2, 3, 5, 4)], POOLS),
    "max_pool3d": (lambda x: x.max_pool3d(2), [(1, 1, 4, 4, 4)], POOLS),
    "avg_pool2d": (lambda x: x.avg_pool2d(3, padding=1), [(2, 3, 5, 4)], {"avg_pool", "avg_pool_grad"}),
    "matmul": (lambda x, y: x @ y, [(3, 4), (4, 2)], {"matmul"}),
    "cumsum": (lambda x: x.cumsum(0), [(4, 2)], {"cumsum"}),
    "gather": (lambda x: x[Tensor([1, 0, 1])], [(3, 2)], {"take", "scatter"}),
    "scatter": (lambda x: Tensor.zeros(4, 2).index_add(0, [1, 0, 1], x), [(3, 2)], {"take", "scatter"}),
    "sort": (lambda x: x.sort(0)[0], [(4, 2)], {"sort", "project", "take", "scatter"}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_derivatives_of_all_orders_stay_in_the_family(name):
    f, shapes, family = FAMILIES[name]
    for found in orders(f, *[a(*shape) for shape in shapes]):
        assert found and found <= family


def test_positions_in_windows_are_small_inside_and_flat_int64_outside():
    x = a(1, 2, 20, 20)
    for kernel, inside in ((2, "uint8"), (16, "uint8"), (17, "int32")):
        values, indices = x.max_pool2d(kernel, stride=3, return_indices=True)
        assert indices.dtype is minigrad.dtypes.int64
        (taps,) = [n for n in toposort([indices.node]) if n.op.name == "project"]
        assert taps.dtype.name == inside
        np.testing.assert_array_equal(x.flatten(2).gather(2, indices.flatten(2)).numpy(), values.flatten(2).numpy())


def test_scatter_adds_in_the_order_of_the_index():
    values = np.array([1e8, 1.0, -1e8, 1.0, 3.0, 1e-3], "f4")
    index = np.array([0, 0, 0, 0, 1, 1])
    expected = np.zeros(2, "f4")
    for i, v in zip(index, values):
        expected[i] += v
    found = [Tensor.zeros(2).index_add(0, index, Tensor(values)).numpy() for _ in range(3)]
    assert all((f == expected).all() for f in found)


def test_nodes_are_immutable_for_their_readers():
    x = Tensor([1.0, 2.0])
    seen = x.node
    x.assign(5.0)
    assert x.node is not seen and isinstance(seen, Node)
    assert Tensor.wrap(apply("copy", seen)).tolist() == [1.0, 2.0]


def test_arrays_are_copied_on_the_way_in_and_out():
    array = np.array([1.0, 2.0], "f4")
    x = Tensor(array)
    array[:] = 0
    out = x.numpy()
    out[:] = 7
    np.asarray(x)[:] = 8
    np.from_dlpack(x.detach())
    assert x.tolist() == [1.0, 2.0] and out.flags.writeable
    view = x[::-1].numpy()
    x += 1
    assert view.tolist() == [2.0, 1.0]


def test_verify_names_a_node_that_contradicts_itself():
    x = a(2, 3)
    y = x * 2
    bad = (y + 1).node
    verify([bad])
    y.node.shape = (3, 2)
    with pytest.raises(VerifyError, match=r"verify\(graph\): expected float32\[2, 3\].*got <mul\(\) float32\[3, 2\]>"):
        verify([bad])
