"""The few functions of CuPy that the backend uses, without CuPy and without a GPU, for tests only.

They keep a list of calls. Memory is NumPy's. As on a device, what is enqueued happens later: only when somebody waits
for it, and not a moment sooner, so that whoever does not wait sees what was there before. Generated functions are
executed by the CPU (``tests/cuda``) where that is wanted, products of matrices by NumPy.
"""

import ctypes
import re
import sys
import threading
import weakref
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minigrad import device as devices
from minigrad import dtypes, reference
from minigrad.shapes import Window

JUNK = 170  # every byte of memory that is new, or was given back
STATIC_SHARED = 48 << 10
SHARED = {(7, 0): 96 << 10, (7, 5): 64 << 10, (8, 0): 163 << 10, (9, 0): 227 << 10}  # by compute capability
CUBLAS = "cupy_backends.cuda.libs.cublas"
KINDS = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16), 14: dtypes.bfloat16.numpy}
_KERNEL = re.compile(r'extern "C" __global__ void .*? (\w+)\(')
_names = iter(range(1 << 30))


class CUDARuntimeError(RuntimeError):
    def __init__(self, status, text="an error"):
        super().__init__(text)
        self.status = status


class CUDADriverError(RuntimeError):
    pass


class CUBLASError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class CompileException(Exception):
    pass


class Stream:
    """Work in order, none of which is done before it has to be."""

    def __init__(self, recorder, non_blocking=False):
        assert non_blocking, "the null stream would wait for it"
        self.recorder, self.work, self.recording = recorder, [], None
        recorder.streams.append(self)

    def __enter__(self):
        self.recorder.current("streams").append(self)
        return self

    def __exit__(self, *error):
        assert self.recorder.current("streams").pop() is self

    def put(self, action, name="launch"):
        """Enqueue a function, or record it."""
        if self.recording is not None:
            assert name == "launch", f"{name} while recording"
            self.recording.append(action)
        elif not self.recorder.virtual:
            self.work.append(action)

    def run(self, until=None):
        """Do what was enqueued, up to an event if one is given. One thread at a time, or the order would be lost."""
        with self.recorder.lock:
            while self.work and not (until is not None and until.reached):
                action = self.work.pop(0)
                if isinstance(action, Event):
                    action.reached = True
                else:
                    action()

    def synchronize(self):
        self.recorder.note("synchronize")
        self.run()

    def record(self, event):
        event.record(self)
        return event

    def wait_event(self, event):
        self.recorder.note("wait_event")
        self.put(event.wait, "wait_event")

    def begin_capture(self):
        self.recorder.note("begin_capture")
        assert self.recording is None
        self.recording = []

    def end_capture(self):
        recorded, self.recording = self.recording, None
        self.recorder.note("end_capture")
        return Graph(self.recorder, recorded)


class Event:
    def __init__(self, recorder, disable_timing=False):
        self.recorder, self.stream, self.reached = recorder, None, True

    def record(self, stream):
        self.recorder.note("record")
        if self.stream is not None and not self.reached:  # an event that is recorded again forgets the first time
            self.stream.work[:] = [w if w is not self else (lambda: None) for w in self.stream.work]
        self.stream, self.reached = stream, False
        stream.work.append(self)

    def wait(self):
        if not self.reached:
            self.stream.run(until=self)

    def synchronize(self):
        self.wait()


class Graph:
    def __init__(self, recorder, actions):
        self.recorder, self.actions = recorder, actions

    def launch(self, stream=None):
        self.recorder.note("graph", len(self.actions))
        stream = stream or self.recorder.stream
        for action in self.actions:
            stream.put(action)


