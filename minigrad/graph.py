"""The lazy graph: immutable nodes, how one is made, walked, checked and printed."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from minigrad import dtypes
from minigrad.dtypes import DType, Scalar
from minigrad.errors import ArgumentTypeError, DeviceError, VerifyError
from minigrad.primitive import TABLE, Kind, Primitive
from minigrad.shapes import Shape

if TYPE_CHECKING:
    from minigrad.buffer import Buffer


_serial = itertools.count().__next__
Origins = frozenset["ReferenceType[Node] | None"]  # None: too many to remember


class Node:
    """One value of the graph: ``op`` applied to ``sources`` with ``attrs``.

    Shape and dtype are known when the node is made; the value comes when it is realized, into ``buffer``. A node with a
    buffer is a leaf for whatever is computed from it. A primitive with several outputs has the shape and dtype of the
    first here; ``project`` nodes read each.
    """

    __slots__ = (
        "op", "sources", "attrs", "shape", "dtype", "device",
        "serial", "buffer", "others", "requires_grad", "tracked", "consumed", "dropped", "handle", "__weakref__",
    )  # fmt: skip

    op: Primitive
    sources: tuple[Node, ...]
    attrs: Any
    shape: Shape
    dtype: DType
    device: str
    serial: int  # nodes are numbered as they are made
    buffer: Buffer | None
    others: dict[int, Buffer] | None  # outputs but the first that were kept for a backward pass
    requires_grad: bool  # a leaf upstream asks for its gradient
    tracked: bool  # made while gradients were recorded; derivatives pass through
    consumed: bool  # backward() has been here: realizing it drops the graph
    dropped: Origins | None  # its sources are gone; which of the nodes behind it tensors showed then
    handle: ReferenceType[Any] | None  # the tensor that shows this node, while it lives

    def __init__(
        self, op: Primitive, sources: tuple[Node, ...], attrs: Any, shape: Shape, dtype: DType, device: str
    ) -> None:
        self.op, self.sources, self.attrs = op, sources, attrs
        self.shape, self.dtype, self.device = shape, dtype, device
        self.serial = _serial()
        self.buffer = self.others = self.handle = self.dropped = None
        self.consumed = False
        self.tracked = _mode.enabled
        self.requires_grad = False
        if self.tracked and sources and op.vjp is not None and dtype.is_float:
            for source in sources:
                if source.requires_grad:
                    self.requires_grad = True
                    break

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def is_leaf(self) -> bool:
        """Whether derivatives end here: a value given by the user, or a detached one."""
        return self.op.vjp is None or (not self.sources and self.dropped is None)

    @property
    def is_shown(self) -> bool:
        """Whether a living tensor shows this node now; one that was written since shows another."""
        tensor = None if self.handle is None else self.handle()
        return tensor is not None and tensor.shows(self)

    def __repr__(self) -> str:
        fields = ", ".join(f"{k}={v!r}" for k, v in zip(self.attrs._fields, self.attrs))
        return f"<{self.op.name}({fields}) {self.dtype.name}{list(self.shape)}>"

    # Arithmetic, so that derivative rules read like the formulas they are.

    def _other(self, value: Node | Scalar) -> Node:
        return value if isinstance(value, Node) else constant(value, self.dtype, self.device)

    def __add__(self, other: Node | Scalar) -> Node:
        return apply("add", self, self._other(other))

    def __sub__(self, other: Node | Scalar) -> Node:
        return apply("sub", self, self._other(other))

    def __rsub__(self, other: Scalar) -> Node:
        return apply("sub", self._other(other), self)

    def __mul__(self, other: Node | Scalar) -> Node:
        return apply("mul", self, self._other(other))

    def __truediv__(self, other: Node | Scalar) -> Node:
        return apply("div", self, self._other(other))

    def __neg__(self) -> Node:
        return apply("neg", self)

    def __lt__(self, other: Node | Scalar) -> Node:
        return apply("lt", self, self._other(other))

    def __le__(self, other: Node | Scalar) -> Node:
        return apply("le", self, self._other(other))

    def equals(self, other: Node | Scalar) -> Node:
        """Elementwise equality (``==`` stays identity, as nodes are keys)."""
        return apply("eq", self, self._other(other))

    def where(self, yes: Node | Scalar, no: Node | Scalar) -> Node:
        """``yes`` where this (bool) node holds, else ``no``; one of them must be a node."""
        like = yes if isinstance(yes, Node) else no
        assert isinstance(like, Node)
        return apply("where", self, like._other(yes), like._other(no))

    def cast(self, dtype: DType) -> Node:
        """This value in another dtype; itself where it has it already."""
        return self if dtype is self.dtype else apply("cast", self, dtype=dtype)

    def reshape(self, shape: Shape) -> Node:
        """The same elements in row-major order under another shape."""
        return self if shape == self.shape else apply("reshape", self, shape=shape)

    def permute(self, axes: tuple[int, ...]) -> Node:
        """Axes reordered: output axis i is source axis ``axes[i]``."""
        return self if axes == tuple(range(len(axes))) else apply("permute", self, axes=axes)

    def expand(self, shape: Shape) -> Node:
        """Axes of size 1 repeated, by broadcasting."""
        return self if shape == self.shape else apply("expand", self, shape=shape)

    def sum(self, axes: tuple[int, ...]) -> Node:
        """Sum over ``axes``, which become 1."""
        return apply("sum", self, axes=axes) if axes else self

    def sum_to(self, shape: Shape) -> Node:
        """The adjoint of broadcasting ``shape`` to this shape: sums over what was repeated."""
        if shape == self.shape:
            return self
        lead = self.ndim - len(shape)
        axes = tuple(a for a in range(self.ndim) if a < lead or (shape[a - lead] == 1 and self.shape[a] != 1))
        return self.sum(axes).reshape(shape)


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def next_serial() -> int:
    """A number greater than that of every node made so far."""
    return _serial()


def grad_enabled() -> bool:
    """Whether this thread records derivatives now."""
    return _mode.enabled


@contextmanager
def set_grad_enabled(enabled: bool) -> Iterator[None]:
    """Within the block, record derivatives or do not."""
    before, _mode.enabled = _mode.enabled, enabled
    try:
        yield
    finally:
        _mode.enabled = before


_inferred: dict[Any, tuple[Any, Any]] = {}


def infer(op: Primitive, attrs: Any, sources: Sequence[Node]) -> tuple[Any, Any]:
    """Shape and dtype (tuples of them where ``op`` has several outputs); remembered by structure."""
    key = (op, attrs, *[(s.shape, s.dtype) for s in sources])
    found = _inferred.get(key)
    if found is None:
        if op.arity is not None and len(sources) != op.arity or op.arity is None and not sources:
            raise ArgumentTypeError.of(op.name, f"{op.arity or 'at least one'} sources", len(sources))
        found = (
            op.shape(attrs, *[s.shape for s in sources]),
            op.dtype(attrs, *[s.dtype for s in sources]),
        )
        if op.kind is Kind.IDENTITY:  # attributes of their own each time, some with tensors in them
            return found
        if len(_inferred) >= 65536:  # shapes seen long ago: start over rather than grow
            _inferred.clear()
        _inferred[key] = found
    return found


def apply(name: str, *sources: Node, **attrs: Any) -> Node:
    """The node of primitive ``name`` over ``sources``; shape and dtype rules run now.

    Raises:
        ShapeError, DTypeError, ArgumentError: from the primitive's rules.
        DeviceError: if the sources are on different devices.
    """
    op = TABLE[name]
    values = op.attrs(**attrs)
    shape, dtype = infer(op, values, sources)
    if op.outputs > 1:
        shape, dtype = shape[0], dtype[0]
    device = sources[0].device
    for source in sources:
        if source.device is not device and source.device != device:
            got = " and ".join(sorted({s.device for s in sources}))
            raise DeviceError.of(name, "tensors on one device", got, "move one with .to(device)")
    return Node(op, sources, values, shape, dtype, device)


def create(name: str, device: str, **attrs: Any) -> Node:
    """The node of a primitive without sources, on ``device``."""
    op = TABLE[name]
    values = op.attrs(**attrs)
    shape, dtype = infer(op, values, ())
    return Node(op, (), values, shape, dtype, device)


_constants: dict[tuple[Scalar, float, DType, str], Node] = {}


def constant(value: Scalar, dtype: DType, device: str) -> Node:
    """A 0-d constant. Equal constants share one node: nothing differentiates with respect to them."""
    value = float(value) if dtype.is_float else bool(value) if dtype is dtypes.bool_ else int(value)
    if value != value:
        value = math.nan  # one NaN object, so that it equals itself in keys
    key = (value, math.copysign(1.0, value), dtype, device)
    node = _constants.get(key)
    if node is None:
        node = create("const", device, value=value, sign=key[1], dtype=dtype)
        node.tracked = True
        if len(_constants) >= 4096:
            _constants.clear()
        _constants[key] = node
    return node


def full(shape: Shape, value: Scalar, dtype: DType, device: str) -> Node:
    """A constant of ``shape``."""
    return constant(value, dtype, device).expand(shape)


def full_like(node: Node, value: Scalar) -> Node:
    """A constant of ``node``'s shape, dtype and device."""
    return full(node.shape, value, node.dtype, node.device)


