"""``nn.summary``: a network in numbers, layer by layer and in all."""

from __future__ import annotations

import inspect
import io
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from minigrad import device as devices
from minigrad import dtypes
from minigrad.config import settings
from minigrad.dtypes import DType, DTypeLike, as_dtype
from minigrad.errors import ArgumentError, ArgumentTypeError, did_you_mean
from minigrad.nn import optim
from minigrad.nn.module import Module
from minigrad.nn.summary.explain import explained
from minigrad.nn.summary.layers import Layer, grouped, layers_of
from minigrad.nn.summary.table import lines, markdown, table
from minigrad.nn.summary.trace import trace
from minigrad.shapes import Shape, as_shape
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "sgd": (optim.SGD, {"momentum": 0.9}),
    "adam": (optim.Adam, {}),
    "adamw": (optim.AdamW, {}),
}
NO_TERMINAL = 200  # columns


class Memory(NamedTuple):
    """Bytes that training holds between the forward and the backward pass; :attr:`total` is their sum.

    Attributes:
        batch_size: images in a step.
        optimizer: its name.
        parameters: all parameters, also those that only training mode uses.
        buffers: state that is not trained, such as running statistics.
        gradients: one for each parameter that is trained.
        optimizer_state: what the optimizer keeps for each of these.
        activations: those of one image, its pixels among them, times ``batch_size``.
    """

    batch_size: int
    optimizer: str
    parameters: int
    buffers: int
    gradients: int
    optimizer_state: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self[2:])

    @property
    def peak(self) -> int:
        """The most that the backward pass can need: with a gradient for each activation, all at the same time."""
        return self.total + self.activations


class Share(NamedTuple):
    """How much of a total some layers have."""

    layers: tuple[str, ...]
    part: int
    whole: int

    @property
    def fraction(self) -> float:
        """``part / whole``."""
        return self.part / self.whole if self.whole else 0.0


