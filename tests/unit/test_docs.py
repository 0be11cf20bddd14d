"""The documentation in the code: every example runs, everything public says what it is, exported names exist."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import minigrad

ROOT = Path(__file__).parents[2]


def listed_packages():
    """Package -> folder, as pyproject.toml lists them (its reader is in the standard library from Python 3.11 on)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (names,) = re.findall(r"^packages = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    (table,) = re.findall(r"^\[tool\.setuptools\.package-dir\]\n(.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    roots = dict(re.findall(r'^"?([\w.]+)"? = "(\w+)"$', table, re.MULTILINE))
    folders = {}
    for name in re.findall(r'"([\w.]+)"', names):
        root = max((r for r in roots if name == r or name.startswith(r + ".")), key=len)
        folders[name] = ROOT.joinpath(roots[root], *name[len(root) + 1 :].split("."))
    return folders


PACKAGES = listed_packages()
MODULES = [
    package if path.stem == "__init__" else f"{package}.{path.stem}"
    for package, folder in PACKAGES.items()
    for path in sorted(folder.glob("*.py"))
    if path.stem != "__main__" and not path.stem.startswith("test_")
]


def test_every_package_is_listed():
    for root in ("minigrad", "backends", "nn"):
        found = {path.parent for path in (ROOT / root).rglob("*.py") if "__pycache__" not in path.parts}
        assert found <= set(PACKAGES.values())
    assert len(MODULES) > 60 and "minigrad.nn.conv" in MODULES and "minigrad.backends.numpy.conv" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    minigrad.manual_seed(0)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_the_examples_are_found():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(len(t.examples) for name in MODULES for t in finder.find(importlib.import_module(name)))
    assert examples > 100


def public(module):
    """Public classes and functions that a module defines, and the public methods of those classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            yield name, value
            for attribute, method in vars(value).items():
                if not attribute.startswith("_"):
                    function = getattr(method, "__func__", getattr(method, "fget", method))
                    if inspect.isfunction(function):
                        yield f"{name}.{attribute}", function
        elif inspect.isfunction(value):
            yield name, value


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__ and module.__doc__.splitlines()[0].endswith((".", ":"))
    undocumented = [
        path
        for path, value in public(module)
        if not inspect.getdoc(value) or inspect.isclass(value) and "__doc__" in vars(value) and not value.__doc__
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", MODULES)
def test_exported_names_exist_and_are_sorted(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None)
    if names is None:
        assert name.partition(".")[2] not in ("", "nn")  # what users import from says what it exports
        return
    assert [n for n in names if not hasattr(module, n)] == []
    assert list(names) == sorted(set(names))


def test_promised_names_are_there():
    for name in "Tensor dtypes jit grad no_grad manual_seed set_backend backend available_backends Function".split():
        assert name in minigrad.__all__
