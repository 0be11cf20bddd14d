"""What the OpenCL backend does besides rendering: devices and their names, memory, building, the disk cache, errors."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, device, dtypes
from minigrad.backends import cache
from minigrad.backends.cstyle.dialect import OPENCL
from minigrad.backends.cstyle.source import Rendered, Stage
from minigrad.backends.opencl import OpenCLBackend, driver, pocl
from minigrad.backends.opencl import memory as heaps
from minigrad.errors import BackendUnavailable, DeviceError, OutOfMemory, Unsupported

REASON = device.available_backends()["opencl"]
needs_device = pytest.mark.skipif(REASON is not None, reason=f"opencl: {REASON}")

# A function of the form b1 = f(b0) on 64 floats, by 4 groups.
MAP = """__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void NAME(__global const float *b0, __global float *b1) {{
    for (int i = (int)get_group_id(0) * 16, end = i + 16; i < end; ++i) b1[i] = {};
}}"""


def one_stage(text, buffers=(0, 1), **options):
    return Rendered((Stage(text, (4,), (1,), buffers),), **options)


def mapping(expression):
    return one_stage(MAP.format(expression))


@pytest.fixture(scope="module")
def opencl():
    return OpenCLBackend()


@pytest.fixture
def memory(opencl):
    """Two pieces of memory; the first holds 0, 1, ..., 63."""
    pieces = [opencl.allocate(256), opencl.allocate(256)]
    opencl.copy_in(pieces[0], np.arange(64, dtype=np.float32))
    return pieces


def read(backend, piece, size=64, offset=0):
    array = np.empty(size, np.float32)
    backend.copy_out(piece, array, offset)
    return array


def run_python(text, **environment):
    """Another process: what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Devices -------------------------------------------------------------------------------------------------------------


def place_of(kind, platform_version, name="d"):
    kinds = SimpleNamespace(CPU=2, GPU=4)
    cl = SimpleNamespace(device_type=kinds)
    platform = SimpleNamespace(name="p", version=platform_version)
    found = SimpleNamespace(name=name, type=kind, version="v", driver_version="1")
    return driver._place(cl, platform, found)


def test_gpus_come_first_then_the_newest_pocl_and_simulators_last():
    wanted = [
        place_of(4, "OpenCL 3.0 CUDA 12.4"),
        place_of(2, "OpenCL 3.0 PoCL 5.10 Linux"),
        place_of(2, "OpenCL 3.0 PoCL 5.9 Linux"),
        place_of(2, "OpenCL 3.0 LINUX"),
        place_of(4, "OpenCL 3.0 PoCL 5.0 CUDA"),
        place_of(2 | 4, "OpenCL 1.2 (Oclgrind 21.10)"),
    ]
    assert sorted(reversed(wanted), key=lambda place: place.rank) == wanted


class Several:
    """A backend with three devices."""

    survives_fork = True

    def __init__(self, which=""):
        self.which = which

    @classmethod
    def available(cls):
        return None

    @classmethod
    def devices(cls):
        return ["Beads A (Wood 1.0)", "Beads B (Wood 1.0)", "Stones (Gravel 2.0)"]


@pytest.mark.parametrize(
    ("name", "usual"),
    [("abacus", "abacus"), ("abacus:0", "abacus"), ("Abacus:2", "abacus:2"), ("abacus:GRAVEL", "abacus:2"),
     ("abacus:beads a", "abacus"), (" abacus:beads b", "abacus:1")],
)  # fmt: skip
def test_devices_are_named_by_number_or_by_part_of_their_description(name, usual, backends):
    backends(abacus=f"{__name__}:Several")
    for _ in range(2):
        assert device.canonical(name) == usual
    assert device.get(usual).backend.which == usual.partition(":")[2]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("abacus:wood", ["2 devices of that name", "abacus:0  Beads A", "abacus:1  Beads B"]),
        ("abacus:glass", ["3 devices", "abacus:2  Stones"]),
        ("abacus:3", ["3 devices, numbered from 0", "abacus:2  Stones"]),
    ],
)
def test_names_of_no_device_or_of_several_list_what_there_is(name, parts, backends):
    backends(abacus=f"{__name__}:Several")
    with pytest.raises(BackendUnavailable) as raised:
        device.canonical(name)
    assert all(part in str(raised.value) for part in parts)


@needs_device
def test_minigrad_backends_lists_devices_and_marks_the_default():
    out = run_python("from minigrad.cli import main; main(['backends'])", MINIGRAD_BACKEND="opencl")
    lines = out.splitlines()
    assert any(line.startswith("* opencl") and "available" in line for line in lines)
    assert any(line.split()[:2] == ["*", "opencl"] and OpenCLBackend.devices()[0] in line for line in lines)


