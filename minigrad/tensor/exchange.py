"""Tensors and arrays of other libraries: DLPack, and the CUDA array interface, without copies on a GPU."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from minigrad import capture
from minigrad import device as devices
from minigrad.buffer import Buffer
from minigrad.errors import ArgumentTypeError
from minigrad.graph import leaf
from minigrad.tensor.base import TensorBase, host_node

T = TypeVar("T", bound="ExchangeMethods")
HOST = 1  # DLPack's number


class ExchangeMethods(TensorBase):
    """Ways from and to other libraries."""

    __slots__ = ()

    @classmethod
    def from_dlpack(cls: type[T], array: Any, device: str | None = None) -> T:
        """A tensor with the values of another library's array.

        On a GPU the two share memory: what either writes in place later, the other may see. From there to another
        device goes ``Tensor.to``. An array of the host is copied.

        Args:
            array: anything with ``__dlpack__`` or, on a GPU, with ``__cuda_array_interface__``.
            device: whose memory it is in, or the host's: then it is copied there. The default device if not given.

        Raises:
            ArgumentTypeError: if it is no such array, or in memory that neither the device nor the host has.

        >>> from minigrad import Tensor
        >>> Tensor.from_dlpack(np.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
        """
        capture.forbid_host_data()
        name = devices.canonical(device)
        opened = devices.get(name)
        adopted = opened.backend.adopt(array)
        if adopted is None:
            if not hasattr(array, "__dlpack_device__") or array.__dlpack_device__()[0] != HOST:
                expected = f"an array with __dlpack__ in the memory of {name} or of the host"
                hint = "name the device that it is on: from_dlpack(array, device='cupy')"
                raise ArgumentTypeError.of("from_dlpack", expected, type(array).__name__, hint)
            return cls.wrap(host_node(np.from_dlpack(array), None, name))
        opened.backend.check("from_dlpack", adopted.dtype)
        size = adopted.dtype.itemsize
        for n in adopted.shape:
            size *= n
        buffer = Buffer(opened, size, adopted.order, adopted.memory)
        return cls.wrap(leaf(buffer, adopted.shape, adopted.dtype, name))

    def __dlpack__(self, **options: Any) -> Any:
        if self.__dlpack_device__()[0] == HOST:
            options.pop("copy", None)
            return self.numpy().__dlpack__(**options)
        backend = devices.get(self.device).backend
        with backend.session():  # the consumer's stream is to wait for the backend's
            return self._lent().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return devices.get(self.device).backend.dlpack_device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The tensor's memory for libraries of CUDA; an AttributeError on other devices."""
        if self.__dlpack_device__()[0] == HOST:
            raise AttributeError(f"a tensor on {self.device} has no __cuda_array_interface__")
        with devices.get(self.device).backend.session():
            interface: dict[str, Any] = self._lent().__cuda_array_interface__
            return interface

    def _lent(self) -> Any:
        """The value as an array of the device's library, over the same memory."""
        buffer, view = self._in_memory()
        return buffer.device.backend.lend(buffer.memory, self.dtype, view, buffer)
