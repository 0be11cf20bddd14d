"""The package: what a wheel holds, what importing minigrad imports, the console script, what the README shows."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import minigrad

ROOT = Path(__file__).parents[2]
CODE = ("minigrad", "backends", "nn")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files in a wheel, built from a copy so that the working tree stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_under_minigrad(wheel):
    expected = set()
    for folder in CODE:
        prefix = "minigrad" if folder == "minigrad" else f"minigrad/{folder}"
        for path in (ROOT / folder).rglob("*.py"):
            expected.add(f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}")
    assert {name for name in wheel if name.endswith(".py")} == expected


def test_the_wheel_holds_the_sample_of_mnist_and_the_type_marker(wheel):
    assert "minigrad/py.typed" in wheel
    assert sum(name.startswith("minigrad/nn/data/sample/") for name in wheel) == 4


def test_nothing_but_minigrad_is_installed_at_the_top_level(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {"minigrad", f"minigrad-{minigrad.__version__}.dist-info"}


def test_importing_minigrad_imports_no_optional_or_slow_library():
    names = ("pyopencl", "cupy", "matplotlib", "rich", "PIL", "torch")
    code = f"import sys, minigrad; print([n for n in {names} if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_console_script_answers_help():
    script = shutil.which("minigrad", path=str(Path(sys.executable).parent))
    assert script is not None
    result = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "usage: minigrad" in result.stdout


def test_the_version_is_that_of_the_installed_package():
    assert minigrad.__version__ == metadata.version("minigrad")


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_code_of_the_page_on_data_runs(monkeypatch, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    for path in ("daisy/1.png", "tulip/2.png"):
        tmp_path.joinpath("flowers/train", path).parent.mkdir(parents=True)
        image.new("RGB", (80, 70)).save(tmp_path / "flowers/train" / path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minigrad.nn.data.mnist", importlib.import_module("minigrad.nn.data.mnist").sample)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    exec(compile("\n".join(blocks), "docs/data.md", "exec"), {})
    assert "('daisy', 'tulip') (2, 3, 56, 56)" in capsys.readouterr().out


def test_the_code_of_the_readme_runs(monkeypatch, capsys):
    monkeypatch.setattr("minigrad.nn.data.mnist", importlib.import_module("minigrad.nn.data.mnist").sample)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert 0 < float(capsys.readouterr().out) < 2.5
