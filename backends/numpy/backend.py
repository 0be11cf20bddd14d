"""The NumPy backend: interprets kernels; works wherever NumPy does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.base import Backend, Capabilities, Program
from minigrad.backends.numpy import conv, indexing, matmul, pool
from minigrad.backends.numpy.body import BodyProgram, Index, array_of, blocks_of
from minigrad.backends.numpy.reduce import UFUNCS, Reduction
from minigrad.backends.numpy.threads import aligned, blas_names, blas_single_thread, scratch, thread_count
from minigrad.errors import OutOfMemory
from minigrad.kernel import MAP, Kernel, Operand
from minigrad.shapes import Shape
from minigrad.view import Order, View

Array = NDArray[Any]
Epilogue = Callable[[Array, Index], None]
# Run a core: sources, outputs (None where nobody reads one), attributes, what to do with each finished block.
Core = Callable[[list[Array], list[Array | None], Any, Epilogue | None], None]


def _spatial(f: Callable[..., None], *names: str) -> Core:
    """A kernel function of two sources and one output that takes attributes by name."""

    def run(sources: list[Array], outputs: list[Array | None], attrs: Any, epilogue: Epilogue | None) -> None:
        given = {name: getattr(attrs, name) for name in names}
        if epilogue is not None:
            given["epilogue"] = epilogue
        f(*sources, outputs[0], **given)

    return run


def _max_pool(
    sources: list[Array], outputs: list[Array | None], attrs: Any, epilogue: Epilogue | None
) -> None:
    x, values = sources[0], outputs[0]
    if values is None:  # only the indices are read
        assert outputs[1] is not None
        values = np.empty(outputs[1].shape, x.dtype)
    pool.max_pool(x, values, outputs[1], attrs.window, epilogue)


def _sort(sources: list[Array], outputs: list[Array | None], attrs: Any, epilogue: Epilogue | None) -> None:
    shape = sources[0].shape
    values = np.empty(shape, sources[0].dtype) if outputs[0] is None else outputs[0]
    indices = np.empty(shape, np.int64) if outputs[1] is None else outputs[1]
    indexing.sort(sources[0], values, indices, attrs.axis, attrs.descending)


def _arg_reduce(which: str) -> Core:
    def run(sources: list[Array], outputs: list[Array | None], attrs: Any, epilogue: Epilogue | None) -> None:
        indexing.arg_reduce(sources[0], outputs[0], attrs.axis, which)  # type: ignore[arg-type]

    return run


CORES: dict[str, Core] = {
    "matmul": _spatial(matmul.matmul),
    "conv": _spatial(conv.conv, "window", "groups"),
    "conv_input_grad": _spatial(conv.conv_input_grad, "window", "groups"),
    "conv_weight_grad": _spatial(conv.conv_weight_grad, "window", "groups"),
    "max_pool": _max_pool,
    "window_gather": _spatial(pool.window_gather, "window"),
    "window_scatter": _spatial(pool.window_scatter, "window"),
    "avg_pool": _spatial(pool.avg_pool, "window", "count_include_pad"),
    "avg_pool_grad": _spatial(pool.avg_pool_grad, "window", "count_include_pad"),
    "cumsum": _spatial(indexing.cumsum, "axis", "reverse"),
    "take": _spatial(indexing.take),
    "scatter": _spatial(indexing.scatter, "reduce"),
    "sort": _sort,
    "argmax": _arg_reduce("argmax"),
    "argmin": _arg_reduce("argmin"),
}
EPILOGUES = frozenset({"matmul", "conv", "conv_input_grad", "max_pool", "avg_pool", *UFUNCS})
BATCH_LAST = 16  # images from which a batch-last order pays: rows of one cache line


class Map(Program):
    """A kernel without a core."""

    def __init__(self, kernel: Kernel) -> None:
        self.body = BodyProgram(kernel.epilogue, kernel.stores, kernel, kernel.space)

    def __call__(self, buffers: Sequence[Any]) -> None:
        """Run over all blocks."""
        self.bind(buffers)()

    def bind(self, buffers: Sequence[Any]) -> Callable[[], None]:
        """All blocks as ready calls."""
        return self.body.bind(self.body.arguments(buffers))


class Reduce(Program):
    """A reduction with its prologue and epilogue; the epilogue runs on the whole, small result."""

    def __init__(self, kernel: Kernel) -> None:
        self.reduction = Reduction(kernel)
        self.space = kernel.space
        self.epilogue = BodyProgram(kernel.epilogue, kernel.stores, kernel, kernel.space)

    def __call__(self, buffers: Sequence[Any]) -> None:
        """Reduce, then run the epilogue."""
        self.bind(buffers)()

    def bind(self, buffers: Sequence[Any]) -> Callable[[], None]:
        """Both as ready calls."""
        reduce, result = self.reduction.bind(buffers)
        epilogue = self.epilogue.bind(self.epilogue.arguments(buffers, [result.reshape(self.space)]))

        def run() -> None:
            reduce()
            epilogue()

        return run


class _Plain:
    """A core's source that lies in memory."""

    def __init__(self, kernel: Kernel, source: int) -> None:
        self.operand = kernel.inputs[kernel.prologue[kernel.sources[source]].attr]

    def __call__(self, buffers: Sequence[Any]) -> Array:
        return array_of(buffers[self.operand.buffer], self.operand)


