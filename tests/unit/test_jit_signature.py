"""What makes a captured step be captured anew, and what a step may not do: it raises rather than guess."""

import dataclasses
import pickle
import threading
import types
import warnings

import numpy as np
import pytest
from steps import arrays, classes, net, same_with_jit, training

import minigrad
from minigrad import Tensor, jit, nn, no_grad
from minigrad.errors import CaptureError
from minigrad.nn import optim

ONE = Tensor([1.0])


def captures(function, *calls):
    """How often ``function`` is captured over calls with these argument tuples, and the results."""
    count = []

    @jit
    def step(*args):
        count.append(1)
        return function(*args)

    return [step(*args) for args in calls], len(count)


# What is part of the signature.


@pytest.mark.parametrize(
    "first, second",
    [
        (Tensor([1.0]), Tensor([1.0, 2.0])),
        (Tensor([1.0]), Tensor([[1.0]])),
        (Tensor([1.0]), Tensor([1])),
        (Tensor([1.0]), Tensor([1.0], requires_grad=True)),
        (Tensor([1.0]), np.ones(1, "f4")),
        (np.ones(1, "f4"), np.ones(1, "f8")),
        (Tensor([1.0]), [Tensor([1.0])]),
        ([ONE], (ONE,)),
        ({"a": ONE}, {"b": ONE}),
        (0.0, -0.0),
        (1, 1.0),
        (1, True),
        ("a", b"a"),
        (None, False),
        (slice(0, 1).start, 1),
    ],
)
def test_arguments_that_differ(first, second):
    _, count = captures(lambda x: None, (first,), (second,), (first,), (second,))
    assert count == 2


def test_arguments_that_do_not_differ():
    nan = float("nan")
    assert captures(lambda x, y: x * y, (ONE, nan), (Tensor([2.0]), float("nan")))[1] == 1
    assert captures(lambda x, y: x, (ONE, "ab"), (ONE, "".join(["a", "b"])))[1] == 1
    assert captures(lambda x: x, (ONE[None][0],), (Tensor([5.0]),))[1] == 1


def test_grad_mode_and_backend(twin):
    count = []

    @jit
    def step():
        count.append(1)
        return Tensor.ones(2) * 3

    for _ in range(2):
        step()
        with no_grad():
            step()
        with minigrad.backend(twin):
            assert step().device == twin
    assert len(count) == 3


# Attributes that the step read are compared.


@dataclasses.dataclass
class Config:
    scale: float = 1.0
    parts: tuple = (1, 2)


class Model(nn.Module):
    """Reads attributes of all kinds."""

    of_the_class = 1.0

    def __init__(self):
        super().__init__()
        self.number, self.text, self.nothing = 1.0, "a", None
        self.table, self.items, self.names = {"a": 1.0}, [1.0, [2.0]], {"a"}
        self.config, self.space = Config(), types.SimpleNamespace(scale=1.0)
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        x = x * self.number + len(self.text) + (self.nothing or 0) + self.table["a"]
        x = x * sum(self.items[:1]) + self.items[1][0] + len(self.names) + self.of_the_class
        x = x * self.config.scale + self.config.parts[0] + self.space.scale
        for child in self.children():
            x = child(x)
        return x * getattr(self, "absent", 1.0)


