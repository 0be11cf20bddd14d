"""The tensor's core: a handle on a lazy node, with views that alias, versions, and the way to values and gradients."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from minigrad import autograd, capture, dtypes, effects
from minigrad import device as devices
from minigrad.buffer import Buffer
from minigrad.config import settings
from minigrad.dtypes import DType, DTypeLike, Scalar
from minigrad.errors import ArgumentError, ArgumentTypeError, DTypeError, GradientError, ShapeError
from minigrad.graph import Node, apply, constant, grad_enabled, leaf, set_grad_enabled, transfer
from minigrad.primitive import Kind
from minigrad.realize import realize, view_of
from minigrad.shapes import Shape, broadcast
from minigrad.view import View

T = TypeVar("T", bound="TensorBase")
Operand = Union["TensorBase", Scalar, NDArray[Any]]


_NOT_COMPUTED = frozenset({Kind.CREATION, Kind.MOVEMENT, Kind.IDENTITY})
_ELSEWHERE = {  # PyTorch's names of devices
    "cpu": 'the CPU is "numpy", and where PoCL is installed "opencl"',
    "cuda": 'NVIDIA GPUs are "cupy"',
}


class TensorBase:
    """A handle on a versioned, lazy value.

    Operations return new handles on new nodes. Assignment gives a handle a new node (a new version): nodes are never
    changed, so whoever read an older version keeps it. A view (``x[2:]``, ``x.permute(..)``) remembers which tensor it
    is a view of and where: writing to either shows in the other.
    """

    __slots__ = ("_node", "_base", "_view", "_version", "_seen", "_retains", "_grad", "slot", "__weakref__")
    __array_priority__ = 1000  # ndarray + tensor is the tensor's business
    __hash__ = object.__hash__

    _node: Node
    _base: TensorBase | None  # what this is a view of
    _view: View | None  # where, in the base's row-major elements
    _version: int  # grows with each write
    _seen: int  # the base's version that _node shows
    _retains: bool
    _grad: TensorBase | None
    slot: weakref.ReferenceType[Any] | None  # where captured steps keep this tensor

    def __init__(
        self,
        data: Any,
        dtype: DTypeLike | None = None,
        device: str | None = None,
        requires_grad: bool = False,
    ) -> None:
        """A tensor with a copy of ``data``.

        Args:
            data: a number, nested sequence, ndarray, tensor, or anything NumPy takes. Integer literals make int32,
                float literals float32; arrays keep their dtype.
            dtype: another dtype for the elements.
            device: where to put it; default :func:`minigrad.set_backend`'s.
            requires_grad: whether ``backward`` collects this tensor's gradient.

        Raises:
            ArgumentTypeError: if ``data`` is no array of numbers.
            Unsupported: if the device has no such dtype.
        """
        wanted = None if dtype is None else dtypes.as_dtype(dtype)
        if isinstance(data, TensorBase):
            node = data.node if device is None else transfer(data.node, devices.canonical(device))
            with set_grad_enabled(False):
                node = apply("copy", node if wanted is None else node.cast(wanted))
        else:
            node = host_node(data, wanted, devices.canonical(device))
        self._init(node)
        if requires_grad:
            self.requires_grad_()

    def _init(self, node: Node) -> None:
        self._node = node
        self._base = self._view = self._grad = None
        self._version = self._seen = 0
        self._retains = False
        self.slot = None
        node.handle = weakref.ref(self)

    @classmethod
    def wrap(cls: type[T], node: Node) -> T:
        """A tensor that shows ``node``."""
        tensor = cls.__new__(cls)
        tensor._init(node)
        if settings.eager and not capture.active():
            realize([node])
        return tensor

    def _apply(self: T, name: str, *others: TensorBase, **attrs: Any) -> T:
        """The tensor of primitive ``name`` over this one and others."""
        return self.wrap(apply(name, self.node, *[o.node for o in others], **attrs))

    def _move(self: T, name: str, **attrs: Any) -> T:
        """The tensor of a movement primitive: a view, where one strided view says it."""
        node = apply(name, self.node, **attrs)
        result = self.wrap(node)
        before = View.of(self.shape) if self._view is None else self._view
        view = before.moved(name, node.attrs)
        if view is not None and view.bounds is None:
            result._base = base = self if self._base is None else self._base
            result._view, result._seen = view, base._version
        return result

    @property
    def node(self) -> Node:
        """The node this tensor shows now; a view whose base was written since shows the new version."""
        base = self._base
        if base is not None and base._version != self._seen:
            self._refresh(base)
        return self._node

    def current_node(self) -> Node:
        """The same as :attr:`node`, for modules that know tensors only by their effects."""
        return self.node

    def shows(self, node: Node) -> bool:
        """Whether this is the node that the tensor was last seen to show."""
        return self._node is node

    def _refresh(self, base: TensorBase) -> None:
        view = self._view
        assert view is not None
        source = base.node
        if 0 in view.strides:  # expanded axes: view one element of each, then repeat it
            narrow = tuple(1 if s == 0 else n for n, s in zip(view.shape, view.strides))
            node = apply("strided_view", source, shape=narrow, strides=view.strides, offset=view.offset)
            node = node.expand(view.shape)
        else:
            node = apply("strided_view", source, shape=view.shape, strides=view.strides, offset=view.offset)
        self._node, self._seen = node, base._version
        node.handle = weakref.ref(self)

    # What a tensor is.

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return self._node.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._node.dtype

    @property
    def device(self) -> str:
        """Name of the device that holds the tensor."""
        return self._node.device

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._node.shape)

    @property
    def requires_grad(self) -> bool:
        """Whether derivatives with respect to this tensor, or through it, are recorded."""
        return self.node.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was given rather than computed from others that require a gradient."""
        node = self.node
        return not node.requires_grad or node.is_leaf

    def requires_grad_(self: T, value: bool = True) -> T:
        """Ask for this leaf's gradient (or no longer), and return it.

        Raises:
            DTypeError: if the dtype is not floating.
            GradientError: if this tensor was computed from others that require a gradient.
        """
        node = self.node
        if value and not node.dtype.is_float:
            raise DTypeError.of("requires_grad", "a floating dtype", node.dtype.name, "cast with .float()")
        if value == node.requires_grad:
            return self
        if not self.is_leaf:
            raise GradientError.of("requires_grad", "a leaf", "a computed tensor", "use .detach()")
        recording = capture.state.current
        if recording is not None and not recording.is_argument(self):
            recording.write(self, node)
        # A node of its own: whoever read this tensor before keeps the old answer.
        self._node = node = apply("detach", node)
        self._base = self._view = None
        node.requires_grad = value
        node.handle = weakref.ref(self)
        return self

    # Assignment.

    def assign(self: T, value: Operand) -> T:
        """Write ``value`` (broadcast, cast to this dtype) here, seen by every view of the same memory.

        Lazy: it happens in program order with the next realize, also if nobody reads it.

        Raises:
            GradientError: for a leaf that requires a gradient, outside ``no_grad``.
            ShapeError: if ``value`` does not broadcast to this shape, or this is an expanded (read-only) view.
        """
        target = self if self._base is None else self._base
        if grad_enabled() and target.node.requires_grad and target.node.is_leaf:
            raise GradientError.of(
                "assign",
                "a tensor that may change",
                "a leaf that requires a gradient",
                "write inside `with minigrad.no_grad():`, or to a copy",
            )
        if not self.shape and isinstance(value, (bool, int, float)) and target is self and not capture.active():
            self.supersede(host_node(value, self.dtype, self.device), owned=True)  # else each number makes a kernel
            return self
        other = value if isinstance(value, TensorBase) else self.like(value)
        if other.device != self.device:
            apply("add", self.node, other.node)  # raises: mixed devices
        source = other.node.cast(self.dtype)
        if source.shape != self.shape:
            if broadcast("assign", self.shape, source.shape) != self.shape:
                raise ShapeError.of("assign", f"a value that broadcasts to {self.shape}", source.shape)
            source = source.expand(self.shape)
        if self._base is not None:
            view = self._view
            assert view is not None
            if any(s == 0 and n > 1 for n, s in zip(view.shape, view.strides)):
                raise ShapeError.of("assign", "memory of its own for each element", "an expanded view", "copy it first")
            source = apply("assign_view", target.node, source, strides=view.strides, offset=view.offset)
        target.write(source)
        return self

    @property
    def is_view(self) -> bool:
        """Whether this shows memory of another tensor."""
        return self._base is not None

    @property
    def owner(self) -> TensorBase:
        """The tensor whose memory this shows: itself, unless it is a view."""
        return self if self._base is None else self._base

    def write(self, node: Node) -> None:
        """Give this tensor (no view) its next version, which is computed even if nobody reads it."""
        recording = capture.state.current
        if recording is not None:
            recording.write(self, self._node)
        self.supersede(node)
        if recording is None and (effects.add(self) or settings.eager):
            realize([self._node])

    def supersede(self, node: Node, owned: bool = False) -> None:
        """Show ``node`` as the next version, a copy of it unless its memory is ``owned``; a leaf stays a leaf."""
        if not owned and (node.is_shown or node.buffer is not None or node.op.kind in _NOT_COMPUTED):
            node = apply("copy", node)  # what another tensor shows, and a constant that many share, stay as they are
        if self._node.requires_grad and self._node.is_leaf:
            node = apply("detach", node)
            node.requires_grad = True
        self.show(node)

    def show(self, node: Node) -> None:
        """Make ``node`` this tensor's next version."""
        self._node = node
        self._version += 1
        node.handle = weakref.ref(self)

    def like(self: T, value: Operand) -> T:
        """``value`` as a tensor on this device; Python numbers take this dtype where their category allows."""
        if isinstance(value, TensorBase):
            return value  # type: ignore[return-value]
        if isinstance(value, (bool, int, float)):
            dtype = dtypes.result_type([(self.dtype, False), (dtypes.scalar_dtype(value), True)])
            return self._quick(constant(value, dtype, self.device))
        return type(self)(value, device=self.device)

    @classmethod
    def _quick(cls: type[T], node: Node) -> T:
        """A tensor for use inside one operation: not marked as the node's handle."""
        tensor = cls.__new__(cls)
        tensor._node = node
        tensor._base = tensor._view = tensor._grad = None
        tensor._version = tensor._seen = 0
        tensor._retains = False
        tensor.slot = None
        return tensor

    # Values.

    def realize(self: T, *others: TensorBase) -> T:
        """Compute this tensor (and others, in one go) now; returns it. Inside a captured step this does nothing."""
        if not capture.active():
            realize([self.node, *[o.node for o in others]])
        return self

    def numpy(self) -> NDArray[Any]:
        """The value as a new NumPy array."""
        buffer, view = self._in_memory()
        return buffer.read(view, self.node.dtype)

    def _in_memory(self) -> tuple[Buffer, View]:
        """Where the value is, which is computed if that has not been done."""
        node = self.node
        capture.forbid_read(node)
        found = view_of(node)
        if found is None or effects.pending():
            realize([node])
            found = view_of(node)
        assert found is not None
        return found

    def item(self) -> Scalar:
        """The one element as a Python number.

        Raises:
            ShapeError: if there is not exactly one element.
        """
        if self.numel() != 1:
            raise ShapeError.of("item", "a tensor of one element", self.shape)
        value: Scalar = self.numpy().reshape(()).item()
        return value

    def tolist(self) -> Any:
        """The value as (nested) Python numbers."""
        return self.numpy().tolist()

    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise ArgumentTypeError.of("index", "an integer tensor", self.dtype.name)
        return int(self.item())

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise ShapeError.of("bool", "a tensor of one element", self.shape, "use .any() or .all()")
        return bool(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentTypeError.of("len", "a tensor of at least one dimension", "a 0-d tensor")
        return self.shape[0]

    def __repr__(self) -> str:
        if capture.active():
            return f"<captured {self.dtype.name}{list(self.shape)}>"
        text = np.array2string(np.asarray(self.numpy()), separator=", ", prefix="Tensor(", threshold=200)
        grad = ", requires_grad=True" if self.requires_grad else ""
        kind = "" if self.dtype in (dtypes.float32, dtypes.bool_) else f", dtype={self.dtype.name}"
        place = "" if self.device == "numpy" else f", device='{self.device}'"
        return f"Tensor({text}{kind}{place}{grad})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.numpy(), self.dtype, self.device, self.requires_grad)

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        if not self.is_leaf:
            raise GradientError.of("deepcopy", "a leaf", "a computed tensor that requires a gradient", "use .detach()")
        with set_grad_enabled(False):
            result = self._apply("copy")
        memo[id(self)] = result.requires_grad_(self.requires_grad)
        result._grad = copy.deepcopy(self._grad, memo)
        return result

    # Devices and dtypes.

    def to(self: T, *targets: str | DTypeLike) -> T:
        """This tensor on another device and, or, in another dtype; differentiable. Itself where nothing changes.

        Raises:
            BackendUnavailable: if a device cannot be used here.
            ArgumentTypeError: if a target is neither a device nor a dtype.
        """
        node = self.node
        for target in targets:
            name = target if isinstance(target, str) else ""
            if name and name.partition(":")[0] in devices.available_backends():
                node = transfer(node, devices.canonical(name))
                continue
            try:
                dtype = dtypes.as_dtype(target)
            except ArgumentTypeError:
                expected = f"a dtype, or a device of {', '.join(devices.available_backends())}"
                hint = _ELSEWHERE.get(name.partition(":")[0], "")
                raise ArgumentTypeError.of("to", expected, repr(target), hint) from None
            node = node.cast(dtype)
        return self if node is self._node else self.wrap(node)

    def detach(self: T) -> T:
        """The same memory without history: writing to either shows in both."""
        result = self.wrap(apply("detach", self.node))
        result._base = base = self if self._base is None else self._base
        result._view = View.of(self.shape) if self._view is None else self._view
        result._seen = base._version
        return result

    # Gradients.

    @property
    def grad(self) -> Any | None:
        """The sum of the gradients that ``backward`` has found for this tensor; None before the first."""
        recording = capture.state.current
        if recording is not None:
            recording.read_grad(self, self._grad)
        return self._grad

    @grad.setter
    def grad(self, value: TensorBase | None) -> None:
        recording = capture.state.current
        if recording is not None:
            recording.write_grad(self)
        self._grad = value

    def peek_grad(self) -> TensorBase | None:
        """``grad``, unseen by a capture."""
        return self._grad

    def retain_grad(self) -> None:
        """Make ``backward`` also set this computed tensor's ``grad``."""
        self._retains = True

    def backward(self, gradient: Operand | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to ``grad`` of every leaf that requires one.

        Args:
            gradient: the gradient of some scalar with respect to this tensor; may be left out for one element.
            retain_graph: keep the graph when it is realized, so that another backward can follow.

        Raises:
            GradientError: if nothing requires a gradient, or the graph is gone.
            ShapeError: if this has several elements and no ``gradient`` is given.
        """
        node = self.node
        if not node.requires_grad:
            hint = "set requires_grad=True on a leaf, and compute outside no_grad"
            raise GradientError.of("backward", "a tensor that depends on a leaf that requires a gradient", node, hint)
        seed = self._seed("backward", gradient)
        order = autograd.walk(node)
        found = autograd.requiring(order)
        tensors = [n.handle() if n.handle is not None else None for n in found]
        keep = [i for i, t in enumerate(tensors) if t is not None and (found[i].is_leaf or t._retains)]
        with set_grad_enabled(False):
            grads = autograd.gradient(node, [found[i] for i in keep], seed)
            if not retain_graph:
                autograd.consume(order)
            for i, g in zip(keep, grads):
                tensor = tensors[i]
                assert tensor is not None
                if g is None:
                    continue
                before = tensor.grad
                if before is None:
                    tensor.grad = fresh = tensor.wrap(g)
                    if not capture.active():
                        effects.add(fresh)
                else:
                    before.assign(before._quick(before.node + g))

    def _seed(self, op: str, gradient: Operand | None) -> Node:
        if gradient is None:
            if self.numel() != 1:
                hint = "reduce it first (sum, mean) or pass gradient="
                raise ShapeError.of(op, "a tensor of one element", self.shape, hint)
            return constant(1, self.dtype, self.device).reshape(self.shape)
        other = self.like(gradient)
        if other.shape != self.shape:
            raise ShapeError.of(op, f"a gradient of shape {self.shape}", other.shape)
        return other.node.cast(self.dtype)

    def gradient(self: T, *targets: TensorBase, gradient: Operand | None = None) -> list[T]:
        """Derivatives of this tensor by each target; differentiable themselves.

        Args:
            targets: float tensors of the live graph; they need not require a gradient.
            gradient: as for :meth:`backward`.

        Raises:
            GradientError: if a target is no part of the graph, or the graph between was dropped by a realize.
        """
        for target in targets:
            if not target.dtype.is_float:
                raise DTypeError.of("gradient", "targets of a floating dtype", target.dtype.name)
        grads = autograd.gradient(self.node, [t.node for t in targets], self._seed("gradient", gradient))
        out = []
        for target, g in zip(targets, grads):
            if g is None:
                raise GradientError.of("gradient", "targets that this tensor depends on", repr(target.node))
            out.append(self.wrap(g))
        return out


def _rebuild(cls: type[T], array: NDArray[Any], dtype: DType, device: str, requires_grad: bool) -> T:
    return cls(array, dtype, device, requires_grad)


def host_node(data: Any, dtype: DType | None, device: str, ahead: bool = False) -> Node:
    """A node with a copy of host data; ``ahead`` says that others are used before it."""
    if isinstance(data, np.ndarray):
        capture.forbid_host_data()
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ArgumentError.of("Tensor", "nested sequences of equal lengths", str(error)) from None
    if array.dtype.kind in "OUSmMc" or array.dtype.kind == "V" and array.dtype != dtypes.bfloat16.numpy:
        got = f"{type(data).__name__} of {array.dtype}"
        raise ArgumentTypeError.of("Tensor", "numbers of a dtype that minigrad has", got)
    kind = dtype or (dtypes.as_dtype(array.dtype) if _has_dtype(data) else _literal_dtype(array))
    target = devices.get(device)
    target.backend.check("Tensor", kind)
    if array.dtype != kind.numpy:
        with np.errstate(all="ignore"):
            array = array.astype(kind.numpy)
    return leaf(Buffer.of(target, array, ahead=ahead), array.shape, kind, device)


def _has_dtype(data: Any) -> bool:
    """Whether the elements bring a dtype along: arrays do, Python numbers do not."""
    while isinstance(data, Sequence) and len(data):
        data = data[0]
    return hasattr(data, "dtype") or hasattr(data, "__array__")


def _literal_dtype(array: NDArray[Any]) -> DType:
    if array.dtype.kind == "b":
        return dtypes.bool_
    if array.dtype.kind in "iu":
        fits = array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31)
        return dtypes.int32 if fits else dtypes.int64
    return dtypes.float32
