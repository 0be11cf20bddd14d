"""Whole networks at full input size: how far a backend is from float64, beside how far NumPy's float32 is.

Float64 is minigrad's NumPy backend, which is itself held to the oracle for every primitive. Its roundings are 2^29
times smaller than those of float32, so what it is wrong by does not show here; the naive loops of the oracle would take
days.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

import minigrad
from minigrad import Tensor, dtypes, nn, no_grad
from minigrad.dtypes import DType

# A backend adds up its sums in an order of its own, so its error is another draw from the same lot. Where an activation
# lies so close to 0 that one rounding sends it to the other side, a gradient differs by all of its value.
MULTIPLE = 4
ROUNDING = 2.0**-24
BATCH_SIZES = {"alexnet": 2, "vgg11": 1, "googlenet": 2, "resnet18": 2}  # one network of each family

Arrays = dict[str, Any]


class Distance(NamedTuple):
    """Errors relative to the result in float64, of a backend and of NumPy in float32."""

    what: str
    error: float
    own: float

    @property
    def holds(self) -> bool:
        """Whether the error is at most MULTIPLE times NumPy's own, or a rounding of float32."""
        return self.error <= MULTIPLE * max(self.own, ROUNDING)

    def __str__(self) -> str:
        return f"{self.what} {self.error:.1e} (NumPy {self.own:.1e})"


def start(name: str) -> Arrays:
    """What a network starts with: the state that all backends are given."""
    minigrad.manual_seed(0)
    with minigrad.backend("numpy"):
        return {key: tensor.numpy() for key, tensor in nn.models.get(name).state_dict().items()}


def outcome(name: str, state: Arrays, backend: str, dtype: DType, steps: int) -> Arrays:
    """Logits in evaluation mode; with ``steps`` also the losses of training steps and the changes of the weights."""
    with minigrad.backend(backend):
        net = nn.models.get(name).to(dtype)
        net.load_state_dict(
            {key: Tensor(a.astype(dtype.numpy) if a.dtype.kind == "f" else a) for key, a in state.items()}
        )
        rng = np.random.default_rng(0)
        x = Tensor(rng.standard_normal((BATCH_SIZES[name], *net.input_size)).astype(dtype.numpy))
        y = Tensor(rng.integers(0, 1000, BATCH_SIZES[name]))
        with no_grad():
            found = {"logits": net.eval()(x).numpy().astype(np.float64)}
        if not steps:
            return found
        minigrad.manual_seed(1)  # dropout draws the same on every backend, whatever the dtype
        net.train()
        optimizer = nn.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = net(x).cross_entropy(y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found["losses"] = np.array(losses)
        changes = (np.float64(p.numpy().ravel()) - state[key].ravel() for key, p in net.named_parameters())
        found["weights"] = np.concatenate(list(changes))
        return found


@cache
def references(name: str, steps: int) -> tuple[Arrays, Arrays, Arrays]:
    """What the network starts with, and its outcomes in float64 and in NumPy's float32."""
    state = start(name)
    exact, own = (outcome(name, state, "numpy", dtype, steps) for dtype in (dtypes.float64, dtypes.float32))
    return state, exact, own


def distances(name: str, backend: str, steps: int = 3) -> list[Distance]:
    """Of the logits, of the losses and of the change of the weights after ``steps``, each as one vector (2-norm)."""
    state, exact, own = references(name, steps)
    found = own if backend == "numpy" else outcome(name, state, backend, dtypes.float32, steps)

    def error(arrays: Arrays, key: str) -> float:
        return float(np.linalg.norm(arrays[key] - exact[key]) / np.linalg.norm(exact[key]))

    return [Distance(key, error(found, key), error(own, key)) for key in exact]
