"""Optimizers: SGD, Adam and AdamW with PyTorch's arguments, defaults, formulas and numbers.

What a captured step must see change lives in tensors: the state from construction on, and the settings that schedulers
vary as 0-d tensors. A step appends to the lazy graph like any other computation and runs with the next realize.
"""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Iterable, Mapping
from typing import Any

from minigrad import capture, dtypes
from minigrad.errors import ArgumentError, ArgumentTypeError, StateDictError
from minigrad.mode import no_grad
from minigrad.nn.module import describe, zero_grad
from minigrad.tensor import Tensor

Settings = Mapping[str, Any]
State = dict[str, Tensor]
Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]


class ParamGroup(UserDict[str, Any]):
    """The settings of a group of parameters, ``params`` among them.

    Assigning a setting also writes the 0-d tensors that steps read, so that it takes effect in captured steps:
    ``optimizer.param_groups[0]["lr"] = 0.01``. Reading gives what was assigned.

    Attributes:
        params: the parameters.
        scalars: the tensors that steps read.
        constants: the settings that are built into a step; a captured one is captured anew when they change.
    """

    def __init__(self, optimizer: type[Optimizer], state: dict[Tensor, State], settings: dict[str, Any]) -> None:
        super().__init__()
        self._optimizer, self._state = optimizer, state
        self.params: list[Tensor] = settings["params"]
        dtype = dtypes.float64 if self.params[0].dtype is dtypes.float64 else dtypes.float32
        optimizer.check(settings)
        self._written = optimizer.scalars(settings)
        self.scalars = {n: Tensor(v, dtype, self.params[0].device) for n, v in self._written.items()}
        self.assign(settings)

    def __setitem__(self, key: str, value: Any) -> None:
        """Change one setting; one that makes no sense raises and changes nothing."""
        self.assign({key: value})

    def assign(self, settings: Settings) -> None:
        """Change several settings at once."""
        merged = {**self.data, **settings}
        self._optimizer.check(merged)
        self.data = merged
        self.constants = self._optimizer.constants(merged)
        with no_grad():
            for name, value in self._optimizer.scalars(merged).items():
                if value != self._written[name]:
                    self.scalars[name].assign(value)
                    self._written[name] = value
        for param in self.params:
            state = self._state.setdefault(param, {})
            state.update(self._optimizer.new_state(param, merged, state))


