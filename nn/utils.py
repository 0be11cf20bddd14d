"""Gradients clipped, parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minigrad.errors import ArgumentError, ShapeError
from minigrad.mode import no_grad
from minigrad.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale gradients down, in place, so that their norm, all of them taken as one vector, is at most ``max_norm``.

    Pascanu et al., "On the difficulty of training recurrent neural networks", 2013. The factor is
    ``min(1, max_norm / (norm + 1e-6))``. Nothing is read, so this works inside captured steps.

    Args:
        parameters: whose ``grad`` is scaled; those without one do not count.
        max_norm: the bound.
        norm_type: the order of the norm; inf is the largest absolute value.
        error_if_nonfinite: whether a norm that is infinite or NaN raises; then it is read, and this does not work
            inside captured steps.

    Returns:
        The norm before, a 0-d tensor.

    Raises:
        ArgumentError: as said; the gradients are as they were.

    >>> w = Tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> clip_grad_norm_([w], max_norm=1.0).item()
    10.0
    >>> [round(g, 4) for g in w.grad.tolist()]
    [0.6, 0.8]
    """
    chosen = _listed(parameters)
    norm = get_total_norm(_grads(chosen), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(chosen, max_norm, norm)
    return norm


def get_total_norm(tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """The norm of tensors taken as one vector, 0-d, without gradient; half types count in float32.

    Args:
        tensors: on one device.
        norm_type: the order; inf is the largest absolute value.
        error_if_nonfinite: whether a norm that is infinite or NaN raises, for which it is read.

    Raises:
        ArgumentError: as said.
    """
    with no_grad():
        norms = [_wide(t).norm(norm_type) for t in _listed(tensors)]
        if not norms:
            return Tensor(0.0)
        total: Tensor = Tensor.stack(norms).norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        hint = "look at the loss, or scale it less; error_if_nonfinite=False goes on"
        raise ArgumentError.of("clip_grad_norm_", f"a finite norm of order {norm_type}", total.item(), hint)
    return total


def clip_grads_with_norm_(parameters: Tensors, max_norm: float, total_norm: Tensor) -> None:
    """Scale gradients by ``min(1, max_norm / (total_norm + 1e-6))``, in place."""
    with no_grad():
        factor = (max_norm / (total_norm + 1e-6)).clip(max=1.0)
        for grad in _grads(parameters):
            grad.assign(_wide(grad) * factor)


def clip_grad_value_(parameters: Tensors, clip_value: float) -> None:
    """Keep every element of the gradients in [-``clip_value``, ``clip_value``], in place.

    >>> w = Tensor([3.0, -0.5], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> clip_grad_value_(w, 2.0)
    >>> w.grad.tolist()
    [2.0, -1.0]
    """
    with no_grad():
        for grad in _grads(parameters):
            grad.clip_(-clip_value, clip_value)


def parameters_to_vector(parameters: Tensors) -> Tensor:
    """All elements of the parameters in one row, one parameter after the other; differentiable.

    >>> parameters_to_vector([Tensor([[1.0, 2.0]]), Tensor([3.0])]).tolist()
    [1.0, 2.0, 3.0]
    """
    vector: Tensor = Tensor.cat([p.reshape(-1) for p in _listed(parameters)])
    return vector


def vector_to_parameters(vec: Tensor, parameters: Tensors) -> None:
    """Overwrite the parameters with the elements of ``vec``: the inverse of :func:`parameters_to_vector`.

    Raises:
        ShapeError: if ``vec`` has not as many elements as the parameters; nothing has been written.
    """
    targets = _listed(parameters)
    total = sum(p.numel() for p in targets)
    if vec.shape != (total,):
        raise ShapeError.of("vector_to_parameters", f"a vector of {total} elements", vec.shape)
    with no_grad():
        for parameter, part in zip(targets, vec.split([p.numel() for p in targets])):
            parameter.assign(part.reshape(parameter.shape))


def _listed(tensors: Tensors) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.is_half else tensor


def _grads(parameters: Tensors) -> list[Tensor]:
    return [grad for grad in (p.grad for p in _listed(parameters)) if grad is not None]
