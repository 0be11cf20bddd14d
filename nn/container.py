"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, TypeVar, overload

from minigrad.errors import ArgumentTypeError, AxisError
from minigrad.nn.module import Module

C = TypeVar("C", bound="_Container")


class _Container(Module):
    """Modules in order, each an attribute named by its position or by a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._names: tuple[str, ...] = ()

    def _add(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise ArgumentTypeError.of(type(self).__name__, "modules", repr(module))
        setattr(self, name, module)
        self._names = (*self._names, name)

    def append(self: C, module: Module) -> C:
        """Add a module at the end; returns the container."""
        self._add(next(name for name in map(str, count(len(self))) if name not in self._names), module)
        return self

    def extend(self: C, modules: Iterable[Module]) -> C:
        """Add modules at the end; returns the container."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        """Number of modules."""
        return len(self._names)

    def __iter__(self) -> Iterator[Module]:
        """The modules in order."""
        return (getattr(self, name) for name in self._names)

    def _name(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise AxisError.of(type(self).__name__, f"an index in [{-len(self)}, {len(self) - 1}]", index)
        return self._names[index]

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self: C, index: slice) -> C: ...
    def __getitem__(self, index: int | slice) -> Any:
        """One module, or a container of the same type with some of them, under the names they have."""
        if not isinstance(index, slice):
            return getattr(self, self._name(index))
        part = type(self)()
        for name in self._names[index]:
            part._add(name, getattr(self, name))
        return part

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace one module."""
        setattr(self, self._name(index), module)


class Sequential(_Container):
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
            self._add(str(name), module)

    def forward(self, x: Any) -> Any:
        """``x`` through all modules in order."""
        for module in self:
            x = module(x)
        return x


class ModuleList(_Container):
    """Modules in a list that counts as part of the module that has it. It has no ``forward``.

    Args:
        modules: what to start with.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)
