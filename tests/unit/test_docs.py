"""The documentation in the code: every example runs, everything public says what it is, exported names exist."""

import doctest
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

import minigrad
from minigrad.cli import main

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


GUIDES = {path.stem: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def fenced(guide, kind):
    """The blocks of a guide that are fenced as ``kind``."""
    return re.findall(rf"^```{kind}\n(.*?)^```", GUIDES[guide].read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def sessions(guide):
    return [block for block in fenced(guide, "python") if block.startswith(">>> ")]


def commands(guide):
    """Commands of a guide and what they print."""
    text = "\n".join(fenced(guide, "console"))
    return [part.partition("\n")[::2] for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if sessions(guide)])
def test_the_sessions_of_a_guide_run(guide, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    minigrad.manual_seed(0)
    text = "\n".join(sessions(guide))
    test = doctest.DocTestParser().get_doctest(text, {}, guide, str(GUIDES[guide]), 0)
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


@pytest.mark.parametrize(("command", "printed"), [item for guide in GUIDES for item in commands(guide)])
def test_the_commands_of_a_guide_print_what_it_says(command, printed, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "110")
    program, *arguments = shlex.split(command)
    assert program == "minigrad"
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == printed.strip()


def test_the_sessions_and_commands_are_found():
    assert len(commands("course")) > 4 and len(sessions("course")) > 20 and sessions("testing")


@pytest.mark.parametrize("guide", GUIDES)
def test_the_links_of_a_guide_lead_somewhere(guide):
    text = GUIDES[guide].read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^):]+)\)", text)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    for link in links:
        target, _, anchor = link.partition("#")
        assert (GUIDES[guide].parent / target).exists() if target else anchor in anchors, link


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
