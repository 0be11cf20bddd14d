"""What in an image made a unit respond: the projection of a deconvolutional network."""

from __future__ import annotations

from typing import Any

from minigrad.function import Context, Function
from minigrad.nn.activation import ReLU
from minigrad.nn.module import Module
from minigrad.nn.norm import LocalResponseNorm
from minigrad.nn.visualize.backward import Units, descend
from minigrad.nn.visualize.probe import Array, as_input, forward, hooked
from minigrad.nn.visualize.structure import Structure
from minigrad.tensor import Tensor


def deconvnet(model: Module, images: Any, target: Units = None, layer: str | None = None) -> Array:
    """A unit's strongest response projected down to the pixels.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2013. All other values of the layer are
    set to 0, and the network is gone through backward: max pooling is undone by putting values where the maxima were
    (as :class:`~minigrad.nn.MaxUnpool2d` does), ReLU by ReLU, a convolution by the transposed filters, without its
    bias. Local response normalisation is left out, as in the paper. Everything else must be linear and is transposed:
    batch normalisation in evaluation mode, average pools, sums of residual blocks, concatenations. Where windows of a
    pool overlap, what comes back to a pixel is added up.

    Each of these steps but ReLU's is the vector-Jacobian product that the layer has anyway, so the projection is a
    derivative, with ReLU's rule replaced.

    Args:
        model: a network of such layers; used in evaluation mode and left as it was.
        images: its input, (N, C, H, W).
        target: the unit of ``layer``, for all images or one for each; None takes the strongest of each image.
        layer: where to start; None is the output of the network.

    Returns:
        (N, C, H, W).

    Raises:
        ArgumentTypeError: if there is another nonlinearity before the layer; it names the module.
        ArgumentError: if there is no such layer.
        AxisError: if it has no such unit.

    >>> from minigrad import nn
    >>> net = nn.Sequential(nn.MaxPool2d(2), nn.Flatten())
    >>> deconvnet(net, Tensor([[[[1.0, 3.0, 0.0, 0.0], [2.0, 0.0, 5.0, 0.0]]]])).tolist()
    [[[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]]]]
    """
    x = as_input(model, images)
    Structure(model, x.shape[1:]).check_linear("deconvnet", layer)
    with hooked((module, _replaced) for module in model.modules() if isinstance(module, (ReLU, LocalResponseNorm))):
        seen = forward(model, x)
    return descend(seen, target, layer, scaled=True)


def _replaced(module: Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    """A forward hook: the same value, another way back."""
    step = DeconvReLU if isinstance(module, ReLU) else Skipped
    return step.apply(*args, value=output.detach())


class DeconvReLU(Function):
    """A value, back through which goes max(g, 0), whatever the input was."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, value: Tensor) -> Tensor:
        """The value."""
        return value

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        """The signal that goes back."""
        return g.relu()


class Skipped(Function):
    """A value, back through which everything goes as it is."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, value: Tensor) -> Tensor:
        """The value."""
        return value

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        """The signal that goes back."""
        return g
