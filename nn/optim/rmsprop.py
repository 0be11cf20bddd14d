"""RMSprop."""

from __future__ import annotations

from typing import Any

from minigrad import dtypes
from minigrad.errors import ArgumentError
from minigrad.nn.optim.optimizer import Optimizer, Params, Settings, State, check_least
from minigrad.tensor import Tensor


class RMSprop(Optimizer):
    r"""RMSprop (Hinton, lecture 6e of "Neural networks for machine learning", 2012).

    With gradient :math:`g \leftarrow g + \lambda p` the mean :math:`v \leftarrow \alpha v + (1-\alpha) g^2`, less the
    square of the mean of g where centered (Graves, 2013), gives the step :math:`s = g / (\sqrt v + \epsilon)`; then
    :math:`p \leftarrow p - \eta s`, or with momentum :math:`b \leftarrow \mu b + s` and
    :math:`p \leftarrow p - \eta b`.

    Args:
        params: tensors or parameter groups.
        lr: learning rate :math:`\eta`.
        alpha: :math:`\alpha`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`, L2 penalty.
        momentum: :math:`\mu`; 0 keeps no buffer.
        centered: whether to divide by the deviation of g instead of its size.
        maximize: whether to go uphill.

    >>> w = Tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = RMSprop([w], lr=0.5, alpha=0.0)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(x, 4) for x in w.tolist()]
    [0.5, -1.5]
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        settings = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        super().__init__(params, {**settings, "centered": centered, "maximize": maximize})

    @staticmethod
    def check(settings: Settings) -> None:
        """No number is negative, and alpha lies in [0, 1]."""
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            check_least("RMSprop", name, settings[name])
        if settings["alpha"] > 1:
            raise ArgumentError.of("RMSprop", "alpha in [0, 1]", settings["alpha"])

    @staticmethod
    def scalars(settings: Settings) -> dict[str, float]:
        """The learning rate, the momentum and, computed here where it costs no precision, 1 - alpha."""
        return {"lr": float(settings["lr"]), "momentum": float(settings["momentum"]), "rate": 1.0 - settings["alpha"]}

    @staticmethod
    def constants(settings: Settings) -> dict[str, Any]:
        """All else, and whether there is momentum."""
        names = ("eps", "weight_decay", "centered", "maximize")
        return {"has_momentum": settings["momentum"] != 0, **{name: settings[name] for name in names}}

    @staticmethod
    def new_state(param: Tensor, settings: Settings, state: State) -> State:
        """The step count, which nothing needs but PyTorch's files have, the running means and the buffer, all zero."""
        names = ["square_avg"] + ["momentum_buffer"] * (settings["momentum"] != 0) + ["grad_avg"] * settings["centered"]
        new = {name: Tensor.zeros_like(param) for name in names if name not in state}
        if "step" not in state:
            new["step"] = Tensor.zeros(dtype=dtypes.float32, device=param.device)
        return new

    def update(
        self, param: Tensor, grad: Tensor, state: State, scalars: dict[str, Tensor], constants: Settings
    ) -> None:
        """The formula above."""
        if constants["weight_decay"]:
            grad = grad + constants["weight_decay"] * param
        state["step"].assign(state["step"] + 1)
        square = state["square_avg"] + scalars["rate"] * (grad * grad - state["square_avg"])
        state["square_avg"].assign(square)
        if constants["centered"]:
            mean = state["grad_avg"] + scalars["rate"] * (grad - state["grad_avg"])
            state["grad_avg"].assign(mean)
            square = (square - mean * mean).relu()  # it may round to less than 0
        step = grad / (square.sqrt() + constants["eps"])
        if constants["has_momentum"]:
            step = scalars["momentum"] * state["momentum_buffer"] + step
            state["momentum_buffer"].assign(step)
        param.assign(param - scalars["lr"] * step)
