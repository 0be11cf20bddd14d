"""Pictures made by going backward: saliency, guided backpropagation, Grad-CAM.

All three are derivatives of one number for each image: the score of a class, or the strongest response of a unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError
from minigrad.function import Context, Function
from minigrad.nn.activation import ReLU
from minigrad.nn.conv import Conv2d
from minigrad.nn.module import Module
from minigrad.nn.visualize.probe import Array, Pass, as_input, forward, hooked, peak
from minigrad.nn.visualize.structure import Structure
from minigrad.tensor import Tensor

Units = int | Sequence[int] | None


def input_gradient(model: Module, images: Any, target: Units = None, layer: str | None = None) -> Array:
    """The derivative of a score by the pixels.

    Args:
        model: any network that takes one tensor; used in evaluation mode and left as it was.
        images: its input, (N, C, H, W).
        target: the class, or unit of ``layer``, for all images or one for each; None takes the strongest of each image.
        layer: whose output is differentiated, at the position where the unit is strongest; None is the network's.

    Returns:
        (N, C, H, W).

    Raises:
        ArgumentError: if there is no such layer.
        AxisError: if it has no such unit.

    >>> from minigrad import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = net[1].weight.requires_grad_(False).assign(Tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> input_gradient(net, np.zeros((1, 1, 2, 2), "float32"), target=0).tolist()
    [[[[1.0, 2.0], [3.0, 4.0]]]]
    """
    return descend(forward(model, images), target, layer)


def saliency(model: Module, images: Any, target: Units = None, layer: str | None = None) -> Array:
    """How much each pixel matters to a score: the largest magnitude of its derivative among the channels.

    Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2013. Arguments and errors are those of
    :func:`input_gradient`.

    Returns:
        (N, H, W), not negative.
    """
    largest: Array = np.abs(input_gradient(model, images, target, layer)).max(1)
    return largest


def guided_backprop(model: Module, images: Any, target: Units = None, layer: str | None = None) -> Array:
    """Guided backpropagation: the derivative by the pixels, but for ReLU, which lets only positive signals come back.

    Springenberg et al., "Striving for simplicity: the all convolutional net", 2014: back through max(x, 0) goes
    max(g, 0) where x > 0. Arguments are those of :func:`input_gradient`.

    Returns:
        (N, C, H, W).

    Raises:
        ArgumentTypeError: if the network has no ReLU layers, or applies ReLU where no hook can reach it.
        ArgumentError: if there is no such layer.
        AxisError: if it has no such unit.
    """
    x = as_input(model, images)
    Structure(model, x.shape[1:]).check_guided("guided_backprop", layer)
    with hooked((module, _guided) for module in model.modules() if isinstance(module, ReLU)):
        seen = forward(model, x)
    return descend(seen, target, layer)


def grad_cam(model: Module, images: Any, target: Units = None, layer: str | None = None) -> Array:
    """Where a class is seen: the maps of a layer, each weighted by the mean of the score's derivative by it.

    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2017:
    max(sum over k of w_k A_k, 0), where w_k is the mean over positions of d score / d A_k.

    Args:
        model: any network that takes one tensor; used in evaluation mode and left as it was.
        images: its input, (N, C, H, W).
        target: the class, one for all images or one for each; None takes the most likely of each image.
        layer: a layer that gives maps; by default the last of the size of the last convolution's maps.

    Returns:
        (N, h, w), the size of the layer's maps, not negative.

    Raises:
        ArgumentError: if there is no such layer, or it gives no maps.
        GradientError: if the score does not depend on it.
        AxisError: if there is no such class.
    """
    seen = forward(model, images)
    name = last_maps(seen) if layer is None else layer
    maps = seen.layer(name)
    if maps.ndim != 4:
        raise ArgumentError.of(
            "grad_cam", "a layer that gives maps (N, K, H, W)", f"{name!r}, which gives {maps.shape}"
        )
    (slope,) = seen.output.gradient(maps, gradient=peak(seen.output, target))
    weights = slope.mean((2, 3), keepdims=True)
    return (weights * maps).sum(1).relu().numpy()


def last_maps(seen: Pass) -> str:
    """The layer that Grad-CAM looks at: the last with maps as large as those of the last convolution.

    Convolutions that give a single value each, such as LeNet's C5, do not count. In the networks of ``nn.models`` it is
    the rectified output of that convolution, or of the block that it is in.

    Raises:
        ArgumentError: if no convolution gives maps.
    """
    names = [name for name, output in seen.layers.items() if output.ndim == 4 and math.prod(output.shape[2:]) > 1]
    convolutions = [name for name in names if isinstance(seen.modules[name], Conv2d)]
    if not convolutions:
        raise ArgumentError.of("grad_cam", "a network with a convolution that gives maps", "none", "name a layer")
    size = seen.layers[convolutions[-1]].shape[2:]
    return [name for name in names if seen.layers[name].shape[2:] == size][-1]


def descend(seen: Pass, target: Units, layer: str | None, scaled: bool = False) -> Array:
    """What comes back to the pixels from a unit where it is strongest: a signal of 1, or of its response."""
    output = seen.layer(layer)
    signal = peak(output, target)
    (back,) = output.gradient(seen.images, gradient=signal * output.detach() if scaled else signal)
    return back.numpy()


def _guided(module: Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    """A forward hook: the same value, another way back."""
    return GuidedReLU.apply(*args)


class GuidedReLU(Function):
    """max(x, 0), back through which goes max(g, 0) where x > 0."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        """The value."""
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        """The signal that goes back."""
        (x,) = ctx.saved_tensors
        back: Tensor = Tensor.where(x > 0, g.relu(), 0)
        return back