@pytest.mark.parametrize(
    ("system", "processor", "hint"),
    [
        ("linux", "x86_64", 'pip install "minigrad[opencl]"'),
        ("linux", "aarch64", "apt install pocl-opencl-icd"),
        ("darwin", "arm64", "conda install -c conda-forge pyopencl pocl"),
        ("win32", "AMD64", "Intel's OpenCL runtime"),
    ],
)
def test_without_a_device_it_says_what_to_install_on_this_system(system, processor, hint, monkeypatch):
    monkeypatch.setattr(driver, "_listing", lambda: (os.getpid(), ()))
    monkeypatch.setattr(pocl, "missing", lambda: None)
    monkeypatch.setattr(driver.sys, "platform", system)
    monkeypatch.setattr(driver.machine, "machine", lambda: processor)
    reason = OpenCLBackend.available()
    assert "no OpenCL device" in reason and hint in reason


def test_without_pyopencl_the_rest_works():
    out = run_python(
        """
        import sys
        sys.modules["pyopencl"] = None
        import minigrad
        print(minigrad.available_backends()["opencl"])
        print(minigrad.Tensor([1, 2]).sum().item())
        try:
            minigrad.set_backend("opencl")
        except RuntimeError as error:
            print(error)
        """
    )
    first, total, *error = out.splitlines()
    assert first.startswith('pyopencl is not installed: pip install "minigrad[opencl]"')
    assert total == "3" and "one that can run here (numpy)" in error[0]


@needs_device
def test_pocl_from_pypi_without_a_linker_is_not_used(tmp_path):
    """It would abort the process at the first launch."""
    if not pocl.importlib.util.find_spec("pocl_binary_distribution"):
        pytest.skip("another PoCL")
    out = run_python("import minigrad; print(minigrad.available_backends()['opencl'])", PATH=str(tmp_path))
    assert "binutils" in out


@needs_device
def test_a_fork_of_a_process_that_opened_opencl_is_told_so():
    out = run_python(
        """
        import os, sys
        import minigrad
        from minigrad import Tensor
        def child(name):
            sys.stdout.flush()
            if os.fork() == 0:
                try:
                    Tensor([1.0], device=name).numpy()
                    print("ran")
                except minigrad.errors.DeviceError as error:
                    print(str(error).split(" hint")[1])
                sys.stdout.flush()
                os._exit(0)
            os.wait()
        minigrad.available_backends()
        child("opencl")
        Tensor([1.0], device="opencl").numpy()
        child("opencl")
        child("numpy")
        """
    )
    assert out.split("\n")[:3] == [": use the 'spawn' start method"] * 2 + ["ran"]


# Building and launching ----------------------------------------------------------------------------------------------


@needs_device
def test_programs_of_one_build_run_in_order(opencl, memory):
    programs = opencl.build([mapping("b0[i] + 1.0f"), mapping("b0[i] * 2.0f")], ["add", "a name: with-signs"])
    programs[0](memory)
    programs[1](memory[::-1])
    assert (read(opencl, memory[0]) == (np.arange(64) + 1) * 2).all()
    assert "k0_add(" in programs[0].source and "k1_a_name__with_signs(" in programs[1].source


@needs_device
def test_a_bound_list_runs_again_and_again(opencl, memory):
    double, back = opencl.build([mapping("b0[i] * 2.0f"), mapping("b0[i]")], ["double", "copy"])
    run = opencl.bind([(double, memory), (back, memory[::-1])])
    other = [opencl.allocate(256), opencl.allocate(256)]
    opencl.copy_in(other[0], np.ones(64, np.float32))
    double(other)  # arguments of its own
    for _ in range(3):
        run()
    double.bind(memory)()
    assert (read(opencl, memory[0]) == np.arange(64) * 8).all()
    assert (read(opencl, memory[1]) == np.arange(64) * 16).all()
    assert (read(opencl, other[1]) == 2).all()


