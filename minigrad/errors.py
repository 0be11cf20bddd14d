"""Every exception that minigrad raises on purpose.

Each class is also a subclass of the built-in that PyTorch or NumPy raises for the same mistake,
so that code written against those libraries catches it unchanged::

    MinigradError
    +- ShapeError          (RuntimeError)         shapes that do not fit an operation
    +- DTypeError          (RuntimeError)         dtypes that do not fit an operation
    +- GradientError       (RuntimeError)         differentiation that is not possible
    +- CaptureError        (RuntimeError)         something that a captured step may not do
    +- VerifyError         (RuntimeError)         a graph or kernel that contradicts itself (a defect of minigrad)
    +- DeviceError         (RuntimeError)         tensors of different devices, device failures
    |  +- BackendUnavailable                      a backend that is unknown or cannot run here
    |  +- Unsupported      (NotImplementedError)  an operation that a backend declares it cannot do
    |  +- OutOfMemory      (MemoryError)          no memory left on the device
    +- AxisError           (IndexError)           an axis or index out of range
    +- ArgumentError       (ValueError, and PyTorch's RuntimeError) an argument with a value that makes no sense
    +- ArgumentTypeError   (TypeError)            an argument of the wrong type
    +- MissingExtra        (ImportError)          an optional library that is not installed
    +- DivergedError       (FloatingPointError)   training whose loss is no number any more
    +- DataError           (ValueError)           a data set or checkpoint file that cannot be used
       +- StateDictError   (RuntimeError)         a state dict that does not fit
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class MinigradError(Exception):
    """Base of all errors that minigrad raises on purpose."""

    @classmethod
    def of(cls, op: str, expected: Any, got: Any, hint: str = "") -> MinigradError:
        """The error that says what ``op`` expected, what it got and, if known, what to do.

        >>> print(ShapeError.of("matmul", "inner sizes that agree", "(2, 3) @ (4, 5)"))
        matmul: expected inner sizes that agree, got (2, 3) @ (4, 5)
        """
        return cls(f"{op}: expected {expected}, got {got}" + (f"\n  hint: {hint}" if hint else ""))


class ShapeError(MinigradError, RuntimeError):
    """Shapes that do not fit an operation."""


class DTypeError(MinigradError, RuntimeError):
    """Dtypes that do not fit an operation."""


class GradientError(MinigradError, RuntimeError):
    """A derivative that does not exist or whose graph is gone."""


class CaptureError(MinigradError, RuntimeError):
    """Something that a captured (``jit``) step may not do."""


class VerifyError(MinigradError, RuntimeError):
    """A graph or kernel that contradicts itself: a defect of minigrad or of a backend."""


class DeviceError(MinigradError, RuntimeError):
    """Tensors on different devices, or a device that failed."""


class BackendUnavailable(DeviceError):
    """A backend that does not exist or cannot run on this machine."""


class Unsupported(DeviceError, NotImplementedError):
    """An operation or dtype that a backend declares it cannot do."""


class OutOfMemory(DeviceError, MemoryError):
    """The device has no memory left; every existing tensor is as it was."""


class AxisError(MinigradError, IndexError):
    """An axis or index out of range."""


class ArgumentError(MinigradError, ValueError, RuntimeError):
    """An argument whose value makes no sense: NumPy raises ValueError there, PyTorch mostly RuntimeError."""


class ArgumentTypeError(MinigradError, TypeError):
    """An argument of the wrong type."""


class DataError(MinigradError, ValueError):
    """A data set or checkpoint file that is missing, truncated or corrupt."""


class StateDictError(DataError, RuntimeError):
    """A state dict that does not fit the module or optimizer it is loaded into."""


class MissingExtra(MinigradError, ImportError):
    """An optional library that is not installed; names the extra that brings it."""


class DivergedError(MinigradError, FloatingPointError):
    """Training whose loss is no number any more."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The hint at the one of some names that is spelled most like ``name``, in whatever case; else ``otherwise``.

    >>> did_you_mean("VGG61", ["vgg16", "resnet18"])
    "did you mean 'vgg16'?"
    """
    from difflib import get_close_matches

    spelled = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), spelled, 1)
    return f"did you mean {spelled[close[0]]!r}?" if close else otherwise
