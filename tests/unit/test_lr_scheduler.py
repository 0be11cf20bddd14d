"""Learning rate schedules: the formulas, PyTorch's numbers exactly, states that are saved, captured steps, errors."""

import json
import math

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, ArgumentTypeError
from minigrad.nn import lr_scheduler, optim

RATES = (0.5, 0.03)  # of two parameter groups
STEPS = 24


class Halving:
    """A function of the epoch with a state of its own."""

    def __init__(self, base):
        self.base = base

    def __call__(self, epoch):
        return self.base**epoch


MAKE = {
    "step": lambda s, o: s.StepLR(o, 5, gamma=0.3),
    "steps": lambda s, o: s.MultiStepLR(o, [3, 11, 11, 17]),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.83),
    "constant": lambda s, o: s.ConstantLR(o),
    "constant-4": lambda s, o: s.ConstantLR(o, factor=0.7, total_iters=4),
    "linear": lambda s, o: s.LinearLR(o),
    "linear-down": lambda s, o: s.LinearLR(o, 0.9, 0.2, total_iters=7),
    "polynomial": lambda s, o: s.PolynomialLR(o, total_iters=9, power=2.5),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, T_max=10),
    "cosine-floor": lambda s, o: s.CosineAnnealingLR(o, T_max=7, eta_min=0.01),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5),
    "restarts-longer": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, T_mult=2, eta_min=0.01),
    "lambda": lambda s, o: s.LambdaLR(o, lambda epoch: 0.95**epoch),
    "lambdas": lambda s, o: s.LambdaLR(o, [lambda epoch: 1 / (1 + epoch), Halving(0.9)]),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.9 if epoch % 2 else 1.0),
    "one-cycle": lambda s, o: s.OneCycleLR(o, max_lr=2.0, total_steps=STEPS),
    "one-cycle-three": lambda s, o: s.OneCycleLR(o, [1.0, 0.1], epochs=4, steps_per_epoch=6, three_phase=True),
    "one-cycle-linear": lambda s, o: s.OneCycleLR(o, 1.0, 30, pct_start=0.4, anneal_strategy="linear", div_factor=10),
    "chained": lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=6), s.MultiStepLR(o, [9, 15])]),
    "chained-cosine": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.2, 5), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 8, 0.001)]
    ),
    "warm-up": lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.2, total_iters=5), s.CosineAnnealingLR(o, 15)], [5]),
    "sequence": lambda s, o: s.SequentialLR(
        o,
        [
            s.ConstantLR(o, 0.5, 3),
            s.PolynomialLR(o, 6),
            s.StepLR(o, 2, 0.5),
            s.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
        ],
        milestones=[4, 11, 17],
    ),
    "chain-first": lambda s, o: s.SequentialLR(
        o, [s.ChainedScheduler([s.LinearLR(o), s.StepLR(o, 3)]), s.MultiStepLR(o, [4], 0.5)], [7]
    ),
}


def made(kind="SGD", count=2, **settings):
    """An optimizer with a parameter and a learning rate for each group."""
    params = [Tensor([1.0, 2.0], requires_grad=True) for _ in range(count)]
    groups = [{"params": [p], "lr": rate} for p, rate in zip(params, RATES)]
    return getattr(optim, kind)(groups, **settings)


def theirs(kind="SGD", **settings):
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.ones(2, requires_grad=True)], "lr": rate} for rate in RATES]
    return getattr(torch.optim, kind)(groups, **settings), torch.optim.lr_scheduler


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def run(make, schedulers, optimizer, steps=STEPS):
    """The rates before the first step and after each, and what ``get_last_lr`` said."""
    scheduler = make(schedulers, optimizer)
    found = [rates(optimizer)]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(rates(optimizer))
        assert scheduler.get_last_lr() == found[-1]
    return found


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.filterwarnings("ignore:Detected call of")  # PyTorch takes the first step of a nested chain for a caller's
def test_rates_equal_pytorchs_exactly(name):
    other, schedulers = theirs(momentum=0.9)
    expected = run(MAKE[name], schedulers, other)
    assert run(MAKE[name], lr_scheduler, made(momentum=0.9)) == expected


