"""How to add an operation: a few lines with a derivative of their own, or a new primitive that every backend runs.

``python examples/add_an_op.py`` shows both for hypot(x, y) = sqrt(x^2 + y^2), the size of an image's gradient, on NumPy
and, where it is installed, on OpenCL; ``python examples/add_an_op.py numpy`` on one. What is printed is asserted too.
It needs Hypothesis, for the inputs: ``pip install minigrad[test]``.
"""

import sys

import numpy as np
from hypothesis import given, settings

import minigrad
from minigrad import Function, Tensor, device, dtypes, reference
from minigrad.backends.cstyle import mathematics as c
from minigrad.backends.numpy.ufuncs import CALLS
from minigrad.errors import DTypeError
from minigrad.graph import apply
from minigrad.primitive import TABLE, Domain, Kind, primitive
from minigrad.shapes import broadcast
from minigrad.testing import check_grads
from minigrad.testing.bounds import TOLERANCES, Error, Tolerance
from minigrad.testing.checks import WAYS, Tally, check_program
from minigrad.testing.program_strategies import programs
from minigrad.testing.strategies import cases

# Part one: a Function. The value is made of operations that exist, and the derivative is written by hand. This is
# enough for most: it runs on every backend, and is fused with what is around it.


class Hypot(Function):
    """sqrt(x^2 + y^2), whose derivative at the origin is 0 (made of operations alone it would be NaN)."""

    @staticmethod
    def forward(ctx, x, y):
        """Keep what ``backward`` needs on ``ctx``."""
        size = (x * x + y * y).sqrt()
        ctx.save_for_backward(x, y)
        return size

    @staticmethod
    def backward(ctx, g):
        """One gradient per argument. Made of operations too, it has derivatives itself."""
        x, y = ctx.saved_tensors
        size = (x * x + y * y).sqrt()
        share = g / size.where(size > 0, 1.0)
        return share * x, share * y


# Part two: a primitive, for what the others cannot say well. Here: x^2 overflows where hypot(x, y) does not.


def shape(attrs, x, y):
    """The shape rule: sources broadcast."""
    return broadcast("hypot", x, y)


def dtype(attrs, x, y):
    """The dtype rule: two alike, floating."""
    if x is not y or not x.is_float:
        raise DTypeError.of("hypot", "one floating dtype", f"{x.name} and {y.name}", "cast with .to(dtype)")
    return x


# 1. The row of the table. Derivatives are graphs of primitives over the upstream gradient, the output and the sources;
#    the domain is where tests draw their inputs, and where they keep away from.
primitive(
    "hypot",
    Kind.ELEMENTWISE,
    2,
    shape=shape,
    dtype=dtype,
    vjp=(lambda g, out, x, y: g * (x / out), lambda g, out, x, y: g * (y / out)),
    domain=Domain(nonzero=(0, 1)),
)
# 2. What it means: a function of the oracle, in naive float64 NumPy.
reference.hypot = lambda x, y: np.asarray(np.hypot(x, y))
# 3. How far a backend may be from that, and why so far.
TOLERANCES["hypot"] = Tolerance(Error.ULPS, 4, "OpenCL allows 4")
# 4. The NumPy backend calls a function that takes `out`.
CALLS["hypot"] = np.hypot
# 5. OpenCL has text, generic in the width of vectors (backends/cstyle/mathematics.py tells the language): float32 is
#    made of operators, which is as fast as they are; float64 calls what OpenCL has.
c.FLOAT["hypot"] = """
F @hypot(F x, F y) {
    F ax = as_F(as_I(x) & 0x7fffffff);
    F ay = as_F(as_I(y) & 0x7fffffff);
    F high = ax > ay ? ax : ay;
    F low = ax > ay ? ay : ax;
    F t = low / (high > F(0.0f) ? high : F(1.0f));
    F r = high * @sqrt(t * t + 1.0f);
    r = ((x != x) | (y != y)) ? F(NAN) : r;
    return ((ax == F(INFINITY)) | (ay == F(INFINITY))) ? F(INFINITY) : r;
}"""
c.BUILT_IN["hypot"] = "x y"


def hypot(x, y):
    """The primitive on tensors. Gradients, fusion, captured steps and movement between devices come with it."""
    return Tensor.wrap(apply("hypot", x.node, y.node))


def compared(name, inputs, examples, ways):
    """How programs that Hypothesis draws compare with the oracle on a backend."""
    tally = Tally()

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None)
    @given(inputs)
    def check(program):
        assert "hypot" in {step.op for step in program.steps}
        tally.add(check_program(program, name, ways))

    check()
    assert tally.is_conclusive
    return tally


def visit(name):
    """Use, compare and differentiate both on the backend ``name``."""
    print(f"=== {name}")
    with minigrad.backend(name):
        x, y = Tensor([3.0, 0.0, 3e30]), Tensor([4.0, 0.0, 4e30])
        print("Function:", Hypot.apply(x, y).tolist(), "  primitive:", hypot(x, y).tolist())
        assert np.isinf(Hypot.apply(x, y).numpy()[2]) and np.isclose(hypot(x, y).numpy()[2], 5e30)
    only = [d for d in dtypes.ALL if d in device.get(name).backend.capabilities.dtypes]
    tally = compared(name, cases(TABLE["hypot"], only=only), 20, ["lazy"])
    print(f"cases: {tally.elements} elements, all layouts and kinds of values, within {tally.worst:.0%} of the bound")
    tally = compared(name, programs(most=3, only=only, having="hypot"), 5, WAYS)
    print(f"programs: {tally.elements} elements as the oracle has them, {', '.join(WAYS)}")
    rng = np.random.default_rng(0)
    x, y, column = (rng.uniform(0.5, 2, shape) for shape in ((3, 4), (3, 4), (3, 1)))
    check_grads(Hypot.apply, [x, y], order=2, device=name)
    check_grads(hypot, [column, y], order=2, device=name)  # what was broadcast is summed back
    print("check_grads: first and second derivatives of both are right")


if __name__ == "__main__":
    for backend in sys.argv[1:] or [n for n, missing in device.available_backends().items() if missing is None]:
        visit(backend)
