"""Imports point one way: from names and shapes up to tensors, and nothing but device.py finds a backend, by name."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"minigrad": "minigrad", "backends": "minigrad.backends", "nn": "minigrad.nn"}

# Lowest first: a module imports, while it is imported itself, only from lines above its own, or from its own package.
LAYERS = """
errors primitive reference effects interrupt
dtypes shapes config capture extras
view graph device
buffer kernel autograd mode ops simplify
random schedule
layout order
plan
realize
tensor
function checkpoint
jit
minigrad
backends nn
testing
cli
__main__
"""
RANK = {name: rank for rank, line in enumerate(LAYERS.split("\n")) for name in line.split()}


def modules():
    """The modules of the package: dotted name -> path."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def is_for_types(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@functools.cache
def imports(path, at_import=False):
    """Names imported by a file, but for type checking; with ``at_import`` only those that importing it imports."""
    found = set()
    stack = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in submodules}
        elif not is_for_types(node) and not (at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            stack.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def part(name):
    """Which line of the layers a module of minigrad belongs to, by the first word below the package."""
    return "minigrad" if name == "minigrad" else name.split(".")[1]


def ours(names):
    return {name for name in names if name.split(".")[0] == "minigrad"}


def test_every_module_is_found_and_has_its_place():
    assert len(MODULES) > 40
    assert {part(name) for name in MODULES} <= set(RANK), "name the new module in LAYERS"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_below(name):
    for other in ours(imports(MODULES[name], at_import=True)):
        same_package = part(other) == part(name) and MODULES[name].parent.name not in ("minigrad",)
        lazy = part(name) in ("nn", "cli", "testing", "tensor", "function", "jit") and other == "minigrad"
        assert same_package or RANK[part(other)] < RANK[part(name)] or lazy, f"{name} imports {other}"


def test_no_imports_go_round_in_circles():
    waiting = {name: ours(imports(path, at_import=True)) & set(MODULES) - {name} for name, path in MODULES.items()}
    packages = {name for name in MODULES if MODULES[name].name == "__init__.py"}
    for name in waiting:  # a module needs no more of its own package than has run before it
        waiting[name] -= {p for p in packages if name.startswith(f"{p}.")}
    while waiting:
        ready = {name for name, needs in waiting.items() if not needs & set(waiting)}
        assert ready, f"a cycle among {sorted(waiting)}"
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}


# What a part may import from minigrad, also inside functions.
ALLOWED = {
    "reference": set(),
    "errors": set(),
    "ops": {"ops", "graph", "primitive", "dtypes", "errors", "shapes"},
    "backends": {"backends", "config", "kernel", "primitive", "dtypes", "errors", "shapes", "view"},
    "kernel": {"primitive", "dtypes", "errors", "shapes", "view"},
    "schedule": {"simplify", "primitive", "dtypes", "shapes", "view"},
}


@pytest.mark.parametrize("which", ALLOWED)
def test_a_part_imports_only_what_it_may(which):
    files = [path for name, path in MODULES.items() if part(name) == which]
    assert files
    for path in files:
        assert {part(n) for n in ours(imports(path))} <= ALLOWED[which], path


def test_the_core_imports_no_backend_and_nothing_that_is_built_on_it():
    core = [name for name in MODULES if part(name) not in ("backends", "nn", "testing", "cli", "__main__")]
    for name in core:
        found = {part(n) for n in ours(imports(MODULES[name]))}
        assert not found & {"backends", "nn", "testing", "cli"}, name


def test_nothing_but_the_command_line_and_tools_for_tests_imports_networks_or_a_backend_by_name():
    for name, path in MODULES.items():
        found = {part(n) for n in ours(imports(path))}
        assert part(name) in ("nn", "cli", "testing") or "nn" not in found, name
        backends = {n for n in ours(imports(path)) if part(n) == "backends"}
        contract = {"minigrad.backends.base"} if part(name) == "testing" else set()
        assert part(name) == "backends" or backends <= contract, name


def test_optional_libraries_are_imported_only_where_they_belong():
    homes = {"pyopencl": ("backends",), "cupy": ("backends",), "hypothesis": ("testing",), "torch": ("cli",)}
    for name, path in MODULES.items():
        tops = {n.split(".")[0] for n in imports(path)}
        for library in ("pyopencl", "cupy", "hypothesis", "torch", "matplotlib", "scipy"):
            assert library not in tops or part(name) in homes.get(library, ()), f"{name} imports {library}"
        at_import = {n.split(".")[0] for n in imports(path, at_import=True)}
        assert "torch" not in at_import, f"{name} imports torch when it is imported"
        draws = name.endswith("strategies") or ".conformance." in name
        assert draws or not at_import & {"hypothesis"}, f"{name} imports hypothesis"


def test_the_scan_sees_imports_inside_functions_and_not_those_for_types(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("import numpy\nif TYPE_CHECKING:\n    import a\ndef f():\n    from minigrad import nn\n")
    assert imports(path) == {"numpy", "minigrad.nn"}
    assert imports(path, at_import=True) == {"numpy"}