class Allocation:
    """A piece of device memory; what is left of it when nobody has it any more is junk."""

    def __init__(self, recorder, nbytes):
        around = np.empty(nbytes + 512, np.uint8) if recorder.virtual else np.full(nbytes + 512, JUNK, np.uint8)
        start = -around.ctypes.data % 256
        self.array = around[start : start + nbytes]
        recorder.memory[self.array.ctypes.data] = self.array
        recorder.used += nbytes
        # Not of this object: where the collector finds it in a cycle, whose finalizer may then save it for the pool,
        # weak references are told all the same. It does not look at arrays: they go when nobody has them.
        self.token = np.empty(0)
        weakref.finalize(self.token, _free, recorder, self.array, recorder.stream)


def _free(recorder, array, stream):
    recorder.used -= array.size
    del recorder.memory[array.ctypes.data]

    def spoil():
        array[...] = JUNK

    stream.put(spoil)


class MemoryPointer:
    def __init__(self, recorder, owner, offset=0):
        self.recorder, self.owner, self.offset = recorder, owner, offset

    @property
    def ptr(self):
        return self.owner.array.ctypes.data + self.offset

    @property
    def array(self):
        return self.owner.array[self.offset :]

    def __add__(self, offset):
        return MemoryPointer(self.recorder, self.owner, self.offset + offset)

    def copy_from_host_async(self, mem, size, stream=None):
        self._copy("to device", self.ptr, mem, size, stream)

    def copy_to_host_async(self, mem, size, stream=None):
        self._copy("to host", mem, self.ptr, size, stream)

    def copy_from_device_async(self, src, size, stream=None):
        self._copy("on device", self.ptr, src.ptr, size, stream)

    def _copy(self, way, target, source, size, stream):
        self.recorder.note(way, size)
        for end in (source, target):
            self.recorder.assert_within(end, size)
        stream.put(lambda: ctypes.memmove(target, source, size), way)


class UnownedMemory:
    """Memory of somebody who is kept alive."""

    def __init__(self, recorder, ptr, size, owner, device_id):
        recorder.assert_within(ptr, size)
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(ptr))
        self.owner = owner


class Array:
    """What of an ``ndarray`` other libraries see."""

    def __init__(self, recorder, shape, dtype, memptr, strides=None):
        self.recorder, self.shape, self.dtype, self.data = recorder, tuple(shape), np.dtype(dtype), memptr
        self.strides = np.empty(shape, dtype).strides if strides is None else strides
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        self.device = SimpleNamespace(id=0)

    @property
    def values(self):
        """As NumPy has them when everything is done."""
        self.recorder.stream.run()
        return self.shown.copy()

    @property
    def shown(self):
        return np.ndarray(self.shape, self.dtype, self.data.owner.array, self.data.offset, self.strides)

    def __dlpack__(self, *, stream=None, **options):
        self.recorder.note("dlpack", stream, self.recorder.stream)
        return self

    def __dlpack_device__(self):
        return (2, 0)

    @property
    def __cuda_array_interface__(self):
        return {"version": 3, "shape": self.shape, "strides": self.strides, "typestr": self.dtype.str,
                "data": (self.data.ptr, False), "stream": id(self.recorder.stream)}  # fmt: skip


class GraphNotSupported(Exception):
    pass


class DnnTensor:
    """A tensor of cuDNN's graph; setters return it."""

    def __init__(self, dim=None, stride=None, data_type=None):
        self.dim, self.stride, self.data_type = dim, stride, data_type

    def set_output(self, value):
        assert value is True
        return self

    def set_data_type(self, value):
        self.data_type = value
        return self

    def set_dim(self, value):
        self.dim = value
        return self

    def set_stride(self, value):
        self.stride = value
        return self


