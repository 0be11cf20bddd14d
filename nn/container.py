"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, groupby
from typing import Any, Generic, TypeVar, overload

from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError
from minigrad.nn.module import Module
from minigrad.tensor import Tensor

V = TypeVar("V")
C = TypeVar("C", bound="_Container[Any]")
S = TypeVar("S", bound="_List[Any]")


class _Container(Module, Generic[V]):
    """Items in order, each an attribute of its own name."""

    def __init__(self) -> None:
        super().__init__()
        self._names: tuple[str, ...] = ()

    def _check(self, item: V) -> None:
        if not isinstance(item, Module):
            raise ArgumentTypeError.of(type(self).__name__, "modules", repr(item))

    def _put(self, name: str, item: V) -> None:
        """Add an item, or replace the one of that name."""
        self._check(item)
        if name not in self._names:
            if not isinstance(name, str) or not name or "." in name or hasattr(self, name):
                expected = "names that are not taken, without dots"
                raise ArgumentError.of(type(self).__name__, expected, repr(name), f"{type(self).__name__} has methods")
            self._names = (*self._names, name)
        setattr(self, name, item)

    def _take(self, name: str) -> V:
        """Remove an item."""
        item: V = getattr(self, name)
        self._names = tuple(n for n in self._names if n != name)
        delattr(self, name)
        return item

    def __len__(self) -> int:
        """Number of items."""
        return len(self._names)


class _List(_Container[V]):
    """A container whose items are named by position."""

    def append(self: S, item: V) -> S:
        """Add one at the end; returns the container."""
        self._put(next(name for name in map(str, count(len(self))) if name not in self._names), item)
        return self

    def extend(self: S, items: Iterable[V]) -> S:
        """Add some at the end; returns the container."""
        for item in items:
            self.append(item)
        return self

    def __iter__(self) -> Iterator[V]:
        """The items in order."""
        return (getattr(self, name) for name in self._names)

    def _name(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise AxisError.of(type(self).__name__, f"an index in [{-len(self)}, {len(self) - 1}]", index)
        return self._names[index]

    @overload
    def __getitem__(self, index: int) -> V: ...
    @overload
    def __getitem__(self: S, index: slice) -> S: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One item, or a container of the same type with some of them, under the names they have."""
        if not isinstance(index, slice):
            return getattr(self, self._name(index))
        part = type(self)()
        for name in self._names[index]:
            part._put(name, getattr(self, name))
        return part

    def __setitem__(self, index: int, item: V) -> None:
        """Replace one item."""
        self._put(self._name(index), item)


class Sequential(_List[Module]):
    """Modules that feed one another.

    Args:
        modules: the modules in order, or one mapping from names to modules.

    >>> from minigrad import Tensor, nn
    >>> nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))(Tensor.zeros(5, 4)).shape
    (5, 2)
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        given: Any = modules
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            given = modules[0]
        for name, module in given.items() if isinstance(given, Mapping) else enumerate(given):
            self._put(str(name), module)

    def forward(self, x: Any) -> Any:
        """``x`` through all modules in order."""
        for module in self:
            x = module(x)
        return x


class ModuleList(_List[Module]):
    """Modules in a list that counts as part of the module that has it. It has no ``forward``.

    Args:
        modules: what to start with.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __repr__(self) -> str:
        """The modules, equal neighbours on one line."""
        lines, start = [], 0
        for text, group in groupby(map(repr, self)):
            past = start + len(list(group))
            name = f"({start}): " if past == start + 1 else f"({start}-{past - 1}): {past - start} x "
            lines.append("\n  " + (name + text).replace("\n", "\n  "))
            start = past
        return f"ModuleList({''.join(lines)}\n)" if lines else "ModuleList()"


class ParameterList(_List[Tensor]):
    """Parameters in a list that counts as part of the module that has it.

    Args:
        values: tensors to start with; those that do not require a gradient become parameters too.

    >>> from minigrad import Tensor, nn
    >>> weights = nn.ParameterList([Tensor.ones(2), Tensor.zeros(3, 4)])
    >>> [name for name, _ in weights.named_parameters()], weights[1].requires_grad
    (['0', '1'], True)
    """

    def __init__(self, values: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.extend(values)

    def _check(self, item: Tensor) -> None:
        _check_tensor(self, item)

    def extra_repr(self) -> str:
        """The parameters."""
        return _described(self._names, list(self))


class _Dict(_Container[V]):
    """A container whose items have names: a dict that keeps its order."""

    def _fill(self, items: Mapping[str, V] | Iterable[tuple[str, V]] | None) -> None:
        if items is not None:
            self.update(items)

    def update(self, items: Mapping[str, V] | Iterable[tuple[str, V]]) -> None:
        """Add items, or replace those of the same names."""
        for name, item in items.items() if isinstance(items, Mapping) else items:
            self[name] = item

    def __getitem__(self, name: str) -> V:
        """The item of that name."""
        if name not in self._names:
            raise KeyError(name)
        return getattr(self, name)  # type: ignore[no-any-return]

    def __setitem__(self, name: str, item: V) -> None:
        """Add an item, or replace the one of that name."""
        self._put(name, item)

    def __delitem__(self, name: str) -> None:
        """Remove an item."""
        self.pop(name)

    def pop(self, name: str) -> V:
        """Remove an item and return it."""
        self[name]
        return self._take(name)

    def clear(self) -> None:
        """Remove all items."""
        for name in self._names:
            self._take(name)

    def __contains__(self, name: object) -> bool:
        """Whether there is an item of that name."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """The names in order."""
        return iter(self._names)

    def keys(self) -> Iterable[str]:
        """The names in order."""
        return self._names

    def values(self) -> Iterable[V]:
        """The items in order."""
        return [getattr(self, name) for name in self._names]

    def items(self) -> Iterable[tuple[str, V]]:
        """Pairs of name and item, in order."""
        return [(name, getattr(self, name)) for name in self._names]


class ModuleDict(_Dict[Module]):
    """Modules by name, as part of the module that has the dict. It has no ``forward``.

    Args:
        modules: what to start with, a mapping or pairs.

    >>> from minigrad import nn
    >>> heads = nn.ModuleDict({"digits": nn.Linear(84, 10), "letters": nn.Linear(84, 26)})
    >>> list(heads.keys()), heads["letters"].out_features
    (['digits', 'letters'], 26)
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        self._fill(modules)


class ParameterDict(_Dict[Tensor]):
    """Parameters by name, as part of the module that has the dict.

    Args:
        parameters: what to start with, a mapping or pairs; tensors that do not require a gradient become parameters
            too.
    """

    def __init__(self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None = None) -> None:
        super().__init__()
        self._fill(parameters)

    def _check(self, item: Tensor) -> None:
        _check_tensor(self, item)

    def extra_repr(self) -> str:
        """The parameters."""
        return _described(self._names, list(self.values()))


def _check_tensor(container: Module, item: Any) -> None:
    if not isinstance(item, Tensor):
        raise ArgumentTypeError.of(type(container).__name__, "tensors", repr(item))
    if not item.requires_grad:
        item.requires_grad_()


def _described(names: Iterable[str], tensors: Iterable[Tensor]) -> str:
    lines = [f"\n  ({name}): {t.dtype.name}{list(t.shape)}" for name, t in zip(names, tensors)]
    return "".join(lines) + "\n" * bool(lines)
