"""Whole networks at full input size: how far a backend is from float64, beside how far NumPy's float32 is.

Float64 is minigrad's NumPy backend, which is itself held to the oracle for every primitive. Its roundings are 2^29
times smaller than those of float32, so what it is wrong by does not show here; the naive loops of the oracle would take
days.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

import minigrad
from minigrad import Tensor, device, dtypes, jit, nn, no_grad
from minigrad.dtypes import DType

# A backend adds up its sums in an order of its own, so its error is another draw from the same lot.
MULTIPLE = 4
ROUNDING = 2.0**-24
# Where one rounding sends an activation to the other side of 0, or makes another element the maximum of a window, the
# gradient of everything below changes by that of one unit: of the 2,000 active ones of a fully connected layer, for one
# image, by 1/sqrt(2000) = 2 %. It happens on every backend, NumPy too, and steps after it start from other weights, so
# what training leaves may be off by two such units; losses, which the weights move little, by much less.
KINKS = {"losses": 1e-4, "logits after": 5e-2, "weights": 5e-2}
BATCH_SIZES = {"alexnet": 2, "vgg11": 1, "googlenet": 2, "resnet18": 2}  # one network of each family

Arrays = dict[str, Any]


class Distance(NamedTuple):
    """Errors relative to the result in float64 (2-norms), of a backend and of NumPy in float32."""

    what: str
    error: float
    own: float
    allowed: float = 0.0

    @property
    def near(self) -> bool:
        """Whether the error is at most MULTIPLE times NumPy's own, or a rounding of float32."""
        return self.error <= MULTIPLE * max(self.own, ROUNDING)

    @property
    def holds(self) -> bool:
        """Whether it is, or is allowed for another reason."""
        return self.near or self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.what} {self.error:.1e} (NumPy {self.own:.1e})"


def start(name: str) -> Arrays:
    """What a network starts with: the state that all backends are given."""
    minigrad.manual_seed(0)
    with minigrad.backend("numpy"):
        return {key: tensor.numpy() for key, tensor in nn.models.get(name).state_dict().items()}


def outcome(name: str, state: Arrays, backend: str, dtype: DType, steps: int) -> Arrays:
    """Logits in evaluation mode; with ``steps`` losses of training steps too, and logits and weights after them."""
    with minigrad.backend(backend):
        found = _run(name, state, dtype, steps)
    gc.collect()
    device.get(backend).pool.trim()
    return found


def _run(name: str, state: Arrays, dtype: DType, steps: int) -> Arrays:
    net, size = nn.models.get(name).to(dtype), BATCH_SIZES[name]
    net.load_state_dict({key: Tensor(a.astype(dtype.numpy) if a.dtype.kind == "f" else a) for key, a in state.items()})
    rng = np.random.default_rng(0)
    images = Tensor(rng.standard_normal((size, *net.input_size)).astype(dtype.numpy))
    labels = Tensor(rng.integers(0, 1000, size))
    with no_grad():
        found = {"logits": net.eval()(images).numpy()}
    if not steps:
        return found
    optimizer = nn.optim.SGD(net.train().parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    @jit  # updates weights where they are: large networks in float64 take memory enough
    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = net(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    minigrad.manual_seed(1)  # dropout draws the same on every backend, whatever the dtype
    found["losses"] = np.array([step(images, labels).item() for _ in range(steps)])
    with no_grad():
        found["logits after"] = net.eval()(images).numpy()
    return {**found, "weights": {key: p.numpy() for key, p in net.named_parameters()}}


@lru_cache(1)
def references(name: str, steps: int) -> tuple[Arrays, Arrays, Arrays]:
    """What the network starts with, and its outcomes in float64 and in NumPy's float32."""
    state = start(name)
    exact, own = (outcome(name, state, "numpy", dtype, steps) for dtype in (dtypes.float64, dtypes.float32))
    return state, exact, own


def distances(name: str, backend: str, steps: int = 3) -> list[Distance]:
    """Of the logits, and after ``steps`` of the losses, the logits and the change of each parameter."""
    state, exact, own = references(name, steps)
    found = own if backend == "numpy" else outcome(name, state, backend, dtypes.float32, steps)

    def distance(what: str, a: Any, b: Any, e: Any, origin: Any = 0.0, allowed: float = 0.0) -> Distance:
        scale = np.linalg.norm(e - origin)
        error, least = (float(np.linalg.norm(np.asarray(v, np.float64) - e) / scale) for v in (a, b))
        return Distance(what, error, least, allowed)

    weights = exact.get("weights", {})
    results = [what for what in exact if what != "weights"]
    return [
        *(distance(what, found[what], own[what], exact[what], allowed=KINKS.get(what, 0.0)) for what in results),
        *(
            distance(key, found["weights"][key], own["weights"][key], e, state[key], KINKS["weights"])
            for key, e in weights.items()
        ),
    ]