class DnnGraph:
    """One convolution, computed by the reference."""

    ORDER = ("validate", "build_operation_graph", "create_execution_plans", "deselect_numeric_notes", "check_support",
             "build_plans", "get_workspace_size")  # fmt: skip
    WORKSPACE = 512

    def __init__(self, recorder, *, handle, io_data_type, intermediate_data_type, compute_data_type):
        assert handle == "handle" and intermediate_data_type == compute_data_type == "FLOAT"
        self.recorder, self.kind, self.done = recorder, io_data_type, 0
        for number, name in enumerate(self.ORDER):
            setattr(self, name, self._step(number, name))

    def _step(self, number, name):
        def step(*arguments):
            assert self.done == number, f"{name} out of order"
            self.done += 1
            self.recorder.note(f"cudnn {name}", *arguments)
            return self.WORKSPACE

        return step

    def tensor(self, *, dim, stride, data_type):
        assert len(dim) == len(stride) >= 4 and min(stride) > 0 and data_type == self.kind
        return DnnTensor(dim, stride, data_type)

    def conv_fprop(self, *, image, weight, **window):
        return self._convolution("conv", image, weight, window)

    def conv_dgrad(self, *, loss, filter, **window):
        return self._convolution("conv_input_grad", loss, filter, window)

    def conv_wgrad(self, *, image, loss, **window):
        return self._convolution("conv_weight_grad", image, loss, window)

    def _convolution(self, op, first, second, window):
        self.op, self.sources, self.window, self.result = op, (first, second), window, DnnTensor()
        return self.result

    def execute(self, pointers, workspace, handle):
        recorder = self.recorder
        recorder.note("cudnn execute", self.op)
        assert handle == "handle" and self.done == len(self.ORDER) and recorder.dnn_stream is recorder.stream
        dtype = {"FLOAT": KINDS[0], "HALF": KINDS[2], "BFLOAT16": KINDS[14]}[self.kind]
        views = [recorder.view(pointers[t], t.dim, t.stride, dtype) for t in (*self.sources, self.result)]
        work = recorder.view(workspace, (self.WORKSPACE,), (1,), np.dtype(np.uint8))
        w = self.window
        padding = tuple(zip(w["pre_padding"], w["post_padding"]))
        kernel = tuple({"conv": self.sources[1], "conv_input_grad": self.sources[1]}.get(self.op, self.result).dim[2:])
        window = Window(kernel, tuple(w["stride"]), padding, tuple(w["dilation"]))
        channels = {"conv": (0, 1), "conv_input_grad": (2, 1), "conv_weight_grad": (0, 2)}[self.op]
        groups = views[channels[0]].shape[1] // views[channels[1]].shape[1]
        more = (views[2].shape[2:],) if self.op == "conv_input_grad" else ()

        def compute():
            wide = [v.astype(np.float64) for v in views[:2]]
            views[2][...] = getattr(reference, self.op)(*wide, window, groups, *more).astype(dtype)
            work[...] = JUNK

        recorder.stream.put(compute)


class Pinned(np.ndarray):
    """Host memory, aligned as drivers do it."""

    @property
    def ptr(self):
        return self.ctypes.data


class RawModule:
    def __init__(self, recorder, code, options=(), backend=""):
        assert backend == "nvrtc" and isinstance(options, tuple)
        self.recorder, self.code = recorder, code
        recorder.note("RawModule", len(_KERNEL.findall(code)))
        recorder.sources.append(code)
        self.program = None
        self.texts = {}
        for text in code.split('extern "C" ')[1:]:
            (name,) = _KERNEL.findall(f'extern "C" {text}')
            self.texts[name] = text

    def get_function(self, name):
        self.recorder.note("function", name)
        if self.recorder.refusal:
            raise CompileException(self.recorder.refusal)
        assert name in self.texts
        return RawKernel(self, name)

    def run(self, name, grid, block, arrays, dynamic):
        if not self.recorder.executes:
            return
        import cuda_on_cpu

        from minigrad.backends.cstyle.source import Stage

        if self.program is None:
            self.program = cuda_on_cpu.Functions(self.code, list(self.texts), self.recorder.level)
        self.program.launch(name, Stage(self.texts[name], grid, block, (), (), dynamic), arrays)