def project(node: Node, index: int) -> Node:
    """Output ``index`` of a node with several outputs."""
    shapes, kinds = infer(node.op, node.attrs, node.sources)
    if node.others and index in node.others:
        return leaf(node.others[index], shapes[index], kinds[index], node.device)
    return apply("project", node, index=index, shape=shapes[index], dtype=kinds[index])


def transfer(node: Node, device: str) -> Node:
    """The same value on another device."""
    if node.device == device:
        return node
    op = TABLE["transfer"]
    return Node(op, (node,), op.attrs(device=device), node.shape, node.dtype, device)


def leaf(buffer: Buffer, shape: Shape, dtype: DType, device: str) -> Node:
    """A node whose value is in memory already."""
    op = TABLE["buffer"]
    node = Node(op, (), op.attrs(), shape, dtype, device)
    node.buffer = buffer
    return node


def toposort(roots: Iterable[Node], through_buffers: bool = False, since: int = -1) -> list[Node]:
    """All nodes that ``roots`` need, sources before users. Iterative: depth is bounded by memory only.

    Nodes that have a buffer are not looked behind unless ``through_buffers``, nor are those older than ``since``.
    """
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[Node] = list(roots)[::-1]
    while stack:
        node = stack[-1]
        if id(node) in seen:
            stack.pop()
            continue
        waiting = False
        if (node.buffer is None or through_buffers) and node.serial > since:
            for source in reversed(node.sources):
                if id(source) not in seen:
                    stack.append(source)
                    waiting = True
        if not waiting:
            seen.add(id(node))
            order.append(node)
            stack.pop()
    return order


