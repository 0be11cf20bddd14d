"""Fixtures of the unit tests: a second device, and a look at what is launched."""

import pytest

import minigrad
from minigrad import device, realize


@pytest.fixture
def backends():
    """Adds backends for one test: ``backends(name="module:Class")``."""
    names = []

    def add(**classes):
        names.extend(classes)
        device.BUILT_IN.update(classes)
        device._backends.cache_clear()

    yield add
    for name in names:
        del device.BUILT_IN[name]
        for opened in [d for d in device._devices if d.partition(":")[0] == name]:
            del device._devices[opened]
    device._names.clear()
    device._backends.cache_clear()


@pytest.fixture
def twin(backends):
    """Name of a second device: another instance of the NumPy backend."""
    backends(twin=device.BUILT_IN["numpy"])
    return "twin"


@pytest.fixture
def launched(monkeypatch):
    """The kernels launched so far, in order; replays of captured steps are not in it."""
    kernels = []
    launch = realize.Run.launch

    def spy(run):
        kernels.extend(kernel for _, _, kernel in run.compiled.launches)
        launch(run)

    monkeypatch.setattr(realize.Run, "launch", spy)
    return kernels


@pytest.fixture(scope="session")
def queue():
    """A queue of PoCL, which runs what the renderer's templates give."""
    cl = pytest.importorskip("pyopencl")
    from minigrad.backends.opencl import driver

    place = next((place for place in driver.places() if place.is_pocl), None)
    if place is None:
        pytest.skip("no PoCL")
    return cl.CommandQueue(cl.Context([place.device]))


@pytest.fixture
def recorder(monkeypatch, tmp_path):
    """CuPy for one test: a recorder of its calls."""
    from cupy_recorder import Recorder

    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    return Recorder().installed(monkeypatch)


@pytest.fixture
def opened(recorder, monkeypatch):
    """The CuPy backend's device, on the recorder."""
    return recorder.opened(monkeypatch)


@pytest.fixture
def highest():
    """Afterwards, float32 products are as exact as at first again."""
    yield
    minigrad.set_float32_matmul_precision("highest")


@pytest.fixture
def no_extras(monkeypatch):
    """Importing matplotlib and tensorboard takes a second each; tests of their own use them."""
    monkeypatch.setattr("minigrad.nn.training.trainer.has_tensorboard", lambda: False)
    monkeypatch.setattr("minigrad.nn.training.plots.has_matplotlib", lambda: False)
