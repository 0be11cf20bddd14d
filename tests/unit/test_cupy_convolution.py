"""Convolutions by templates, by cuBLAS or by cuDNN: what cuDNN is asked for, and which way a kernel is computed."""

import sys

import numpy as np
import pytest
from cupy_recorder import GraphNotSupported, Recorder
from generated import kernel_of, places, random_values
from test_cstyle_tiled import row_major
from test_cuda_tensor import last

import minigrad
from minigrad import Tensor, config, dtypes, jit, reference
from minigrad import device as devices
from minigrad.backends import tune
from minigrad.backends.cupy import dnn
from minigrad.backends.cupy.ways import By
from minigrad.shapes import Window

pytestmark = pytest.mark.usefixtures("highest")
WINDOW = Window((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2))
CONVOLUTIONS = {
    "conv": ((WINDOW, 2), ((2, 4, 7, 6), (6, 2, 3, 2))),
    "conv_input_grad": ((WINDOW, 2, (7, 6)), ((2, 6, 3, 5), (6, 2, 3, 2))),
    "conv_weight_grad": ((WINDOW, 2), ((2, 4, 7, 6), (2, 6, 3, 5))),
}


@pytest.fixture
def recorder(recorder, monkeypatch):
    return recorder.with_cudnn(monkeypatch)


def kernels(op, dtype, views, epilogue=False):
    attrs, shapes = CONVOLUTIONS[op]
    return kernel_of(np.random.default_rng(0), op, attrs, shapes, dtype, views, epilogue)


def result(backend, kernel, program):
    """What a kernel stores of random sources, and the sources and the summand of its epilogue."""
    rng, memory, values = np.random.default_rng(1), {}, []
    for operand in (*kernel.inputs, *kernel.outputs):
        where = places(operand.view)
        host = np.full(int(where.max()) + 1, 77, operand.dtype.numpy)
        shown = random_values(rng, where.shape, operand.dtype)
        host[where] = shown
        values.append(host[where])
        memory[operand.buffer] = backend.allocate(host.nbytes)
        backend.copy_in(memory[operand.buffer], host)
    program([memory[b] for b in range(kernel.buffers)])
    output = kernel.outputs[0]
    where = places(output.view)
    host = np.empty(int(where.max()) + 1, output.dtype.numpy)
    backend.copy_out(memory[output.buffer], host)
    return host[where], values


def check(backend, kernel, program):
    found, (first, second, *more) = result(backend, kernel, program)
    attrs = kernel.attrs
    spatial = (attrs.spatial,) if kernel.op == "conv_input_grad" else ()
    wide = [first.astype(np.float64), second.astype(np.float64)]
    exact = getattr(reference, kernel.op)(*wide, attrs.window, attrs.groups, *spatial)
    dtype = kernel.outputs[0].dtype.numpy
    exact = exact.astype(dtype).astype(np.float64)
    if len(more) > 1:
        exact = np.maximum(exact + more[0].astype(np.float64), 0)
    tolerance = 1e-5 if dtype == np.float32 else 2.0**-7
    np.testing.assert_allclose(found.astype(np.float64), exact, tolerance, tolerance)


@pytest.mark.parametrize("op", CONVOLUTIONS)
def test_cudnn_is_asked_for_what_the_kernel_says(opened, op):
    """Groups, strides, dilation, padding before and after, images and channels in both orders."""
    backend = opened.backend
    for dtype in (dtypes.float32, dtypes.bfloat16, dtypes.float16):
        for views in (row_major, last):
            kernel = kernels(op, dtype, views)
            assert By.CUDNN in backend.choices(kernel)
            (program,) = backend.variants(kernel, [By.CUDNN])
            assert program.names == ["cuDNN"]
            check(backend, kernel, program)


def test_an_epilogue_is_a_launch_after_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    recorder = Recorder(executes=True).installed(monkeypatch).with_cudnn(monkeypatch)
    backend = recorder.opened(monkeypatch).backend
    made = [kernels(op, dtypes.float32, views, epilogue=True) for op, views in zip(CONVOLUTIONS, (last, row_major) * 2)]
    parts = [backend._ways.parts(kernel, By.CUDNN) for kernel in made]
    for kernel, program in zip(made, backend._build(parts, ["after"] * 3)):
        assert [*program.names][:1] == ["cuDNN"] and len(program.names) == 2
        check(backend, kernel, program)


def test_what_float32_values_may_be_rounded_to(opened, recorder):
    for precision, dtype, rounds in (
        ("highest", dtypes.float32, False), ("high", dtypes.float32, True), ("highest", dtypes.bfloat16, True)
    ):  # fmt: skip
        minigrad.set_float32_matmul_precision(precision)
        opened.backend.choices(kernels("conv", dtype, row_major))
        ((_, notes),) = (call for call in recorder.calls if call[0] == "cudnn deselect_numeric_notes")
        assert set(dnn.NEVER) <= set(notes) and ("TENSOR_CORE" not in notes) is rounds
        recorder.names()


@pytest.mark.parametrize("dtype", [dtypes.float64, dtypes.int32], ids=str)
def test_other_dtypes_are_not_for_it(opened, dtype):
    assert By.CUDNN not in opened.backend.choices(kernels("conv", dtype, row_major))