CHANGES = {
    "number": lambda m: setattr(m, "number", 2.0),
    "sign of zero": lambda m: setattr(m, "number", -0.0),
    "text": lambda m: setattr(m, "text", "abc"),
    "None": lambda m: setattr(m, "nothing", 4.0),
    "a dict in place": lambda m: m.table.update(a=5.0),
    "a list in place": lambda m: m.items.__setitem__(0, 3.0),
    "a list in a list": lambda m: m.items[1].__setitem__(0, 3.0),
    "a set in place": lambda m: m.names.add("b"),
    "a dataclass": lambda m: setattr(m.config, "scale", 2.0),
    "a namespace": lambda m: setattr(m.space, "scale", 2.0),
    "what was absent": lambda m: setattr(m, "absent", 2.0),
    "what the class had": lambda m: setattr(m, "of_the_class", 2.0),
    "a child": lambda m: setattr(m, "layer", nn.Linear(3, 3)),
    "one child more": lambda m: setattr(m, "other", nn.Linear(3, 3)),
    "a parameter": lambda m: setattr(m.layer, "weight", nn.Parameter(np.eye(3, dtype="f4"))),
    "a parameter taken away": lambda m: setattr(m.layer, "bias", None),
    "training mode": lambda m: m.eval(),
    "a hook": lambda m: m.register_forward_hook(lambda module, args, out: out * 3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_attributes_that_change(name):
    def scenario(wrap):
        model = Model()
        step = wrap(lambda x: model(x) * (2.0 if model.training else 3.0))
        out = [step(np.full(3, i, "f4")) for i in range(3)]
        CHANGES[name](model)
        return out, [step(np.full(3, i, "f4")) for i in range(3)]

    same_with_jit(scenario, captures=2)


def test_attributes_that_are_not_read_do_not_matter():
    model, count = Model(), []
    step = jit(lambda x: count.append(1) or model.layer(x))
    for i in range(3):
        step(Tensor.ones(3))
        model.number = float(i)
        model.anything = i
    assert len(count) == 1


def test_a_value_that_comes_back_finds_its_capture():
    def scenario(wrap):
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
        optimizer = optim.SGD(model.parameters(), 0.1)
        step = training(wrap, model, optimizer)
        out = []
        for i, (x, y) in enumerate(zip(arrays(6, 4, count=8), classes(6, count=8))):
            model.train(i % 2 == 0)
            out.append(step(x, y))
        return out, list(model.parameters())

    same_with_jit(scenario, captures=2)


def test_a_counter_in_python_is_right_if_slow():
    model = Model()

    @jit
    def step(x):
        model.number = model.number + 1
        return x * model.number

    assert [step(ONE).item() for _ in range(5)] == [2, 3, 4, 5, 6]


def test_attribute_reads_are_watched_only_while_capturing():
    classes_before = [cls.__dict__.get("__getattribute__") for cls in minigrad.capture.observed]
    model = Model()
    seen = []

    @jit
    def step(x):
        seen.append("__getattribute__" in nn.Module.__dict__)
        minigrad.capture.observed.append(Late)  # as when a module is imported inside a step
        return model(x)

    class Late:
        pass

    try:
        step(Tensor.ones(3))
        assert seen == [True]
        assert "__getattribute__" not in Late.__dict__
        assert [cls.__dict__.get("__getattribute__") for cls in minigrad.capture.observed[:-1]] == classes_before
    finally:
        minigrad.capture.observed.remove(Late)


def test_captures_are_bounded_with_a_warning():
    step = jit(lambda x, n: x * n)
    for n in range(16):
        step(ONE, n)
    step(ONE, 0)  # used again: 1 is the least recent now
    with pytest.warns(UserWarning, match="more than 16 captures of <lambda>; dropped the least recently used"):
        assert step(ONE, 16).item() == 16
    (captured,) = [cell.cell_contents for cell in step.__closure__ if isinstance(cell.cell_contents, list)]
    assert len(captured) == 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [step(ONE, n).item() for n in (0, 2, 16)] == [0, 2, 16]
    with pytest.warns(UserWarning):
        assert step(ONE, 1).item() == 1


# What a step may not do.

READS = {
    "item": lambda t: t.sum().item(),
    "numpy": lambda t: t.numpy(),
    "bool": lambda t: bool(t.sum() > 0),
    "if": lambda t: 1 if t.sum() > 0 else 2,
    "float": lambda t: float(t.sum()),
    "int": lambda t: int(t.sum()),
    "index": lambda t: [1, 2, 3][t.cast("int64")[0]],
    "range": lambda t: range(t.cast("int64")[0]),
    "tolist": lambda t: t.tolist(),
    "asarray": lambda t: np.asarray(t),
    "numpy function": lambda t: np.sin(t),
    "dlpack": lambda t: np.from_dlpack(t),
    "nonzero": lambda t: t.nonzero(),
    "mask": lambda t: t[t > 0],
    "masked_select": lambda t: t.masked_select(t > 0),
    "in": lambda t: 1.0 in t.unbind(0),
    "allclose": lambda t: t.allclose(t),
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("which", ["argument", "outside", "computed"])
@pytest.mark.parametrize("name", READS)
def test_reading_a_value_inside_raises(name, which):
    outside = Tensor([1.0, 2.0])

    @jit
    def step(x):
        READS[name]({"argument": x, "outside": outside, "computed": x * 2}[which])
        return x

    for _ in range(2):
        with pytest.raises(CaptureError, match="no reading of values inside a captured step"):
            step(Tensor([1.0, 2.0]))
    assert READS["item"](Tensor(3.0)) == 3.0  # and nothing is captured any more


def test_repr_inside_shows_no_value_and_changes_nothing():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1)
        shown = []

        @wrap
        def step(x, y):
            optimizer.zero_grad()
            loss = model(x).cross_entropy(y)
            loss.backward()
            shown.append((repr(loss), str(x), f"{model[0].weight}", repr(model[0].weight.grad)))
            optimizer.step()
            return loss

        out = [step(x, y) for x, y in zip(arrays(6, 4), classes(6))]
        if "captured" in shown[0][0]:
            assert shown == [tuple(f"<captured float32{shape}>" for shape in ([], [6, 4], [5, 4], [5, 4]))]
        return out, list(model.parameters())

    same_with_jit(scenario)


def test_shapes_and_dtypes_may_be_read():
    results, count = captures(
        lambda x: x.reshape(len(x), -1) / x.shape[0] + x.ndim + x.numel() + (x.dtype is minigrad.dtypes.float32),
        (Tensor.ones(4, 2),),
    )
    assert results[0].tolist() == [[11.25] * 2] * 4 and count == 1


FORBIDDEN = {
    "assignment to an argument": lambda x: x.assign(0.0),
    "in-place arithmetic on an argument": lambda x: x.__iadd__(1.0),
    "an item of an argument": lambda x: x.__setitem__(0, 1.0),
    "a view of an argument": lambda x: x[:1].assign(0.0),
    "an alias of an argument": lambda x: x.detach().assign(0.0),
    "an array made into a tensor": lambda x: Tensor(np.ones(2)),
    "arithmetic with an array": lambda x: x + np.ones(2, "f4"),
    "seeding": lambda x: minigrad.manual_seed(0),
    "a number returned": lambda x: 3,
    "a string in what is returned": lambda x: {"loss": x, "name": "a"},
    "a gradient in an argument": lambda x: (x.requires_grad_() * 2).sum().backward(),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden(name):
    x = Tensor([1.0, 2.0])
    step = jit(FORBIDDEN[name])
    for _ in range(2):
        with pytest.raises(CaptureError, match="^jit: expected"):
            step(x)
    assert x.tolist() == [1.0, 2.0] and x.grad is None and not x.requires_grad
    assert jit(lambda x: x + 1)(x).tolist() == [2.0, 3.0]


def test_an_argument_is_written_by_another_name():
    w, other = Tensor([1.0, 2.0]), Tensor([5.0, 5.0])

    @jit
    def step(x):
        w.assign(w * 2)
        return x + 1  # of the new version without jit, of the old one with it

    for argument in (w, w[::-1], w.detach()):
        with pytest.raises(CaptureError, match="do not pass what the step writes"):
            step(argument)
    assert w.tolist() == [1.0, 2.0] and step(other).tolist() == [6.0, 6.0]
    for argument in (w, w[::-1], w.detach()):
        with pytest.raises(CaptureError, match="do not pass what the step writes"):
            step(argument)
    assert w.tolist() == [2.0, 4.0] and step(w * 1).tolist() == [3.0, 5.0]


def test_the_gradient_of_an_argument_that_asks_for_it_raises():
    x, w = Tensor([1.0, 2.0], requires_grad=True), Tensor([1.0, 1.0], requires_grad=True)
    with pytest.raises(CaptureError, match=r"return loss\.gradient\(x\)"):
        jit(lambda x: (x * w).sum().backward())(x)


def test_arguments_that_cannot_be_compared_raise():
    with pytest.raises(CaptureError, match="tensors, arrays or hashable"):
        jit(lambda x: None)({1, 2})
    with pytest.raises(CaptureError, match="tensors, arrays or hashable"):
        jit(lambda x: None)([bytearray(3)])


def test_several_devices_raise(twin):
    here, there = Tensor([1.0]), Tensor([1.0], device=twin)
    with pytest.raises(CaptureError, match=r"one device.*\n.*\.to\(device\) before the step"):
        jit(lambda x: x.to(twin) * 2)(here)
    with pytest.raises(CaptureError, match="one device, got numpy and twin"):
        jit(lambda x: (x * 2, there * 2))(here)


def test_a_step_runs_on_the_device_of_its_tensors(twin):
    def scenario(wrap):
        w = Tensor([1.0, 2.0], device=twin)

        @wrap
        def step(x):
            w.assign(w + x)
            return w.sum()

        return [step(Tensor(x, device=twin)) for x in arrays(2)], w

    same_with_jit(scenario, captures=1)


def test_writes_of_other_threads_are_not_captured():
    w, total = Tensor(0.0), Tensor(0.0)
    inside, written = threading.Event(), threading.Event()

    def other():
        inside.wait(10)
        total.assign(total + 1)
        Tensor([1.0]).exp().item()  # realizes all that is pending
        total.assign(total + 1)
        written.set()

    @jit
    def step(x):
        w.assign(w + x)
        if not written.is_set():
            inside.set()
            assert written.wait(10)
        return w * 1

    thread = threading.Thread(target=other)
    thread.start()
    results = [step(Tensor(float(i))).item() for i in range(1, 4)]
    thread.join()
    assert results == [1, 3, 6] and w.item() == 6 and total.item() == 2
