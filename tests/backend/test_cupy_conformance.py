"""The first level of the conformance kit, memory and copies, on the CuPy backend and the recorder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_the_kit_passes():
    pytest.importorskip("cuda_on_cpu")._compiler()
    kit = "-p minigrad.testing.plugin -p no:cacheprovider --pyargs minigrad.testing.conformance --level 0"
    words = [sys.executable, "-m", "pytest", "-q", *kit.split(), "--backend", "cupy_recorded:RecordedCupy"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "level 0 memory and copies: 16 passed, 1 left out as declared" in done.stdout
