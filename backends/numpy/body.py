"""Bodies of kernels over NumPy arrays: block by block in cache, each line one call into preallocated memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.threads import aligned, parallel, scratch, thread_count
from minigrad.backends.numpy.ufuncs import CALLS
from minigrad.kernel import Body, Kernel, Operand
from minigrad.shapes import Shape
from minigrad.view import View

Array = NDArray[Any]
Index = tuple[slice, ...]
Call = tuple[Callable[..., Any], tuple[Any, ...], Any]  # f(*sources, out=array)
Register = Callable[[int, Shape, "np.dtype[Any]"], Array]
BLOCK = 1 << 14  # elements of one block: at float32 the few arrays of a body stay in the second-level cache
PARALLEL = 1 << 15  # elements below which a second thread costs more than it saves


def array_of(memory: Array, operand: Operand) -> Array:
    """The ndarray that shows ``memory`` through an operand's view (without its bounds)."""
    view, dtype = operand.view, operand.dtype.numpy
    size = dtype.itemsize
    if 0 in view.shape:
        return np.empty(view.shape, dtype)
    return np.ndarray(view.shape, dtype, memory, view.offset * size, [s * size for s in view.strides])


# Calls that write to their output before they have read all of their sources.
_READS_AFTER_WRITING = frozenset({"rsqrt", "where", "pow", "erf", "threefry", "atan2"})


class Step(NamedTuple):
    """One line of a body, ready to run: a call on registers, or where else a register's value comes from."""

    op: str
    args: tuple[int, ...]
    attr: Any
    dtype: np.dtype[Any]
    output: int | None  # the output operand that this line is stored to
    register: int  # scratch memory of the result, -1 if it needs none
    copies: tuple[int, ...]  # further output operands


class Arguments(NamedTuple):
    """The arrays of one launch, in the axis order of the body."""

    inputs: list[Array]
    outputs: list[Array]
    core: Sequence[Any]  # None where nobody reads an output of the core


