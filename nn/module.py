"""Module: a tree of layers with parameters, buffers, two modes and hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, TypeVar

from minigrad import capture, dtypes
from minigrad.dtypes import DTypeLike, as_dtype
from minigrad.errors import ArgumentError, ArgumentTypeError, StateDictError
from minigrad.mode import no_grad
from minigrad.tensor import Tensor

M = TypeVar("M", bound="Module")
Hook = Callable[..., Any]


class IncompatibleKeys(NamedTuple):
    """What :meth:`Module.load_state_dict` found to differ; both lists are empty after a strict load."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class RemovableHandle:
    """A registered hook; :meth:`remove` takes it away again."""

    def __init__(self, module: Module, kind: str, hook: Hook) -> None:
        self.module, self.kind, self.hook = module, kind, hook

    def remove(self) -> None:
        """Unregister the hook; a second call does nothing."""
        others = tuple(h for h in getattr(self.module, self.kind) if h is not self)
        setattr(self.module, self.kind, others)


def Parameter(data: Any, requires_grad: bool = True) -> Tensor:  # noqa: N802 (PyTorch's name)
    """A leaf tensor to be trained: assigned to an attribute of a :class:`Module`, it is one of its parameters.

    Args:
        data: what ``Tensor(data)`` accepts; of a tensor the value is taken, not the graph.
        requires_grad: whether gradients are computed for it.

    >>> Parameter([1.0, 2.0]).requires_grad
    True
    """
    return Tensor(data, requires_grad=requires_grad)


