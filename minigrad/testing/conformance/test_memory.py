"""Level 0: memory, copies, and the order of copies and launches, first by the contract itself, then through tensors."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from minigrad import Tensor, dtypes
from minigrad import device as devices
from minigrad.backends.base import Backend, Capabilities
from minigrad.errors import OutOfMemory
from minigrad.kernel import MAP, Instr, Kernel, Operand, verify
from minigrad.primitive import TABLE
from minigrad.testing.conformance.support import dtypes_of
from minigrad.view import View

pytestmark = pytest.mark.level(0)
SIZES = (1, 3, 64, 65, 4097, 1_000_003)
Array = Any


def random_bytes(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8)


def filled(backend: Backend, array: Array) -> Any:
    """New memory that holds ``array``."""
    memory = backend.allocate(array.nbytes)
    backend.copy_in(memory, array)
    return memory


def content(backend: Backend, memory: Any, like: Array, offset: int = 0) -> Array:
    """What is in memory, from byte ``offset``, as an array like ``like``."""
    out = np.empty_like(like)
    backend.copy_out(memory, out, offset)
    return out


def adds(number: int, count: int) -> Kernel:
    """The kernel ``buffer 1 = buffer 0 + number``, of ``count`` int32."""
    view, kind = View.of((count,)), dtypes.int32
    body = (Instr("load", (), 0, kind), Instr("const", (), (number, 1.0), kind), Instr("add", (0, 1), None, kind))
    source, target = Operand(0, kind, view), Operand(1, kind, view)
    return Kernel(MAP, None, (), (), (), (), (count,), body, ((2, 0),), (source,), (target,), 2)


def test_backend_says_what_it_is(device: str) -> None:
    backend = devices.get(device).backend
    kind, can = type(backend), backend.capabilities
    assert kind.name == kind.name.strip().lower() and kind.name and ":" not in kind.name and "," not in kind.name
    assert kind.available() is None
    assert kind.devices() and all(isinstance(d, str) and d for d in kind.devices())
    assert isinstance(can, Capabilities) and can.dtypes and can.dtypes <= set(dtypes.ALL)
    assert can.unsupported <= set(TABLE) and can.epilogues <= {*TABLE, MAP}, "names of primitives"
    assert not can.unsupported & {"buffer", "copy"}, "without these nothing runs"
    assert can.max_allocation is None or can.max_allocation > 0


def test_bytes_come_back(device: str) -> None:
    backend = devices.get(device).backend
    given = [random_bytes(size, size) for size in SIZES]
    held = [filled(backend, array) for array in given]
    for array, memory in zip(given, held):
        np.testing.assert_array_equal(content(backend, memory, array), array)


def test_arrays_of_every_dtype_and_shape_come_back(device: str) -> None:
    backend = devices.get(device).backend
    for dtype in dtypes_of(device):
        array = random_bytes(dtype.itemsize * 30).view(dtype.numpy).reshape(2, 3, 5)
        array = array if dtype.kind != "b" else np.arange(30).reshape(2, 3, 5) % 7 == 0
        array.flags.writeable = False
        assert content(backend, filled(backend, array), array).tobytes() == array.tobytes(), dtype.name


def test_offsets_count_bytes(device: str) -> None:
    backend = devices.get(device).backend
    array = random_bytes(5000)
    memory = filled(backend, array)
    for offset, size in ((0, 17), (1, 1), (3, 64), (64, 3), (4096, 904), (4999, 1), (5000, 0)):
        np.testing.assert_array_equal(content(backend, memory, array[:size], offset), array[offset : offset + size])


def test_copies_write_no_more_than_they_are_asked_to(device: str) -> None:
    backend = devices.get(device).backend
    first, second = random_bytes(300, 1), random_bytes(300, 2)
    here, there = filled(backend, first), filled(backend, second)
    backend.copy(here, there, 101)
    np.testing.assert_array_equal(content(backend, there, second), np.concatenate([first[:101], second[101:]]))
    backend.copy_in(here, second[:37].copy())
    np.testing.assert_array_equal(content(backend, here, first), np.concatenate([second[:37], first[37:]]))


def test_nothing_can_be_copied(device: str) -> None:
    backend = devices.get(device).backend
    array, nothing = random_bytes(64), np.empty((3, 0), np.float32)
    memory, other = filled(backend, array), filled(backend, array[::-1].copy())
    backend.copy_in(memory, nothing)
    backend.copy_out(memory, nothing)
    backend.copy(other, memory, 0)
    np.testing.assert_array_equal(content(backend, memory, array), array)


@pytest.mark.parametrize("count", [4, 2_000_000])
def test_array_may_change_after_copy_in(device: str, count: int) -> None:
    backend = devices.get(device).backend
    array = random_bytes(count)
    given, memory = array.copy(), backend.allocate(count)
    backend.copy_in(memory, given)
    given[...] = 0
    np.testing.assert_array_equal(content(backend, memory, array), array)


def test_copies_and_launches_happen_in_order(device: str) -> None:
    """Each copy in comes after the launches before it and before those after it; a copy out waits for them all."""
    backend, count = devices.get(device).backend, 200_000
    kernel = adds(1, count)
    verify(kernel)
    (program,) = backend.compile([kernel])
    array = np.arange(count, dtype=np.int32)
    a, b, kept = (filled(backend, array) for _ in range(3))
    with backend.session():
        for turn in range(5):
            backend.copy_in(a, array * turn)
            program([a, b])
            program([b, a])
            if turn == 2:
                backend.copy(a, kept, array.nbytes)
            program([a, b])
        backend.synchronize()
        np.testing.assert_array_equal(content(backend, kept, array), 2 * array + 2)
        np.testing.assert_array_equal(content(backend, b, array), 4 * array + 3)


def test_programs_run_again_and_on_other_memory(device: str) -> None:
    backend, count = devices.get(device).backend, 1001
    programs = backend.compile([adds(1, count), adds(10, count)])
    array = np.arange(count, dtype=np.int32)
    a, b, c = (filled(backend, array) for _ in range(3))
    one, ten = programs
    launch = backend.bind([(one, [a, b]), (ten, [b, c])])
    alone = one.bind([c, a])
    with backend.session():
        launch()
        np.testing.assert_array_equal(content(backend, c, array), array + 11)
        alone()
        launch()
        np.testing.assert_array_equal(content(backend, c, array), array + 23)
        one([c, b])
        np.testing.assert_array_equal(content(backend, b, array), array + 24)
        launch()
        np.testing.assert_array_equal(content(backend, c, array), array + 23)


def test_two_opened_devices_do_not_share(device: str) -> None:
    kind = type(devices.get(device).backend)
    index = device.partition(":")[2]
    here, there = kind(index), kind(index)
    array, count = np.arange(101, dtype=np.int32), 101
    held = [(backend, filled(backend, array), filled(backend, array)) for backend in (here, there)]
    for number, (backend, a, b) in enumerate(held):
        with backend.session():
            backend.compile([adds(number, count)])[0]([a, b])
            backend.synchronize()
    for number, (backend, _, b) in enumerate(held):
        np.testing.assert_array_equal(content(backend, b, array), array + number)


def test_tensors_come_back(device: str) -> None:
    """Every dtype, no elements, one, an odd number, many; contiguous or not."""
    with devices.backend(device):
        for dtype in dtypes_of(device):
            for shape in ((), (0, 3), (1,), (7, 5), (257, 129)):
                array = (np.arange(np.prod(shape, dtype=int)) % 7).astype(dtype.numpy).reshape(shape)
                tensor = Tensor(array.T)
                assert tensor.dtype is dtype and tensor.shape == array.T.shape
                np.testing.assert_array_equal(tensor.numpy(), array.T)


def test_memory_given_back_is_used_again(device: str) -> None:
    opened = devices.get(device)
    array = np.zeros(12_345, np.int32)
    Tensor(array, device=device)
    before = opened.pool.allocations
    for _ in range(20):
        Tensor(array, device=device)
    assert opened.pool.allocations == before


def test_out_of_memory_leaves_tensors_as_they_were(device: str) -> None:
    can = devices.get(device).backend.capabilities
    count = (can.max_allocation or 2**62) + 1
    kind = dtypes_of(device, (dtypes.uint8, dtypes.bool_, dtypes.int8))[0]
    with devices.backend(device):
        x = Tensor([1, 0, 1]).cast(kind)
        x.realize()
        with pytest.raises(OutOfMemory):
            (x[0].expand(count) + x[1]).realize()
        assert x.tolist() == [1, 0, 1] and (x[::-1] + 0).tolist() == [1, 0, 1]


def test_threads_share_a_device(device: str) -> None:
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        x = Tensor(np.arange(1000, dtype=np.int32), device=device)
        found[number] = [int((x + turn * number).sum().item()) for turn in range(3)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [499_500 + 1000 * turn * n for turn in range(3)] for n in range(4)}