class ParameterInfo(NamedTuple):
    """A parameter, as far as memory goes."""

    name: str
    shape: Shape
    dtype: DType
    requires_grad: bool

    @property
    def numel(self) -> int:
        """Its numbers."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, repr=False)
class Summary:
    """What :func:`summary` found; ``print`` shows it as a table that fits the terminal.

    Attributes:
        model: class of the network.
        input: the image, as a row of its own.
        layers: all layers in the order of the calls.
        parameters: all parameters of the network, used or not.
        buffer_bytes: bytes of state that is not trained.
        batch_size: images in a step, for the memory of training.
        optimizer: an optimizer, or the name of one.
        depth: what is inside a module so many levels down is one row of the table; 0 shows every layer.
    """

    model: str
    input: Layer
    layers: tuple[Layer, ...]
    parameters: tuple[ParameterInfo, ...]
    buffer_bytes: int
    batch_size: int
    optimizer: str | optim.Optimizer
    depth: int = 0

    @property
    def rows(self) -> list[Layer]:
        """The layers, or the modules that they are in, as the table shows them."""
        return grouped(self.layers, self.depth)

    @property
    def total_params(self) -> int:
        """Parameters that the forward pass used."""
        return sum(layer.params for layer in self.layers)

    @property
    def total_weights(self) -> int:
        """The same without biases."""
        return sum(layer.weights for layer in self.layers)

    @property
    def total_macs(self) -> int:
        """Multiplications of convolutions and matrix products for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def total_activations(self) -> int:
        """Values of one image, its pixels among them."""
        return self.input.activations + sum(layer.activations for layer in self.layers)

    @property
    def total_activation_bytes(self) -> int:
        """The same in bytes."""
        return self.input.activation_bytes + sum(layer.activation_bytes for layer in self.layers)

    @property
    def unused(self) -> tuple[ParameterInfo, ...]:
        """Parameters that the forward pass did not use, such as those of classifiers that only training has."""
        used = {name for layer in self.layers for name, _ in layer.tensors}
        return tuple(weight for weight in self.parameters if weight.name not in used)

    @property
    def early_convolutions(self) -> Share:
        """Activations of the first quarter of the convolutions."""
        convolutions = [layer for layer in self.layers if layer.is_convolution]
        early = convolutions[: math.ceil(len(convolutions) / 4)]
        return Share(tuple(x.name for x in early), sum(x.activations for x in early), self.total_activations)

    @property
    def fully_connected(self) -> Share:
        """Parameters of the fully connected layers."""
        layers = [layer for layer in self.layers if layer.is_fully_connected]
        return Share(tuple(x.name for x in layers), sum(x.params for x in layers), self.total_params)

    def memory(self, batch_size: int | None = None, optimizer: str | optim.Optimizer | None = None) -> Memory:
        """What training holds: parameters + gradients + optimizer state + batch_size * activations (+ buffers).

        Args:
            batch_size: images in a step; default that of the summary.
            optimizer: an optimizer over these parameters, or ``"sgd"`` (with momentum), ``"adam"``, ``"adamw"``;
                default that of the summary.

        Raises:
            ArgumentError: if there is no optimizer of that name, or the batch is empty.

        >>> from minigrad import nn
        >>> found = nn.summary(nn.Linear(3, 5), (3,))  # 20 parameters, 8 values
        >>> found.memory(10, "sgd").total == 4 * (20 + 20 + 20 + 10 * 8)
        True
        """
        batch = self.batch_size if batch_size is None else batch_size
        chosen = self.optimizer if optimizer is None else optimizer
        if batch < 1:
            raise ArgumentError.of("summary", "a batch of at least one image", batch)
        trained = [weight for weight in self.parameters if weight.requires_grad]
        return Memory(
            batch,
            chosen if isinstance(chosen, str) else type(chosen).__name__,
            sum(weight.nbytes for weight in self.parameters),
            self.buffer_bytes,
            sum(weight.nbytes for weight in trained),
            _state_bytes(chosen, trained),
            batch * self.total_activation_bytes,
        )

    def layer(self, name: str) -> Layer:
        """The row of that name; the end of a path is enough where one row alone has it.

        Raises:
            ArgumentError: if there is none or several; lists those that there are.
        """
        rows = self.rows
        found = [x for x in rows if x.name == name] or [x for x in rows if x.name.endswith(f".{name}")]
        if len(found) == 1:
            return found[0]
        names = [x.name for x in found or rows]
        raise ArgumentError.of("summary", f"one of {', '.join(names)}", repr(name), did_you_mean(name, names))

    def explain(self, name: str) -> str:
        """How the figures of a layer, or of all layers of a module, come about: each formula with its numbers.

        Where (N - F + 2P)/S is not whole it says "does not fit", and what rounding did.

        Raises:
            ArgumentError: if there is no layer or module of that name; lists those that there are.

        >>> from minigrad import nn
        >>> print(nn.summary(nn.Sequential(nn.Conv2d(3, 10, 5, padding=2)), (3, 32, 32)).explain("0"))
        0: Conv2d 5x5
          input            3x32x32
          output           height and width: (N - F + 2P)/S + 1 = (32 - 5 + 2*2)/1 + 1 = 32
                           10 filters: 10x32x32
          parameters       F*F*D1*K + K = 5*5*3*10 + 10 = 760 (750 without biases)
          multiply-adds    F*F*D1 for each value: 5*5*3 * 10*32*32 = 768,000
          activations      10*32*32 = 10,240 values, 40,960 bytes
          receptive field  height and width: R + (F - 1)*T = 1 + (5 - 1)*1 = 5 pixels, 1 from one to the next
        """
        inside = [row for row in self.rows if row.name.startswith(f"{name}.")]
        return "\n".join(explained(row) for row in inside or [self.layer(name)])

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        memory = self.memory()
        shares = {"early_convolutions": self.early_convolutions, "fully_connected": self.fully_connected}
        return {
            "model": self.model,
            "input": list(self.input.output),
            "layers": [_figures(layer) for layer in self.rows],
            "total": {
                "params": self.total_params,
                "weights": self.total_weights,
                "macs": self.total_macs,
                "activations": self.total_activations,
                "activation_bytes": self.total_activation_bytes,
            },
            "unused": {weight.name: weight.numel for weight in self.unused},
            "memory": {**memory._asdict(), "total": memory.total, "peak": memory.peak},
            "shares": {name: {**share._asdict(), "fraction": share.fraction} for name, share in shares.items()},
        }

    def to_markdown(self) -> str:
        """The table and the totals as Markdown, every number in full."""
        return markdown(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield table(self, options.max_width)
        yield from map(Text, lines(self))

    def __repr__(self) -> str:
        """The table, in the width of the terminal."""
        from rich.console import Console

        width = shutil.get_terminal_size((NO_TERMINAL, 24)).columns
        console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def summary(
    model: Module,
    input_size: Sequence[int] | None = None,
    batch_size: int = 1,
    *,
    optimizer: str | optim.Optimizer = "sgd",
    depth: int = 0,
    training: bool = False,
    dtype: DTypeLike | None = None,
) -> Summary:
    """What ``model`` makes of an image, layer by layer: volumes, parameters, memory, multiply-adds, receptive fields.

    Nothing is run and nothing allocated: the forward pass builds its lazy graph, which is read and dropped. A row is a
    call of one of ``nn``'s layers, or an operation that a forward does itself. What works value by value (ReLU,
    dropout) is part of the row before it, as it is part of its kernel.

    Args:
        model: any network that takes one tensor; it is left as it was.
        input_size: shape of one image without the batch axis, (C, H, W); default ``model.input_size``, which the
            networks of ``nn.models`` have.
        batch_size: images in a step, for the memory of training. All other figures are for one image.
        optimizer: one over the parameters of ``model``, or ``"sgd"`` (with momentum), ``"adam"`` or ``"adamw"``.
        depth: show what is inside a module so many levels down as one row; 1 gives the stages of a network, 0 all.
        training: call it in training mode, in which it may have more parts, instead of evaluation mode.
        dtype: that of the image; default that of the parameters.

    Raises:
        ShapeError: if the image does not fit the network.
        ArgumentError: if there is no optimizer of that name, or the batch is empty.
        CaptureError: if a forward reads a value of a tensor.

    >>> from minigrad import nn
    >>> found = nn.summary(nn.models.lenet5(), (1, 28, 28))
    >>> found.total_params, found.total_macs, found.layers[0].output, found.layers[4].receptive_field
    (61706, 416520, (6, 28, 28), (32, 32))
    """
    if not isinstance(model, Module):
        raise ArgumentTypeError.of("summary", "a Module", type(model).__name__)
    given = getattr(model, "input_size", None) if input_size is None else input_size
    if given is None:
        raise ArgumentTypeError.of("summary", "an input_size (C, H, W)", "none", "the model has no input_size either")
    shape = as_shape("summary", given)
    parameters = list(model.named_parameters())
    first = next((tensor for _, tensor in parameters), None)
    kind = as_dtype(dtype) if dtype is not None else first.dtype if first is not None else dtypes.float32
    place = first.device if first is not None else devices.canonical(None)
    image, *layers = layers_of(trace(model, (1, *shape), kind, place, training))
    found = Summary(
        type(model).__name__,
        image,
        tuple(layers),
        tuple(ParameterInfo(name, t.shape, t.dtype, t.requires_grad) for name, t in parameters),
        sum(tensor.numel() * tensor.dtype.itemsize for tensor in model.buffers()),
        batch_size,
        optimizer,
        depth,
    )
    found.memory()  # complains of the batch and the optimizer now
    return found


def _state_bytes(optimizer: str | optim.Optimizer, trained: list[ParameterInfo]) -> int:
    """Bytes of an optimizer's state: what it has, or what one of that name would make (lazily) for each parameter."""
    if isinstance(optimizer, optim.Optimizer):
        made = [tensor for state in optimizer.state.values() for tensor in state.values()]
    elif optimizer in OPTIMIZERS:
        cls, given = OPTIMIZERS[optimizer]
        defaults = {name: argument.default for name, argument in inspect.signature(cls).parameters.items()}
        with settings.override(eager=False):
            zeros = [Tensor.zeros(*weight.shape, dtype=weight.dtype) for weight in trained]
            made = [tensor for zero in zeros for tensor in cls.new_state(zero, {**defaults, **given}, {}).values()]
    else:
        raise ArgumentError.of("summary", f"an optimizer, or one of {', '.join(OPTIMIZERS)}", repr(optimizer))
    return sum(tensor.numel() * tensor.dtype.itemsize for tensor in made)


def _figures(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "then": list(layer.then),
        "input": list(layer.input),
        "output": list(layer.output),
        "params": layer.params,
        "weights": layer.weights,
        "activations": layer.activations,
        "activation_bytes": layer.activation_bytes,
        "macs": layer.macs,
        "receptive_field": list(layer.receptive_field),
        "stride": [None if s is None else float(s) if s.denominator > 1 else int(s) for s in layer.stride],
    }
