"""Hypothesis strategies of whole training steps: nets from a layer grammar, losses and optimizers."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from minigrad.shapes import Shape, Window
from minigrad.testing.programs import Program
from minigrad.testing.strategies import seeds
from minigrad.testing.training import Layer, TrainingRun

_SPATIAL = ((7, 9), (8, 6), (11,), (9, 5), (4, 5, 6))
_ACTIVATIONS = ("ReLU", "Tanh", "Sigmoid")
_LARGEST = 400  # elements of one example between layers
_OPTIMIZERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "dampening": 0.25, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3}),
)


class _Net:
    """Layers being drawn, and the shape of what they give for one example."""

    def __init__(self, draw: st.DrawFn, sample: Shape) -> None:
        self.draw, self.shape, self.layers = draw, sample, list[Layer]()

    def add(self, kind: str, shape: Shape | None = None, **arguments: Any) -> None:
        """One more layer, which gives ``shape``."""
        self.layers.append(Layer(kind, arguments))
        self.shape = self.shape if shape is None else shape

    def maybe(self, kind: str, **arguments: Any) -> None:
        """A layer that keeps the shape, or none."""
        if self.draw(st.booleans()):
            self.add(kind, **arguments)

    def window(self, pool: bool) -> Window:
        """A window that fits, as layers take it: with the same padding on both sides."""
        fields = []
        for size in self.shape[1:]:
            kernel = self.draw(st.integers(1, min(3, size)))
            dilation = self.draw(st.integers(1, 2)) if 2 * (kernel - 1) < size and not pool else 1
            padding = self.draw(st.integers(0, kernel // 2 if pool else kernel - 1))
            fields.append((kernel, self.draw(st.integers(1, 2)), (padding, padding), dilation))
        kernels, strides, paddings, dilations = zip(*fields)
        return Window(kernels, strides, paddings, dilations)

    def named(self, kind: str) -> str:
        return f"{kind}{len(self.shape) - 1}d"

    # Blocks.

    def conv(self) -> None:
        """A convolution, in groups or not, and what mostly follows one."""
        window, channels = self.window(pool=False), self.shape[0]
        groups = self.draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        out = groups * self.draw(st.integers(1, 6 // groups))
        while out * math.prod(window.output_size("conv", self.shape[1:])) > _LARGEST:
            out -= groups
        self.add(
            self.named("Conv"), (out, *window.output_size("conv", self.shape[1:])), in_channels=channels,
            out_channels=out, kernel_size=window.kernel, stride=window.stride,
            padding=tuple(before for before, _ in window.padding), dilation=window.dilation, groups=groups,
            bias=self.draw(st.booleans()),
        )  # fmt: skip
        if self.draw(st.booleans()):
            self.norm()
        self.maybe(self.draw(st.sampled_from(_ACTIVATIONS)))

    def norm(self) -> None:
        """Normalisation over the batch, over groups of channels, or over all of an example."""
        channels, eps = self.shape[0], self.draw(st.sampled_from([0.1, 1e-3]))
        kinds = ["GroupNorm", "LayerNorm"] + ["BatchNorm"] * 2 * (math.prod(self.shape[1:]) > 3)
        kind = self.draw(st.sampled_from(kinds))
        if kind == "BatchNorm":
            momentum = self.draw(st.sampled_from([0.1, 0.5, None]))
            self.add(self.named(kind), num_features=channels, eps=eps, momentum=momentum)
        elif kind == "GroupNorm":
            groups = self.draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
            self.add(kind, num_groups=groups, num_channels=channels, eps=eps)
        else:
            self.add(kind, normalized_shape=self.shape, eps=eps)

    def pool(self) -> None:
        """The maximum or the mean of windows."""
        window = self.window(pool=True)
        kind = self.draw(st.sampled_from(["MaxPool", "AvgPool"]))
        shape = (self.shape[0], *window.output_size("pool", self.shape[1:]))
        padding = tuple(before for before, _ in window.padding)
        self.add(self.named(kind), shape, kernel_size=window.kernel, stride=window.stride, padding=padding)

    def residual(self) -> None:
        """A convolution and an activation, added to what they are given."""
        channels, rank = self.shape[0], len(self.shape) - 1
        conv = dict(in_channels=channels, out_channels=channels, kernel_size=(3,) * rank, padding=(1,) * rank)
        inner = (Layer(self.named("Conv"), conv), Layer(self.draw(st.sampled_from(_ACTIVATIONS))))
        self.add("Residual", layers=inner)

    def head(self, outputs: int) -> None:
        """Fully connected layers: sometimes a hidden one, in which some elements are dropped."""
        self.add("Flatten", (math.prod(self.shape),))
        if self.draw(st.booleans()):
            self.linear(self.draw(st.sampled_from([8, 5])))
            self.add(self.draw(st.sampled_from(_ACTIVATIONS)))
            self.maybe("Dropout", p=0.25)
        self.linear(outputs)

    def linear(self, outputs: int) -> None:
        """A matrix product, with or without bias."""
        bias = self.draw(st.integers(0, 3)) > 0
        self.add("Linear", (outputs,), in_features=self.shape[0], out_features=outputs, bias=bias)


BLOCKS = (_Net.conv, _Net.conv, _Net.pool, _Net.residual)


@st.composite
def training_runs(draw: st.DrawFn, steps: int = 5, batch: int = 20, blocks: int = 3) -> TrainingRun:
    """Nets of convolutions, normalisation, pools, residuals and fully connected layers, a loss and an optimizer.

    Args:
        draw: given by Hypothesis.
        steps: at most; so the next two.
        batch: examples in each step.
        blocks: convolutions, pools and residuals.
    """
    sample = (draw(st.sampled_from([2, 3, 1])), *draw(st.sampled_from(_SPATIAL)))
    net, outputs = _Net(draw, sample), draw(st.sampled_from([4, 3, 10]))
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=blocks)):
        block(net)
    net.head(outputs)
    optimizer, settings = draw(st.sampled_from(_OPTIMIZERS))
    return TrainingRun(
        sample, tuple(net.layers), outputs, draw(st.sampled_from(["cross_entropy", "mse_loss"])), optimizer, settings,
        draw(st.integers(1, batch)), draw(st.integers(1, steps)), draw(seeds), draw(st.booleans()),
    )  # fmt: skip


@st.composite
def training_programs(draw: st.DrawFn, steps: int = 2, batch: int = 20, blocks: int = 3) -> Program:
    """Whole training steps, forward, backward and update, as primitives of one lazy graph; as :func:`training_runs`.

    The results are the loss, the parameters and the running statistics after each step.
    """
    return draw(training_runs(steps, batch, blocks)).program()
