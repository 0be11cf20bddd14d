"""Planted faults, as data: what is changed in which module, and what is wrong then."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One fault.

    Attributes:
        name: what it is called.
        area: the part of minigrad.
        module: the module that is changed.
        old: text that is in it exactly once.
        new: what stands there instead.
        wrong: what is wrong then, in one line.
        backend: the backend on which it shows.
        expression: pytest's ``-k`` for the tests that should see it.
    """

    name: str
    area: str
    module: str
    old: str
    new: str
    wrong: str
    backend: str
    expression: str


_C, _T, _N = "minigrad.backends.cstyle.", "minigrad.backends.cstyle.templates.", "minigrad.backends.numpy."
_FORWARD = "test_forward_matches_float64_oracle"
_GRADIENT = "test_vjp_matches_finite_difference"
_PROGRAM = "test_program_matches_float64_oracle"


def _f(name: str, area: str, module: str, old: str, new: str, wrong: str, ops: str = "", backend: str = "numpy",
       test: str = _FORWARD) -> Fault:  # fmt: skip
    return Fault(name, area, module, old, new, wrong, backend, f"{test} and ({ops})" if ops else test)


def _o(name: str, module: str, old: str, new: str, wrong: str, ops: str = "", test: str = _FORWARD) -> Fault:
    return _f(name, "opencl", module, old, new, wrong, ops, "opencl", test)