@needs_device
def test_stages_share_scratch_memory_and_library_functions(opencl, memory):
    first = """__kernel void NAME(__global const float *b0, __global float *s1) {
        s1[get_group_id(0)] = first_of(b0 + get_group_id(0) * 16); }"""
    second = """__kernel void NAME(__global float *b1, __global const float *s1, __global float *s0) {
        s0[get_group_id(0)] = 0.0f; b1[get_group_id(0)] = s1[get_group_id(0)] + 0.5f; }"""
    library = (("first_of", "static inline float first_of(__global const float *p) { return p[0]; }"),)
    stages = Stage(first, (4,), (1,), (0,), (1,)), Stage(second, (4,), (1,), (1,), (1, 0))
    for size in (16, 4096):
        (program,) = opencl.build([Rendered(stages, library, (size, size))], [f"two_stages_{size}"])
        program(memory)
        assert read(opencl, memory[1], 4).tolist() == [0.5, 16.5, 32.5, 48.5]


@needs_device
def test_the_same_text_is_built_once(opencl, memory, monkeypatch):
    built = []
    build = opencl._compiler.build
    monkeypatch.setattr(opencl._compiler, "build", lambda *given: built.append(given[1]) or build(*given))
    same, nothing = mapping("b0[i] + 7.0f"), Rendered(())
    programs = opencl.build([same, same, nothing], ["a", "b", "nothing"])
    again = opencl.build([mapping("b0[i] + 7.0f")], ["c"])
    assert built == [["k0_a"]]
    for program in (*programs, *again):
        program(memory)
    assert (read(opencl, memory[1]) == np.arange(64) + 7).all()


@needs_device
@pytest.mark.parametrize("other", [False, True])
def test_functions_that_short_headers_do_not_declare(other, opencl, memory):
    """Both dialects may call built-in functions: PoCL's own header is read then."""
    backend = OpenCLBackend(target=dataclasses.replace(opencl.target, dialect=OPENCL)) if other else opencl
    memory = [backend.allocate(256) for _ in range(2)]
    backend.copy_in(memory[0], np.arange(64, dtype=np.float32))
    (program,) = backend.build([mapping("convert_float(convert_int(sqrt(b0[i])))")], ["built_in"])
    program(memory)
    assert (read(backend, memory[1]) == np.floor(np.sqrt(np.arange(64)))).all()


@needs_device
def test_a_build_error_shows_the_numbered_source_around_it(opencl):
    with pytest.raises(DeviceError) as raised:
        opencl.build([mapping("b0[i]"), mapping("unknown_name + b0[i]")], ["right", "wrong"])
    lines = str(raised.value).splitlines()
    assert lines[0].startswith("compile: ") and any("unknown_name" in line and "error" in line for line in lines)
    (numbered,) = [line for line in lines if "b1[i] = unknown_name" in line]
    number = int(numbered.split()[0])
    assert any(f":{number}:" in line and "error" in line for line in lines)
    assert len(lines) < 20  # not the whole program


@needs_device
def test_a_launch_error_names_the_kernel(opencl, memory):
    (program,) = opencl.build([one_stage(MAP.format("b0[i]"), buffers=(0,))], ["one_argument_is_missing"])
    with pytest.raises(DeviceError, match="launch: expected k0_one_argument_is_missing to run"):
        program(memory)


@needs_device
def test_an_error_while_kernels_run_is_raised_when_one_waits(opencl, memory, monkeypatch):
    cl = opencl.place.cl
    (program,) = opencl.build([mapping("b0[i] - 9.0f")], ["broken"])

    def fail():
        raise cl.LogicError("lost the device")

    program(memory)
    with monkeypatch.context() as patch:
        patch.setattr(opencl._heap, "queue", SimpleNamespace(finish=fail))
        with pytest.raises(DeviceError, match="k0_broken to run, got .*lost the device"):
            opencl.synchronize()
    assert (read(opencl, memory[1]) == np.arange(64) - 9).all()


@needs_device
def test_a_dtype_that_the_device_lacks_is_unsupported(opencl):
    target = dataclasses.replace(opencl.target, dtypes=opencl.target.dtypes - {dtypes.float64})
    with pytest.raises(Unsupported, match="exp: .*backend opencl.*float64"):
        OpenCLBackend(target=target).check("exp", dtypes.float64)
    opencl.check("exp", dtypes.bfloat16)
    assert opencl.capabilities.flush_denormals


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["shared", "separate"])
def either(request, monkeypatch):
    """A backend that shares the host's memory and one that does not."""
    backend = OpenCLBackend()
    backend._heap.shared = request.param == "shared"
    return backend


