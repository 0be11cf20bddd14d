"""The host side of the CuPy backend by its calls: memory, copies, streams, launches, graphs. No GPU is needed."""

import os

import numpy as np
import pytest
from cupy_recorder import CUDADriverError, CUDARuntimeError, OutOfMemoryError, Recorder
from steps import training

from minigrad import Tensor, jit, nn
from minigrad import device as devices
from minigrad.backends.cupy import memory
from minigrad.errors import DeviceError, OutOfMemory

WAITS = ("synchronize",)


def values(nbytes, seed=0):
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


# Memory and copies ---------------------------------------------------------------------------------------------------



@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 10, (1 << 10) + 1, 1 << 12, (1 << 12) * 19 + 5])
def test_what_is_copied_in_comes_out(recorder, monkeypatch, size):
    """In one piece or many."""
    monkeypatch.setattr(memory, "SMALL", 1 << 10)
    monkeypatch.setattr(memory, "LARGE", 1 << 12)
    backend, data = recorder.opened(monkeypatch).backend, values(size)
    given, found = data.copy(), np.zeros(size, np.uint8)
    piece = backend.allocate(max(size, 1))
    backend.copy_in(piece, given)
    given[:] = 0  # the array may be changed at once
    backend.copy_out(piece, found)
    np.testing.assert_array_equal(found, data)
    if size > 1:
        part = np.zeros(size // 2, np.uint8)
        backend.copy_out(piece, part, size - part.size)
        np.testing.assert_array_equal(part, data[size - part.size :])


def test_small_copies_do_not_wait_until_much_is_on_its_way(opened, recorder):
    backend = opened.backend
    pieces = [backend.allocate(64) for _ in range(memory.SMALLS)]
    for n, piece in enumerate(pieces):
        backend.copy_in(piece, values(64, n))
    assert len(backend.heap.stream.work) == 2 * memory.SMALLS, "copies and events, none of them done"
    backend.copy_in(pieces[0], values(64, 99))  # takes the pinned memory of the first
    for n, piece in enumerate(pieces):
        found = np.zeros(64, np.uint8)
        backend.copy_out(piece, found)
        np.testing.assert_array_equal(found, values(64, n or 99))
    assert recorder.names("pin") == ["pin"]


def test_copies_on_the_device_keep_the_order_of_launches(opened):
    backend = opened.backend
    a, b = backend.allocate(100), backend.allocate(100)
    backend.copy_in(a, values(100, 1))
    backend.copy(a, b, 60)
    backend.copy_in(a, values(100, 2))
    backend.copy(a, a, 100)
    found = np.zeros(60, np.uint8)
    backend.copy_out(b, found)
    np.testing.assert_array_equal(found, values(100, 1)[:60])


def test_a_device_that_is_full_gives_idle_memory_back_and_then_says_so(opened, recorder):
    recorder.limit = 1 << 20
    piece = opened.pool.take(600 << 10)
    opened.pool.give(piece, 600 << 10)
    del piece
    large = opened.pool.take(900 << 10)
    with pytest.raises(OutOfMemory, match=r"(?s)room for 0 MB, got 1 MB in use \(Out of memory .*smaller batches"):
        opened.pool.take(200 << 10)
    del large


def test_running_out_leaves_tensors_as_they_were(opened, recorder):
    x = Tensor(np.arange(1000, dtype=np.float32), device=opened.name)
    recorder.limit = recorder.used
    with pytest.raises(OutOfMemory):
        (x + 1).realize()
    recorder.limit = 1 << 30
    np.testing.assert_array_equal(x.numpy(), np.arange(1000))


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_copied_ahead_is_there_before_it_is_used(opened, recorder, order):
    """Whichever stream is faster."""
    backend = opened.backend
    a, b, c = (backend.allocate(100) for _ in range(3))
    backend.copy_in(a, values(100, 1))
    backend.copy(a, b, 100)  # still has to read what was there
    backend.copy_ahead(a, values(100, 2))
    backend.copy(a, c, 100)
    for stream in recorder.streams[::order]:
        stream.run()
    for piece, seed in ((a, 2), (b, 1), (c, 2)):
        found = np.zeros(100, np.uint8)
        backend.copy_out(piece, found)
        np.testing.assert_array_equal(found, values(100, seed))


# Launches ------------------------------------------------------------------------------------------------------------


def test_a_schedule_is_one_module_and_nothing_waits(opened, recorder):
    x = Tensor(np.ones((64, 32), np.float32), device=opened.name)
    recorder.names()
    (x.exp().sum(1) + x.max()).realize()
    calls = [call for call in recorder.calls if call[0] in ("RawModule", "launch", *WAITS)]
    assert [call[0] for call in calls] == ["RawModule", *["launch"] * (len(calls) - 1)]
    assert calls[0][1] >= len(calls) - 1 >= 2
    recorder.names()
    (x.exp().sum(1) + x.max()).realize()
    assert set(recorder.names("RawModule", "launch", "malloc", *WAITS)) == {"launch"}


def test_reading_waits_for_that_alone(opened, recorder):
    x = Tensor(np.ones(4, np.float32), device=opened.name)
    np.testing.assert_array_equal(x.numpy(), np.ones(4))
    assert not recorder.names(*WAITS), "an event is waited for, not the stream"
    opened.backend.synchronize()
    assert recorder.names(*WAITS) == ["synchronize"]


def test_more_shared_memory_is_asked_for(monkeypatch, tmp_path):
    """The recorder checks it at each launch."""
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    recorder = Recorder().installed(monkeypatch)
    opened = recorder.opened(monkeypatch)
    x = Tensor.zeros(32, 64, 56, 56, dtype="bfloat16", device=opened.name)
    w = Tensor.zeros(128, 64, 3, 3, dtype="bfloat16", device=opened.name)
    x.conv2d(w, padding=1).realize()
    assert max(call[4] for call in recorder.calls if call[0] == "launch") > 48 << 10


def test_a_failed_launch_names_its_kernels(opened, recorder):
    x = Tensor(np.ones(4, np.float32), device=opened.name)
    recorder.errors["launch"] = CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")
    with pytest.raises(DeviceError, match="launch: expected k0_add to run, got CUDA_ERROR_ILLEGAL_ADDRESS"):
        (x + 1).realize()
    recorder.errors["synchronize"] = CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")
    with pytest.raises(OutOfMemory, match="k0_add"):
        opened.backend.synchronize()


def test_source_that_the_compiler_refuses_is_shown(opened, recorder):
    recorder.refusal = "/tmp/x/kernel.cu(3): error: identifier \"uchar\" is undefined\n1 error detected"
    with pytest.raises(DeviceError, match=r"(?s)NVIDIA H200.* does not accept .*\n    3  typedef unsigned int uint;"):
        (Tensor(np.ones(4, np.float32), device=opened.name) + 1).realize()


def test_what_the_compiler_lacks_is_said(opened, recorder):
    recorder.errors["function"] = RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers")
    with pytest.raises(DeviceError, match="compile: .* NVIDIA H200 .*loads, got Failed to find CUDA headers"):
        (Tensor(np.ones(4, np.float32), device=opened.name) + 1).realize()


def test_a_fork_is_refused(opened, monkeypatch):
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    with pytest.raises(DeviceError, match="opened by the parent"):
        devices.get(opened.name)


def test_the_fingerprint_names_what_results_depend_on(opened):
    found = opened.backend.fingerprint()
    assert "NVIDIA H200, compute capability 9.0, CUDA 12.8, NVRTC 12.9, CuPy 14.2.0" in found["driver"]
    assert found["kernels"] == "with cuBLAS, 132 cores, float32 products: highest"


# Graphs --------------------------------------------------------------------------------------------------------------


def captured(opened, layers=None):
    """A training step, and a batch for it."""
    with devices.backend(opened.name):
        model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)) if layers is None else layers()
        step = training(jit, model, nn.optim.SGD(model.parameters(), 0.1, momentum=0.9))
        x, y = Tensor(np.ones((16, 8), np.float32)), Tensor(np.zeros(16, np.int64))
    return lambda: step(x, y)