FAULTS = (
    # Derivatives.
    _f(
        "sub_gradient_sign",
        "gradients",
        "minigrad.ops.elementwise",
        "lambda g, out, x, y: g, lambda g, out, x, y: -g))",
        "lambda g, out, x, y: g, lambda g, out, x, y: g))",
        "the second gradient of a difference loses its sign",
        "sub",
        test=_GRADIENT,
    ),
    _f(
        "mul_gradient_swapped",
        "gradients",
        "minigrad.ops.elementwise",
        "lambda g, out, x, y: g * y, lambda g, out, x, y: g * x",
        "lambda g, out, x, y: g * x, lambda g, out, x, y: g * y",
        "factors swapped",
        "mul",
        test=_GRADIENT,
    ),
    _f(
        "tie_counted_twice",
        "gradients",
        "minigrad.ops.elementwise",
        "where(g * 0.5, wins",
        "where(g, wins",
        "at a tie both sources get the whole gradient",
        test="test_ties_and_kinks_follow_convention",
    ),
    _f(
        "tanh_derivative",
        "gradients",
        "minigrad.ops.elementwise",
        "g * (1 - out * out)",
        "g * (1 - out)",
        "the derivative of tanh",
        "tanh",
        test=_GRADIENT,
    ),
    _f(
        "matmul_gradient_doubled",
        "gradients",
        "minigrad.ops.contraction",
        "_product_like(b, _swap(a), g)",
        "_product_like(b, _swap(a), g * 2)",
        "the second gradient of a product is doubled",
        "matmul",
        test=_GRADIENT,
    ),
    _f(
        "conv_adjoints_swapped_padding",
        "gradients",
        "minigrad.ops.contraction",
        'return apply("conv_weight_grad", x, g, window=attrs.window, groups=attrs.groups)',
        'return apply("conv_weight_grad", x, g, window=attrs.window._replace(padding=tuple((b, a) for a, b in attrs.window.padding)), groups=attrs.groups)',
        "the weight gradient pads the other side",
        "conv",
        test=_GRADIENT,
    ),
    _f(
        "cumsum_gradient_forward",
        "gradients",
        "minigrad.ops.reduction",
        "reverse=not out.attrs.reverse",
        "reverse=out.attrs.reverse",
        "the adjoint of a running sum runs the same way",
        "cumsum",
        test=_GRADIENT,
    ),
    _f(
        "permute_gradient",
        "gradients",
        "minigrad.ops.movement",
        "g.permute(_inverse(out.attrs.axes))",
        "g.permute(_inverse(_inverse(out.attrs.axes)))",
        "the axes are not put back",
        "permute",
        test=_GRADIENT,
    ),
    _f(
        "cat_gradient_order",
        "gradients",
        "minigrad.ops.movement",
        "for s in sources[:i])",
        "for s in sources[:i]) * 0",
        "every part of a concatenation gets the first gradient",
        "cat",
        test=_GRADIENT,
    ),
    _f(
        "assign_gradient_leaks",
        "gradients",
        "minigrad.ops.movement",
        "lambda g, out, base, value: _view_of(g, out, value)",
        "lambda g, out, base, value: _view_of(g * 0, out, value)",
        "what is written gets no gradient",
        "assign_view",
        test=_GRADIENT,
    ),
    _f(
        "reuse_not_accumulated",
        "gradients",
        "minigrad.autograd",
        "term if before is None else before + term",
        "term",
        "a value that is used twice gets one gradient",
        test="test_reuse_accumulates_gradient",
    ),
    # Simplification, schedule, views, memory.
    _f(
        "divide_loses_sign",
        "rewrites",
        "minigrad.simplify",
        "graph.constant(1 / divisor,",
        "graph.constant(1 / abs(divisor),",
        "division by a negative power of two",
        test="test_constant_folding or test_program",
    ),
    _f(
        "sub_neutral_swapped",
        "rewrites",
        "minigrad.simplify",
        'if name in ("mul", "add") and',
        'if name in ("mul", "add", "sub") and',
        "0 - x becomes x",
        test=_PROGRAM,
    ),
    _f(
        "permutes_merged_wrongly",
        "rewrites",
        "minigrad.simplify",
        "tuple(inner.attrs.axes[a] for a in attrs.axes)",
        "tuple(attrs.axes[a] for a in inner.attrs.axes)",
        "two permutations composed the wrong way round",
        test=_PROGRAM,
    ),
    _f(
        "scatter_sum_padding",
        "rewrites",
        "minigrad.simplify",
        "if any(map(any, window.padding)) or window.ceil_mode or not",
        "if not",
        "a sum over max pooling's gradient ignores what padding takes",
        test="conv or pool or training",
    ),
    _f(
        "pad_mask_dropped",
        "schedule",
        "minigrad.schedule",
        "        if view.bounds is None:\n            return inner\n        inside",
        "        if True:\n            return inner\n        inside",
        "padding around something computed keeps what was computed there",
        test=_PROGRAM,
    ),
    _f(
        "merged_across",
        "schedule",
        "minigrad.schedule",
        "self._fits(producer, draft) and not self._between(producer, draft)",
        "self._fits(producer, draft)",
        "merged although another kernel stands between",
        test=_PROGRAM,
    ),
    _f(
        "cat_order",
        "schedule",
        "minigrad.schedule",
        "            start += shape[axis]",
        "            start += shape[axis] * 0",
        "all parts of a concatenation are written to its beginning",
        "cat",
    ),
    _f(
        "lifetime_off_by_one",
        "memory",
        "minigrad.plan",
        "last[v] == index]",
        "last[v] <= index + 1]",
        "memory is given away while it is still read",
        test=_PROGRAM,
    ),
    _f(
        "slice_start",
        "views",
        "minigrad.view",
        "return start * stride, step * stride, _WHOLE",
        "return start * abs(stride), step * stride, _WHOLE",
        "a slice of a reversed view starts elsewhere",
        test=_PROGRAM,
    ),
    _f(
        "pad_sides_swapped",
        "views",
        "minigrad.view",
        "tuple((low + before, high + before) for (low, high), (before, _)",
        "tuple((low + before, high + before) for (low, high), (_, before)",
        "the bounds of padding are those of the other side",
        "pad",
    ),
    _f(
        "blocks_lost",
        "layout",
        "minigrad.view",
        "offset = start // block * outer + start % block * stride",
        "offset = start * stride",
        "a slice of a blocked axis starts elsewhere",
        backend="opencl",
        test=_PROGRAM,
    ),
    # Caches, captures, effects, random numbers.
    _f(
        "structure_without_attributes",
        "caches",
        "minigrad.simplify",
        "        number = _numbers.get(value)\n        if number is None:\n            number = _numbers[value]",
        "        key = value._replace(attrs=None) if op.name == 'slice' else value\n        number = _numbers.get(key)\n        if number is None:\n            number = _numbers[key]",
        "graphs that differ in a slice share a kernel",
        "slice",
    ),
    _f(
        "argument_not_copied",
        "jit",
        "minigrad.jit",
        "                if position is not None:\n                    _bring",
        "                if position is None:\n                    _bring",
        "replays use the first arguments",
        test="test_jit",
    ),
    _f(
        "written_not_shown",
        "jit",
        "minigrad.jit",
        "            if state.written:\n                state.tensor.show(state.slot.node)",
        "            if False:\n                state.tensor.show(state.slot.node)",
        "what a replay wrote stays hidden",
        test="test_jit",
    ),
    _f(
        "attributes_frozen",
        "jit",
        "minigrad.jit",
        "return self.recording.still_holds() and",
        "return",
        "an attribute that changed is still the captured one",
        test="test_jit",
    ),
    _f(
        "counter_not_advanced",
        "random",
        "minigrad.random",
        "        base = base_node(device)\n        advance(words)",
        "        base = base_node(device)",
        "every draw gives the same numbers",
        test="test_same_seed",
    ),
    # The NumPy backend.
    _f(
        "numpy_max_pool_is_zero_padded",
        "numpy",
        _N + "pool",
        "best.fill(least(best.dtype))",
        "best.fill(0)",
        "padding wins a maximum of negative values",
        "max_pool",
    ),
    _f(
        "numpy_average_counts_padding",
        "numpy",
        _N + "pool",
        "(-before, size + after) if count_include_pad else (0, size)",
        "(-before, size + after)",
        "padding counts in every average",
        "avg_pool",
    ),
    _f(
        "numpy_conv_dilation",
        "numpy",
        _N + "columns",
        "step * dilation for step, dilation",
        "step for step, dilation",
        "dilation is ignored",
        "conv",
    ),
    _f(
        "numpy_conv_stride",
        "numpy",
        _N + "columns",
        "step * stride for step, stride",
        "step for step, stride",
        "stride is ignored",
        "conv",
    ),
    _f(
        "numpy_flipped_kernel",
        "numpy",
        _N + "conv",
        "(slice(None, None, -1),) * window.rank",
        "(slice(None),) * window.rank",
        "the input gradient has the kernel the wrong way round",
        "conv_input_grad",
    ),
    _f(
        "numpy_half_sums",
        "numpy",
        _N + "matmul",
        'np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind not in "iub" else dtype',
        "dtype",
        "sums of halves accumulate in halves",
    ),
    _f(
        "numpy_block_edge",
        "numpy",
        _N + "reduce",
        "for block in blocks[len(blocks) * task // tasks :",
        "for block in blocks[len(blocks) * task // tasks + (task > 0) :",
        "the first block of the second thread is left out",
        test="test_large_programs",
    ),
    _f(
        "numpy_sort_descending",
        "numpy",
        _N + "indexing",
        "        np.invert(keys, out=keys)",
        "        keys = keys",
        "descending sorts ascend",
        "sort",
    ),
    # The C-like renderer.
    _o(
        "mask_dropped",
        _C + "body",
        'return f"({condition} ? {value} : {fill})" if condition else value\n\n    def _element',
        "return value\n\n    def _element",
        "elements out of bounds are read",
        test=_PROGRAM,
    ),
    _o(
        "nan_maximum",
        _C + "body",
        '        return f"(({a} {comparison} {b}) | ({a} != {a})) ? {a} : {b}"',
        '        return f"({a} {comparison} {b}) ? {a} : {b}"',
        "a NaN loses",
        "maximum",
    ),
    _o(
        "joined_axes_with_bounds",
        _C + "collapse",
        "if view.bounds is not None and view.bounds[inner] != (0, view.shape[inner]):",
        "if False:",
        "axes are joined over padding",
        test=_PROGRAM,
    ),
    _o(
        "expm1_large",
        _C + "mathematics",
        "2.0f * (h * p + (h - 0.5f))",
        "2.0f * (h * p + h) - 0.5f",
        "a constant of expm1",
        "expm1",
    ),
    _o(
        "literal_minimum",
        _C + "dialect",
        '"-INFINITY" if value < 0',
        '"INFINITY" if value < 0',
        "minus infinity is infinity",
        "pad or max",
    ),
    _o(
        "elementwise_rest",
        _T + "elementwise",
        "if width == 1 or length % width:",
        "if width == 1:",
        "what is left after whole vectors is not computed",
        "add",
    ),
    _o("fold_identity", _T + "folds", 'return int(op == "prod")', "return 0", "products begin with 0", "prod"),
    _o("argmax_last_tie", _T + "folds", "if not later:", "if False:", "of equal values any lane may win", "argmax"),
    _o(
        "scan_direction",
        _T + "scan",
        'f"{self.length - 1} - p" if self.reverse else "p"',
        '"p"',
        "reversed sums run forward",
        "cumsum",
    ),
    _o("sort_unstable", _T + "sort", "keys[j - 1] > key", "keys[j - 1] >= key", "equal keys change places", "sort"),
    _o(
        "take_clamp",
        _T + "indexing",
        "given < 0 ? 0 : given <",
        "given < 1 ? 1 : given <",
        "row 0 is never read",
        "take",
    ),
    _o(
        "matmul_rest_of_terms",
        _T + "product",
        "if self.depth % width or self.last % width:",
        "if False:",
        "terms after the last whole vector are dropped",
        "matmul",
    ),
    _o(
        "conv_row_dilation",
        _T + "conv",
        "h{axis} * {stride} + i{axis} * {dilation} - {before};",
        "h{axis} * {stride} + i{axis} - {before};",
        "dilation of rows is ignored",
        "conv",
    ),
    _o(
        "taps_padding",
        _T + "taps",
        "t * dilation - before) for t",
        "t * dilation) for t",
        "padding of the last axis is ignored",
        "conv",
    ),
    _o(
        "weight_rows",
        _T + "conv_weight",
        "if (low{axis} < {low}) low{axis} = {low};",
        "low{axis} = {low};",
        "rows before the input are read",
        "conv_weight_grad",
    ),
    _o(
        "pool_first_tap",
        _T + "pool",
        "self.dtype.min, width) if first is None",
        "0, width) if first is None",
        "padding zeros win a maximum",
        "max_pool",
    ),
)
