"""Training runs as data: a net, a loss and an optimizer, to be run on any backend, captured or not, or recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minigrad import device as devices
from minigrad import dtypes, nn, random
from minigrad.dtypes import DType
from minigrad.graph import Node
from minigrad.mode import no_grad
from minigrad.shapes import Shape
from minigrad.tensor import Tensor
from minigrad.testing.evaluate import Array
from minigrad.testing.programs import Program
from minigrad.testing.recording import record

StepFunction = Callable[[Tensor, Tensor], Tensor]
Wrap = Callable[[StepFunction], StepFunction]


class Layer(NamedTuple):
    """One layer: the name of a class of ``minigrad.nn``, or ``Residual``, and its arguments."""

    kind: str
    arguments: Mapping[str, Any] = {}

    def module(self) -> nn.Module:
        """The layer itself."""
        if self.kind == "Residual":
            return Residual(sequence(self.arguments["layers"]))
        return getattr(nn, self.kind)(**self.arguments)  # type: ignore[no-any-return]


def sequence(layers: tuple[Layer, ...]) -> nn.Sequential:
    """The layers one after the other."""
    return nn.Sequential(*(layer.module() for layer in layers))


class Residual(nn.Module):
    """``x`` plus what layers make of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """``x``, of any shape that the layers keep, and their result added."""
        result: Tensor = x + self.inner(x)
        return result


class Trained(NamedTuple):
    """What a run gives: the loss of each step, and the parameters and running statistics after the last."""

    losses: list[Array]
    state: list[Array]


def plain(step: StepFunction) -> StepFunction:
    """The step as it is: to run without jit."""
    return step


@dataclass(frozen=True)
class TrainingRun:
    """A net, and how it is trained.

    Attributes:
        sample: the shape of one example.
        layers: of the net.
        outputs: the classes or numbers that the last layer gives.
        loss: ``cross_entropy`` of classes, or ``mse_loss`` of numbers.
        optimizer: the name of a class of ``minigrad.nn.optim``.
        settings: its arguments but the parameters.
        batch: examples in each step; each step has new ones.
        steps: as said.
        seed: of examples, first parameters, and what the net draws.
        integers: examples and the first parameters are small integers, so that what the first layer gives is exact.
    """

    sample: Shape
    layers: tuple[Layer, ...]
    outputs: int
    loss: str = "cross_entropy"
    optimizer: str = "SGD"
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 2
    steps: int = 1
    seed: int = 0
    integers: bool = False

    def net(self, dtype: DType = dtypes.float32) -> nn.Module:
        """The net before the first step, on the default device; its weights keep the size of activations."""
        model: nn.Module = sequence(self.layers).to(dtype)
        rng = np.random.default_rng(self.seed)
        weights = 0
        with no_grad():
            for parameter in model.parameters():
                shape = parameter.shape
                weights += len(shape) > 1
                fan_in = max(int(np.prod(shape[1:])), 4)
                if self.integers and weights <= 1:
                    value = rng.choice([-1.0, 1.0], shape) * (rng.random(shape) < 4 / fan_in)
                else:
                    value = rng.uniform(-2, 2, shape) / np.sqrt(fan_in)
                parameter.assign(value.astype(np.float32)).realize()
        return model

    def run(self, device: str, wrap: Wrap = plain, dtype: DType = dtypes.float32) -> Trained:
        """Train on a device, step by step.

        Args:
            device: as said.
            wrap: takes the step function and gives what is called instead: :func:`minigrad.jit`.
            dtype: of the parameters and examples.
        """
        losses: list[Array] = []
        state = self._train(device, wrap, dtype, lambda loss, _: losses.append(loss.numpy()))
        return Trained(losses, [t.numpy() for t in state])

    def program(self) -> Program:
        """All steps as one lazy program: the results are the loss and the state after each step."""
        roots: list[Node] = []

        def keep(loss: Tensor, state: list[Tensor]) -> None:
            roots.extend([loss.node, *(t.node for t in state)])

        self._train("numpy", plain, dtypes.float32, keep)
        return record(roots)

    def _train(
        self, device: str, wrap: Wrap, dtype: DType, after: Callable[[Tensor, list[Tensor]], object]
    ) -> list[Tensor]:
        """Call ``after`` with the loss and the state of each step; nothing is computed before."""
        before, rng = random.get_rng_state(), np.random.default_rng(self.seed + 1)
        with devices.backend(device):
            model = self.net(dtype)
            state = [*model.parameters(), *(b for b in model.buffers() if b.dtype.is_float)]
            optimizer = getattr(nn.optim, self.optimizer)(model.parameters(), **self.settings)

            def step(x: Tensor, y: Tensor) -> Tensor:
                optimizer.zero_grad()
                loss: Tensor = getattr(model(x), self.loss)(y)
                loss.backward()
                optimizer.step()
                return loss

            call = wrap(step)
            random.manual_seed(self.seed)
            for _ in range(self.steps):
                x, y = self._examples(rng)
                goal = Tensor(y) if self.loss == "cross_entropy" else Tensor(y, dtype=dtype)
                after(call(Tensor(x, dtype=dtype), goal), state)
        random.set_rng_state(before)
        return state

    def _examples(self, rng: np.random.Generator) -> tuple[Array, Array]:
        shape = (self.batch, *self.sample)
        x = rng.integers(-2, 3, shape) if self.integers else rng.standard_normal(shape)
        if self.loss == "cross_entropy":
            return x.astype(np.float32), rng.integers(0, self.outputs, self.batch)
        return x.astype(np.float32), rng.standard_normal((self.batch, self.outputs)).astype(np.float32)