@needs_device
@pytest.mark.parametrize("size", [64, heaps.STAGED // 4 + 1])
def test_copies_keep_the_order_of_launches(either, size):
    source, target, spare = (either.allocate(size * 4) for _ in range(3))
    (program,) = either.build([mapping("b0[i] + 1.0f")], ["add_one"])
    array = np.zeros(size, np.float32)
    for step in range(2 * heaps.STAGES):
        array[:] = step
        either.copy_in(source, array)
        array[:] = -1  # nothing of it is kept
        program([source, target])
        either.copy(target, spare, 256)
        if step % 7 == 0:
            assert (read(either, spare, 48, 64) == step + 1).all()
    assert (read(either, source, size) == step).all() and (read(either, spare) == step + 1).all()


@needs_device
def test_out_of_memory_leaves_tensors_as_they_were(monkeypatch):
    monkeypatch.setitem(device._devices, "opencl", device.Device("opencl", OpenCLBackend()))
    here = device.get("opencl")
    kept = Tensor(np.arange(1000, dtype=np.float32), device="opencl")
    idle = Tensor(np.ones(1 << 20, np.float32), device="opencl")
    del idle
    gc.collect()
    heap = here.backend._heap
    monkeypatch.setattr(heap, "limit", heap.held + (1 << 20))
    monkeypatch.setattr(here.pool, "take", here.pool.take)
    with pytest.raises(OutOfMemory, match="room for 64 MB, got 4 MB of 5 MB in use"):
        heap.allocate(64 << 20)
    with pytest.raises(OutOfMemory) as raised:
        Tensor(np.ones(1 << 24, np.float32), device="opencl")
    assert isinstance(raised.value, MemoryError)
    made = Tensor(np.ones(1 << 19, np.float32), device="opencl")  # idle memory has made room
    assert kept.numpy().tolist() == list(range(1000)) and made.numpy().sum() == 1 << 19


@needs_device
def test_more_than_a_device_allocates_at_once_is_out_of_memory(opencl):
    largest = opencl.place.device.max_mem_alloc_size
    with pytest.raises(OutOfMemory):
        opencl.allocate(max(largest, opencl._heap.limit) + 4096)
    if largest < opencl._heap.limit:
        with pytest.raises(OutOfMemory):
            opencl.allocate(largest + 4096)


@needs_device
def test_memory_is_counted_until_it_is_gone(opencl):
    before = opencl._heap.held
    piece = opencl.allocate(4096)
    assert opencl._heap.held == before + 4096
    del piece
    assert opencl._heap.held == before


# The disk cache ------------------------------------------------------------------------------------------------------

CHILD = (
    f"MAP = {MAP!r}"
    + """
import numpy as np
from minigrad.backends.opencl import OpenCLBackend, pocl
from minigrad.backends.cstyle.source import Rendered, Stage
opencl = OpenCLBackend()
filled = []
fill = pocl.Store.fill
pocl.Store.fill = lambda *given: filled.append(given[1]) or fill(*given)
memory = [opencl.allocate(256), opencl.allocate(256)]
opencl.copy_in(memory[0], np.arange(64, dtype=np.float32))
for n in range(5):
    text = MAP.format(f"b0[i] + {n}.0f")
    (program,) = opencl.build([Rendered((Stage(text, (4,), (1,), (0, 1)),))], ["add"])
    program(memory)
    array = np.empty(64, np.float32)
    opencl.copy_out(memory[1], array)
    assert (array == np.arange(64) + n).all()
print(len(filled), opencl.place.is_pocl)
"""
)


FILES = (6, 7)  # five programs, what was found out about the device, and on some CPUs a program that has timed it


def child(directory):
    """Builds five programs in another process; how many it found on disk."""
    filled, is_pocl = run_python(CHILD, MINIGRAD_CACHE=str(directory)).split()
    if is_pocl != "True":
        pytest.skip("a driver without files of its own")
    return int(filled)


def entries(directory):
    return sorted(path for path in (directory / "opencl").iterdir() if path.is_file())


@needs_device
def test_programs_are_found_by_later_processes_and_corrupt_entries_are_written_again(tmp_path):
    assert child(tmp_path) == 0
    kept = {path.name: path.read_bytes() for path in entries(tmp_path)}
    assert len(kept) in FILES
    assert list((tmp_path / "opencl" / "live").iterdir()) == []
    damage = [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:11] + b"\0" + data[12:],
        lambda data: b"something else",
        lambda data: b"minigrad 1\n",
    ]
    for path, harm in zip(entries(tmp_path), itertools.cycle(damage)):
        path.write_bytes(harm(path.read_bytes()))
    assert child(tmp_path) == 0
    assert [path.name for path in entries(tmp_path)] == sorted(kept)
    assert child(tmp_path) == 5


@needs_device
def test_two_processes_share_a_cache(tmp_path):
    environment = {**os.environ, "MINIGRAD_CACHE": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stderr=subprocess.PIPE, text=True, stdout=-3)
        for _ in range(2)
    ]
    for process in started:
        assert process.communicate(timeout=120)[1] == "" and process.returncode == 0
    assert len(entries(tmp_path)) in FILES and child(tmp_path) == 5


