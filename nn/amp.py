"""Mixed precision: the loss scaled so that small gradients of float16 do not vanish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad import dtypes
from minigrad.errors import ArgumentError, StateDictError
from minigrad.mode import autocast, no_grad
from minigrad.nn.optim import Optimizer
from minigrad.tensor import Tensor

__all__ = ["GradScaler", "autocast"]


class GradScaler:
    """Multiplies the loss by a factor, takes it out of the gradients again, and skips steps whose gradients overflow.

    The factor adapts: it shrinks after a step that overflows and grows after many that do not (Micikevicius et al.,
    2018). It lives in 0-d tensors, and a step is skipped by choosing the old values, so nothing is read: this works
    inside captured steps. bfloat16 has the range of float32 and needs none of it.

    Args:
        init_scale: the factor at first.
        growth_factor: what it is multiplied by after ``growth_interval`` steps in a row without overflow; above 1.
        backoff_factor: what it is multiplied by after a step with overflow; below 1.
        growth_interval: as said.
        enabled: False does nothing but call ``optimizer.step()``.
        device: where the factor lives: that of the model.

    >>> from minigrad.nn.optim import SGD
    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer, scaler = SGD([w], lr=0.25), GradScaler(init_scale=2.0**10, backoff_factor=0.5)
    >>> scaler.scale((w * w).sum()).backward()
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w.tolist(), scaler.get_scale()
    ([0.5, 1.0], 1024.0)
    >>> w.grad = Tensor([float("inf"), 0.0])
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w.tolist(), scaler.get_scale()
    ([0.5, 1.0], 512.0)

    Raises:
        ArgumentError: if a factor or the interval makes no sense.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        device: str | None = None,
    ) -> None:
        if init_scale <= 0 or growth_factor <= 1 or not 0 < backoff_factor < 1 or growth_interval < 1:
            expected = "init_scale > 0, growth_factor > 1, backoff_factor in (0, 1), growth_interval >= 1"
            got = f"{init_scale}, {growth_factor}, {backoff_factor}, {growth_interval}"
            raise ArgumentError.of("GradScaler", expected, got)
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        self.enabled = enabled
        self._scale = Tensor(init_scale, dtypes.float32, device)
        self._good_steps = Tensor(0, dtypes.int32, device)
        self._overflows: dict[int, Tensor] = {}  # optimizer -> whether its gradients do, since they were unscaled

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the factor: call ``backward`` on that."""
        return loss * self._scale if self.enabled else loss

    def unscale_(self, optimizer: Optimizer) -> None:
        """Take the factor out of the gradients, in place: needed before clipping, else :meth:`step` does it.

        Raises:
            ArgumentError: if it was done since the last :meth:`update`.
        """
        if not self.enabled:
            return
        if id(optimizer) in self._overflows:
            raise ArgumentError.of("GradScaler.unscale_", "one call for each update()", "another one")
        with no_grad():
            grads = [p.grad for group in optimizer.param_groups for p in group.params if p.grad is not None]
            inverse = 1.0 / self._scale
            for grad in grads:
                grad.assign(grad * inverse)
            finite = [grad.isfinite().all() for grad in grads]
            self._overflows[id(optimizer)] = ~Tensor.stack(finite).all() if finite else Tensor(False)

    def step(self, optimizer: Optimizer) -> None:
        """``optimizer.step()``, without any effect if a gradient is infinite or NaN."""
        if not self.enabled:
            optimizer.step()
            return
        if id(optimizer) not in self._overflows:
            self.unscale_(optimizer)
        overflow = self._overflows[id(optimizer)]
        with no_grad():
            changing = [tensor for group in optimizer.param_groups for p in group.params if p.grad is not None
                        for tensor in (p, *optimizer.state[p].values())]  # fmt: skip
            before = [tensor.clone() for tensor in changing]
            optimizer.step()
            for tensor, old in zip(changing, before):
                tensor.assign(Tensor.where(overflow, old, tensor))

    def update(self) -> None:
        """Adapt the factor to what happened since the last call."""
        if not self.enabled or not self._overflows:
            return
        with no_grad():
            overflow = Tensor.stack(list(self._overflows.values())).any()
            good = Tensor.where(overflow, 0, self._good_steps + 1)
            enough = good >= self.growth_interval
            grown = self._scale * self.growth_factor
            kept = Tensor.where(enough & grown.isfinite(), grown, self._scale)
            self._scale.assign(Tensor.where(overflow, self._scale * self.backoff_factor, kept))
            self._good_steps.assign(Tensor.where(enough, 0, good))
        self._overflows.clear()

    def get_scale(self) -> float:
        """The factor now; reads it, so not inside captured steps."""
        return float(self._scale) if self.enabled else 1.0

    def state_dict(self) -> dict[str, Any]:
        """The factor, its settings, and steps since it changed, under PyTorch's keys; empty if not enabled."""
        if not self.enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": int(self._good_steps),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, or PyTorch's did.

        Raises:
            StateDictError: if entries are missing, as those of a scaler that was not enabled are.
        """
        if not self.enabled:
            return
        if missing := sorted(self.state_dict().keys() - state_dict.keys()):
            raise StateDictError.of("GradScaler.load_state_dict", "the state of an enabled scaler", f"no {missing}")
        self.growth_factor, self.backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self.growth_interval = state_dict["growth_interval"]
        with no_grad():
            self._scale.assign(float(state_dict["scale"]))
            self._good_steps.assign(int(state_dict["_growth_tracker"]))
