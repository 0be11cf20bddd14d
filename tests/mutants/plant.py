"""A pytest plugin (``-p plant``) that plants the fault named by ``MUTANT`` before minigrad is imported.

No file changes: the module is compiled from its changed text when it is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from faults import FAULTS, Fault  # noqa: E402

ROOT = HERE.parents[1]


def path_of(module: str) -> Path:
    """The file of a module of the tree."""
    parts = module.split(".")
    inside = parts[1:] if parts[1] in ("backends", "nn") else parts
    return ROOT.joinpath(*inside).with_suffix(".py")


def mutated(fault: Fault) -> str:
    """The module's text with the fault."""
    text = path_of(fault.module).read_text()
    found = text.count(fault.old)
    if found != 1:
        raise ValueError(f"{fault.name}: the text to change is {found} times in {fault.module}, not once")
    return text.replace(fault.old, fault.new)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.module, str(path_of(fault.module)))
        self.fault = fault

    def get_code(self, fullname: str) -> object:
        return compile(mutated(self.fault), self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.fault.module:
            return None
        return importlib.util.spec_from_file_location(name, path_of(name), loader=_Loader(self.fault))


def plant(name: str) -> None:
    """Have the fault's module be the changed one when it is imported."""
    fault = next(f for f in FAULTS if f.name == name)
    assert fault.module not in sys.modules, "too late: it is imported"
    sys.meta_path.insert(0, _Finder(fault))


def pytest_configure() -> None:
    """Examples are not shrunk: it is enough that a test fails. Runs after the plugin of the suite."""
    from hypothesis import Phase, settings

    settings.register_profile("unshrunk", settings(), phases=[Phase.explicit, Phase.generate])
    settings.load_profile("unshrunk")


if os.environ.get("MUTANT"):
    plant(os.environ["MUTANT"])
