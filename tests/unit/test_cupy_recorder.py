"""The recorder has the functions of CuPy, with the arguments that the backend gives."""

import inspect
import re
from operator import attrgetter

import pytest
from cupy_recorder import Event, Graph, MemoryPointer, RawModule, Recorder, Stream

from minigrad.backends.cupy import backend

# What the backend calls: the names of the arguments that it gives, in their order.
USED = {
    "RawModule.get_function": "name",
    "cuda.Event.record": "stream",
    "cuda.Event.synchronize": "",
    "cuda.Graph.launch": "stream",
    "cuda.MemoryPointer.copy_from_device_async": "src size stream",
    "cuda.MemoryPointer.copy_from_host_async": "mem size stream",
    "cuda.MemoryPointer.copy_to_host_async": "mem size stream",
    "cuda.MemoryPool.malloc": "size",
    "cuda.MemoryPool.used_bytes": "",
    "array": "obj",
    "asarray": "a",
    "from_dlpack": "array",
    "cuda.Stream.begin_capture": "",
    "cuda.Stream.end_capture": "",
    "cuda.Stream.record": "event",
    "cuda.Stream.synchronize": "",
    "cuda.Stream.wait_event": "event",
    "cuda.alloc_pinned_memory": "size",
    "cuda.nvrtc.getVersion": "",
    "cuda.runtime.driverGetVersion": "",
    "cuda.runtime.getDeviceCount": "",
    "cuda.runtime.getDeviceProperties": "device",
    "cuda.runtime.runtimeGetVersion": "",
    "get_default_memory_pool": "",
}
CLASSES = """
RawKernel.max_dynamic_shared_size_bytes ndarray cuda.Device cuda.UnownedMemory cuda.Event cuda.compiler.CompileException
cuda.driver.CUDADriverError cuda.memory.OutOfMemoryError cuda.runtime.CUDARuntimeError cuda.runtime.is_hip
""".split()
GEMM = "handle transa transb m n k alpha A Atype lda B Btype ldb beta C Ctype ldc computeType algo".split()
GEMMS = (
    "handle transa transb m n k alpha A Atype lda strideA B Btype ldb strideB beta C Ctype ldc strideC "
    "batchCount computeType algo"
).split()


def parameters(function):
    """Names of arguments; compiled functions tell them in the first line of their description only."""
    try:
        names = [*inspect.signature(function).parameters]
    except ValueError:
        (given,) = re.findall(r"^[\w.]+\((.*?)\)", function.__doc__ or "()")[:1]
        names = [part.split("=")[0].split()[-1] for part in given.split(",") if part.strip()]
    return [name for name in names if name != "self"]


def test_cupy_has_what_is_used():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install cupy-cuda13x")
    for path, names in USED.items():
        found = parameters(attrgetter(path)(cupy))
        assert found[: len(names.split())] == names.split(), path
    for path in CLASSES:
        attrgetter(path)(cupy)
    declared = "flush_denormals=True" in inspect.getsource(backend)
    assert ("-ftz=true" in inspect.getsource(cupy.cuda.compiler)) is declared, "what CuPy adds to our options"
    assert "non_blocking" in parameters(cupy.cuda.Stream.__init__)
    assert "disable_timing" in parameters(cupy.cuda.Event.__init__)


def test_cublas_has_what_is_used():
    reason = "cuBLAS is not installed"
    cublas = pytest.importorskip("cupy_backends.cuda.libs.cublas", reason=reason, exc_type=ImportError)
    assert parameters(cublas.gemmEx) == GEMM
    assert parameters(cublas.gemmStridedBatchedEx) == GEMMS


def test_the_recorder_has_what_is_used():
    recorder = Recorder()
    owners = {"cuda.MemoryPointer": MemoryPointer, "cuda.Stream": Stream, "cuda.Event": Event, "cuda.Graph": Graph}
    owners |= {"RawModule": RawModule, "cuda.MemoryPool": recorder.cupy.get_default_memory_pool()}
    for path, names in USED.items():
        owner, _, name = path.rpartition(".")
        function = getattr(owners[owner], name) if owner in owners else attrgetter(path)(recorder.cupy)
        assert len(parameters(function)) >= len(names.split()), path
    for function, names in ((recorder.cublas.gemmEx, GEMM), (recorder.cublas.gemmStridedBatchedEx, GEMMS)):
        assert [n.lower() for n in parameters(function)] == [n.lower() for n in names]