@pytest.mark.parametrize("kind, keys", [("SGD", ["momentum"]), ("Adam", ["betas"])])
@pytest.mark.parametrize("name", ["one-cycle", "one-cycle-three", "one-cycle-linear"])
def test_momentum_cycles_as_in_pytorch(name, kind, keys):
    settings = dict(momentum=0.9) if kind == "SGD" else {}
    ours, (other, schedulers) = made(kind, **settings), theirs(kind, **settings)
    pair = [(MAKE[name](lr_scheduler, ours), ours), (MAKE[name](schedulers, other), other)]
    for _ in range(STEPS):
        found = [[[group[key] for key in ("lr", *keys)] for group in o.param_groups] for _, o in pair]
        assert found[0] == found[1]
        for scheduler, optimizer in pair:
            optimizer.step()
            scheduler.step()


def closed(name, epoch):
    """The share of the initial rate, from the definitions."""
    return {
        "step": lambda: 0.3 ** (epoch // 5),
        "steps": lambda: 0.1 ** sum(epoch >= m for m in (3, 11, 11, 17)),
        "exponential": lambda: 0.83**epoch,
        "constant": lambda: 1 if epoch >= 5 else 1 / 3,
        "linear": lambda: 1 / 3 + 2 / 3 * min(epoch, 5) / 5,
        "polynomial": lambda: (1 - min(epoch, 9) / 9) ** 2.5,
        "cosine": lambda: (1 + math.cos(math.pi * epoch / 10)) / 2,
        "restarts": lambda: (1 + math.cos(math.pi * (epoch % 5) / 5)) / 2,
        "lambda": lambda: 0.95**epoch,
        "multiplicative": lambda: 0.9 ** ((epoch + 1) // 2),
        "chained": lambda: (0.1 + 0.9 * min(epoch, 6) / 6) * 0.1 ** ((epoch >= 9) + (epoch >= 15)),
        "warm-up": lambda: (
            0.2 + 0.8 * epoch / 5 if epoch < 5 else (1 + math.cos(math.pi * (epoch - 5) / 15)) / 2
        ),
    }[name]()  # fmt: skip


CLOSED = "step steps exponential constant linear polynomial cosine restarts lambda multiplicative chained warm-up"


@pytest.mark.parametrize("name", CLOSED.split())
def test_rates_follow_the_definition(name):
    for epoch, found in enumerate(run(MAKE[name], lr_scheduler, made())):
        # Each step rounds its product: 24 roundings of 2^-53, and around a zero of the cosine as much of the rate.
        np.testing.assert_allclose(found, [r * closed(name, epoch) for r in RATES], rtol=1e-13, atol=1e-15)


def test_one_cycle_peaks_where_it_says():
    found = [r[0] for r in run(MAKE["one-cycle"], lr_scheduler, made(momentum=0.9), STEPS - 1)]
    np.testing.assert_allclose([found[0], found[-1]], [2.0 / 25, 2.0 / 25 / 1e4], rtol=1e-12)
    assert max(found) == pytest.approx(2.0, rel=0.01) and np.argmax(found) == round(0.3 * STEPS - 1)


@pytest.mark.parametrize("name", MAKE)
def test_a_schedule_goes_on_from_its_state(name):
    expected = run(MAKE[name], lr_scheduler, made(momentum=0.9))
    optimizer = made(momentum=0.9)
    scheduler = MAKE[name](lr_scheduler, optimizer)
    for _ in range(8):
        scheduler.step()
    states = json.loads(json.dumps([scheduler.state_dict(), rates(optimizer)]))  # plain numbers, strings, lists, dicts
    other = made(momentum=0.9)
    resumed = MAKE[name](lr_scheduler, other)
    resumed.load_state_dict(states[0])
    for group, rate in zip(other.param_groups, states[1]):
        group["lr"] = rate
    assert resumed.get_last_lr() == expected[8]
    for step in range(9, STEPS + 1):
        resumed.step()
        assert rates(other) == expected[step]


@pytest.mark.parametrize("name", ["step", "steps", "cosine", "one-cycle", "restarts-longer", "warm-up", "lambdas"])
def test_pytorchs_state_loads(name):
    other, schedulers = theirs(momentum=0.9)
    theirs_scheduler = MAKE[name](schedulers, other)
    for _ in range(8):
        other.step()
        theirs_scheduler.step()
    optimizer = made(momentum=0.9)
    scheduler = MAKE[name](lr_scheduler, optimizer)
    scheduler.load_state_dict(theirs_scheduler.state_dict())
    for group, rate in zip(optimizer.param_groups, rates(other)):
        group["lr"] = rate
    for _ in range(8):
        theirs_scheduler.step()
        scheduler.step()
        assert rates(optimizer) == rates(other)


@pytest.mark.parametrize("name", ["exponential", "step", "cosine", "linear", "polynomial", "one-cycle"])
def test_resuming_by_the_last_epoch_equals_pytorchs(name):
    kinds = {
        "exponential": lambda s, o, **k: s.ExponentialLR(o, 0.83, **k),
        "step": lambda s, o, **k: s.StepLR(o, 5, **k),
        "cosine": lambda s, o, **k: s.CosineAnnealingLR(o, 10, **k),
        "linear": lambda s, o, **k: s.LinearLR(o, total_iters=12, **k),
        "polynomial": lambda s, o, **k: s.PolynomialLR(o, 12, **k),
        "one-cycle": lambda s, o, **k: s.OneCycleLR(o, 2.0, 24, cycle_momentum=False, **k),
    }
    found = []
    for optimizer, schedulers in [(made(), lr_scheduler), theirs()]:
        first = kinds[name](schedulers, optimizer)
        for _ in range(6):
            optimizer.step()
            first.step()
        found.append(run(lambda s, o: kinds[name](s, o, last_epoch=6), schedulers, optimizer, 8))
    assert found[0] == found[1]


def test_restarts_at_fractions_of_an_epoch_equal_pytorchs():
    other, schedulers = theirs()
    optimizer = made()
    for make in (MAKE["restarts"], MAKE["restarts-longer"]):
        pair = make(lr_scheduler, optimizer), make(schedulers, other)
        for batch in range(60):
            other.step()
            for scheduler in pair:
                scheduler.step(batch / 4)
            assert rates(optimizer) == rates(other)


@pytest.mark.parametrize("settings", [
    dict(patience=2),
    dict(patience=0, factor=0.5, min_lr=[0.1, 0.001]),
    dict(mode="max", patience=1, threshold=0.05),
    dict(mode="max", patience=1, threshold_mode="abs", threshold=0.02, cooldown=2),
    dict(patience=1, threshold_mode="abs", threshold=0.02, min_lr=0.02),
    dict(patience=0, eps=0.01),
], ids=str)  # fmt: skip
def test_plateaus_equal_pytorchs(settings):
    other, schedulers = theirs()
    optimizer = made()
    ours, expected = (s.ReduceLROnPlateau(o, **settings) for s, o in ((lr_scheduler, optimizer), (schedulers, other)))
    measures = np.random.default_rng(0).uniform(0.4, 0.6, 40) * np.linspace(1, 0.8, 40)
    measures[7] = math.nan
    for measure in measures:
        ours.step(Tensor(measure))
        expected.step(measure)
        assert rates(optimizer) == rates(other) == ours.get_last_lr()
        assert (ours.best, ours.num_bad_epochs, ours.last_epoch) == (
            expected.best, expected.num_bad_epochs, expected.last_epoch
        )  # fmt: skip
    restored = lr_scheduler.ReduceLROnPlateau(optimizer)
    restored.load_state_dict(json.loads(json.dumps(ours.state_dict())))
    assert vars(restored) == vars(ours)


def test_a_plateau_by_hand():
    optimizer = made(count=1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
    found = []
    for measure in (1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8):
        scheduler.step(measure)
        found += rates(optimizer)
    assert found == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]


def test_schedules_follow_groups_that_come_later():
    optimizer = made(count=1)
    step, plateau = lr_scheduler.StepLR(optimizer, 1), lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 5)
    optimizer.add_param_group({"params": [Tensor([1.0], requires_grad=True)], "lr": 1.0})
    step.step()
    assert rates(optimizer) == [0.05, 0.1]
    plateau.step(1.0)
    plateau.step(1.0)
    np.testing.assert_allclose(rates(optimizer), [0.005, 0.01])
    with pytest.raises(ArgumentError, match="after the last add_param_group"):
        lr_scheduler.LambdaLR(made(), [lambda epoch: 1.0] * 2)._set([0.1])
    assert cosine.last_epoch == 0


@pytest.mark.parametrize("make", [
    lambda o: lr_scheduler.ExponentialLR(o, 0.5),
    lambda o: lr_scheduler.OneCycleLR(o, 0.4, total_steps=8),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 5)], [3]
    ),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_captured_steps_follow_without_a_new_capture(make, kind):
    def train(wrap):
        param = Tensor([1.0, -2.0], requires_grad=True)
        optimizer = getattr(optim, kind)([param], lr=0.1, **(dict(momentum=0.9) if kind == "SGD" else {}))
        scheduler, runs, values = make(optimizer), [], []

        @wrap
        def step(x):
            runs.append(1)
            optimizer.zero_grad()
            loss = (param * x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(7):
            step(Tensor([1.0, 0.5]))
            values.append(param.tolist())
            scheduler.step()
        return values, len(runs)

    (captured, runs), (plain, _) = train(minigrad.jit), train(lambda f: f)
    assert runs == 1
    np.testing.assert_allclose(captured, plain, rtol=1e-6)


def test_a_scheduler_inside_a_captured_step_is_not_frozen():
    param = Tensor([0.0], requires_grad=True)
    optimizer = optim.SGD([param], lr=1.0)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)

    @minigrad.jit
    def step():
        optimizer.zero_grad()
        param.sum().backward()
        optimizer.step()
        scheduler.step()

    for _ in range(3):
        step()
    assert param.tolist() == [-1.75]


