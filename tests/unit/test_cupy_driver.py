"""What `minigrad backends` says where the CuPy backend cannot run, without CuPy and without a GPU."""

import os

import pytest
from cupy_recorder import CUDARuntimeError, Recorder

import minigrad
from minigrad import device
from minigrad.backends.cupy import driver
from minigrad.cli import main
from minigrad.errors import BackendUnavailable, DeviceError


def reason(monkeypatch, **machine):
    Recorder(**machine).installed(monkeypatch)
    return device.available_backends()["cupy"]


def test_there_is_a_gpu(monkeypatch):
    assert reason(monkeypatch, devices=2) is None
    assert device.device_names("cupy") == ["NVIDIA H200 (140 GiB, CUDA 12.8)"] * 2


def test_cupy_is_not_installed(monkeypatch):
    Recorder().installed(monkeypatch)
    monkeypatch.setattr(driver, "import_module", not_there)
    assert device.available_backends()["cupy"].startswith('CuPy is not installed: pip install "minigrad[cupy]"')


def not_there(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_cupy_cannot_be_imported(monkeypatch):
    def broken(name):
        raise ImportError("====\nCuPy failed to import.\nlibcudart.so.12: cannot open shared object file\n====")

    Recorder().installed(monkeypatch)
    monkeypatch.setattr(driver, "import_module", broken)
    found = driver.reason()
    assert "cannot be imported (libcudart.so.12: cannot open shared object file): pip install" in found


def test_cupy_is_for_a_newer_cuda_than_the_driver(monkeypatch):
    found = reason(monkeypatch, driver=12040, runtime=13000)
    assert "installed for CUDA 13, the driver has CUDA 12.4" in found
    assert "pip install cupy-cuda12x[ctk]" in found and "update the driver" in found


def test_a_driver_runs_what_is_for_an_older_cuda(monkeypatch):
    assert reason(monkeypatch, driver=13000, runtime=12090) is None
    assert reason(monkeypatch, driver=12020, runtime=12090) is None


def test_cupy_is_for_another_makers_gpus(monkeypatch):
    assert "ROCm" in reason(monkeypatch, hip=True)


def test_there_is_no_driver(monkeypatch):
    assert "no NVIDIA driver" in reason(monkeypatch, driver=0)


@pytest.mark.parametrize("hidden", [None, "7"])
def test_there_is_no_device(monkeypatch, hidden):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    found = reason(monkeypatch, devices=0)
    assert "finds no GPU" in found
    assert ("CUDA_VISIBLE_DEVICES=7 hides" in found) is (hidden is not None)


def test_the_driver_does_not_work(monkeypatch):
    recorder = Recorder().installed(monkeypatch)

    def fail():
        raise CUDARuntimeError(802, "cudaErrorSystemNotReady: system not yet initialized")

    recorder.cupy.cuda.runtime.getDeviceCount = fail
    assert "system not yet initialized" in driver.reason()


def test_there_is_no_compiler(monkeypatch):
    recorder = Recorder().installed(monkeypatch)
    recorder.errors["nvrtc"] = RuntimeError("libnvrtc.so.12: cannot open shared object file")
    found = driver.reason()
    assert "NVRTC is missing (libnvrtc.so.12" in found and "cupy-cuda12x[ctk]" in found


class Listed:
    """A package that pip lists."""

    def __init__(self, name):
        self.metadata = {"Name": name}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cupy-cuda13x", "numpy", "cupy-cuda12x"], "; cupy-cuda12x, cupy-cuda13x are installed together"),
        (["cupy-cuda13x"], "; pip lists cupy-cuda13x, but its files are gone"),
        (["cupyx-other", None], ""),
    ],
)
def test_what_pip_lists_does_not_work(monkeypatch, names, said):
    Recorder().installed(monkeypatch)
    monkeypatch.setattr(driver, "import_module", not_there)
    monkeypatch.setattr(driver, "distributions", lambda: map(Listed, names))
    monkeypatch.setattr(driver, "find_spec", lambda name: None)
    found = driver.reason()
    assert found.startswith("CuPy is not installed")
    assert said in found if said else ";" not in found


def test_the_gpu_is_too_old(monkeypatch):
    assert "no GPU of compute capability 7.5 or more: NVIDIA H200" in reason(monkeypatch, capability=(7, 0))


def test_asking_for_it_says_the_same(monkeypatch):
    Recorder(driver=0).installed(monkeypatch)
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        minigrad.set_backend("cupy")
    with pytest.raises(BackendUnavailable, match=r"(?s)one that can run here \(.*numpy.*hint: `minigrad backends`"):
        minigrad.Tensor([1.0], device="cupy:1")


def test_a_forked_child_is_told(monkeypatch):
    Recorder().installed(monkeypatch)
    found = driver._listing()
    monkeypatch.setattr(driver, "_listing", lambda: (os.getpid() + 1, found[1]))
    with pytest.raises(DeviceError, match="'spawn' start method"):
        driver.choose(0)


def test_the_command_line_lists_it(monkeypatch, capsys):
    Recorder(driver=0).installed(monkeypatch)
    assert main(["backends"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "cupy")
    assert "missing: no NVIDIA driver" in line