class _Computed:
    """A core's source that the prologue computes."""

    def __init__(self, kernel: Kernel, source: int) -> None:
        self.line, self.shape = kernel.sources[source], kernel.source_shapes[source]
        self.dtype = kernel.prologue[self.line].dtype.numpy
        self.body = BodyProgram(kernel.prologue[: self.line + 1], (), kernel, self.shape, merge=False)

    def __call__(self, buffers: Sequence[Any]) -> Array:
        body, result = self.body, np.empty(self.shape, self.dtype)
        args = body.arguments(buffers, [result])
        for block in blocks_of(body.shape):
            np.copyto(args.core[0][block], body.run(args, block)[self.line])
        return result


class Template(Program):
    """A kernel around a function that fills an array; its epilogue runs on each block as it is finished."""

    def __init__(self, kernel: Kernel) -> None:
        self.core, self.attrs = CORES[kernel.op], kernel.attrs
        self.blockwise = kernel.op in EPILOGUES
        lines = [kernel.prologue[s] for s in kernel.sources]
        plain = [i.op == "load" and kernel.inputs[i.attr].view.bounds is None for i in lines]
        self.sources = [_Plain(kernel, n) if p else _Computed(kernel, n) for n, p in enumerate(plain)]
        kernel = kernel.in_core_shape()
        self.shape = kernel.space
        # An output that stores what the core gives is filled by the core itself; other stores are the epilogue's.
        read = {kernel.inputs[line.attr].buffer for line in kernel.epilogue if line.op == "load"}
        self.landing: dict[int, Operand] = {}
        rest = []
        for line, output in kernel.stores:
            instr = kernel.epilogue[line]
            if instr.op == "core" and instr.attr not in self.landing and kernel.outputs[output].buffer not in read:
                self.landing[instr.attr] = kernel.outputs[output]
            else:
                rest.append((line, output))
        self.outputs = len(kernel.core_shapes)
        self.epilogue: BodyProgram | None = None
        self.temporary: dict[int, tuple[tuple[int, ...], np.dtype[Any]]] = {}  # core output -> axis order, dtype
        if rest:
            self.epilogue = BodyProgram(kernel.epilogue, rest, kernel, kernel.space, merge=False)
            stored = kernel.outputs[rest[0][1]]
            for instr in kernel.epilogue:
                if instr.op != "core" or instr.attr in self.landing:
                    continue
                if len(rest) == 1 and stored.dtype is instr.dtype and not self.landing and stored.buffer not in read:
                    self.landing[instr.attr] = stored  # the epilogue works in place
                else:
                    order = sorted(range(len(self.shape)), key=lambda a: -stored.view.strides[a])
                    self.temporary[instr.attr] = (tuple(order), instr.dtype.numpy)

    def __call__(self, buffers: Sequence[Any]) -> None:
        """Run the core; its blocks go through the epilogue while they are in cache."""
        sources = [source(buffers) for source in self.sources]
        outputs: list[Array | None] = [None] * self.outputs
        for number, operand in self.landing.items():
            outputs[number] = array_of(buffers[operand.buffer], operand)
        for number, (order, dtype) in self.temporary.items():
            physical = scratch(f"core{number}", tuple(self.shape[a] for a in order), dtype)
            outputs[number] = physical.transpose(np.argsort(order))
        if self.epilogue is None:
            self.core(sources, outputs, self.attrs, None)
            return
        body = self.epilogue
        args = body.arguments(buffers, outputs)

        def finish(block: Array, index: Index) -> None:
            whole = [slice(*s.indices(n)[:2]) for s, n in zip(index, self.shape)]
            body.run(args, tuple(whole[group[0]] for group in body.groups) or (slice(0, 1),))

        if self.blockwise:
            self.core(sources, outputs, self.attrs, finish)
        else:
            self.core(sources, outputs, self.attrs, None)
            body.launch(args)


