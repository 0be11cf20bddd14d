"""What the networks have in common: images in, logits out, and errors that name the layer an image does not fit."""

from __future__ import annotations

import traceback
from typing import Any

from minigrad.errors import ArgumentTypeError, ShapeError
from minigrad.nn import init
from minigrad.nn.conv import Conv2d
from minigrad.nn.module import Module, modes_kept
from minigrad.shapes import Shape
from minigrad.tensor import Tensor


class Network(Module):
    """Base of the networks: calling one takes images (N, C, H, W) to logits (N, num_classes).

    Attributes:
        input_size: (C, H, W) of the images that it was made for; some take other heights and widths too.
        input_hint: what to do about images of other sizes, for the error message.
    """

    input_size: tuple[int, int, int]
    input_hint: str = ""

    def __call__(self, x: Tensor) -> Any:
        """Run ``forward`` and the hooks around it.

        Raises:
            ShapeError: if the images have another number of channels, or a size that some layer cannot take.
            ArgumentTypeError: if they are no tensor.
        """
        if not isinstance(x, Tensor):
            raise ArgumentTypeError.of(type(self).__name__, "a Tensor", type(x).__name__, "make one with Tensor(x)")
        channels, height, width = self.input_size
        expected = f"images of shape (N, {channels}, {height}, {width})"
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != channels:
            raise ShapeError.of(name, expected, x.shape, _channel_hint(x.shape, channels))
        try:
            return super().__call__(x)
        except ShapeError as error:
            if x.shape[2:] == (height, width):  # not for the size of the images
                raise
            misfit = str(error).partition("\n")[0]
            got = f"{x.shape}, which {self._innermost(error)} cannot take ({misfit})"
            raise ShapeError.of(name, expected, got, self.input_hint) from error

    def _innermost(self, error: Exception) -> str:
        """The path of the layer in whose ``forward`` an error was raised."""
        paths = {id(module): path for path, module in self.named_modules()}
        callers = (id(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__))
        return [paths[caller] for caller in callers if caller in paths][-1] or "it"

    def predict_proba(self, x: Tensor) -> Tensor:
        """Probabilities of the classes, (N, num_classes): the softmax of the logits in evaluation mode."""
        with modes_kept(self):
            probabilities: Tensor = self.eval()(x).softmax(1)
        return probabilities


def _channel_hint(shape: Shape, channels: int) -> str:
    """How to make (N, channels, H, W) of a shape that is not."""
    if len(shape) == 3:
        return "x.unsqueeze(0) makes a batch of one image"
    if len(shape) == 4 and {channels, shape[1]} == {1, 3}:
        return (
            "x.mean(1, keepdims=True) makes grey of colour"
            if channels == 1
            else "x.expand(-1, 3, -1, -1) makes colour of grey"
        )
    return ""


def he_init(network: Module, mode: str = "fan_out") -> None:
    """Initialise the convolutions below ``network`` as He et al. (2015) advise for ReLU, with biases at 0.

    The variance is 2 / fan out, which keeps the size of gradients on their way back, or with ``"fan_in"`` 2 / fan in,
    which keeps that of values: the better choice where no normalisation does so and layers narrow on the way.
    """
    for module in network.modules():
        if isinstance(module, Conv2d):
            init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)


def narrow_init(classifier: Module) -> None:
    """Initialise the layers below ``classifier`` with normal numbers of deviation 0.01, as VGG's do; biases at 0."""
    for name, parameter in classifier.named_parameters():
        init.zeros_(parameter) if name.endswith("bias") else init.normal_(parameter, std=0.01)
