"""Fixtures of the unit tests: a second device, and a look at what is launched."""

import pytest

from minigrad import device, realize


@pytest.fixture
def twin(monkeypatch):
    """Name of a second device: another instance of the NumPy backend."""
    monkeypatch.setitem(device.BUILT_IN, "twin", device.BUILT_IN["numpy"])
    device._backends.cache_clear()
    yield "twin"
    device._devices.pop("twin", None)
    monkeypatch.undo()
    device._backends.cache_clear()


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