class Optimizer:
    """Base of all optimizers.

    A subclass says which settings steps read from 0-d tensors and which are constants, what state a parameter has, and
    how one parameter is updated.

    Args:
        params: tensors, or mappings with ``params`` and settings of their own (parameter groups).
        defaults: the settings of groups that do not say otherwise.

    Raises:
        ArgumentError: if there are no parameters, one comes twice, or a setting makes no sense.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, State] = {}
        given = list(params)
        groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)  # type: ignore[arg-type]

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise ``ArgumentError`` if the settings make no sense."""
        raise NotImplementedError

    @staticmethod
    def scalars(settings: Settings) -> dict[str, float]:
        """The numbers that a step reads from 0-d tensors."""
        raise NotImplementedError

    @staticmethod
    def constants(settings: Settings) -> dict[str, Any]:
        """The settings that are built into a step."""
        raise NotImplementedError

    @staticmethod
    def new_state(param: Tensor, settings: Settings, state: State) -> State:
        """The entries that ``state`` of ``param`` lacks under these settings."""
        raise NotImplementedError

    def update(
        self, param: Tensor, grad: Tensor, state: State, scalars: dict[str, Tensor], constants: Settings
    ) -> None:
        """Take one step with one parameter, in place, under ``no_grad``."""
        raise NotImplementedError

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own, such as another learning rate."""
        name = f"{type(self).__name__}.add_param_group"
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if not params:
            raise ArgumentError.of(name, "at least one parameter", "none")
        seen = set(self.state)
        for param in params:
            if not isinstance(param, Tensor):
                raise ArgumentTypeError.of(name, "tensors", type(param).__name__, "pass model.parameters()")
            if param in seen:
                raise ArgumentError.of(name, "each parameter once", f"one of shape {param.shape} twice")
            seen.add(param)
        self.param_groups.append(ParamGroup(type(self), self.state, {**self.defaults, **group, "params": params}))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros in place."""
        for group in self.param_groups:
            zero_grad(group.params, set_to_none)

    def step(self) -> None:
        """Update every parameter that has a gradient, in place. Lazy: it runs with the next realize."""
        with no_grad():
            for group in self.param_groups:
                constants, scalars = group.constants, group.scalars
                for param in group.params:
                    grad = param.grad
                    if grad is not None:
                        grad = -grad if constants["maximize"] else grad
                        self.update(param, grad, self.state[param], scalars, constants)

    def state_dict(self) -> dict[str, Any]:
        """State and settings in PyTorch's form; parameters are numbered in the order of the groups."""
        params = [param for group in self.param_groups for param in group.params]
        index = {param: i for i, param in enumerate(params)}
        return {
            "state": {i: {n: t.detach() for n, t in self.state[p].items()} for i, p in enumerate(params)},
            "param_groups": [{**group, "params": [index[p] for p in group.params]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy what :meth:`state_dict` gave, or PyTorch's, into this optimizer; state that is absent becomes zero.

        Raises:
            StateDictError: if groups, parameters or shapes do not fit; nothing has been loaded.
        """
        name = f"load_state_dict of {type(self).__name__}"
        given = [len(group["params"]) for group in state_dict["param_groups"]]
        own = [len(group.params) for group in self.param_groups]
        if given != own:
            raise StateDictError.of(name, f"groups of {own} parameters", f"groups of {given}")
        numbers = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [param for group in self.param_groups for param in group.params]
        copies: list[tuple[Tensor, Tensor]] = []
        misshapen = []
        for number, param in zip(numbers, params):
            values = state_dict["state"].get(number, {})
            for key, tensor in self.state[param].items():
                value = values.get(key)
                value = Tensor.zeros_like(tensor) if value is None else value
                value = value.detach() if isinstance(value, Tensor) else Tensor(value)
                if value.shape != tensor.shape:
                    misshapen.append(f"{number}.{key} {value.shape} instead of {tensor.shape}")
                copies.append((tensor, value.to(tensor.device).cast(tensor.dtype)))
        if misshapen:
            raise StateDictError.of(name, "shapes that fit its parameters", describe({"misshapen": misshapen}))
        with no_grad():
            for tensor, value in copies:
                tensor.assign(value)
        for group, settings in zip(self.param_groups, state_dict["param_groups"]):
            group.assign({key: value for key, value in settings.items() if key != "params"})

    def __repr__(self) -> str:
        """The settings of each group."""
        groups = ("\n".join(f"    {k}: {v}" for k, v in g.items() if k != "params") for g in self.param_groups)
        lines = "\n".join(f"Parameter Group {i}\n{text}" for i, text in enumerate(groups))
        return f"{type(self).__name__} (\n{lines}\n)"


capture.observed.extend([Optimizer, ParamGroup])  # a captured step notices when an attribute that it read changed


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum (Sutskever et al., 2013, in PyTorch's form).

    With gradient :math:`g \leftarrow g + \lambda p` (weight decay) the buffer becomes :math:`b \leftarrow \mu b +
    (1-\tau) g`, on the first step :math:`b = g`; then :math:`p \leftarrow p - \eta b`, or with Nesterov's momentum
    :math:`p \leftarrow p - \eta (g + \mu b)`.

    Args:
        params: tensors or parameter groups.
        lr: learning rate :math:`\eta`.
        momentum: :math:`\mu`; 0 keeps no buffer.
        dampening: :math:`\tau`.
        weight_decay: :math:`\lambda`, L2 penalty.
        nesterov: whether to look ahead; needs momentum and no dampening.
        maximize: whether to go uphill.

    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.tolist()
    [0.5, 1.0]
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        settings = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        super().__init__(params, {**settings, "nesterov": nesterov, "maximize": maximize})

    @staticmethod
    def check(settings: Settings) -> None:
        """Learning rate, momentum and weight decay are not negative; Nesterov's momentum is undamped."""
        for name in ("lr", "momentum", "weight_decay"):
            _check_least("SGD", name, settings[name])
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            got = f"momentum={settings['momentum']}, dampening={settings['dampening']}"
            raise ArgumentError.of("SGD", "momentum and no dampening where nesterov=True", got)

    @staticmethod
    def scalars(settings: Settings) -> dict[str, float]:
        """The learning rate and the momentum."""
        return {"lr": float(settings["lr"]), "momentum": float(settings["momentum"])}

    @staticmethod
    def constants(settings: Settings) -> dict[str, Any]:
        """All else, and whether there is momentum."""
        names = ("dampening", "weight_decay", "nesterov", "maximize")
        return {"has_momentum": settings["momentum"] != 0, **{name: settings[name] for name in names}}

    @staticmethod
    def new_state(param: Tensor, settings: Settings, state: State) -> State:
        """A momentum buffer of zeros: without dampening the first step gives g, as it must.

        With dampening, ``first`` is 1 before the first step and 0 after it.
        """
        new = {}
        if settings["momentum"] and "momentum_buffer" not in state:
            new["momentum_buffer"] = Tensor.zeros_like(param)
            if settings["dampening"]:
                new["first"] = Tensor.ones(dtype=param.dtype, device=param.device)
        return new

    def update(
        self, param: Tensor, grad: Tensor, state: State, scalars: dict[str, Tensor], constants: Settings
    ) -> None:
        """The formula above."""
        if constants["weight_decay"]:
            grad = grad + constants["weight_decay"] * param
        if constants["has_momentum"]:
            added = grad
            if constants["dampening"]:
                added = grad * (1 - constants["dampening"])
                if "first" in state:
                    added = added + state["first"] * (constants["dampening"] * grad)
                    state["first"].assign(0.0)
            buffer = scalars["momentum"] * state["momentum_buffer"] + added
            state["momentum_buffer"].assign(buffer)
            grad = grad + scalars["momentum"] * buffer if constants["nesterov"] else buffer
        param.assign(param - scalars["lr"] * grad)


class Adam(Optimizer):
    r"""Adam (Kingma and Ba, 2015).

    With gradient :math:`g \leftarrow g + \lambda p` and step count :math:`t`, the means :math:`m \leftarrow \beta_1 m +
    (1-\beta_1) g` and :math:`v \leftarrow \beta_2 v + (1-\beta_2) g^2` give
    :math:`p \leftarrow p - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)`, where :math:`\hat m = m / (1 - \beta_1^t)` and
    :math:`\hat v = v / (1 - \beta_2^t)`.

    Args:
        params: tensors or parameter groups.
        lr: learning rate :math:`\eta`.
        betas: :math:`\beta_1` and :math:`\beta_2`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`, L2 penalty.
        amsgrad: whether to divide by the largest :math:`v` so far (Reddi et al., 2018).
        maximize: whether to go uphill.

    >>> w = Tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = Adam([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(x, 4) for x in w.tolist()]
    [0.5, -1.5]
    """

    decoupled = False  # whether weight decay acts on the parameter instead of the gradient

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        settings = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize)
        super().__init__(params, settings)

    @staticmethod
    def check(settings: Settings) -> None:
        """Learning rate, epsilon and weight decay are not negative; both betas lie in [0, 1)."""
        for name in ("lr", "eps", "weight_decay"):
            _check_least("Adam", name, settings[name])
        if not all(0 <= beta < 1 for beta in settings["betas"]):
            raise ArgumentError.of("Adam", "betas in [0, 1)", settings["betas"])

    @staticmethod
    def scalars(settings: Settings) -> dict[str, float]:
        """The learning rate and, computed here where it costs no precision, 1 - beta and log beta."""
        scalars = {"lr": float(settings["lr"])}
        for i, beta in enumerate(settings["betas"], 1):
            scalars[f"rate{i}"] = 1.0 - beta
            scalars[f"log_beta{i}"] = math.log(beta) if beta else -math.inf
        return scalars

    @staticmethod
    def constants(settings: Settings) -> dict[str, Any]:
        """All but the learning rate and the betas."""
        return {name: settings[name] for name in ("eps", "weight_decay", "amsgrad", "maximize")}

    @staticmethod
    def new_state(param: Tensor, settings: Settings, state: State) -> State:
        """The step count and the running means, all zero."""
        names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * settings["amsgrad"]
        new = {name: Tensor.zeros_like(param) for name in names if name not in state}
        if "step" not in state:
            new["step"] = Tensor.zeros(dtype=dtypes.float32, device=param.device)
        return new

    def update(
        self, param: Tensor, grad: Tensor, state: State, scalars: dict[str, Tensor], constants: Settings
    ) -> None:
        """The formula above; 1 - beta^t as -expm1(t log beta), which loses nothing where beta^t is near 1."""
        lr, decay = scalars["lr"], constants["weight_decay"]
        start = param
        if decay and self.decoupled:
            start = param * (1 - lr * decay)
        elif decay:
            grad = grad + decay * param
        step = state["step"] + 1
        mean = state["exp_avg"] + scalars["rate1"] * (grad - state["exp_avg"])
        square = state["exp_avg_sq"] + scalars["rate2"] * (grad * grad - state["exp_avg_sq"])
        state["step"].assign(step)
        state["exp_avg"].assign(mean)
        state["exp_avg_sq"].assign(square)
        if constants["amsgrad"]:
            square = state["max_exp_avg_sq"].maximum(square)
            state["max_exp_avg_sq"].assign(square)
        bias1, bias2 = (-(step * scalars[log]).expm1() for log in ("log_beta1", "log_beta2"))
        param.assign(start - (lr / bias1) * mean / (square.sqrt() / bias2.sqrt() + constants["eps"]))


class AdamW(Adam):
    r"""Adam with decoupled weight decay (Loshchilov and Hutter, 2019): :math:`p \leftarrow p - \eta\lambda p` first.

    Args as for :class:`Adam`, with ``weight_decay=0.01``.
    """

    decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


def _check_least(op: str, name: str, value: float) -> None:
    if not value >= 0:
        raise ArgumentError.of(op, f"{name} of at least 0", value)