_MANY = 32  # tensors behind a dropped node that are remembered


def drop(nodes: Iterable[Node], order: Iterable[Node]) -> None:
    """Let go of the sources of realized ``nodes``, found in ``order`` (sorted, sources before users).

    What remains known is which nodes behind each a tensor shows: a gradient by one of those must raise, not be wrong.
    """
    doomed = [node for node in nodes if node.sources]
    if any(node.tracked and node.op.vjp is not None for node in doomed):
        origins: dict[int, Origins] = {}
        for node in order:
            if node.tracked and node.dtype.is_float:
                behind = _behind(node, origins)
                origins[id(node)] = behind | {ref(node)} if node.is_shown else behind
        for node in doomed:
            if node.tracked and node.op.vjp is not None:
                node.dropped = _behind(node, origins)
    for node in doomed:
        node.sources = ()


def _behind(node: Node, origins: dict[int, Origins]) -> Origins:
    if node.dropped is not None or node.op.vjp is None:
        return node.dropped or frozenset()
    found = {r for s in node.sources for r in origins.get(id(s), ()) if r is None or r() is not None}
    return frozenset(found) if len(found) <= _MANY else frozenset({None})


def verify(roots: Iterable[Node]) -> None:
    """Re-derive every shape, dtype and device of a graph.

    Raises:
        VerifyError: naming the first node whose record differs.
    """
    for node in toposort(roots):
        if node.buffer is not None:
            continue
        shape, dtype = infer(node.op, node.attrs, node.sources)
        if node.op.outputs > 1:
            shape, dtype = shape[0], dtype[0]
        if (shape, dtype) != (node.shape, node.dtype) or any(
            s.device != node.device for s in node.sources if node.op.kind is not Kind.TRANSFER
        ):
            raise VerifyError.of("verify(graph)", f"{dtype.name}{list(shape)} on {node.device}", repr(node))


def format_graph(roots: Iterable[Node]) -> str:
    """The graph as numbered lines, sources before users; what ``MINIGRAD_DEBUG=3`` prints."""
    number: dict[int, int] = {}
    lines = []
    for index, node in enumerate(toposort(roots)):
        number[id(node)] = index
        inputs = "buffer" if node.buffer is not None else " ".join(f"%{number[id(s)]}" for s in node.sources)
        lines.append(f"%{index:<4}{node!r} {inputs}")
    return "\n".join(lines)
