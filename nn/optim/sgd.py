"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from minigrad.errors import ArgumentError
from minigrad.nn.optim.optimizer import Optimizer, Params, Settings, State, check_least
from minigrad.tensor import Tensor


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
            check_least("SGD", name, settings[name])
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
