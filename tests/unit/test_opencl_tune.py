"""Tiles by measurement: what is chosen is remembered, never changes a result, and is measured only on request."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from minigrad import config, device, dtypes
from minigrad.backends.cstyle.render import candidates
from minigrad.graph import apply
from minigrad.realize import prepare
from minigrad.testing.evaluate import read
from minigrad.testing.programs import on

REASON = device.available_backends()["opencl"]
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"opencl: {REASON}")
counter = itertools.count()  # names are never used again: what was compiled is remembered by name


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Opens the device anew, with a cache of its own."""
    from minigrad.backends import tune
    from minigrad.backends.opencl import OpenCLBackend

    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(tune, "SECONDS", 1e-5)
    monkeypatch.setattr(tune, "MOST", 3)

    def make():
        name = f"opencl_tuned_{next(counter)}"
        monkeypatch.setitem(device._devices, name, device.Device(name, OpenCLBackend()))
        return device.get(name)

    return make


def product(opened):
    """A product of small integers on a device: its kernel; the value is checked."""
    rng = np.random.default_rng(0)
    a, b = (on(opened.name)(rng.integers(-3, 4, (24, 24)).astype("f4"), dtypes.float32, ()) for _ in "ab")
    node = apply("matmul", a, b)
    run = prepare([node], [])
    run.launch()
    np.testing.assert_array_equal(read(node), read(a) @ read(b))
    ((_, _, kernel),) = run.compiled.launches
    return kernel


def test_measured_once_and_remembered(opened, monkeypatch):
    first = opened()
    backend = first.backend
    untouched = backend.fingerprint()
    assert untouched["tiles"] == "none measured"
    with config.settings.override(tune=True):
        kernel = product(first)
    found = backend._tuner.tile(kernel)
    assert found in candidates(kernel, backend.target)[:3]

    second = opened()
    again = second.backend
    monkeypatch.setattr(type(again._tuner), "_measure", lambda *_: pytest.fail("measured twice"))
    with config.settings.override(tune=True):
        assert product(second) == kernel
    assert again._tuner.tile(kernel) == found, "remembered on disk, and used without asking for it"
    assert backend.fingerprint() == again.fingerprint() != untouched


def test_the_measured_tile_is_used(opened, monkeypatch):
    first = opened()
    backend = first.backend
    with config.settings.override(tune=True):
        kernel = product(first)
    last = candidates(kernel, backend.target)[-1]
    backend._compiler.cache.put(backend._tuner._key(kernel), {"tile": repr(last).encode()})
    second = opened()
    other = second.backend
    assert product(second) == kernel and other._tuner.tile(kernel) == last


@pytest.mark.parametrize("stored", [b"Tile(unheard of)", b"\xff"[:0], b"None"])
def test_a_tile_of_another_version_is_ignored(opened, stored):
    first = opened()
    backend = first.backend
    kernel = product(first)
    backend._compiler.cache.put(backend._tuner._key(kernel), {"tile": stored})
    second = opened()
    other = second.backend
    assert product(second) == kernel and other._tuner.tile(kernel) is None


def test_nothing_is_measured_unasked(opened, monkeypatch):
    first = opened()
    backend = first.backend
    monkeypatch.setattr(type(backend._tuner), "_measure", lambda *_: pytest.fail("measured"))
    product(first)


def test_a_kernel_without_a_choice_is_not_looked_up(opened, monkeypatch):
    first = opened()
    backend = first.backend
    monkeypatch.setattr(type(backend._tuner), "_look_up", lambda *_: pytest.fail("looked up"))
    with config.settings.override(tune=True):
        x = on(first.name)(np.ones(3, "f4"), dtypes.float32, ())
        run = prepare([x + x], [])
    assert run.compiled.launches


def test_the_key_is_the_same_in_every_process(tmp_path):
    """Sets are ordered by hashes that differ from process to process."""
    script = (
        "from minigrad import Tensor, device; from minigrad.backends.tune import Tuner; seen = [];"
        "key = Tuner._key; Tuner._key = lambda *given: seen.append(key(*given)) or seen[-1];"
        "t = Tensor([[1.0, 2.0]] * 2, device='opencl'); (t @ t).numpy(); print(seen[-1])"
    )
    found = set()
    for seed in "123":
        environment = {**os.environ, "PYTHONHASHSEED": seed, "MINIGRAD_CACHE": str(tmp_path)}
        found.add(subprocess.check_output([sys.executable, "-c", script], env=environment, text=True))
    assert len(found) == 1
