"""Optimizers: the formulas in NumPy, PyTorch's numbers, settings that change, state that is saved."""

import math

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, dtypes, nn
from minigrad.errors import ArgumentError, ArgumentTypeError, StateDictError
from minigrad.nn import optim

STEPS = 10
CONFIGS = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    ("SGD", dict(lr=0.1, weight_decay=0.1, maximize=True)),
    ("Adam", dict()),
    ("Adam", dict(lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    ("Adam", dict(lr=0.1, betas=(0.0, 0.9), amsgrad=True, maximize=True)),
    ("AdamW", dict(lr=0.1)),
    ("AdamW", dict(lr=0.1, weight_decay=0.3, amsgrad=True)),
    ("RMSprop", dict()),
    ("RMSprop", dict(lr=0.1, alpha=0.8, momentum=0.9, weight_decay=0.1)),
    ("RMSprop", dict(lr=0.1, alpha=0.9, eps=1e-3, centered=True, maximize=True)),
]
IDS = [f"{name}-{','.join(settings) or 'defaults'}" for name, settings in CONFIGS]


def starts(rng):
    """Two parameters of different shapes."""
    return [rng.standard_normal(shape).astype("float32") for shape in ((3, 4), (5,))]


def gradients(rng):
    """A gradient per step and parameter; the second parameter has none on the first two steps and on one later."""
    for step in range(STEPS):
        yield [
            rng.standard_normal((3, 4)).astype("float32"),
            None if step in (0, 1, 5) else rng.standard_normal(5).astype("float32"),
        ]


def trajectory(name, settings):
    """The parameters after each step, from the optimizer under test."""
    rng = np.random.default_rng(0)
    params = [Tensor(start, requires_grad=True) for start in starts(rng)]
    optimizer = getattr(optim, name)(params, **settings)
    for grads in gradients(rng):
        for param, grad in zip(params, grads):
            param.grad = None if grad is None else Tensor(grad)
        optimizer.step()
        yield [param.numpy().copy() for param in params]


def sgd(p, g, s, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False):
    """One step of SGD in float64, state in the dict ``s``."""
    g = (-g if maximize else g) + weight_decay * p
    if momentum:
        s["b"] = momentum * s["b"] + (1 - dampening) * g if "b" in s else g
        g = g + momentum * s["b"] if nesterov else s["b"]
    return p - lr * g


def adam(p, g, s, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False, w=False):
    """One step of Adam (AdamW with ``w``) in float64, state in the dict ``s``."""
    g = -g if maximize else g
    g, p = (g, p * (1 - lr * weight_decay)) if w else (g + weight_decay * p, p)
    s["t"] = s.get("t", 0) + 1
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    s["largest"] = np.maximum(s.get("largest", 0), s["v"])
    v = s["largest"] if amsgrad else s["v"]
    return p - lr / (1 - betas[0] ** s["t"]) * s["m"] / (np.sqrt(v / (1 - betas[1] ** s["t"])) + eps)


def adamw(p, g, s, weight_decay=0.01, **settings):
    """One step of AdamW in float64."""
    return adam(p, g, s, weight_decay=weight_decay, w=True, **settings)


def rmsprop(p, g, s, lr=0.01, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0, centered=False, maximize=False):
    """One step of RMSprop in float64."""
    g = (-g if maximize else g) + weight_decay * p
    s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g * g
    s["m"] = alpha * s.get("m", 0) + (1 - alpha) * g
    step = g / (np.sqrt(s["v"] - s["m"] ** 2 * centered) + eps)
    s["b"] = momentum * s.get("b", 0) + step
    return p - lr * s["b"]


@pytest.mark.parametrize("name, settings", CONFIGS, ids=IDS)
def test_trajectory_follows_the_formula(name, settings):
    rng = np.random.default_rng(0)
    rule = {"SGD": sgd, "Adam": adam, "AdamW": adamw, "RMSprop": rmsprop}[name]
    values, states = [s.astype("float64") for s in starts(rng)], [{}, {}]
    for grads, ours in zip(gradients(rng), trajectory(name, settings)):
        for i, grad in enumerate(grads):
            if grad is not None:
                values[i] = rule(values[i], grad.astype("float64"), states[i], **settings)
            np.testing.assert_allclose(ours[i], values[i], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name, settings", CONFIGS, ids=IDS)
def test_trajectory_equals_pytorchs(name, settings):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = [torch.tensor(start, requires_grad=True) for start in starts(rng)]
    optimizer = getattr(torch.optim, name)(params, **settings)
    for grads, ours in zip(gradients(rng), trajectory(name, settings)):
        for param, grad in zip(params, grads):
            param.grad = None if grad is None else torch.tensor(grad)
        optimizer.step()
        for param, value in zip(params, ours):
            np.testing.assert_allclose(value, param.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_defaults_equal_pytorchs(name):
    torch = pytest.importorskip("torch")
    ours = getattr(optim, name)([Tensor([1.0], requires_grad=True)]).defaults
    theirs = getattr(torch.optim, name)([torch.ones(1, requires_grad=True)]).defaults
    assert ours == {key: theirs[key] for key in ours}


def test_groups_and_changing_settings_equal_pytorchs():
    """Weight decay on one group only, as is usual for biases, and schedules of the learning rate and the momentum."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    values = starts(rng)
    ours, theirs = ([make(v, requires_grad=True) for v in values] for make in (Tensor, torch.tensor))

    def groups(params):
        return [{"params": params[:1], "weight_decay": 0.1}, {"params": params[1:], "lr": 0.02, "momentum": 0.5}]

    pair = [
        (module.SGD(groups(params), lr=0.1, momentum=0.9, nesterov=True), module, params)
        for module, params in ((optim, ours), (torch.optim, theirs))
    ]
    schedules = [
        (
            module.lr_scheduler.OneCycleLR(optimizer, [0.2, 0.04], total_steps=STEPS + 1),
            module.lr_scheduler.MultiStepLR(optimizer, [6], gamma=0.5),
        )
        for optimizer, module, _ in pair
    ]
    for grads in gradients(rng):
        for (optimizer, module, params), both in zip(pair, schedules):
            for param, grad in zip(params, grads):
                param.grad = None if grad is None else (Tensor if module is optim else torch.tensor)(grad)
            optimizer.step()
            for schedule in both:
                schedule.step()
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=2e-5, atol=2e-6)


def train_step(optimizer, param, grad=1.0):
    param.grad = Tensor.full(param.shape, grad)
    optimizer.step()
    return param.tolist()


def test_assigning_a_setting_takes_effect_and_reads_back_exactly():
    param = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([param], lr=0.5)
    assert train_step(optimizer, param) == [0.5]
    optimizer.param_groups[0]["lr"] = 0.1
    assert optimizer.param_groups[0]["lr"] == 0.1
    np.testing.assert_allclose(train_step(optimizer, param), [0.4], rtol=1e-6)
    optimizer.param_groups[0].update(lr=0.25, weight_decay=0.0)
    np.testing.assert_allclose(train_step(optimizer, param), [0.15], rtol=1e-6)


def test_momentum_may_start_later():
    param = Tensor([0.0], requires_grad=True)
    optimizer = optim.SGD([param], lr=1.0)
    train_step(optimizer, param)
    optimizer.param_groups[0]["momentum"] = 0.5
    assert train_step(optimizer, param) == [-2.0]
    assert train_step(optimizer, param) == [-3.5]


@pytest.mark.parametrize("make", [
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5),
    lambda params: optim.Adam(params, lr=0.1),
    lambda params: optim.RMSprop(params, lr=0.1, momentum=0.9),
])  # fmt: skip
def test_captured_steps_follow_changed_settings(make):
    def run(wrap):
        param = Tensor([1.0, -2.0], requires_grad=True)
        optimizer = make([param])

        @wrap
        def step(x):
            optimizer.zero_grad()
            loss = (param * x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        group, values = optimizer.param_groups[0], []
        for i in range(8):
            if i == 3:
                group["lr"] = 0.02
            if i == 5:
                group["weight_decay"] = 0.1
            if i == 6 and "betas" in group:
                group["betas"] = (0.7, 0.9)
            if i == 6 and "momentum" in group:
                group["momentum"] = 0.5
            step(Tensor([1.0, 0.5]))
            values.append(param.tolist())
        return values

    np.testing.assert_allclose(run(minigrad.jit), run(lambda f: f), rtol=1e-6)


def test_groups_have_settings_of_their_own():
    a, b = (Tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    a.grad = b.grad = Tensor([1.0])
    optimizer.step()
    assert (a.tolist(), b.tolist()) == ([0.75], [0.5])
    c = Tensor([1.0], requires_grad=True)
    optimizer.add_param_group({"params": [c], "lr": 0.125})
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5, 0.125]


def test_zero_grad():
    param = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([param])
    param.grad = Tensor([3.0])
    optimizer.zero_grad(set_to_none=False)
    assert param.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert param.grad is None


def test_state_exists_from_construction():
    param = Tensor([[1.0, 2.0]], requires_grad=True)
    names = {name: set(make([param]).state[param]) for name, make in (
        ("SGD", optim.SGD), ("momentum", lambda p: optim.SGD(p, momentum=0.9)), ("Adam", optim.Adam),
        ("RMSprop", lambda p: optim.RMSprop(p, momentum=0.9, centered=True)),
    )}  # fmt: skip
    assert names == {
        "SGD": set(), "momentum": {"momentum_buffer"}, "Adam": {"step", "exp_avg", "exp_avg_sq"},
        "RMSprop": {"step", "square_avg", "momentum_buffer", "grad_avg"},
    }  # fmt: skip


@pytest.mark.parametrize("name, settings", CONFIGS, ids=IDS)
def test_a_run_goes_on_from_a_state_dict(name, settings):
    def build(values):
        params = [Tensor(v, requires_grad=True) for v in values]
        return params, getattr(optim, name)(params, **settings)

    rng = np.random.default_rng(0)
    params, optimizer = build(starts(rng))
    for i, grads in enumerate(gradients(rng)):
        if i == 4:
            saved = optimizer.state_dict()
            params, optimizer = build([p.numpy() for p in params])
            optimizer.load_state_dict(saved)
        for param, grad in zip(params, grads):
            param.grad = None if grad is None else Tensor(grad)
        optimizer.step()
    *_, expected = trajectory(name, settings)
    for param, value in zip(params, expected):
        np.testing.assert_array_equal(param.numpy(), value)


@pytest.mark.parametrize("name, settings", [CONFIGS[1], CONFIGS[5], CONFIGS[11]], ids=["SGD", "Adam", "RMSprop"])
def test_pytorchs_state_dict_loads(name, settings):
    torch = pytest.importorskip("torch")
    theirs = [torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)]
    other = getattr(torch.optim, name)(theirs, **settings)
    theirs[0].grad = torch.full((3,), 0.5)
    other.step()
    state = other.state_dict()
    state["state"] = {i: {n: None if t is None else t.numpy() for n, t in s.items()} for i, s in state["state"].items()}
    ours = [Tensor(p.detach().numpy(), requires_grad=True) for p in theirs]
    optimizer = getattr(optim, name)(ours, lr=7.0)
    if name == "SGD":
        optimizer.param_groups[0]["momentum"] = 0.1
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    for a, b in zip(ours, theirs):
        a.grad, b.grad = Tensor.full(a.shape, 0.25), torch.full(b.shape, 0.25)
    optimizer.step()
    other.step()
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("before, saved", [
    (lambda p: optim.SGD(p), lambda p: optim.SGD(p, lr=0.5, momentum=0.9, dampening=0.5)),
    (lambda p: optim.Adam(p), lambda p: optim.Adam(p, lr=0.5, amsgrad=True)),
])  # fmt: skip
def test_state_that_the_loaded_settings_bring_is_loaded_too(before, saved):
    a, b = (Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    first, second = saved([a]), before([b])
    for scale in (1.0, 0.5):
        train_step(first, a, scale)
    second.load_state_dict(first.state_dict())
    b.requires_grad_(False).assign(a)
    b.requires_grad_(True)
    assert train_step(first, a, 0.25) == train_step(second, b, 0.25)


def test_a_closure_computes_the_gradients():
    param = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([param], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (param * param).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    assert param.tolist() == [0.5]


def test_a_state_dict_that_does_not_fit_loads_nothing():
    a, b = Tensor([1.0], requires_grad=True), Tensor([1.0, 2.0], requires_grad=True)
    one, two = optim.Adam([a], lr=0.5), optim.Adam([b])
    with pytest.raises(StateDictError, match=r"0.exp_avg \(1,\) instead of \(2,\)"):
        two.load_state_dict(one.state_dict())
    assert two.param_groups[0]["lr"] == 1e-3
    bad = two.state_dict()
    bad["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ArgumentError, match="lr of at least 0"):
        two.load_state_dict(bad)
    with pytest.raises(StateDictError, match="groups of"):
        optim.Adam([a, b]).load_state_dict(one.state_dict())


def test_half_parameters_stay_half():
    param = nn.Parameter(Tensor([1.0, 2.0], dtype=dtypes.float16))
    optimizer = optim.Adam([param], lr=0.5)
    param.grad = Tensor([1.0, -1.0], dtype=dtypes.float16)
    optimizer.step()
    assert param.dtype is dtypes.float16
    np.testing.assert_allclose(param.numpy(), [0.5, 2.5], rtol=1e-2)


@pytest.mark.parametrize("make, message", [
    (lambda p: optim.SGD([]), "at least one parameter"),
    (lambda p: optim.SGD([p, p]), "twice"),
    (lambda p: optim.SGD([p], lr=-1), "lr of at least 0"),
    (lambda p: optim.SGD([p], lr=math.nan), "lr of at least 0"),
    (lambda p: optim.SGD([p], nesterov=True), "momentum"),
    (lambda p: optim.Adam([p], betas=(1.0, 0.5)), "betas"),
    (lambda p: optim.AdamW([p], weight_decay=-1), "weight_decay"),
    (lambda p: optim.RMSprop([p], alpha=1.5), "alpha"),
    (lambda p: optim.RMSprop([p], momentum=-0.5), "momentum of at least 0"),
])  # fmt: skip
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(ArgumentError, match=message):
        make(Tensor([1.0], requires_grad=True))


def test_a_bad_assignment_changes_nothing():
    optimizer = optim.SGD([Tensor([1.0], requires_grad=True)], lr=0.5)
    with pytest.raises(ArgumentError):
        optimizer.param_groups[0]["lr"] = -1.0
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_parameters_must_be_tensors():
    with pytest.raises(ArgumentTypeError, match=r"model.parameters\(\)"):
        optim.SGD(["w"])
    with pytest.raises(ArgumentTypeError, match=r"model.parameters\(\)"):
        optim.SGD(nn.Linear(1, 1).state_dict())


def test_repr_shows_the_settings():
    assert "lr: 0.5" in repr(optim.SGD([Tensor([1.0], requires_grad=True)], lr=0.5))
