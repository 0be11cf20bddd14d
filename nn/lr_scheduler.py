"""Learning rate schedules, with PyTorch's arguments, defaults, attributes and numbers.

A scheduler's ``step`` is called after each epoch (or each batch: the unit is the caller's) and outside of captured
steps, which follow the new rate all the same. Most schedules only multiply the present rate, so that several of them
act together on one optimizer:

>>> from minigrad import nn
>>> optimizer = nn.optim.SGD(nn.Linear(2, 3).parameters(), lr=1.0)
>>> warm_up = LinearLR(optimizer, start_factor=0.5, total_iters=2)
>>> decay = MultiStepLR(optimizer, milestones=[3], gamma=0.1)
>>> for epoch in range(4):
...     print(optimizer.param_groups[0]["lr"])
...     warm_up.step()
...     decay.step()
0.5
0.75
1.0
0.1
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from types import FunctionType
from typing import Any, SupportsFloat, TypedDict

from minigrad import capture
from minigrad.errors import ArgumentError, ArgumentTypeError
from minigrad.nn.optim.optimizer import Optimizer, ParamGroup

Rule = Callable[[int], float]


class LRScheduler:
    """Base of schedulers. A subclass defines :meth:`get_lr`.

    Args:
        optimizer: whose learning rates are set; what they are now becomes ``initial_lr`` of each parameter group,
            unless an earlier scheduler has noted it.
        last_epoch: the number of steps made before; -1 starts a new schedule. Other values are for optimizers that
            were loaded, whose groups have an ``initial_lr``.

    Attributes:
        last_epoch: the number of steps made so far.
        base_lrs: ``initial_lr`` of each group.

    Raises:
        ArgumentTypeError: if ``optimizer`` is none.
        ArgumentError: if ``last_epoch`` is given and a group has no ``initial_lr``.
    """

    optimizer: Optimizer
    base_lrs: list[float]
    last_epoch: int
    _last_lr: list[float]
    _is_initial = False  # whether this is the step that the constructor makes

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = _checked(self, optimizer)
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                hint = "load the optimizer's state first; last_epoch=-1 starts anew"
                raise ArgumentError.of(type(self).__name__, "initial_lr in every parameter group", "none", hint)
        self.base_lrs = self._values("initial_lr")
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        self.step()
        del self._is_initial

    def _values(self, key: str) -> list[Any]:
        return [group[key] for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float]:
        """The learning rate of each group for ``last_epoch``, given those of the epoch before."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr")

    def _get_closed_form_lr(self) -> list[float]:
        """The same from ``base_lrs`` alone, where there is such a form."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The learning rates that the last step set."""
        return self._last_lr

    def step(self) -> None:
        """Go on to the next epoch."""
        self._step_count += 1
        self._update_lr()

    def _update_lr(self, epoch: int | None = None) -> None:
        """Set the rates of the next epoch, or of ``epoch``."""
        if epoch is None:
            self.last_epoch += 1
            self._set(self.get_lr())
        else:
            self.last_epoch = epoch
            self._set(self._get_closed_form_lr())

    def _set(self, rates: list[float]) -> None:
        groups = self.optimizer.param_groups
        if len(rates) != len(groups):
            hint = "make schedulers after the last add_param_group"
            expected = f"{len(rates)} parameter groups, as at first"
            raise ArgumentError.of(type(self).__name__, expected, len(groups), hint)
        for group, rate in zip(groups, rates):
            group["lr"] = rate
        self._last_lr = self._values("lr")

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer: numbers, strings, and lists and dicts of them."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave. The learning rates themselves are part of the optimizer's state."""
        vars(self).update(state_dict)


capture.observed.append(LRScheduler)  # a step that calls a scheduler is captured anew each time, not frozen