GRAPHS = ("begin_capture", "end_capture", "graph", "launch", "gemmEx", "malloc", "RawModule", "synchronize")


def test_a_captured_step_is_replayed(opened, recorder):
    step = captured(opened)
    step()
    assert "begin_capture" not in recorder.names(), "everything is compiled and warm before it is recorded"
    kept = step()
    first = recorder.names(*GRAPHS)
    graphs, products = first.count("graph"), first.count("gemmEx")
    assert first.count("begin_capture") == first.count("end_capture") == graphs > 0 and products == 5
    del kept
    step()
    recorder.names()
    step()
    replayed = recorder.names(*GRAPHS)
    assert replayed.count("graph") == graphs and replayed.count("gemmEx") == products
    assert "begin_capture" not in replayed and "malloc" not in replayed and "synchronize" not in replayed


def test_graphs_are_recorded_apart_from_other_threads_copies(opened, recorder, monkeypatch):
    """A stream that records takes no copies."""
    step, seen = captured(opened), []
    step()
    heap = opened.backend.heap
    monkeypatch.setattr(recorder, "note", lambda *call: seen.append(heap.stream.recording))
    step()
    assert seen and not any(seen)


@pytest.mark.parametrize("when", ["begin_capture", "end_capture"])
def test_a_step_that_cannot_be_recorded_is_launched(opened, recorder, when):
    step = captured(opened)
    step()
    recorder.errors[when] = CUDARuntimeError(900, "cudaErrorStreamCaptureUnsupported: not permitted")
    with pytest.warns(RuntimeWarning, match="kernel by kernel, as CUDA records no graph of it: cudaErrorStreamCapt"):
        step()
    recorder.names()
    step()
    assert {"launch", "gemmEx"} <= set(recorder.names()) and "graph" not in recorder.names()


def test_memory_of_a_graph_stays(opened, recorder):
    step = captured(opened)
    step(), step()
    before = recorder.used
    opened.pool.trim()
    step()
    opened.backend.synchronize()
    assert recorder.used <= before


def test_a_full_device_is_an_error_of_memory(opened, recorder):
    step = captured(opened)
    step()
    recorder.errors["graph"] = OutOfMemoryError("Out of memory allocating 512 bytes")
    with pytest.raises(OutOfMemory, match="k1_matmul_add_relu"):
        step()
