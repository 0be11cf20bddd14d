"""Adam and AdamW."""

from __future__ import annotations

import math
from typing import Any

from minigrad import dtypes
from minigrad.errors import ArgumentError
from minigrad.nn.optim.optimizer import Optimizer, Params, Settings, State, check_least
from minigrad.tensor import Tensor


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
            check_least("Adam", name, settings[name])
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