class RawKernel:
    max_dynamic_shared_size_bytes = STATIC_SHARED

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self, grid, block, args, *, shared_mem=0):
        recorder = self.module.recorder
        recorder.note("launch", self.name, grid, block, shared_mem, len(args))
        limits = ((2**31 - 1, 65535, 65535), (1024, 1024, 64))
        for sizes, most in zip((grid, block), limits):
            assert isinstance(sizes, tuple) and 1 <= len(sizes) <= 3
            assert all(1 <= size <= limit for size, limit in zip(sizes, most)), (self.name, grid, block)
        assert np.prod(block) <= 1024
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= recorder.shared, (self.name, shared_mem)
        assert isinstance(args, tuple) and all(isinstance(a, MemoryPointer) for a in args)
        arrays, run = [a.array for a in args], self.module.run
        recorder.stream.put(lambda: run(self.name, grid, block, arrays, shared_mem))


class Recorder:
    """One machine with a GPU, or whatever of that is there.

    Attributes:
        calls: the name of each function that was called, and what matters of its arguments.
        errors: what the next call of a function raises, by its name.
        limit: bytes that the device has.
        refusal: what the compiler says.
        sources: of all programs.
        streams: all that were made.
        executes: whether functions are executed.
        level: how far they are optimised.
        virtual: whether nothing at all happens, and memory is not touched: for what is too large for the machine.
    """

    def __init__(self, *, driver=12080, runtime=12090, devices=1, capability=(9, 0), hip=False, executes=False,
                 virtual=False):  # fmt: skip
        self.calls, self.errors, self.memory, self.sources = [], {}, {}, []
        self.driver, self.runtime, self.devices, self.capability, self.hip = driver, runtime, devices, capability, hip
        self.used, self.limit, self.shared, self.refusal = 0, 1 << 30, SHARED[capability], ""
        self.executes, self.level, self.virtual = executes, "-O1", virtual
        self.local, self.lock = threading.local(), threading.RLock()
        self.pinned, self.streams = [], []
        self.cupy, self.cublas = self._cupy(), self._cublas()

    def note(self, name, *details):
        """Keep a call; raises what is planned for it."""
        self.calls.append((name, *details))
        error = self.errors.pop(name, None)
        if error is not None:
            raise error

    def names(self, *only):
        """The names of the calls so far, those of ``only`` if any are given; they are forgotten."""
        calls, self.calls = self.calls, []
        return [call[0] for call in calls if not only or call[0] in only]

    @property
    def stream(self):
        """The current one: there has to be one, and a device."""
        assert self.current("devices")
        return self.current("streams")[-1]

    def current(self, kind):
        """What this thread has entered, the last one last."""
        return self.local.__dict__.setdefault(kind, [])

    def assert_within(self, address, size):
        """That all bytes are of one piece of memory, of the device or pinned."""
        pieces = [*self.memory.values(), *self.pinned]
        assert any(p.ctypes.data <= address and address + size <= p.ctypes.data + p.size for p in pieces)

    def installed(self, monkeypatch):
        """Have this be what ``import cupy`` gives, and gives up CuPy's modules afterwards."""
        from minigrad.backends.cupy import driver

        monkeypatch.setitem(sys.modules, "cupy", self.cupy)
        monkeypatch.setitem(sys.modules, CUBLAS, self.cublas)
        listing = getattr(driver._listing, "__wrapped__", driver._listing)  # which is remembered
        monkeypatch.setattr(driver, "_listing", listing)
        return self

    def opened(self, monkeypatch):
        """A device of the backend, known by a name of its own for the rest of a test."""
        from minigrad.backends.cupy import CupyBackend

        name = f"cupy_recorder_{next(_names)}"  # what was compiled is remembered by name
        opened = devices.Device(name, CupyBackend())
        monkeypatch.setitem(devices._devices, name, opened)
        return opened

    def _cupy(self):
        pool = SimpleNamespace(malloc=self._malloc, used_bytes=lambda: self.used)
        runtime = SimpleNamespace(
            is_hip=self.hip,
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: self.driver,
            runtimeGetVersion=lambda: self.runtime,
            getDeviceCount=self._count,
            getDeviceProperties=self._properties,
        )
        cuda = SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            compiler=SimpleNamespace(CompileException=CompileException),
            nvrtc=SimpleNamespace(getVersion=lambda: self.note("nvrtc") or (12, 9)),
            Device=self._device,
            Stream=lambda **options: Stream(self, **options),
            Event=lambda **options: Event(self, **options),
            alloc_pinned_memory=self._pin,
            MemoryPointer=lambda memory, offset: MemoryPointer(self, memory, offset),
            UnownedMemory=lambda *arguments: UnownedMemory(self, *arguments),
        )
        module = ModuleType("cupy")
        module.__dict__.update(
            __version__="14.2.0",
            cuda=cuda,
            RawModule=lambda **options: RawModule(self, **options),
            get_default_memory_pool=lambda: pool,
            ndarray=lambda *arguments: Array(self, *arguments),
            from_dlpack=self._from_dlpack,
            asarray=self._from_interface,
            array=self.array,
        )
        return module

    def _count(self):
        if not self.devices:
            raise CUDARuntimeError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.devices

    def _properties(self, index):
        major, minor = self.capability
        return {
            "name": b"NVIDIA H200", "major": major, "minor": minor, "totalGlobalMem": 140 << 30,
            "multiProcessorCount": 132, "sharedMemPerBlockOptin": self.shared,
        }  # fmt: skip

    @contextmanager
    def _device(self, index):
        self.current("devices").append(index)
        try:
            yield
        finally:
            assert self.current("devices").pop() == index

    def _malloc(self, nbytes):
        self.note("malloc", nbytes)
        if self.used + nbytes > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")
        return MemoryPointer(self, Allocation(self, nbytes))

    def _pin(self, nbytes):
        self.note("pin", nbytes)
        self.pinned.append(np.full(nbytes, JUNK, np.uint8).view(Pinned))
        return self.pinned[-1]

    def _from_dlpack(self, x):
        found = x.__dlpack__(stream=self.stream)
        return Array(self, found.shape, found.dtype, found.data, found.strides)

    def _from_interface(self, x):
        described = x.__cuda_array_interface__
        self.note("interface", described["stream"])
        size = x.data.array.size
        memory = UnownedMemory(self, described["data"][0], size, x, 0)
        return Array(self, described["shape"], described["typestr"], MemoryPointer(self, memory), described["strides"])

    def array(self, x, order="C"):
        """A copy in memory of its own, on the current stream."""
        made = Array(self, x.shape, x.dtype, self._malloc(max(x.nbytes, 1)))
        source, target = x.shown if isinstance(x, Array) else x.copy(), made.shown

        def copy():
            target[...] = source

        self.stream.put(copy)
        return made

    # cuBLAS.

    def _cublas(self):
        module = ModuleType(CUBLAS)
        module.__dict__.update(
            CUBLASError=CUBLASError,
            create=lambda: self.note("cublas create") or 7,
            setMathMode=lambda handle, mode: self.note("setMathMode", handle, mode),
            gemmEx=self._gemm,
            gemmStridedBatchedEx=self._gemms,
        )
        return module

    def _gemm(
        self, handle, transa, transb, m, n, k, alpha, a, atype, lda, b, btype, ldb, beta, c, ctype, ldc, computetype,
        algo,
    ):  # fmt: skip
        self._product("gemmEx", handle, transa, transb, (m, n, k), alpha, (a, atype, lda, 0), (b, btype, ldb, 0), beta,
                      (c, ctype, ldc, 0), 1, computetype, algo)  # fmt: skip

    def _gemms(
        self, handle, transa, transb, m, n, k, alpha, a, atype, lda, stridea, b, btype, ldb, strideb, beta,
        c, ctype, ldc, stridec, batchcount, computetype, algo,
    ):  # fmt: skip
        self._product("gemmStridedBatchedEx", handle, transa, transb, (m, n, k), alpha, (a, atype, lda, stridea),
                      (b, btype, ldb, strideb), beta, (c, ctype, ldc, stridec), batchcount,
                      computetype, algo)  # fmt: skip

    def _product(self, name, handle, transa, transb, shape, alpha, a, b, beta, c, count, compute, algo):
        self.note(name, shape, count, (transa, transb), (a[2], b[2], c[2]), compute)
        assert handle == 7 and algo == -1
        if self.stream.recording is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        m, n, k = shape
        scalar = ctypes.c_double if compute == 70 else ctypes.c_float
        assert (scalar.from_address(alpha).value, scalar.from_address(beta).value) == (1, 0)
        left = self._matrices(*a, count, m, k, transa)
        right = self._matrices(*b, count, k, n, transb)
        out = self._matrices(*c, count, m, n, 0)
        assert left.dtype == right.dtype == out.dtype
        assert {70: out.dtype == np.float64, 68: out.dtype != np.float64}.get(compute, out.dtype == np.float32)

        def multiply():
            wide = np.float64 if compute == 70 else np.float32
            with np.errstate(all="ignore"):
                out[...] = np.matmul(left.astype(wide), right.astype(wide)).astype(out.dtype)

        self.stream.put(multiply, name)

    # cuDNN.

    def with_cudnn(self, monkeypatch):
        """Have its front end be there, too."""
        module = ModuleType("cudnn")
        notes = "NONDETERMINISTIC REDUCED_PRECISION_REDUCTION WINOGRAD FFT TENSOR_CORE DOWN_CONVERT_INPUTS".split()
        module.__dict__.update(
            data_type=SimpleNamespace(FLOAT="FLOAT", HALF="HALF", BFLOAT16="BFLOAT16"),
            heur_mode=SimpleNamespace(A="A", FALLBACK="FALLBACK"),
            numerical_note=SimpleNamespace(**{note: note for note in notes}),
            cudnnGraphNotSupportedError=GraphNotSupported,
            create_handle=lambda: self.note("cudnn create_handle") or "handle",
            set_stream=lambda handle, stream: setattr(self, "dnn_stream", stream),
            pygraph=lambda **options: DnnGraph(self, **options),
        )
        self.cupy.cuda.get_current_stream = lambda: SimpleNamespace(ptr=self.stream)
        monkeypatch.setitem(sys.modules, "cudnn", module)
        return self

    def view(self, address, shape, strides, dtype):
        """Elements at distances, all of them in one piece of memory."""
        last = sum((n - 1) * s for n, s in zip(shape, strides)) + 1
        for base, array in self.memory.items():
            if base <= address and address + last * dtype.itemsize <= base + array.size:
                steps = [s * dtype.itemsize for s in strides]
                return np.ndarray(shape, dtype, array, address - base, steps)
        raise AssertionError("a tensor reaches beyond its memory")

    def _matrices(self, address, kind, distance, step, count, rows, columns, transposed):
        """What is described as columns ``distance`` apart, all of it in one piece of memory."""
        dtype = KINDS[kind]
        high, wide = (columns, rows) if transposed else (rows, columns)
        assert distance >= max(high, 1), "columns overlap"
        last = (count - 1) * step + (wide - 1) * distance + high
        for base, array in self.memory.items():
            if base <= address and address + last * dtype.itemsize <= base + array.size:
                flat = array[address - base :]
                flat = flat[: flat.size // dtype.itemsize * dtype.itemsize].view(dtype)
                size = dtype.itemsize
                found = as_strided(flat, (count, high, wide), (step * size, size, distance * size))
                return found.transpose(0, 2, 1) if transposed else found
        raise AssertionError("a matrix reaches beyond its memory")