class _Product(LRScheduler):
    """A schedule that multiplies the rate of the epoch before, so that several can act on one optimizer."""

    def _ratio(self) -> float:
        """The rate of ``last_epoch`` as a share of that of the epoch before."""
        raise NotImplementedError

    def _share(self) -> float:
        """The rate of ``last_epoch`` as a share of the initial one."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        """The present rates times the ratio of this epoch."""
        ratio = self._ratio()
        return [rate * ratio for rate in self._values("lr")]

    def _get_closed_form_lr(self) -> list[float]:
        share = self._share()
        return [rate * share for rate in self.base_lrs]


class StepLR(_Product):
    """Multiplies by ``gamma`` every ``step_size`` epochs.

    Args:
        optimizer: whose learning rates are set.
        step_size: epochs between.
        gamma: the factor.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = _positive(self, "step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def _ratio(self) -> float:
        return self.gamma if self.last_epoch > 0 and self.last_epoch % self.step_size == 0 else 1.0

    def _share(self) -> float:
        return float(self.gamma ** (self.last_epoch // self.step_size))


class MultiStepLR(_Product):
    """Multiplies by ``gamma`` at each of ``milestones``.

    Args:
        optimizer: whose learning rates are set.
        milestones: epochs; one that comes twice counts twice.
        gamma: the factor.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = sorted(map(int, milestones)), gamma
        super().__init__(optimizer, last_epoch)

    def _ratio(self) -> float:
        return float(self.gamma ** self.milestones.count(self.last_epoch))

    def _share(self) -> float:
        return float(self.gamma ** bisect_right(self.milestones, self.last_epoch))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; PyTorch has milestones as a Counter."""
        super().load_state_dict({**state_dict, "milestones": sorted(Counter(state_dict["milestones"]).elements())})


class ConstantLR(_Product):
    """Multiplies by ``factor`` during the first ``total_iters`` epochs.

    Args:
        optimizer: whose learning rates are set.
        factor: in (0, 1].
        total_iters: how many epochs.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0 < factor <= 1:
            raise ArgumentError.of("ConstantLR", "factor in (0, 1]", factor)
        self.factor, self.total_iters = factor, _positive(self, "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def _ratio(self) -> float:
        if self.last_epoch == 0:
            return self.factor
        return 1.0 / self.factor if self.last_epoch == self.total_iters else 1.0

    def _share(self) -> float:
        return 1.0 if self.last_epoch >= self.total_iters else self.factor


class LinearLR(_Product):
    """Multiplies by a factor that changes linearly during the first ``total_iters`` epochs: a warm-up.

    Args:
        optimizer: whose learning rates are set.
        start_factor: the factor at first, in (0, 1].
        end_factor: the factor at last, in [0, 1].
        total_iters: how many epochs lie between.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not (0 < start_factor <= 1 and 0 <= end_factor <= 1):
            got = f"{start_factor} and {end_factor}"
            raise ArgumentError.of("LinearLR", "start_factor in (0, 1] and end_factor in [0, 1]", got)
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = _positive(self, "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def _ratio(self) -> float:
        if self.last_epoch == 0:
            return self.start_factor
        if self._is_initial or self.last_epoch > self.total_iters:
            return 1.0
        rise = self.end_factor - self.start_factor
        return float(1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise))

    def _share(self) -> float:
        done = min(self.total_iters, self.last_epoch)
        return float(self.start_factor + (self.end_factor - self.start_factor) * done / self.total_iters)


class ExponentialLR(_Product):
    """Multiplies by ``gamma`` every epoch.

    Args:
        optimizer: whose learning rates are set.
        gamma: the factor.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _ratio(self) -> float:
        return 1.0 if self._is_initial else self.gamma

    def _share(self) -> float:
        return float(self.gamma**self.last_epoch)


class PolynomialLR(_Product):
    """Multiplies by (1 - epoch / ``total_iters``) to the power of ``power``, and by 0 in the end.

    Args:
        optimizer: whose learning rates are set.
        total_iters: how many epochs it takes.
        power: the exponent; 1 is a line.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters, self.power = _positive(self, "total_iters", total_iters), power
        super().__init__(optimizer, last_epoch)

    def _ratio(self) -> float:
        if self._is_initial or self.last_epoch > self.total_iters:
            return 1.0
        left, before = (1.0 - epoch / self.total_iters for epoch in (self.last_epoch, self.last_epoch - 1))
        return float((left / before) ** self.power)

    def _share(self) -> float:
        return float((1.0 - min(self.total_iters, self.last_epoch) / self.total_iters) ** self.power)


class _Ruled(LRScheduler):
    """A schedule whose factor is a function of the epoch, one for all groups or one for each."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Rule | Sequence[Rule], last_epoch: int = -1) -> None:
        groups = len(_checked(self, optimizer).param_groups)
        self.lr_lambdas: list[Rule] = list(lr_lambda) if isinstance(lr_lambda, Sequence) else [lr_lambda] * groups
        name = type(self).__name__
        if len(self.lr_lambdas) != groups:
            raise ArgumentError.of(name, f"one function, or {groups}: one for each group", len(self.lr_lambdas))
        if not all(map(callable, self.lr_lambdas)):
            raise ArgumentTypeError.of(name, "functions of the epoch", self.lr_lambdas)
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer; of functions nothing, of callable objects their attributes."""
        rules = [None if isinstance(rule, FunctionType) else dict(vars(rule)) for rule in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": rules}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "lr_lambdas"})
        for rule, attributes in zip(self.lr_lambdas, state_dict["lr_lambdas"]):
            if attributes is not None:
                vars(rule).update(attributes)


class LambdaLR(_Ruled):
    """The initial rate times a function of the epoch.

    Args:
        optimizer: whose learning rates are set.
        lr_lambda: the function, or a list of one for each group.
        last_epoch: see :class:`LRScheduler`.

    >>> from minigrad import nn
    >>> optimizer = nn.optim.SGD(nn.Linear(2, 3).parameters(), lr=1.0)
    >>> scheduler = LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def get_lr(self) -> list[float]:
        """Initial rates times the factors of this epoch."""
        return [rate * rule(self.last_epoch) for rule, rate in zip(self.lr_lambdas, self.base_lrs)]


class MultiplicativeLR(_Ruled):
    """The rate of the epoch before times a function of the epoch.

    Args:
        optimizer: whose learning rates are set.
        lr_lambda: the function, or a list of one for each group.
        last_epoch: see :class:`LRScheduler`.
    """

    def get_lr(self) -> list[float]:
        """Present rates times the factors of this epoch."""
        rates = self._values("lr")
        return rates if self._is_initial else [r * rule(self.last_epoch) for rule, r in zip(self.lr_lambdas, rates)]


class CosineAnnealingLR(LRScheduler):
    r"""Half a cosine from the initial rate down to ``eta_min`` (Loshchilov and Hutter, 2017), and up again.

    :math:`\eta_t = \eta_{min} + (\eta_0 - \eta_{min}) (1 + \cos(\pi t / T_{max})) / 2`.

    Args:
        optimizer: whose learning rates are set.
        T_max: epochs until the least rate.
        eta_min: the least rate.
        last_epoch: see :class:`LRScheduler`.

    >>> from minigrad import nn
    >>> optimizer = nn.optim.SGD(nn.Linear(2, 3).parameters(), lr=1.0)
    >>> scheduler = CosineAnnealingLR(optimizer, T_max=2)
    >>> scheduler.step()
    >>> round(scheduler.get_last_lr()[0], 12)
    0.5
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = _positive(self, "T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """From the rates of the epoch before, so that other schedules can act as well."""
        rates = self._values("lr")
        if self._is_initial:
            return rates
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # the rate before is the least: no ratio to it
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [rate + (base - self.eta_min) * rise for rate, base in zip(rates, self.base_lrs)]
        now, before = (1 + math.cos(math.pi * epoch / self.T_max) for epoch in (self.last_epoch, self.last_epoch - 1))
        return [now / before * (rate - self.eta_min) + self.eta_min for rate in rates]

    def _get_closed_form_lr(self) -> list[float]:
        height = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the initial rate down to ``eta_min``, again and again (Loshchilov and Hutter, 2017).

    Args:
        optimizer: whose learning rates are set.
        T_0: epochs until the first restart.
        T_mult: each period is so many times as long as the one before.
        eta_min: the least rate.
        last_epoch: see :class:`LRScheduler`.

    Attributes:
        T_i: epochs of the present period.
        T_cur: epochs since the last restart.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0, self.T_mult = _positive(self, "T_0", T_0, True), _positive(self, "T_mult", T_mult, True)
        self.T_i, self.T_cur, self.eta_min = self.T_0, float(last_epoch), eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates at ``T_cur`` of a period of ``T_i``."""
        height = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to ``epoch``, which may be a fraction: ``step(epoch + batch / batches)``."""
        self._step_count += 1
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch, self.T_cur = self.last_epoch + 1, self.T_cur + 1
            if self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur % self.T_i, self.T_i * self.T_mult
        elif epoch < 0:
            raise ArgumentError.of("CosineAnnealingWarmRestarts.step", "an epoch of at least 0", epoch)
        elif epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:  # after n periods, T_0 * (T_mult^n - 1) / (T_mult - 1) epochs are over
            periods = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**periods - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**periods
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())


class _Phase(TypedDict):
    """From which keys of a parameter group to which a phase of :class:`OneCycleLR` goes, and its last step."""

    end_step: float
    start_lr: str
    end_lr: str
    start_momentum: str
    end_momentum: str


class OneCycleLR(LRScheduler):
    """Up to ``max_lr`` and down again to far below the start, the momentum the other way round (Smith, 2018).

    ``step`` is called after every batch.

    Args:
        optimizer: whose learning rates are set.
        max_lr: the greatest rate, one for all groups or a list of one for each.
        total_steps: batches of the whole cycle; or else the next two.
        epochs: as said.
        steps_per_epoch: batches of an epoch.
        pct_start: the share of the steps in which the rate grows.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: whether the momentum (Adam's first beta) changes too.
        base_momentum: the least momentum, one or a list.
        max_momentum: the greatest momentum, with which the cycle begins and ends, one or a list.
        div_factor: the rate begins at ``max_lr / div_factor``.
        final_div_factor: it ends at ``max_lr / div_factor / final_div_factor``.
        three_phase: go down to the first rate in as many steps as up, then on to the last.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: if an argument makes no sense, or ``step`` is called more than ``total_steps`` times.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        groups = _checked(self, optimizer).param_groups
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError.of("OneCycleLR", "total_steps, or epochs and steps_per_epoch", "neither")
            total_steps = epochs * _positive(self, "steps_per_epoch", steps_per_epoch, True)
        if not 0 <= pct_start <= 1:
            raise ArgumentError.of("OneCycleLR", "pct_start in [0, 1]", pct_start)
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError.of("OneCycleLR", "anneal_strategy of 'cos' or 'linear'", repr(anneal_strategy))
        self.total_steps = _positive(self, "total_steps", total_steps, True)
        self._schedule_phases, self._anneal_func_type = _phases(pct_start, total_steps, three_phase), anneal_strategy
        self.cycle_momentum, self.use_beta1 = cycle_momentum, "betas" in optimizer.defaults
        if cycle_momentum and not self.use_beta1 and "momentum" not in optimizer.defaults:
            raise ArgumentError.of("OneCycleLR", "an optimizer with momentum or betas", type(optimizer).__name__)
        if last_epoch == -1:
            greatest = _per_group("max_lr", max_lr, len(groups))
            momenta = [_per_group("momentum", m, len(groups)) for m in (max_momentum, base_momentum)]
            for group, rate, high, low in zip(groups, greatest, *momenta):
                first = rate / div_factor
                group.assign({"initial_lr": first, "max_lr": rate, "min_lr": first / final_div_factor})
                if cycle_momentum:
                    group.assign({"max_momentum": high, "base_momentum": low})
                    self._set_momentum(group, high)
        super().__init__(optimizer, last_epoch)

    def _set_momentum(self, group: ParamGroup, momentum: float) -> None:
        if self.use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum

    def _between(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
        return (end - start) * share + start

    def get_lr(self) -> list[float]:
        """The rates of this step; the momenta are set on the way."""
        step = self.last_epoch
        if step > self.total_steps:
            raise ArgumentError.of("OneCycleLR.step", f"at most total_steps = {self.total_steps} calls", step)
        start, phases = 0.0, self._schedule_phases
        while step > phases[0]["end_step"] and len(phases) > 1:
            start, phases = phases[0]["end_step"], phases[1:]
        phase = phases[0]
        share = (step - start) / (phase["end_step"] - start)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                momenta = group[phase["start_momentum"]], group[phase["end_momentum"]]
                self._set_momentum(group, self._between(*momenta, share))
        return rates


def _phases(pct_start: float, total: int, three: bool) -> list[_Phase]:
    def phase(end_step: float, start: str, end: str, high_first: bool, high_last: bool) -> _Phase:
        momenta = ("base_momentum", "max_momentum")
        return {
            "end_step": end_step, "start_lr": start, "end_lr": end,
            "start_momentum": momenta[high_first], "end_momentum": momenta[high_last],
        }  # fmt: skip

    peak = float(pct_start * total) - 1
    up = phase(peak, "initial_lr", "max_lr", True, False)
    if not three:
        return [up, phase(total - 1, "max_lr", "min_lr", False, True)]
    down = phase(float(2 * pct_start * total) - 2, "max_lr", "initial_lr", False, True)
    return [up, down, phase(total - 1, "initial_lr", "min_lr", True, True)]


class ReduceLROnPlateau(LRScheduler):
    """Multiplies by ``factor`` when a measure has stopped improving. ``step`` takes the measure.

    Args:
        optimizer: whose learning rates are set.
        mode: whether less is better (``"min"``) or more (``"max"``).
        factor: below 1.
        patience: how many epochs in a row without improvement are let pass.
        threshold: how much better counts as improvement.
        threshold_mode: whether that is a share (``"rel"``) or a difference (``"abs"``).
        cooldown: epochs to wait after a change before counting again.
        min_lr: the least rate, one for all groups or a list of one for each.
        eps: smaller changes are not made.

    Attributes:
        best: the best measure so far.
        num_bad_epochs: epochs in a row without improvement.

    >>> from minigrad import nn
    >>> optimizer = nn.optim.SGD(nn.Linear(2, 3).parameters(), lr=1.0)
    >>> scheduler = ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (0.5, 0.4, 0.4, 0.4):
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.1]
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | Sequence[float] = 0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        self.optimizer = _checked(self, optimizer)
        if factor >= 1:
            raise ArgumentError.of("ReduceLROnPlateau", "factor below 1", factor)
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            got = f"{mode!r}, {threshold_mode!r}"
            raise ArgumentError.of("ReduceLROnPlateau", "mode 'min' or 'max', threshold_mode 'rel' or 'abs'", got)
        self.mode, self.factor, self.patience, self.eps = mode, factor, patience, eps
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.default_min_lr = min_lr if isinstance(min_lr, (int, float)) else None
        self.min_lrs = _per_group("min_lr", min_lr, len(optimizer.param_groups))
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.cooldown_counter = self.num_bad_epochs = 0
        self._last_lr = self._values("lr")

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """Note the measure of another epoch: a number, or a tensor, which is read."""
        current = float(metrics)
        self.last_epoch += 1
        self.num_bad_epochs += 1
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = self._values("lr")
        if self.default_min_lr is not None:
            self.min_lrs = [self.default_min_lr] * len(rates)  # also of groups that were added since
        if self.num_bad_epochs > self.patience:
            lower = [max(rate * self.factor, least) for rate, least in zip(rates, self.min_lrs)]
            rates = [new if rate - new > self.eps else rate for rate, new in zip(rates, lower)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._set(rates)

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * value > sign * self.best * (1 + sign * self.threshold)
        return sign * value > sign * self.best + self.threshold


class _Several(LRScheduler):
    """What schedulers made of schedulers share."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        self.optimizer, self._schedulers = optimizer, list(schedulers)
        for scheduler in self._schedulers:
            if isinstance(scheduler, ReduceLROnPlateau) or scheduler.optimizer is not optimizer:
                expected = "schedulers of this optimizer that need no measure"
                raise ArgumentError.of(type(self).__name__, expected, type(scheduler).__name__)

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer; of the schedulers their own state dicts."""
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"]):
            scheduler.load_state_dict(state)


class SequentialLR(_Several):
    """One schedule after another: a warm-up, then a decay.

    Args:
        optimizer: whose learning rates are set.
        schedulers: made for it, in order.
        milestones: epochs at which the next one begins, one fewer.
        last_epoch: see :class:`LRScheduler`.

    >>> from minigrad import nn
    >>> optimizer = nn.optim.SGD(nn.Linear(2, 3).parameters(), lr=1.0)
    >>> parts = [LinearLR(optimizer, start_factor=0.5, total_iters=2), ExponentialLR(optimizer, gamma=0.5)]
    >>> scheduler, rates = SequentialLR(optimizer, parts, milestones=[2]), []
    >>> for epoch in range(5):
    ...     rates += scheduler.get_last_lr()
    ...     scheduler.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.5, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        super().__init__(_checked(self, optimizer), schedulers)
        if any(isinstance(scheduler, _Several) for scheduler in schedulers[1:]):
            hint = "put their parts into this one"
            raise ArgumentError.of("SequentialLR", "simple schedulers after the first", "one made of others", hint)
        if len(milestones) != len(schedulers) - 1:
            got = f"{len(schedulers)} schedulers, {len(milestones)} milestones"
            raise ArgumentError.of("SequentialLR", "one scheduler more than milestones", got)
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        _undo(self)  # the constructors have made the first step of every schedule: only the first one's counts
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:
        """Go on to the next epoch."""
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[index]
        if index > 0 and self._milestones[index - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Several):
    """Several schedules at once: ``step`` is a step of each, in order.

    Args:
        schedulers: of one optimizer.
        optimizer: which; None is that of the first.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ArgumentError.of("ChainedScheduler", "at least one scheduler", "none")
        super().__init__(optimizer or schedulers[0].optimizer, schedulers)
        self._last_lr = self._values("lr")

    def step(self) -> None:
        """Go on to the next epoch."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._values("lr")


def _undo(scheduler: LRScheduler) -> None:
    if isinstance(scheduler, _Several):
        for part in scheduler._schedulers:
            _undo(part)
    else:
        scheduler.last_epoch -= 1


def _checked(scheduler: LRScheduler, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise ArgumentTypeError.of(type(scheduler).__name__, "an optimizer", type(optimizer).__name__)
    return optimizer


def _positive(scheduler: LRScheduler, name: str, value: Any, whole: bool = False) -> Any:
    """``value``, which may be one of NumPy's numbers, as one of Python's."""
    if not isinstance(value, Integral if whole else Real) or not float(value) > 0:
        expected = f"{name} as {'an integer' if whole else 'a number'} above 0"
        raise ArgumentError.of(type(scheduler).__name__, expected, value)
    return int(value) if isinstance(value, Integral) else float(value)


def _per_group(name: str, value: float | Sequence[float], groups: int) -> list[float]:
    if isinstance(value, (int, float)):
        return [value] * groups
    if len(value) != groups:
        raise ArgumentError.of("scheduler", f"{name} as a number or {groups}, one for each group", value)
    return list(value)