class NumpyBackend(Backend):
    """Runs everywhere; the machine's cores share the work of each kernel."""

    name = "numpy"
    capabilities = Capabilities(epilogues=EPILOGUES)
    survives_fork = True

    def allocate(self, nbytes: int) -> Array:
        """Aligned host memory."""
        try:
            return aligned(nbytes)
        except MemoryError as error:
            raise OutOfMemory.of("allocate", f"{nbytes} bytes of free memory", "none left") from error

    def copy_in(self, memory: Array, array: Array) -> None:
        """Copy into host memory."""
        np.copyto(memory[: array.nbytes].view(array.dtype).reshape(array.shape), array)

    def copy_out(self, memory: Array, array: Array, offset: int = 0) -> None:
        """Copy from host memory."""
        np.copyto(array, memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape))

    def copy(self, source: Array, target: Array, nbytes: int) -> None:
        """Copy within host memory."""
        np.copyto(target[:nbytes], source[:nbytes])

    def fingerprint(self) -> dict[str, str]:
        """Threads divide sums among them; BLAS has kernels for each processor."""
        return {"threads": str(thread_count()), "numpy": np.__version__, "blas": blas_names()}

    def lower(self, kernel: Kernel) -> Program:
        """Choose how to run a kernel."""
        if kernel.op == MAP:
            return Map(kernel)
        return Reduce(kernel) if kernel.op in UFUNCS else Template(kernel)

    @contextmanager
    def session(self) -> Iterator[None]:
        """BLAS on one thread per pool thread, and no floating-point warnings: NaN and inf are values here."""
        with blas_single_thread(), np.errstate(all="ignore"):
            yield

    def preferred_orders(
        self, op: str, attrs: Any, shapes: Sequence[Shape], views: Sequence[View | None]
    ) -> list[Order | None] | None:
        """Batch innermost around convolution and pooling of many images: every window tap is then one long run."""
        axes = _ACTIVATIONS.get(op)
        if axes is None or shapes[axes[0]][0] < BATCH_LAST:
            return None
        last = (*range(1, len(shapes[axes[0]])), 0)
        return [last if n in axes else None for n in range(len(shapes))]


# Which of (output, source 0, source 1) are activations (N, C, *S).
_ACTIVATIONS: dict[str, tuple[int, ...]] = {
    "conv": (0, 1),
    "conv_input_grad": (0, 1),
    "conv_weight_grad": (1, 2),
    "max_pool": (0, 1),
    "window_gather": (0, 1, 2),
    "window_scatter": (0, 1, 2),
    "avg_pool": (0, 1),
    "avg_pool_grad": (0, 1),
}