def test_what_it_does_not_support_is_no_choice(opened, recorder):
    kernel = kernels("conv", dtypes.float32, row_major)
    recorder.errors["cudnn check_support"] = GraphNotSupported("no engine")
    assert By.CUDNN not in opened.backend.choices(kernel)
    assert By.CUDNN in opened.backend.choices(kernels("conv", dtypes.float32, last))


def test_without_it_there_are_templates_and_cublas(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    recorder = Recorder().installed(monkeypatch)
    monkeypatch.setitem(sys.modules, "cudnn", None)
    choices = recorder.opened(monkeypatch).backend.choices(kernels("conv", dtypes.bfloat16, last))
    assert By.CUBLAS in choices and By.CUDNN not in choices and len(choices) > 5


# The choice ----------------------------------------------------------------------------------------------------------

X, W = (np.random.default_rng(n).integers(-3, 4, shape).astype("f4") for n, shape in
        enumerate([(2, 16, 8, 8), (32, 16, 3, 3)]))  # fmt: skip


def convolution(device):
    """A convolution on a device; gives the names of what computed it."""
    launched = []
    with devices.backend(device.name):
        x, w = Tensor(X), Tensor(W)
        enqueuing = device.backend.enqueuing
        device.backend.enqueuing = lambda names: launched.extend(names) or enqueuing(names)
        x.conv2d(w, padding=1).realize()
        del device.backend.enqueuing
    return launched


@pytest.fixture
def measured(monkeypatch):
    """Has what contains a word in its names be fastest."""

    def fastest(word):
        def seconds(run, backend):
            return 1.0 if any(word in name for name in run._names) else 2.0

        monkeypatch.setattr(tune, "_seconds", seconds)
        monkeypatch.setattr(tune, "ROUNDS", 1)

    return fastest


@pytest.mark.parametrize(("word", "names"), [("cuDNN", ["cuDNN"]), ("cuBLAS", ["k0_conv", "cuBLAS"]), ("conv", None)])
def test_the_fastest_is_found_and_remembered(recorder, monkeypatch, measured, word, names, capsys):
    measured(word)
    with config.settings.override(tune=True):
        used = convolution(recorder.opened(monkeypatch))
    assert "tuned conv [2, 32, 8, 8]" in capsys.readouterr().err
    again = recorder.opened(monkeypatch)
    recorder.names()
    monkeypatch.setattr(tune.Tuner, "_measure", lambda *_: pytest.fail("measured twice"))
    found = convolution(again)  # from disk, without being asked to measure
    assert used[-len(found):] == found
    if names is not None:
        assert [name.partition("_conv")[0] for name in found][: len(names)] == [n.partition("_conv")[0] for n in names]
    assert again.backend.fingerprint()["tiles"] != "none measured"


def test_nothing_is_opened_or_measured_unasked(opened, recorder):
    assert convolution(opened) == ["k0_conv"]
    assert "cudnn create_handle" not in recorder.names()


def test_other_precisions_are_measured_anew(recorder, monkeypatch, measured):
    measured("cuDNN")
    with config.settings.override(tune=True):
        convolution(recorder.opened(monkeypatch))
    minigrad.set_float32_matmul_precision("high")
    assert "cuDNN" not in convolution(recorder.opened(monkeypatch))


def test_graphs_contain_it(recorder, monkeypatch, measured):
    measured("cuDNN")
    opened = recorder.opened(monkeypatch)
    with config.settings.override(tune=True), devices.backend(opened.name):
        step = jit(lambda x, w: (x.conv2d(w, padding=1), x.conv2d(w, padding=1, stride=2)))
        x, w = Tensor(X), Tensor(W)
        step(x, w), step(x, w)
        recorder.names()
        found, _ = step(x, w)
        assert "cudnn execute" not in recorder.names(), "it was recorded, and is replayed"
        exact = reference.conv(X, W, Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), 1)
        np.testing.assert_array_equal(found.numpy(), exact)


def test_the_front_end_takes_what_it_is_given():
    """Until it needs the library."""
    cudnn = pytest.importorskip("cudnn", reason="cuDNN's front end is not installed: pip install minigrad[cudnn]")
    kind = cudnn.data_type
    for op, (way, *names) in dnn._WAYS.items():
        graph = cudnn.pygraph(
            handle=None, io_data_type=kind.HALF, intermediate_data_type=kind.FLOAT, compute_data_type=kind.FLOAT
        )
        sources = [graph.tensor(dim=[*s], stride=[*np.empty(s, "i1").strides], data_type=kind.HALF)
                   for s in CONVOLUTIONS[op][1]]  # fmt: skip
        made = getattr(graph, way)(
            **dict(zip(names, sources)), pre_padding=[1, 0], post_padding=[0, 1], stride=[2, 1], dilation=[1, 2]
        )
        made.set_output(True).set_data_type(kind.HALF).set_dim([1, 2, 3, 4]).set_stride([24, 12, 4, 1])
    for name in (*dnn.NEVER, *dnn.ROUNDS):
        getattr(cudnn.numerical_note, name)
    assert {*dnn.TYPES.values()} <= {*dir(kind)} and cudnn.heur_mode.A != cudnn.heur_mode.FALLBACK
    assert callable(cudnn.create_handle) and callable(cudnn.set_stream) and cudnn.cudnnGraphNotSupportedError
