"""Memory shared with other libraries, without copies: both ways, by DLPack and by the CUDA array interface."""

import numpy as np
import pytest

from minigrad import Tensor
from minigrad import device as devices
from minigrad.errors import ArgumentTypeError
from minigrad.nn.data import DataLoader, TensorDataset

COPIES = ("malloc", "to device", "to host", "on device")


VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
VIEWS = {
    "whole": lambda t: t,
    "permuted": lambda t: t.transpose(2, 0, 1) if isinstance(t, np.ndarray) else t.permute(2, 0, 1),
    "part": lambda t: t[1, :, 1::2],
    "backwards": lambda t: t[:, ::-1],
    "expanded": lambda t: np.broadcast_to(t[0], (5, 3, 4)) if isinstance(t, np.ndarray) else t[0].expand(5, 3, 4),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_tensor_is_lent(opened, recorder, name):
    x = VIEWS[name](Tensor(VALUES, device=opened.name))
    recorder.names()
    assert x.__dlpack_device__() == (2, 0)
    lent = x.__dlpack__(stream=5)
    with opened.backend.session():
        np.testing.assert_array_equal(lent.values, VIEWS[name](VALUES))
    assert recorder.calls == [("dlpack", 5, opened.backend.heap.stream)], "it is the consumer's stream that waits"


def test_what_is_lent_stays(opened):
    x = Tensor(VALUES, device=opened.name)
    lent = x.__dlpack__()
    address = lent.data.ptr
    del x
    others = [Tensor(-VALUES, device=opened.name) for _ in range(3)]
    with opened.backend.session():
        np.testing.assert_array_equal(lent.values, VALUES)
    del lent
    others.append(Tensor(-VALUES, device=opened.name))
    assert others[-1].__dlpack__().data.ptr == address, "and is used again when it is given back"


def test_the_interface_of_cuda(opened, recorder):
    x = (Tensor(VALUES, device=opened.name) + 1).permute(1, 0, 2)
    described = x.__cuda_array_interface__
    assert described["shape"] == (3, 2, 4) and described["strides"] == (16, 48, 4) and described["typestr"] == "<f4"
    assert described["stream"] == id(opened.backend.heap.stream) and described["data"][1] is False
    assert not hasattr(Tensor(VALUES, device="numpy"), "__cuda_array_interface__")


def foreign(opened, recorder, values=VALUES):
    """Another library's array."""
    with opened.backend.session():
        return recorder.array(values)


class OfInterface:
    """One that has the interface of CUDA only."""

    def __init__(self, array):
        self.data, self.__cuda_array_interface__ = array.data, array.__cuda_array_interface__


def test_an_array_is_adopted(opened, recorder):
    array = foreign(opened, recorder)
    recorder.names()
    x = Tensor.from_dlpack(array, opened.name)
    assert recorder.names(*COPIES) == []
    assert x.shape == (2, 3, 4) and x.device == opened.name
    np.testing.assert_array_equal(x.numpy(), VALUES)
    np.testing.assert_array_equal((x * 2).sum().shape, ())
    assert x.__dlpack__().data.ptr == array.data.ptr


def test_an_array_with_the_interface_of_cuda_is_adopted(opened, recorder):
    array = foreign(opened, recorder)
    with opened.backend.session():
        given = OfInterface(array)
    recorder.names()
    x = Tensor.from_dlpack(given, opened.name)
    assert recorder.names(*COPIES) == []
    np.testing.assert_array_equal(x.numpy(), VALUES)


def test_axes_in_another_order_are_adopted_and_gaps_are_copied(opened, recorder):
    array = foreign(opened, recorder)
    recorder.names()
    array.shape, array.strides = (4, 2, 3), (4, 48, 16)
    x = Tensor.from_dlpack(array, opened.name)
    assert recorder.names(*COPIES) == []
    np.testing.assert_array_equal(x.numpy(), VALUES.transpose(2, 0, 1))
    array.shape, array.strides, array.nbytes = (2, 3, 2), (48, 16, 8), 48
    y = Tensor.from_dlpack(array, opened.name)
    assert "malloc" in recorder.names(*COPIES)
    np.testing.assert_array_equal(y.numpy(), VALUES[:, :, ::2])


def test_an_array_that_lies_between_is_copied(opened, recorder):
    """Kernels read 16 bytes at once."""
    array = foreign(opened, recorder)
    array.data, array.shape, array.strides, array.nbytes = array.data + 4, (23,), (4,), 92
    recorder.names()
    x = Tensor.from_dlpack(array, opened.name)
    assert recorder.names(*COPIES) == ["malloc"]
    np.testing.assert_array_equal(x.numpy(), np.arange(1, 24))


def test_adopted_memory_is_not_put_into_the_pool(opened, recorder):
    array = foreign(opened, recorder)
    x = Tensor.from_dlpack(array, opened.name)
    del x
    assert not opened.pool._free
    y = Tensor(VALUES, device=opened.name)
    assert y.__dlpack__().data.ptr != array.data.ptr


def test_arrays_of_the_host_are_copied(opened):
    x = Tensor.from_dlpack(VALUES, opened.name)
    np.testing.assert_array_equal(x.numpy(), VALUES)
    np.testing.assert_array_equal(Tensor.from_dlpack(VALUES, "numpy").numpy(), VALUES)


def test_an_array_of_another_device_is_refused(opened, recorder):
    array = foreign(opened, recorder)
    with pytest.raises(ArgumentTypeError, match="(?s)memory of numpy or of the host, got Array.*device='cupy'"):
        Tensor.from_dlpack(array, "numpy")
    array.__class__ = type("Other", (type(array),), {"__dlpack_device__": lambda self: (2, 1)})
    with pytest.raises(ArgumentTypeError, match="got Other"):
        Tensor.from_dlpack(array, opened.name)
    with pytest.raises(ArgumentTypeError, match="got list"):
        Tensor.from_dlpack([1.0], opened.name)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_loader_sends_batches_ahead(opened, recorder, workers):
    images = np.random.default_rng(0).standard_normal((20, 3, 5)).astype(np.float32)
    loader = DataLoader(TensorDataset(images, np.arange(20)), 4, num_workers=workers, device=opened.name)
    with devices.backend(opened.name):
        for number, (x, y) in enumerate(loader):
            np.testing.assert_array_equal(x.numpy(), images[4 * number : 4 * number + 4])
            assert y.tolist() == list(range(4 * number, 4 * number + 4))
    waits = recorder.names("wait_event")
    assert len(waits) >= 20, "the copy waits for launches before it, and whoever reads it for the copy"
