"""nn.Module: what it finds among its attributes, state dicts, modes, hooks, copies."""

import copy

import numpy as np
import pytest

from minigrad import Tensor, dtypes, nn
from minigrad.errors import ArgumentError, ArgumentTypeError, StateDictError


class Block(nn.Module):
    """Two layers, a parameter, a buffer of each kind and a constant."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter([2.0])
        self.first = nn.Linear(3, 4)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False))
        self.register_buffer("mean", Tensor([0.5]))
        self.register_buffer("cache", Tensor([7.0]), persistent=False)
        self.constant = Tensor([1.0])

    def forward(self, x):
        return self.rest(self.first(x)) * self.scale


def test_names_come_in_order_of_assignment():
    block = Block()
    parameters = ["scale", "first.weight", "first.bias", "rest.1.weight"]
    assert [n for n, _ in block.named_parameters()] == parameters
    assert [n for n, _ in block.named_buffers()] == ["mean", "cache"]
    assert list(block.state_dict()) == ["scale", "mean", "first.weight", "first.bias", "rest.1.weight"]
    assert [n for n, _ in block.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [type(m).__name__ for m in block.children()] == ["Linear", "Sequential"]
    assert [n for n, _ in block.named_parameters(recurse=False)] == ["scale"]


def test_names_equal_pytorchs():
    torch = pytest.importorskip("torch")

    def build(nn):
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False)))

    ours, theirs = build(nn), build(torch.nn)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: tuple(t.shape) for n, t in theirs.state_dict().items()
    }
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]


def test_works_without_super_init():
    class Bare(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter([1.0])

    assert [n for n, _ in Bare().named_parameters()] == ["weight"]
    assert Bare().training


def test_frozen_parameters_stay_parameters():
    block = Block()
    for parameter in block.parameters():
        parameter.requires_grad = False
    assert len(list(block.parameters())) == 4
    assert len(block.state_dict()) == 5
    block.requires_grad_(True)
    assert all(p.requires_grad for p in block.parameters())


def test_registered_frozen_parameter_is_found():
    module = nn.Module()
    module.register_parameter("weight", nn.Parameter([1.0], requires_grad=False))
    module.register_parameter("bias", None)
    assert [n for n, _ in module.named_parameters()] == ["weight"]


def test_shared_parameters_come_once_but_are_saved_under_both_names():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    assert [n for n, _ in net.named_parameters()] == ["0.weight"]
    assert list(net.state_dict()) == ["0.weight", "1.weight"]
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, layer)
    assert len(list(twice.modules())) == 2
    assert list(twice.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_buffer_stays_a_buffer_when_replaced():
    block = Block()
    block.mean = Tensor([0.25])
    assert "mean" not in dict(block.named_parameters())
    assert block.state_dict()["mean"].tolist() == [0.25]
    with pytest.raises(ArgumentError, match="not taken"):
        block.register_buffer("scale", Tensor([1.0]))


def test_state_dict_round_trip():
    first, second = Block(), Block()
    assert second.load_state_dict(first.state_dict()) == ([], [])
    x = Tensor.randn(5, 3)
    np.testing.assert_array_equal(first(x).numpy(), second(x).numpy())
    assert second.first.weight.requires_grad


def test_loading_arrays_casts_to_the_parameters_dtype():
    layer = nn.Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": np.array([[1.0, 2.0]])})
    assert layer.weight.dtype is dtypes.float32
    assert layer.weight.tolist() == [[1.0, 2.0]]


def test_loading_what_does_not_fit_lists_everything_and_loads_nothing():
    block = Block()
    before = block.state_dict()["scale"].numpy().copy()
    state = {**block.state_dict(), "scale": Tensor([9.0]), "rest.1.weight": Tensor.zeros(3, 3), "extra": Tensor([0.0])}
    del state["first.bias"]
    with pytest.raises(StateDictError) as caught:
        block.load_state_dict(state)
    for part in ("missing: first.bias", "unexpected: extra", "misshapen: rest.1.weight (3, 3) instead of (2, 4)"):
        assert part in str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert block.scale.tolist() == before.tolist()


def test_loading_without_strict_reports_names_but_insists_on_shapes():
    block = Block()
    keys = block.load_state_dict({"scale": Tensor([9.0]), "extra": Tensor([0.0])}, strict=False)
    assert keys.unexpected_keys == ["extra"]
    assert keys.missing_keys == ["mean", "first.weight", "first.bias", "rest.1.weight"]
    assert block.scale.tolist() == [9.0]
    with pytest.raises(StateDictError, match="misshapen"):
        block.load_state_dict({"scale": Tensor([9.0, 9.0])}, strict=False)


def test_long_lists_of_differences_are_cut_short():
    with pytest.raises(StateDictError, match="w9 and 20 more"):
        nn.Module().load_state_dict({f"w{i}": Tensor([0.0]) for i in range(30)})


def test_modes():
    block = Block()
    assert block.eval() is block
    assert not any(m.training for m in block.modules())
    block.train()
    assert all(m.training for m in block.modules())


def test_to_dtype_casts_floats_and_keeps_sharing():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    net.register_buffer("count", Tensor(np.array([3])))
    assert net.to(dtypes.float16) is net
    assert net[0].weight.dtype is dtypes.float16
    assert net[0].weight is net[1].weight
    assert net[0].weight.requires_grad
    assert net.count.dtype is dtypes.int64
    with pytest.raises(ArgumentTypeError, match="floating"):
        net.to(dtypes.int32)


def test_dtypes_by_name():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for name, kind in (("half", "float16"), ("bfloat16", "bfloat16"), ("double", "float64"), ("float", "float32")):
        assert getattr(net, name)() is net
        assert {t.dtype.name for n, t in net.state_dict().items() if "num" not in n} == {kind}
    assert net[1].num_batches_tracked.dtype is dtypes.int64


def test_children_by_name_and_path():
    net = nn.Sequential(nn.Linear(2, 2))
    net.add_module("head", nn.Sequential(nn.ReLU()))
    assert net.get_submodule("head.0") is net.head[0] and net.get_submodule("") is net
    assert [n for n, _ in net.named_children()] == ["0", "head"]
    for path in ("head.1", "0.weight", "none"):
        with pytest.raises(ArgumentError, match="path of modules"):
            net.get_submodule(path)
    for name in ("forward", "a.b", ""):
        with pytest.raises(ArgumentError, match="not taken"):
            net.add_module(name, nn.ReLU())
    with pytest.raises(ArgumentTypeError, match="a module"):
        net.add_module("x", None)


def test_to_device_keeps_values_and_frozen_parameters():
    net = Block()
    net.first.weight.requires_grad = False
    before = net.first.weight.numpy().copy()
    net.to("numpy")
    np.testing.assert_array_equal(net.first.weight.numpy(), before)
    assert not net.first.weight.requires_grad
    assert len(list(net.parameters())) == 4


def test_zero_grad():
    block = Block()
    block(Tensor.randn(5, 3)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad(set_to_none=False)
    assert all(not p.grad.numpy().any() for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())


def test_hooks_see_and_change_values_until_removed():
    layer = nn.Identity()
    seen = []
    pre = layer.register_forward_pre_hook(lambda module, args: args[0] + 1)
    post = layer.register_forward_hook(lambda module, args, output: seen.append(args[0].tolist()) or output * 10)
    assert layer(Tensor([1.0])).tolist() == [20.0]
    assert seen == [[2.0]]
    pre.remove()
    pre.remove()
    assert layer(Tensor([1.0])).tolist() == [10.0]
    post.remove()
    assert layer(Tensor([1.0])).tolist() == [1.0]


def test_deep_copies_are_independent():
    block = Block()
    block.first.register_forward_hook(lambda module, args, output: output * 2)
    twin = copy.deepcopy(block)
    x = Tensor.randn(5, 3)
    np.testing.assert_array_equal(block(x).numpy(), twin(x).numpy())
    twin.load_state_dict({n: np.zeros(t.shape) for n, t in twin.state_dict().items()})
    assert block.first.weight.numpy().any()
    assert not twin.first.weight.numpy().any()
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in block.named_parameters()]
    assert all(p.requires_grad for p in twin.parameters())


def test_apply_visits_children_first():
    names = []
    Block().apply(lambda module: names.append(type(module).__name__))
    assert names == ["Linear", "ReLU", "Linear", "Sequential", "Block"]


def test_repr_is_a_tree():
    assert repr(Block()) == (
        "Block(\n"
        "  (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (rest): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Linear(in_features=4, out_features=2, bias=False)\n"
        "  )\n"
        ")"
    )


@pytest.mark.parametrize("make", [
    lambda nn: nn.Conv2d(3, 6, (3, 5), stride=2, padding=(1, 2), dilation=2, groups=3, bias=False),
    lambda nn: nn.Conv2d(3, 6, 3, padding="same"),
    lambda nn: nn.ConvTranspose2d(3, 6, 3, stride=2, output_padding=1),
    lambda nn: nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Softmax(dim=1), nn.Sequential(nn.GELU(), nn.Tanh())),
])  # fmt: skip
def test_repr_equals_pytorchs(make):
    torch = pytest.importorskip("torch")
    assert repr(make(nn)) == repr(make(torch.nn))


def test_forward_must_be_defined():
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Module()(Tensor([1.0]))


def test_sequential_is_a_sequence():
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    net = nn.Sequential(a, b)
    assert net.append(c) is net
    assert len(net) == 3 and list(net) == [a, b, c] and net[-1] is c
    assert list(net[1:]) == [b, c]
    assert [n for n, _ in net[1:].append(a).named_children()] == ["1", "2", "3"]
    net[0] = c
    assert net[0] is c
    with pytest.raises(IndexError):
        net[3]
    with pytest.raises(TypeError):
        nn.Sequential(a, "relu")
    named = nn.Sequential({"conv": a, "act": b})
    assert named.conv is a and [n for n, _ in named.named_children()] == ["conv", "act"]


def test_module_list_counts_as_part_of_its_module():
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

    assert list(Tower().state_dict()) == [f"layers.{i}.{n}" for i in range(2) for n in ("weight", "bias")]
    assert len(nn.ModuleList([nn.ReLU()]).extend([nn.Tanh()])) == 2


def test_module_dict_is_a_dict_of_parts():
    a, b = nn.Linear(2, 3), nn.ReLU()
    heads = nn.ModuleDict({"a": a})
    heads["b"] = b
    assert list(heads) == ["a", "b"] == list(heads.keys()) and list(heads.values()) == [a, b]
    assert dict(heads.items()) == {"a": a, "b": b} and "a" in heads and "c" not in heads and len(heads) == 2
    assert list(heads.state_dict()) == ["a.weight", "a.bias"] and heads["a"] is a
    heads.update([("a", b)])
    assert heads["a"] is b and list(heads) == ["a", "b"]
    assert heads.pop("a") is b and list(heads) == ["b"]
    del heads["b"]
    assert len(heads) == 0 and not list(heads.children())
    heads["a"] = a
    heads.clear()
    assert not list(heads.parameters())
    with pytest.raises(KeyError):
        heads["a"]
    with pytest.raises(ArgumentTypeError, match="modules"):
        heads["a"] = Tensor([1.0])
    for name in ("forward", "a.b", "", "training"):
        with pytest.raises(ArgumentError, match="not taken"):
            heads[name] = a
    assert list(nn.ModuleDict([("x", b)])) == ["x"]


def test_parameters_in_lists_and_dicts():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList(Tensor.ones(n) for n in (2, 3))
            self.named = nn.ParameterDict({"scale": nn.Parameter([2.0])})

    net = Net()
    assert list(net.state_dict()) == ["weights.0", "weights.1", "named.scale"]
    assert all(p.requires_grad for p in net.parameters()) and len(list(net.parameters())) == 3
    net.weights.append(Tensor.zeros(4))
    net.weights[0] = nn.Parameter([5.0])
    assert [w.shape for w in net.weights] == [(1,), (3,), (4,)] and net.weights[-1].requires_grad
    assert len(net.weights[1:]) == 2
    net.named["shift"] = Tensor([0.5])
    assert list(net.named) == ["scale", "shift"] and net.named["shift"].requires_grad
    assert "(0): float32[1]" in repr(net) and "(shift): float32[1]" in repr(net)
    with pytest.raises(ArgumentTypeError, match="tensors"):
        net.weights.append(nn.ReLU())
    copied = copy.deepcopy(net)
    assert list(copied.state_dict()) == list(net.state_dict())
    assert copied.weights[1] is not net.weights[1]


def test_names_of_parameter_containers_equal_pytorchs():
    torch = pytest.importorskip("torch")

    def build(nn, ones):
        net = nn.Module()
        net.a = nn.ParameterList([ones(2), ones(3)])
        net.b = nn.ParameterDict({"x": ones(4)})
        net.c = nn.ModuleDict({"y": nn.BatchNorm1d(5)})
        return net

    ours, theirs = build(nn, Tensor.ones), build(torch.nn, torch.ones)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: tuple(t.shape) for n, t in theirs.state_dict().items()
    }


def test_deep_copies_of_whole_networks_train_apart():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    net.append(net[4].__class__(2, 2))
    net[5].weight.requires_grad = False
    x = Tensor.randn(4, 1, 6, 6)
    net(x).sum().backward()
    twin = copy.deepcopy(net)
    for (name, a), (other, b) in zip(net.named_parameters(), twin.named_parameters()):
        assert name == other and a is not b and a.requires_grad == b.requires_grad
        assert (a.grad is None) == (b.grad is None)
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    before = {n: t.numpy() for n, t in net.state_dict().items()}
    optimizer = nn.optim.SGD(twin.parameters(), lr=0.5)
    twin(x * 2).square().sum().backward()
    optimizer.step()
    assert twin[1].num_batches_tracked.item() == 2
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])
    assert (twin[0].weight.numpy() != before["0.weight"]).any()
