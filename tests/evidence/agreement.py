"""Whole networks at full input size: how far a backend is from float64, beside how far NumPy's float32 is.

Float64 is minigrad's NumPy backend, which is itself held to the oracle for every primitive. Its roundings are 2^29
times smaller than those of float32, so what it is wrong by does not show here; the naive loops of the oracle would take
days.

These networks are smooth only piece by piece. Where a rounding sends an activation to the other side of 0, or makes
another element the largest of a window, the gradients below jump by the share of one unit, 10^4 times a rounding, on
whichever backend it happens. So float64 takes the side that the backend took, in every unit: the gradient of the piece
on which it was, whose error is one of rounding alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

import minigrad
from minigrad import Tensor, device, dtypes, jit, nn, no_grad
from minigrad.dtypes import DType

# A backend adds up its sums in an order of its own, so its error is another draw from the same lot.
MULTIPLE = 4
ROUNDING = 2.0**-24
BATCH_SIZES = {"alexnet": 2, "vgg11": 1, "googlenet": 2, "resnet18": 2}  # one network of each family

Array = Any
Arrays = dict[str, Array]


class Distance(NamedTuple):
    """Errors relative to the result in float64 (2-norms), of a backend and of NumPy in float32."""

    what: str
    error: float
    own: float

    @property
    def share(self) -> float:
        """The error in terms of NumPy's, or of a rounding of float32 if that is more."""
        return self.error / max(self.own, ROUNDING)

    @property
    def holds(self) -> bool:
        """Whether the error is at most MULTIPLE times NumPy's."""
        return self.share <= MULTIPLE

    def __str__(self) -> str:
        return f"{self.what} {self.error:.1e} (NumPy {self.own:.1e}, ratio {self.share:.2f})"


def start(name: str) -> Arrays:
    """What a network starts with: the state that all backends are given."""
    minigrad.manual_seed(0)
    with minigrad.backend("numpy"):
        return {key: tensor.numpy() for key, tensor in nn.models.get(name).state_dict().items()}


class Training(NamedTuple):
    """What a network gives.

    Attributes:
        results: logits in evaluation mode; after steps of training also their losses, and then logits and weights.
        sides: for each step where activations are positive, and where the largest elements of windows are.
    """

    results: Arrays
    sides: list[list[Array]]


@contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """Collect the sides that units take."""
    sides: list[Tensor] = []
    relu, max_pool2d = Tensor.relu, Tensor.max_pool2d

    def recording_relu(x: Tensor) -> Tensor:
        out = relu(x)
        sides.append(out > 0)
        return out

    def recording_max_pool2d(x: Tensor, *window: Any) -> Tensor:
        out, indices = max_pool2d(x, *window[:-1], return_indices=True)
        sides.append(indices)
        return out

    with patch.object(Tensor, "relu", recording_relu), patch.object(Tensor, "max_pool2d", recording_max_pool2d):
        yield sides


@contextmanager
def taking(sides: list[Array]) -> Iterator[None]:
    """Have units take these sides, in the order in which they were recorded."""
    left = iter(sides)

    def relu(x: Tensor) -> Tensor:
        return x.where(Tensor(next(left)), 0.0)

    def max_pool2d(x: Tensor, *window: Any) -> Tensor:
        indices = Tensor(next(left))
        return x.flatten(2).gather(2, indices.flatten(2)).reshape(indices.shape)

    with patch.object(Tensor, "relu", relu), patch.object(Tensor, "max_pool2d", max_pool2d):
        yield
    assert next(left, None) is None, "more units were recorded than there are"


def train(name: str, state: Arrays, backend: str, steps: int) -> Training:
    """Evaluate a network in float32, train it for some steps and evaluate it again."""
    with minigrad.backend(backend):
        net, optimizer, images, labels = prepared(name, state, dtypes.float32)

        @jit
        def step(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            with recorded() as sides:
                loss = descended(net, optimizer, x, y)
            return loss, *sides

        outs = []
        results = {"logits": evaluated(net, images)}
        for _ in range(steps):
            outs.append([out.numpy() for out in step(images, labels)])
        results |= after(net, images, [loss for loss, *_ in outs])
    gc.collect()
    device.get(backend).pool.trim()
    return Training(results, [sides for _, *sides in outs])


def exact(name: str, state: Arrays, steps: Sequence[list[Array]]) -> Arrays:
    """The same in float64, with units that take the sides that are given for each step."""
    with minigrad.backend("numpy"):
        net, optimizer, images, labels = prepared(name, state, dtypes.float64)
        results, losses = {"logits": evaluated(net, images)}, []
        for sides in steps:
            with taking(sides):
                losses.append(descended(net, optimizer, images, labels).numpy())
        return results | after(net, images, losses)


def prepared(name: str, state: Arrays, dtype: DType) -> tuple[nn.Module, nn.optim.Optimizer, Tensor, Tensor]:
    """A network in training mode with what trains it, and images with their labels."""
    net, size = nn.models.get(name).to(dtype), BATCH_SIZES[name]
    net.load_state_dict({key: Tensor(a.astype(dtype.numpy) if a.dtype.kind == "f" else a) for key, a in state.items()})
    rng = np.random.default_rng(0)
    images = Tensor(rng.standard_normal((size, *net.input_size)).astype(dtype.numpy))
    labels = Tensor(rng.integers(0, 1000, size))
    minigrad.manual_seed(1)  # dropout draws the same on every backend, whatever the dtype
    return net, nn.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4), images, labels


def descended(net: nn.Module, optimizer: nn.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """The loss before a step of training."""
    loss: Tensor = net(images).cross_entropy(labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def evaluated(net: nn.Module, images: Tensor) -> Array:
    """Logits in evaluation mode."""
    with no_grad():
        logits: Array = net.eval()(images).numpy()
    net.train()
    return logits


def after(net: nn.Module, images: Tensor, losses: list[Array]) -> Arrays:
    """What there is to compare after training steps, if there were any."""
    if not losses:
        return {}
    weights = {key: parameter.numpy() for key, parameter in net.named_parameters()}
    return {"losses": np.array(losses), "logits after": evaluated(net, images), **weights}


def errors(name: str, state: Arrays, backend: str, steps: int) -> dict[str, float]:
    """Of results, and of the changes of weights, relative to what float64 gives."""
    found, sides = train(name, state, backend, steps)
    wanted = exact(name, state, sides)

    def relative(key: str) -> float:
        error = np.linalg.norm(found[key].astype(np.float64) - wanted[key])
        return float(error / np.linalg.norm(wanted[key] - state.get(key, 0.0)))

    return {key: relative(key) for key in wanted}


@lru_cache(1)
def reference(name: str, steps: int) -> tuple[Arrays, dict[str, float]]:
    """What a network starts with, and the errors of NumPy's float32."""
    state = start(name)
    return state, errors(name, state, "numpy", steps)


def distances(name: str, backend: str, steps: int = 3) -> list[Distance]:
    """Of the logits, and after ``steps`` of the losses, the logits and the change of each parameter."""
    state, own = reference(name, steps)
    found = own if backend == "numpy" else errors(name, state, backend, steps)
    return [Distance(key, error, own[key]) for key, error in found.items()]
