"""Convolutions by cuDNN, where its front end for Python is installed (``pip install "minigrad[cudnn]"``)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from minigrad import dtypes
from minigrad.backends.cupy.memory import Memory
from minigrad.kernel import Kernel, Operand
from minigrad.shapes import Shape
from minigrad.view import Order, View

TYPES = {dtypes.float32: "FLOAT", dtypes.float16: "HALF", dtypes.bfloat16: "BFLOAT16"}
# What a convolution may not do here: differ from run to run, or be less exact than sums in float32 are.
NEVER = ("NONDETERMINISTIC", "REDUCED_PRECISION_REDUCTION", "WINOGRAD", "FFT")
ROUNDS = ("TENSOR_CORE", "DOWN_CONVERT_INPUTS")  # what float32 values may only on demand
_WAYS = {  # the function of a graph, and what it calls the two sources
    "conv": ("conv_fprop", "image", "weight"),
    "conv_input_grad": ("conv_dgrad", "loss", "filter"),
    "conv_weight_grad": ("conv_wgrad", "image", "loss"),
}


class Place(NamedTuple):
    """Where an operand lies.

    Attributes:
        is_scratch: whether in a piece of scratch memory rather than a buffer of the kernel.
        number: of the piece or buffer.
        offset: bytes before it.
    """

    is_scratch: bool
    number: int
    offset: int


class Dnn:
    """cuDNN on one device."""

    def __init__(self, module: Any, cuda: Any) -> None:
        self.module, self._cuda = module, cuda
        self._handle = module.create_handle()

    @classmethod
    def found(cls, cuda: Any) -> Dnn | None:
        """The library on the current device, where front end and library are installed."""
        try:
            return cls(importlib.import_module("cudnn"), cuda)
        except (ImportError, OSError, RuntimeError):
            return None

    def convolution(self, kernel: Kernel, buffers: int, rounds: bool) -> Convolution | None:
        """What computes a kernel that stores a convolution or one of its gradients as it is.

        Its buffers beyond ``buffers`` are scratch memory. ``rounds``: whether float32 values may be rounded. None where
        cuDNN cannot do it.
        """
        operands = [kernel.inputs[kernel.prologue[source].attr] for source in kernel.sources]
        shaped = [_reshaped(o, shape) for o, shape in zip(operands, kernel.source_shapes)]
        output = _reshaped(kernel.outputs[0], kernel.core_shapes[0])
        if kernel.op not in _WAYS or kernel.attrs.window.rank < 2 or 0 in kernel.core_shapes[0]:
            return None
        if not all(o.dtype in TYPES and _lies(o.view) for o in (*shaped, output)):
            return None
        try:
            return Convolution(self, kernel, shaped, output, buffers, rounds)
        except (RuntimeError, ValueError, self.module.cudnnGraphNotSupportedError):
            return None

    def execute(self, graph: Any, pointers: dict[Any, int], workspace: int) -> None:
        """Enqueue a graph on the current stream."""
        self.module.set_stream(self._handle, self._cuda.get_current_stream().ptr)
        graph.execute(pointers, workspace, handle=self._handle)

    def graph(self, kernel: Kernel, sources: Sequence[Operand], output: Operand, rounds: bool) -> tuple[Any, list[Any]]:
        """A built graph and its tensors: the sources and the result."""
        module, window = self.module, kernel.attrs.window
        kind = getattr(module.data_type, TYPES[output.dtype])
        wide = module.data_type.FLOAT
        graph = module.pygraph(
            handle=self._handle, io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide
        )
        tensors = [graph.tensor(dim=[*o.view.shape], stride=_strides(o.view), data_type=kind) for o in sources]
        way, *names = _WAYS[kernel.op]
        result = getattr(graph, way)(
            **dict(zip(names, tensors)),
            pre_padding=[before for before, _ in window.padding],
            post_padding=[after for _, after in window.padding],
            stride=[*window.stride],
            dilation=[*window.dilation],
        )
        result.set_output(True).set_data_type(kind).set_dim([*output.view.shape]).set_stride(_strides(output.view))
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([module.heur_mode.A, module.heur_mode.FALLBACK])
        notes = NEVER if rounds or output.dtype is not dtypes.float32 else (*NEVER, *ROUNDS)
        graph.deselect_numeric_notes([getattr(module.numerical_note, note) for note in notes])
        graph.check_support()
        graph.build_plans()
        return graph, [*tensors, result]


class Convolution:
    """One convolution; calling it enqueues it. Its workspace is the last piece of scratch memory.

    Attributes:
        workspace: bytes that it needs.
    """

    name = "cuDNN"
    captures = True

    def __init__(
        self, dnn: Dnn, kernel: Kernel, sources: Sequence[Operand], output: Operand, buffers: int, rounds: bool
    ) -> None:
        self._dnn = dnn
        self._graph, self._tensors = dnn.graph(kernel, sources, output, rounds)
        self.workspace = int(self._graph.get_workspace_size())
        self._places = [
            Place(o.buffer >= buffers, o.buffer % buffers, o.view.offset * o.dtype.itemsize) for o in (*sources, output)
        ]

    def __call__(self, buffers: Sequence[Memory], scratch: Sequence[Memory]) -> None:
        """Enqueue it."""
        pointers = {}
        for tensor, place in zip(self._tensors, self._places):
            memory = scratch[place.number] if place.is_scratch else buffers[place.number]
            pointers[tensor] = int(memory.pointer.ptr) + place.offset
        self._dnn.execute(self._graph, pointers, int(scratch[-1].pointer.ptr) if self.workspace else 0)


def order_of(view: View) -> Order:
    """The axes of a view, those first whose elements are farthest apart; () where they are in order."""
    axes = tuple(sorted(range(len(view.shape)), key=lambda axis: (-view.strides[axis], axis)))
    return () if axes == tuple(range(len(axes))) else axes


def _reshaped(operand: Operand, shape: Shape) -> Operand:
    view = operand.view.moved("reshape", (shape,))
    assert view is not None, "axes of size 1 come and go"
    return operand._replace(view=view)


def _lies(view: View) -> bool:
    """Whether a view shows elements at distances, as cuDNN wants them: each once, none out of bounds."""
    positive = all(n == 1 or stride > 0 for n, stride in zip(view.shape, view.strides))
    return positive and view.bounds is None and view.blocks is None and 0 not in view.shape


def _strides(view: View) -> list[int]:
    """Distances; those of axes with one element do not matter, but are to be positive."""
    return [max(stride, 1) for stride in view.strides]