class Module:
    """Base of all layers and networks.

    A subclass creates its parts as attributes and defines ``forward``; calling the module calls ``forward``. Found by
    looking at the attributes, in the order in which they were first assigned:

    - a :class:`Module` is a child;
    - a tensor that requires grad is a parameter, and remains one when frozen by ``requires_grad = False``;
    - a tensor given to :meth:`register_buffer` is a buffer: state that is saved but not trained.

    >>> class Affine(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = Parameter([1.0, 2.0])
    ...     def forward(self, x):
    ...         return x * self.scale
    >>> Affine()(Tensor([3.0, 4.0])).tolist()
    [3.0, 8.0]
    """

    optional_state: ClassVar[frozenset[str]] = frozenset()  # names that a state dict may lack: older ones do
    training: bool
    _parameters: frozenset[str]  # names; the tensors are ordinary attributes
    _buffers: dict[str, bool]  # name -> whether it is saved
    _forward_hooks: tuple[RemovableHandle, ...]
    _forward_pre_hooks: tuple[RemovableHandle, ...]

    def __new__(cls: type[M], *args: Any, **kwargs: Any) -> M:
        """Set up the bookkeeping here: a subclass may call ``super().__init__()`` late, or never."""
        self = super().__new__(cls)
        vars(self).update(training=True, _parameters=frozenset(), _buffers={}, _forward_hooks=(), _forward_pre_hooks=())
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; defined by each subclass."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` and the hooks around it."""
        for handle in self._forward_pre_hooks:
            changed = handle.hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        output = self.forward(*args, **kwargs)
        for handle in self._forward_hooks:
            changed = handle.hook(self, args, output)
            if changed is not None:
                output = changed
        return output

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign an attribute; a tensor that requires grad is a parameter from now on."""
        if isinstance(value, Tensor) and value.requires_grad:
            self.register_parameter(name, value)
        else:
            super().__setattr__(name, value)

    def register_parameter(self, name: str, tensor: Tensor | None) -> None:
        """Make ``tensor`` a parameter even if it is frozen from the start (None: there is no such parameter)."""
        if name not in self._parameters and name not in self._buffers:
            super().__setattr__("_parameters", self._parameters | {name})
        super().__setattr__(name, tensor)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add state that is not trained, such as running statistics.

        Args:
            name: the attribute that holds it.
            tensor: its value; None reserves the name.
            persistent: whether it is part of :meth:`state_dict`.

        Raises:
            ArgumentError: if the module has another attribute of that name.
        """
        if hasattr(self, name) and name not in self._buffers:
            raise ArgumentError.of("register_buffer", "a name that is not taken", repr(name))
        self._buffers[name] = persistent
        super().__setattr__(name, tensor)

    def add_module(self, name: str, module: Module) -> None:
        """Assign a child under a name that need not be a Python identifier, such as ``"0"``.

        Raises:
            ArgumentTypeError: if it is no module.
            ArgumentError: if the name has a dot in it, or another attribute has it.
        """
        if not isinstance(module, Module):
            raise ArgumentTypeError.of("add_module", "a module", repr(module))
        taken = hasattr(self, name) and not isinstance(getattr(self, name), Module)
        if not name or "." in name or taken:
            raise ArgumentError.of("add_module", "a name without dots that is not taken", repr(name))
        setattr(self, name, module)

    # The tree.

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path below this one; ``""`` is this one.

        Raises:
            ArgumentError: if there is none.

        >>> from minigrad import nn
        >>> nn.Sequential(nn.Sequential(nn.ReLU())).get_submodule("0.0")
        ReLU()
        """
        module = self
        for name in filter(None, target.split(".")):
            child = vars(module).get(name)
            if not isinstance(child, Module):
                raise ArgumentError.of("get_submodule", f"a path of modules in {type(self).__name__}", repr(target))
            module = child
        return module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """The direct children."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, parents first, each once, with dotted paths."""
        seen: set[int] = set()
        for path, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield path, module

    def modules(self) -> Iterator[Module]:
        """This module and all below it, parents first, each once."""
        return (module for _, module in self.named_modules())

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, parents first; one that is used twice comes twice."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(_join(prefix, name))

    def _own_parameters(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and name not in self._buffers:
                if value.requires_grad or name in self._parameters:
                    yield name, value

    def _own_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, vars(self)[name]) for name in self._buffers if vars(self)[name] is not None)

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All parameters with dotted names; one that is shared comes once, under its first name."""
        places = self.named_modules(prefix) if recurse else [(prefix, self)]
        return _unique((_join(path, n), t) for path, module in places for n, t in module._own_parameters())

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """All parameters, each once.

        >>> from minigrad import nn
        >>> sum(p.numel() for p in nn.Linear(120, 84).parameters())
        10164
        """
        return (tensor for _, tensor in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names, saved or not; one that is shared comes once."""
        places = self.named_modules(prefix) if recurse else [(prefix, self)]
        return _unique((_join(path, n), t) for path, module in places for n, t in module._own_buffers())

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (tensor for _, tensor in self.named_buffers(recurse=recurse))

    # State.

    def _state(self) -> dict[str, Tensor]:
        state = {}
        for path, module in self._walk():
            for name, tensor in module._own_parameters():
                state[_join(path, name)] = tensor
            for name, tensor in module._own_buffers():
                if module._buffers[name]:
                    state[_join(path, name)] = tensor
        return state

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted name, detached; they show later updates, as PyTorch's do."""
        return {name: tensor.detach() for name, tensor in self._state().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers of the same names, in their dtypes and on their devices.

        Args:
            state_dict: tensors or arrays by dotted name.
            strict: whether every name here must be there, and the other way round. Shapes must always agree.

        Returns:
            The names that were missing and those that were not expected.

        Raises:
            StateDictError: listing all that differs; nothing has been loaded.
            ArgumentTypeError: if ``state_dict`` is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentTypeError.of("load_state_dict", "tensors by name", type(state_dict).__name__)
        own = self._state()
        values = {name: v if isinstance(v, Tensor) else Tensor(v) for name, v in state_dict.items()}
        optional = {_join(path, name) for path, module in self._walk() for name in module.optional_state}
        missing = [n for n in own if n not in values and n not in optional]
        keys = IncompatibleKeys(missing, [n for n in values if n not in own])
        misshapen = [
            f"{name} {values[name].shape} instead of {tensor.shape}"
            for name, tensor in own.items()
            if name in values and values[name].shape != tensor.shape
        ]
        if misshapen or strict and any(keys):
            differences = {"missing": keys.missing_keys, "unexpected": keys.unexpected_keys, "misshapen": misshapen}
            op, expected = f"load_state_dict of {type(self).__name__}", "the names and shapes of its state"
            raise StateDictError.of(op, expected, describe(differences), _prefix_hint(own, values))
        with no_grad():
            for name, tensor in own.items():
                if name in values:
                    tensor.assign(values[name].detach().to(tensor.device).cast(tensor.dtype))
        return keys

    # Changing all of it.

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Call ``function`` with every module below this one, then with this one; returns this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Set training mode, which layers such as dropout look at, here and below."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Set evaluation mode here and below."""
        return self.train(False)

    def to(self: M, *targets: str | DTypeLike) -> M:
        """Move parameters and buffers to a device and, or, those that are floats to a dtype; returns this module.

        They become new tensors, without gradients: build the optimizer afterwards.

        Args:
            targets: what ``Tensor.to`` takes, such as ``"opencl"`` or ``dtypes.float16``.

        Raises:
            ArgumentTypeError: if a dtype is not a floating one.
        """
        kinds = [as_dtype(t) for t in targets if _is_dtype(t)]
        if not all(kind.is_float for kind in kinds):
            raise ArgumentTypeError.of("Module.to", "a floating dtype", kinds)
        devices = [t for t in targets if not _is_dtype(t)]
        moved: dict[int, Tensor] = {}  # shared tensors stay shared
        for module in self.modules():
            for name, tensor in [*module._own_parameters(), *module._own_buffers()]:
                if id(tensor) not in moved:
                    value = tensor.to(*(targets if tensor.dtype.is_float else devices))
                    moved[id(tensor)] = Parameter(value, tensor.requires_grad)
                setattr(module, name, moved[id(tensor)])
        return self

    def half(self: M) -> M:
        """Parameters and buffers that are floats to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self: M) -> M:
        """Parameters and buffers that are floats to bfloat16."""
        return self.to(dtypes.bfloat16)

    def float(self: M) -> M:
        """Parameters and buffers that are floats to float32."""
        return self.to(dtypes.float32)

    def double(self: M) -> M:
        """Parameters and buffers that are floats to float64."""
        return self.to(dtypes.float64)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze (False) or unfreeze all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros in place."""
        zero_grad(self.parameters(), set_to_none)

    # Hooks and printing.

    def register_forward_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(module, args)`` before every ``forward``; a result other than None replaces the arguments."""
        handle = RemovableHandle(self, "_forward_pre_hooks", hook)
        self._forward_pre_hooks = (*self._forward_pre_hooks, handle)
        return handle

    def register_forward_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after every ``forward``; a result other than None replaces the output."""
        handle = RemovableHandle(self, "_forward_hooks", hook)
        self._forward_hooks = (*self._forward_hooks, handle)
        return handle

    def extra_repr(self) -> str:
        """The settings shown between the parentheses of ``repr``."""
        return ""

    def __repr__(self) -> str:
        """The tree, one module a line, as PyTorch prints it."""
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n  ".join([f"{type(self).__name__}(", *filter(None, [self.extra_repr()]), *lines]) + "\n)"


capture.observed.append(Module)  # a captured step is captured anew when an attribute that it read has changed


def zero_grad(parameters: Iterator[Tensor] | list[Tensor], set_to_none: bool = True) -> None:
    """Forget the gradients of ``parameters``, or fill them with zeros in place."""
    for parameter in parameters:
        if set_to_none:
            parameter.grad = None
        elif parameter.grad is not None:
            with no_grad():
                parameter.grad.assign(Tensor.zeros_like(parameter.grad))


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Within the block, modes of ``model`` and its parts may be set; afterwards they are as they were.

    >>> net = Module()
    >>> with modes_kept(net):
    ...     net.eval().training
    False
    >>> net.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _unique(named: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for name, tensor in named:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _is_dtype(target: str | DTypeLike) -> bool:
    try:
        as_dtype(target)
    except ArgumentTypeError:
        return False
    return True


def _prefix_hint(own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What to do where all names given have a prefix, such as the ``module.`` of a wrapper for parallel training."""
    prefix = next(iter(given), "").partition(".")[0] + "."
    if given and all(name.startswith(prefix) and name.removeprefix(prefix) in own for name in given):
        return f"load {{name.removeprefix({prefix!r}): tensor for name, tensor in state_dict.items()}}"
    return ""


def describe(differences: Mapping[str, list[str]], limit: int = 10) -> str:
    """The differences, one kind a line, long lists cut short."""
    lines = []
    for kind, names in differences.items():
        if names:
            more = f" and {len(names) - limit} more" if len(names) > limit else ""
            lines.append(f"\n  {kind}: {', '.join(names[:limit])}{more}")
    return "these differences:" + "".join(lines)
