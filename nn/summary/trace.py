"""Which layer made which values: a forward pass that builds the lazy graph and is never run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from minigrad import capture
from minigrad.config import settings
from minigrad.dtypes import DType
from minigrad.errors import CaptureError
from minigrad.graph import Node, next_serial
from minigrad.mode import no_grad
from minigrad.nn.module import Module, modes_kept
from minigrad.random import get_rng_state, set_rng_state
from minigrad.shapes import Shape
from minigrad.tensor import Tensor


@dataclass(eq=False)
class Call:
    """One call of a module in the forward pass.

    Attributes:
        path: the module's dotted path; empty for the network itself.
        module: the module.
        parent: the call that it was made in.
        outputs: the nodes that it gave back.
        calls: whether it called other modules.
    """

    path: str
    module: Module
    parent: Call | None
    inputs: list[Node]
    outputs: list[Node] = field(default_factory=list)
    calls: bool = False

    def chain(self) -> list[Call]:
        """The calls from the outermost module to this one."""
        found: list[Call] = []
        call: Call | None = self
        while call is not None:
            found.append(call)
            call = call.parent
        return found[::-1]


@dataclass(eq=False)
class Stretch:
    """What one module computed itself between two calls of others: all of a layer's work, or a part of a network's."""

    call: Call
    start: int  # nodes of this serial number and later, up to the next stretch
    nodes: list[Node] = field(default_factory=list)


@dataclass(eq=False)
class Trace:
    """A forward pass: its input, the stretches in order, and the tensors that the network owns."""

    image: Node
    stretches: list[Stretch]
    parameters: dict[int, tuple[str, Tensor]]  # by id of the node that a parameter showed


def trace(model: Module, shape: Shape, dtype: DType, device: str, training: bool) -> Trace:
    """Call ``model`` with zeros of ``shape``, without running anything; it is left as it was.

    Raises:
        CaptureError: if a forward reads a value: what it does next nobody can tell without running it.
    """
    watch = _Watch({id(module): path for path, module in model.named_modules()})
    with settings.override(eager=False), no_grad(), _kept(model, training), watch.over(model):
        parameters = {id(tensor.node): (name, tensor) for name, tensor in model.named_parameters()}
        image = Tensor.zeros(*shape, dtype=dtype, device=device)
        since = next_serial()
        try:
            with capture.recording(capture.Recording(replayed=False)):  # nothing is realized, and nothing may be read
                result = model(image)
        except CaptureError as error:
            reader = type(watch.inside.module if watch.inside is not None else model).__name__
            hint = "without running the layers nobody can tell what it does next; shapes are known"
            raise CaptureError.of("summary", f"a forward of {reader} that reads no values", "one", hint) from error
    outputs = [node for call in watch.calls for node in call.outputs] + _nodes(result)
    starts = [since, *(stretch.start for stretch in watch.stretches[1:])]  # what came before the hooks is the model's
    for node in _made(outputs, since):
        watch.stretches[bisect_right(starts, node.serial) - 1].nodes.append(node)
    return Trace(image.node, watch.stretches, parameters)


def _made(outputs: list[Node], since: int) -> list[Node]:
    """The nodes behind ``outputs`` that are not older, as they were made: sources come before users."""
    found: dict[int, Node] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.serial >= since and id(node) not in found:
            found[id(node)] = node
            stack.extend(node.sources)
    return sorted(found.values(), key=lambda node: node.serial)


class _Watch:
    """Hooks that note each call, and where in the sequence of nodes it began and ended."""

    def __init__(self, paths: dict[int, str]) -> None:
        self.paths = paths
        self.calls: list[Call] = []
        self.stretches: list[Stretch] = []
        self.inside: Call | None = None

    def enter(self, module: Module, args: tuple[Any, ...]) -> None:
        """Before a forward."""
        if self.inside is not None:
            self.inside.calls = True
        self.inside = Call(self.paths[id(module)], module, self.inside, _nodes(args))
        self.calls.append(self.inside)
        self.stretches.append(Stretch(self.inside, next_serial()))

    def leave(self, module: Module, args: tuple[Any, ...], output: Any) -> None:
        """After a forward."""
        assert self.inside is not None
        self.inside.outputs = _nodes(output)
        self.inside = self.inside.parent
        if self.inside is not None:
            self.stretches.append(Stretch(self.inside, next_serial()))

    @contextmanager
    def over(self, model: Module) -> Iterator[None]:
        """Within the block, note the calls of ``model`` and of the modules below it."""
        handles = []
        for module in model.modules():
            handles += [module.register_forward_pre_hook(self.enter), module.register_forward_hook(self.leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _nodes(value: Any) -> list[Node]:
    """The nodes of all tensors in (nested) tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value.node]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [node for part in values for node in _nodes(part)]


@contextmanager
def _kept(model: Module, training: bool) -> Iterator[None]:
    """Within the block, ``model`` in one mode; afterwards its modes and the random numbers are as they were.

    Layers with running statistics are in evaluation mode all the same: they write nothing, and mix no images.
    """
    random = get_rng_state()
    with modes_kept(model):
        for module in model.modules():
            module.training = training and next(module.buffers(recurse=False), None) is None
        try:
            yield
        finally:
            set_rng_state(random)