X = [Tensor([1.0], requires_grad=True)]


@pytest.mark.parametrize("make, error, message", [
    (lambda o: lr_scheduler.StepLR(nn.Linear(1, 1), 2), ArgumentTypeError, "an optimizer"),
    (lambda o: lr_scheduler.StepLR(o, 0), ArgumentError, "step_size"),
    (lambda o: lr_scheduler.StepLR(o, 2, last_epoch=3), ArgumentError, "initial_lr in every parameter group"),
    (lambda o: lr_scheduler.ConstantLR(o, factor=2.0), ValueError, "factor in"),
    (lambda o: lr_scheduler.LinearLR(o, start_factor=0.0), ValueError, "start_factor"),
    (lambda o: lr_scheduler.LinearLR(o, end_factor=1.5), ValueError, "end_factor"),
    (lambda o: lr_scheduler.LinearLR(o, total_iters=0), ArgumentError, "total_iters"),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2.5), ValueError, "T_0 as an integer"),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2).step(-1), ValueError, "epoch of at least 0"),
    (lambda o: lr_scheduler.LambdaLR(o, [abs]), ValueError, "one for each group"),
    (lambda o: lr_scheduler.LambdaLR(o, 0.5), ArgumentTypeError, "functions of the epoch"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0), ValueError, "total_steps, or epochs"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 10, pct_start=1.5), ValueError, "pct_start"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 10, anneal_strategy="sin"), ValueError, "anneal_strategy"),
    (lambda o: lr_scheduler.OneCycleLR(o, [1.0], 10), ValueError, "one for each group"),
    (lambda o: [s := lr_scheduler.OneCycleLR(o, 1.0, 2)] + [s.step() for _ in range(3)], ValueError, "at most"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), ValueError, "factor below 1"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="least"), ValueError, "mode 'min' or 'max'"),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [3]), ValueError, "one scheduler more"),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.ReduceLROnPlateau(o)], []), ValueError, "no measure"),
    (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(made(), 1)], o), ValueError, "this optimizer"),
    (lambda o: lr_scheduler.ChainedScheduler([]), ValueError, "at least one"),
    (lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.StepLR(o, 1), lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 1)])], [3]
    ), ArgumentError, "put their parts into this one"),
    (lambda o: lr_scheduler.LRScheduler(o), NotImplementedError, "get_lr"),
])  # fmt: skip
def test_wrong_arguments_raise(make, error, message):
    with pytest.raises(error, match=message):
        make(made())