class BodyProgram:
    """The lines of one body over one space.

    Args:
        body: the lines.
        stores: pairs (line, output operand).
        kernel: for its operands.
        space: the shape that all views have.
        flags: axes are merged only with neighbours of the same flag (reduced or not).
        merge: whether axes are merged at all.
    """

    def __init__(
        self,
        body: Body,
        stores: Sequence[tuple[int, int]],
        kernel: Kernel,
        space: Shape,
        flags: Sequence[bool] = (),
        merge: bool = True,
    ) -> None:
        self.body, self.kernel, self.space = body, kernel, space
        self.flags, self.merge = tuple(flags) or (False,) * len(space), merge
        self.used = sorted({line.attr for line in body if line.op == "load"})
        self.stored = [output for _, output in stores]
        views = [kernel.inputs[n].view for n in self.used] + [kernel.outputs[n].view for n in self.stored]
        views += [line.attr for line in body if line.op in ("iota", "inside")]
        self.order = self._order(views)
        core = [View.of(space)] if any(line.op == "core" for line in body) else []  # its arrays are row-major
        self.groups = self._groups(views + core)
        self.shape = tuple(math.prod(space[a] for a in group) for group in self.groups) or (1,)
        self.views = {id(view): self.merged(view) for view in views}
        self.late: list[tuple[int, int]] = []  # stores (line, output) that wait for the end of a block
        self.steps = self._steps(stores)

    def _order(self, views: list[View]) -> tuple[int, ...]:
        """Axes by falling stride: those of what is stored, else of the largest load."""
        lead = views[len(self.used) : len(self.used) + len(self.stored)] or sorted(
            views, key=lambda v: -math.prod(n for n, s in zip(v.shape, v.strides) if s)
        )
        if not lead:
            return tuple(range(len(self.space)))
        return tuple(sorted(range(len(self.space)), key=lambda a: (-abs(lead[0].strides[a]), a)))

    def _groups(self, views: list[View]) -> list[tuple[int, ...]]:
        """Neighbouring axes that every operand steps through as one."""
        padded = [v.bounds for v in views if v.bounds is not None]
        axes = [a for a in self.order if self.space[a] != 1 or any(b[a] != (0, 1) for b in padded)]
        groups: list[tuple[int, ...]] = []
        for axis in axes:
            before = groups[-1][-1] if groups else axis
            alike = self.merge and groups and self.flags[axis] == self.flags[before]
            if alike and all(self._joins(v, before, axis) for v in views):
                groups[-1] += (axis,)
            else:
                groups.append((axis,))
        return groups

    @staticmethod
    def _joins(view: View, outer: int, inner: int) -> bool:
        return view.bounds is None and view.strides[outer] == view.strides[inner] * view.shape[inner]

    def merged(self, view: View) -> View:
        """A view of the space as a view of the merged axes."""
        bounds = None
        if view.bounds is not None:
            bounds = tuple(view.bounds[g[0]] for g in self.groups)  # bounded axes are never merged
        strides = tuple(view.strides[g[-1]] for g in self.groups) or (0,)
        return View(self.shape, strides, view.offset, bounds, view.fill)

    def _steps(self, stores: Sequence[tuple[int, int]]) -> list[Step]:
        last = {a: n for n, instr in enumerate(self.body) for a in instr.args}
        targets: dict[int, list[int]] = {}
        for line, output in stores:
            targets.setdefault(line, []).append(output)
            if self._overwrites(line, output, last):  # stored when all else has been read
                self.late.append((line, output))
                last[line] = len(self.body)
                targets[line].remove(output)
        free: list[int] = []
        registers: dict[int, int] = {}
        count = 0
        steps = []
        for number, instr in enumerate(self.body):
            outputs = targets.get(number, [])
            computed = instr.op in CALLS
            direct = outputs[0] if outputs and computed else None
            register = -1
            scratch_needed = (computed and direct is None) or instr.op in ("iota", "inside")
            if instr.op == "load" and self.kernel.inputs[instr.attr].view.bounds is not None:
                scratch_needed = True
            # A register may be written by the line that reads it last, if each element fits where the old one was.
            done = [a for a in dict.fromkeys(instr.args) if last[a] == number and a in registers]
            if scratch_needed:
                size = instr.dtype.itemsize
                if instr.op not in _READS_AFTER_WRITING and all(self.body[a].dtype.itemsize == size for a in done):
                    free += [registers.pop(a) for a in done]
                    done = []
                register = free.pop() if free else count
                count = max(count, register + 1)
                registers[number] = register
            free += [registers.pop(a) for a in done]
            copies = tuple(outputs[1:] if direct is not None else outputs)
            steps.append(Step(instr.op, instr.args, instr.attr, instr.dtype.numpy, direct, register, copies))
        return steps

    def _overwrites(self, line: int, output: int, last: dict[int, int]) -> bool:
        """Whether storing a line at once would change memory that later lines still read."""
        inputs, buffer = self.kernel.inputs, self.kernel.outputs[output].buffer
        loads = [n for n, i in enumerate(self.body) if i.op == "load" and inputs[i.attr].buffer == buffer]
        return any(last.get(n, 0) > line for n in loads)

    def arguments(self, memory: Sequence[Array], core: Sequence[Array | None] = ()) -> Arguments:
        """The arrays of a launch over the merged axes; ``core`` arrays have the space's shape and any strides."""
        inputs: list[Any] = [None] * len(self.kernel.inputs)
        for n in self.used:
            operand = self.kernel.inputs[n]
            inputs[n] = self._array(memory[operand.buffer], operand)
        outputs: list[Any] = [None] * len(self.kernel.outputs)
        for n in self.stored:
            operand = self.kernel.outputs[n]
            outputs[n] = self._array(memory[operand.buffer], operand)
        arranged = [None if a is None else a.transpose(self.order).reshape(self.shape) for a in core]
        return Arguments(inputs, outputs, arranged)

    def _array(self, memory: Array, operand: Operand) -> Array:
        view = self.views[id(operand.view)]
        if view.bounds is not None:
            return memory.view(operand.dtype.numpy)  # read element ranges by hand
        return array_of(memory, operand._replace(view=view))

    def calls(self, args: Arguments, index: Index, register: Register) -> tuple[list[Call], list[Any]]:
        """The calls that run the lines on one block of the merged axes, and the value of each line after them."""
        calls: list[Call] = []
        values: list[Any] = []
        shape = tuple(s.stop - s.start for s in index)
        for op, arguments, attr, dtype, output, number, copies in self.steps:
            out: Any = None
            if output is not None:
                out = args.outputs[output][index]
            elif number >= 0:
                out = register(number, shape, dtype)
            if op == "load":
                if out is None:
                    out = args.inputs[attr][index]
                else:
                    view = self.views[id(self.kernel.inputs[attr].view)]
                    calls.append((_padded, (args.inputs[attr], view, index), out))
            elif op == "const":
                out = dtype.type(attr[0])
            elif op == "core":
                out = args.core[attr][index]
            elif op in ("iota", "inside"):
                calls.append((_positions if op == "iota" else _inside, (self.views[id(attr)], index), out))
            else:
                calls.append((CALLS[op], tuple([values[a] for a in arguments]), out))
            for copy in copies:
                calls.append((_copy, (out,), args.outputs[copy][index]))
            values.append(out)
        for line, output in self.late:
            calls.append((_copy, (values[line],), args.outputs[output][index]))
        return calls, values

    def run(self, args: Arguments, index: Index) -> list[Any]:
        """Run the lines on one block in scratch memory of this thread; returns the value of each line."""
        calls, values = self.calls(args, index, _thread_register)
        for call, sources, out in calls:
            call(*sources, out=out)
        return values

    def bind(self, args: Arguments) -> Callable[[], None]:
        """The whole space as a function without arguments: all that can be done before it runs is done."""
        blocks = blocks_of(self.shape)
        tasks = min(thread_count(), len(blocks)) if math.prod(self.shape) >= PARALLEL else 1
        work: list[list[Call]] = []
        for task in range(tasks):
            mine = blocks[len(blocks) * task // tasks : len(blocks) * (task + 1) // tasks]
            register = partial(task_register, task=task)
            work.append([call for block in mine for call in self.calls(args, block, register)[0]])

        def run(task: int) -> None:
            for call, sources, out in work[task]:
                call(*sources, out=out)

        return partial(run, 0) if tasks == 1 else partial(parallel, tasks, run)

    def launch(self, args: Arguments) -> None:
        """Run the whole space, in blocks over the thread pool."""
        blocks = blocks_of(self.shape)
        if len(blocks) <= 1 or math.prod(self.shape) < PARALLEL:
            for block in blocks:
                self.run(args, block)
        else:

            def task(number: int) -> None:
                self.run(args, blocks[number])

            parallel(len(blocks), task)


def _thread_register(number: int, shape: Shape, dtype: np.dtype[Any]) -> Array:
    return scratch(f"r{number}", shape, dtype)


_registers: dict[tuple[int, int], Array] = {}


def task_register(number: int, shape: Shape, dtype: np.dtype[Any], task: int = 0) -> Array:
    """Memory of one task; bound kernels share it, as the device's lock lets one run at a time."""
    memory = _registers.get((task, number))
    if memory is None:
        memory = _registers[(task, number)] = aligned(BLOCK * 8)
    return np.ndarray(shape, dtype, memory)


def _copy(source: Any, out: Array) -> None:
    np.copyto(out, source)


def _padded(flat: Array, view: View, index: Index, out: Array) -> None:
    """Read one block of a view with bounds."""
    assert view.bounds is not None
    out.fill(view.fill)
    inner, offset, shape = [], view.offset, []
    for block, (low, high), stride in zip(index, view.bounds, view.strides):
        first, last = max(block.start, low), min(block.stop, high)
        if first >= last:
            return
        inner.append(slice(first - block.start, last - block.start))
        offset += first * stride
        shape.append(last - first)
    size = flat.itemsize
    source = np.ndarray(shape, flat.dtype, flat, offset * size, [s * size for s in view.strides])
    np.copyto(out[tuple(inner)], source)


def _positions(view: View, index: Index, out: Array) -> None:
    """Fill ``out`` with ``offset + sum(i * strides)``; ``fill`` outside the bounds."""
    total: Any = view.offset
    for axis, (block, stride) in enumerate(zip(index, view.strides)):
        steps = np.arange(block.start, block.stop, dtype=np.int64) * stride
        total = total + steps.reshape((-1,) + (1,) * (len(index) - axis - 1))
    if view.bounds is not None:
        inside = np.empty(out.shape, np.bool_)
        _inside(view, index, inside)
        total = np.where(inside, total, view.fill)
    np.copyto(out, total, casting="unsafe")


def _inside(view: View, index: Index, out: Array) -> None:
    out.fill(True)
    assert view.bounds is not None
    for axis, (block, (low, high)) in enumerate(zip(index, view.bounds)):
        rest = (slice(None),) * axis
        out[(*rest, slice(0, max(0, min(low, block.stop) - block.start)))] = False
        out[(*rest, slice(max(0, high - block.start), None))] = False


def blocks_of(shape: Shape, least: int = BLOCK) -> list[Index]:
    """Cut a space into blocks of about ``least`` elements, whole along the inner axes."""
    if 0 in shape:
        return []
    inner = 1
    axis = len(shape)
    while axis > 0 and inner * shape[axis - 1] <= least:
        axis -= 1
        inner *= shape[axis]
    whole = tuple(slice(0, n) for n in shape[axis:])
    if axis == 0:
        return [whole]
    axis -= 1
    count = -(-shape[axis] // max(1, least // inner))
    threads = thread_count()
    if axis == 0 and count > 1:
        count = -(-count // threads) * threads
    count = min(count, shape[axis])
    cuts = [slice(shape[axis] * n // count, shape[axis] * (n + 1) // count) for n in range(count)]
    outer: list[Index] = [()]
    for size in shape[:axis]:
        outer = [(*o, slice(n, n + 1)) for o in outer for n in range(size)]
    return [(*o, cut, *whole) for o in outer for cut in cuts]
