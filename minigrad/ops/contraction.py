"""Matrix product, and convolution with its two adjoints: a family closed under differentiation."""

from __future__ import annotations

import math
from typing import Any

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DTypeError, ShapeError
from minigrad.graph import Node, apply
from minigrad.primitive import Kind, Rule, primitive
from minigrad.shapes import Shape, Window, broadcast


def _dtype(op: str) -> Rule:
    def rule(attrs: Any, a: DType, b: DType) -> DType:
        if a is not b or a is dtypes.bool_:
            got = f"{a.name} and {b.name}"
            raise DTypeError.of(op, "two tensors of one numeric dtype", got, "cast one with .to(dtype)")
        return a

    return rule


def _matmul_shape(attrs: Any, a: Shape, b: Shape) -> Shape:
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise ShapeError.of("matmul", "inner sizes that agree", f"{a} @ {b}")
    return (*broadcast("matmul", a[:-2], b[:-2]), a[-2], b[-1])


def _swap(x: Node) -> Node:
    axes = tuple(range(x.ndim - 2))
    return x.permute((*axes, x.ndim - 1, x.ndim - 2))


def _product_like(x: Node, a: Node, b: Node) -> Node:
    """``a @ b``, the gradient of ``x``; where ``x`` is a transposed weight it is computed as that weight lies."""
    axes = tuple(range(x.ndim))
    if x.op.name == "permute" and x.attrs.axes == (*axes[:-2], axes[-1], axes[-2]):
        return _swap(apply("matmul", _swap(b), _swap(a)))
    return apply("matmul", a, b)


primitive(
    "matmul",
    Kind.CONTRACTION,
    2,
    shape=_matmul_shape,
    dtype=_dtype("matmul"),
    vjp=(
        lambda g, out, a, b: _product_like(a, g, _swap(b)),
        lambda g, out, a, b: _product_like(b, _swap(a), g),
    ),
    flops=lambda attrs, out, a, b: 2 * math.prod(out) * a[-1],
)


def _check(op: str, window: Window, groups: int, x: Shape, w: Shape) -> None:
    rank = window.rank
    if len(x) != rank + 2:
        raise ShapeError.of(op, f"an input of {rank + 2} dimensions (N, C, {rank} spatial)", x)
    if len(w) != rank + 2 or w[2:] != window.kernel:
        raise ShapeError.of(op, f"a weight of {rank + 2} dimensions (K, C/groups, kernel)", w)
    if groups < 1 or x[1] % groups or w[0] % groups:
        raise ShapeError.of(op, "groups that divide both channel counts", f"groups={groups}, input {x}, weight {w}")
    if w[1] * groups != x[1]:
        got = f"input {x}, weight {w}, groups={groups}: {w[1]} * {groups} != {x[1]}"
        raise ShapeError.of(op, "weight.shape[1] * groups input channels", got)


def _conv_shape(attrs: Any, x: Shape, w: Shape) -> Shape:
    op = f"conv{attrs.window.rank}d"
    _check(op, attrs.window, attrs.groups, x, w)
    return (x[0], w[0], *attrs.window.output_size(op, x[2:]))


def _input_grad_shape(attrs: Any, g: Shape, w: Shape) -> Shape:
    x = (g[0], w[1] * attrs.groups, *attrs.spatial)
    if _conv_shape(attrs, x, w) != g:
        raise ShapeError.of("conv_input_grad", f"a gradient of shape {_conv_shape(attrs, x, w)}", g)
    return x


def _weight_grad_shape(attrs: Any, x: Shape, g: Shape) -> Shape:
    w = (g[1], x[1] // attrs.groups, *attrs.window.kernel)
    if _conv_shape(attrs, x, w) != g:
        raise ShapeError.of("conv_weight_grad", f"a gradient of shape {_conv_shape(attrs, x, w)}", g)
    return w


def _conv(x: Node, w: Node, attrs: Any) -> Node:
    return apply("conv", x, w, window=attrs.window, groups=attrs.groups)


def _input_grad(g: Node, w: Node, attrs: Any, spatial: Shape) -> Node:
    return apply("conv_input_grad", g, w, window=attrs.window, groups=attrs.groups, spatial=spatial)


def _weight_grad(x: Node, g: Node, attrs: Any) -> Node:
    return apply("conv_weight_grad", x, g, window=attrs.window, groups=attrs.groups)


def _conv_flops(positions: Shape, weight: Shape) -> int:
    """Two operations per weight of a filter and output value; ``positions`` is the shape (N, K, *O)."""
    return 2 * math.prod(positions) * math.prod(weight[1:])


# Cross-correlation, as in every CNN library:
# out[n,k,o] = sum over c, tap of x[n,c,o*stride-pad+tap*dilation] w[k,c,tap].
primitive(
    "conv",
    Kind.CONTRACTION,
    2,
    "window groups",
    shape=_conv_shape,
    dtype=_dtype("conv"),
    vjp=(
        lambda g, out, x, w: _input_grad(g, w, out.attrs, x.shape[2:]),
        lambda g, out, x, w: _weight_grad(x, g, out.attrs),
    ),
    flops=lambda attrs, out, x, w: _conv_flops(out, w),
)
primitive(
    "conv_input_grad",
    Kind.CONTRACTION,
    2,
    "window groups spatial",
    shape=_input_grad_shape,
    dtype=_dtype("conv_input_grad"),
    vjp=(
        lambda g, out, y, w: _conv(g, w, out.attrs),
        lambda g, out, y, w: _weight_grad(g, y, out.attrs),
    ),
    flops=lambda attrs, out, g, w: _conv_flops(g, w),
)
primitive(
    "conv_weight_grad",
    Kind.CONTRACTION,
    2,
    "window groups",
    shape=_weight_grad_shape,
    dtype=_dtype("conv_weight_grad"),
    vjp=(
        lambda g, out, x, y: _input_grad(y, g, out.attrs, x.shape[2:]),
        lambda g, out, x, y: _conv(x, g, out.attrs),
    ),
    flops=lambda attrs, out, x, g: _conv_flops(g, out),
)
