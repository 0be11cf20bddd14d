"""What the layers of a network give, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError, ShapeError, did_you_mean
from minigrad.mode import no_grad
from minigrad.nn.module import Module, modes_kept
from minigrad.tensor import Tensor

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass, as a lazy graph: nothing is computed until something is read.

    Attributes:
        images: the input.
        output: what the network gives.
        layers: what each layer gives, by the dotted name of its module, in the order in which they finish. A module
            that is called several times has a name for each call: ``relu``, ``relu#2``, ``relu#3``.
        modules: these modules, by the same names.
    """

    images: Tensor
    output: Tensor
    layers: dict[str, Tensor]
    modules: dict[str, Module]

    def layer(self, name: str | None) -> Tensor:
        """The output of the layer of that name; None is the network itself.

        Raises:
            ArgumentError: if there is none; lists those that there are.
        """
        return self.output if name is None else chosen("layer", name, self.layers)


def chosen(op: str, name: str, among: dict[str, Any]) -> Any:
    """The entry of that name, or an error that lists the names and says which is meant."""
    if name not in among:
        hint = did_you_mean(name, among, "a layer is there if evaluation calls it")
        raise ArgumentError.of(op, f"one of {', '.join(among)}", repr(name), hint)
    return among[name]


def numbered(path: str, calls: Counter[str]) -> str:
    """The name of one more call of the module at ``path``."""
    calls[path] += 1
    return path if calls[path] == 1 else f"{path}#{calls[path]}"


def forward(model: Module, images: Any) -> Pass:
    """Call a network in evaluation mode, which it is not left in, and note what each layer gives.

    Args:
        model: any network that takes one tensor.
        images: its input, (N, C, H, W), as tensor or array.

    >>> from minigrad import nn
    >>> list(forward(nn.models.lenet5(), Tensor.zeros(2, 1, 28, 28)).layers)[:4]
    ['c1', 'activation', 's2', 'c3']
    """
    layers: dict[str, Tensor] = {}
    modules: dict[str, Module] = {}
    calls: Counter[str] = Counter()
    paths = {id(module): path for path, module in model.named_modules()}

    def note(module: Module, args: tuple[Any, ...], output: Any) -> None:
        if module is not model:
            name = numbered(paths[id(module)], calls)
            if isinstance(output, Tensor):
                layers[name], modules[name] = output, module

    x = as_input(model, images)
    with evaluating(model), hooked((module, note) for module in model.modules()):
        output = model(x)
    if not isinstance(output, Tensor):
        raise ArgumentTypeError.of("visualize", "a network that gives one tensor", type(output).__name__)
    return Pass(x, output, layers, modules)


def as_input(model: Module, images: Any) -> Tensor:
    """Images as a tensor on the device, and of the dtype, of the network's parameters.

    Raises:
        ShapeError: if they are no batch (N, C, H, W).
        ArgumentTypeError: if they are bytes that nobody normalised.
    """
    x = images if isinstance(images, Tensor) else Tensor(np.asarray(images))
    if x.ndim != 4 or not x.shape[0]:
        hint = "images[None] makes a batch of one image" if x.ndim == 3 else ""
        raise ShapeError.of("visualize", "images of shape (N, C, H, W)", x.shape, hint)
    if not x.dtype.is_float:
        hint = "pass them through the preprocessing that the network was trained with"
        raise ArgumentTypeError.of("visualize", "images of a floating dtype", x.dtype.name, hint)
    first = next(model.parameters(), None)
    return x.detach() if first is None else x.detach().to(first.device).cast(first.dtype)


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Within the block, ``model`` in evaluation mode; afterwards in the modes that it was in."""
    with modes_kept(model):
        model.eval()
        yield


@contextmanager
def hooked(hooks: Iterable[tuple[Module, Any]]) -> Iterator[None]:
    """Within the block, modules with a forward hook each."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def activations(model: Module, images: Any, layers: str | Sequence[str]) -> dict[str, Array]:
    """What layers give for some images.

    Args:
        model: any network that takes one tensor; used in evaluation mode and left as it was.
        images: its input, (N, C, H, W).
        layers: one or more names as in ``model.named_modules()``; ``name#2`` is the second call of a module.

    Returns:
        An array for each name, (N, K, H, W) for a layer of maps.

    Raises:
        ArgumentError: if there is no layer of that name; lists those that there are.

    >>> from minigrad import nn
    >>> found = activations(nn.models.lenet5(), Tensor.zeros(2, 1, 28, 28), ["c1", "s4"])
    >>> {name: array.shape for name, array in found.items()}
    {'c1': (2, 6, 28, 28), 's4': (2, 16, 5, 5)}
    """
    with no_grad():
        seen = forward(model, images)
    wanted = {name: seen.layer(name) for name in ([layers] if isinstance(layers, str) else layers)}
    if wanted:
        first, *others = wanted.values()
        first.realize(*others)
    return {name: output.numpy() for name, output in wanted.items()}


def peak(output: Tensor, unit: int | Sequence[int] | None) -> Tensor:
    """For each image of an output (N, K, *S), 1 where a unit is strongest (its first maximum) and 0 elsewhere.

    Args:
        output: logits or maps.
        unit: the unit, one for all images or one for each; None takes the strongest of all of each image.

    Raises:
        AxisError: if there is no such unit.
        ShapeError: if there are not as many units as images.
    """
    count, units = output.shape[:2]
    candidates = output.detach()
    if unit is not None:
        which = np.asarray(unit, np.int64)
        if which.shape not in ((), (count,)):
            raise ShapeError.of("visualize", f"one unit, or one for each of {count} images", unit)
        which = np.broadcast_to(which, count)
        if which.min() < 0 or which.max() >= units:
            raise AxisError.of("visualize", f"units in [0, {units - 1}]", unit)
        inside = np.arange(units) == which[:, None]
        mask = Tensor(inside.reshape(count, units, *(1,) * (output.ndim - 2)), device=output.device)
        candidates = Tensor.where(mask, candidates, float("-inf"))
    flat = candidates.reshape(count, -1)
    places = Tensor.arange(flat.shape[1], device=output.device) == flat.argmax(1, keepdims=True)
    return places.cast(output.dtype).reshape(output.shape)