@needs_device
def test_a_directory_that_cannot_be_written_means_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    assert child(tmp_path / "file" / "below") == 0


def test_an_entry_holds_named_pieces(tmp_path):
    store = cache.Cache(tmp_path / "new")
    pieces = {"a/b": b"", "c": bytes(range(256)) * 10, "": b"\n\n"}
    assert store.get("key") is None
    store.put("key", pieces)
    assert store.get("key") == pieces
    assert cache.digest("ab", "c") != cache.digest("a", "bc")


def test_the_least_recently_used_entries_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 4000)
    store = cache.Cache(tmp_path)
    random = np.random.default_rng(0)
    for n in range(12):
        store.put(str(n), {"data": random.bytes(1000)})
        os.utime(tmp_path / str(n), (n, n))
        if n >= 1:
            assert store.get("1") is not None
    kept = {path.name for path in tmp_path.iterdir()}
    assert {"1", "11"} <= kept and "0" not in kept and len(kept) <= 5


@needs_device
def test_directories_of_processes_that_were_killed_are_removed(tmp_path):
    run_python(
        """
        import os, signal
        import minigrad
        minigrad.available_backends()
        os._exit(0)
        """,
        MINIGRAD_CACHE=str(tmp_path),
    )
    (left,) = (tmp_path / "opencl" / "live").iterdir()
    run_python("import minigrad; minigrad.available_backends()", MINIGRAD_CACHE=str(tmp_path))
    assert not left.exists()


@needs_device
def test_a_program_that_is_gone_leaves_no_files(opencl, memory):
    if not opencl.place.is_pocl or pocl.store() is None:
        pytest.skip("a driver without files of its own")
    opencl.synchronize()
    (program,) = opencl.build([mapping("b0[i] * 3.0f")], ["gone"])
    directory = pocl.store().directory / program._functions.built.directory
    program(memory)
    opencl.synchronize()
    assert directory.exists()
    del program
    gc.collect()
    opencl.synchronize()
    assert not directory.exists()
    (program,) = opencl.build([mapping("b0[i] * 3.0f")], ["gone"])  # from the cache
    program(memory)
    assert (read(opencl, memory[1]) == np.arange(64) * 3).all()


def test_the_engine_runs_on_it(opencl):
    if REASON is not None:
        pytest.skip(REASON)
    with minigrad.backend("opencl"):
        assert (Tensor([1.0, 2.0]) * 2 + 1).tolist() == [3.0, 5.0]


@needs_device
def test_two_contexts_of_one_process_build_the_same_source(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))

    def run(backend, program):
        pieces = [backend.allocate(256), backend.allocate(256)]
        backend.copy_in(pieces[0], np.arange(64, dtype=np.float32))
        program(pieces)
        np.testing.assert_array_equal(read(backend, pieces[1]), np.arange(64) * 5 - 0.125)

    first, second, third = OpenCLBackend(), OpenCLBackend(), OpenCLBackend()
    (one,) = first.build([mapping("b0[i] * 5 - 0.125f")], ["shared"])
    run(first, one)  # compiled, and saved to the disk cache
    (two,) = second.build([mapping("b0[i] * 5 - 0.125f")], ["shared"])
    run(second, two)
    run(first, one)  # its library was not written over
    del one, first
    gc.collect()
    second.synchronize()  # forgets what is gone, but not what another context uses
    (three,) = third.build([mapping("b0[i] * 5 - 0.125f")], ["shared"])
    run(second, two)
    run(third, three)


@needs_device
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks on this system")
def test_ctrl_c_while_kernels_compile_is_a_keyboard_interrupt(tmp_path):
    """A terminal sends it to PoCL's linker too, without which PoCL would abort the process."""
    script = """
        import numpy as np
        from minigrad import Tensor
        for n in range(500):
            x = Tensor(np.ones((8, 8 + n), "f4"), device="opencl")
            print((x @ x.T).tanh().sum().item(), flush=True)
    """
    environment = {**os.environ, "MINIGRAD_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    options = {"env": environment, "text": True, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        for _ in range(3):
            process.stdout.readline()  # it is compiling the next one
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert errors.strip().endswith("KeyboardInterrupt") and "linker" not in errors
    assert process.returncode in (-signal.SIGINT, 130)
