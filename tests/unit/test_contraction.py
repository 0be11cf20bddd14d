"""Matrix products, linear layers and Einstein sums against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad import Tensor, dtypes


def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype("float32")


def same(tensor, expected):
    array = tensor.numpy()
    assert array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


SHAPES = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((0, 3), (3, 2)), ((2, 0), (0, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_matmul(left, right):
    a, b = integers(*left), integers(*right, seed=1)
    x, y = Tensor(a), Tensor(b)
    for product in (x @ y, x @ b, a @ y, x.dot(y), Tensor.matmul(x, b)):
        assert isinstance(product, Tensor)
        same(product, a @ b)


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_gradients_of_matmul(left, right):
    """The derivatives of sum((a @ b) * c) by a and b are the products with c that einsum spells."""
    a, b = integers(*left), integers(*right, seed=1)
    c = integers(*(a @ b).shape, seed=2)
    x, y = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
    by_a, by_b = ((x @ y) * Tensor(c)).sum().gradient(x, y)
    rows, columns = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    full = c.reshape((rows @ columns).shape)
    expected = full @ columns.swapaxes(-1, -2), rows.swapaxes(-1, -2) @ full
    for got, wanted, shape in ((by_a, expected[0], rows.shape), (by_b, expected[1], columns.shape)):
        lead = wanted.ndim - len(shape)
        wanted = wanted.sum(tuple(range(lead)))
        wanted = wanted.sum(tuple(i for i, n in enumerate(shape) if n == 1 and wanted.shape[i] != 1), keepdims=True)
        same(got, wanted.reshape(got.shape))


def test_relatives():
    a, b = integers(2, 3), integers(3, 4, seed=1)
    same(Tensor(a).mm(Tensor(b)), a @ b)
    same(Tensor(a[None]).bmm(Tensor(b[None])), (a @ b)[None])
    same(Tensor(a[0]).outer(Tensor(b[0])), np.outer(a[0], b[0]))


def test_linear():
    x, w, b = integers(5, 2, 3), integers(4, 3, seed=1), integers(4, seed=2)
    same(Tensor(x).linear(Tensor(w), Tensor(b)), x @ w.T + b)
    same(Tensor(x[0, 0]).linear(Tensor(w)), w @ x[0, 0])
    same(Tensor(np.zeros((0, 3), "float32")).linear(Tensor(w), Tensor(b)), np.zeros((0, 4)))
    weight = Tensor(w, requires_grad=True)
    (gradient,) = Tensor(x).linear(weight).sum().gradient(weight)
    same(gradient, np.broadcast_to(x.sum((0, 1)), (4, 3)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "uint8"])
def test_dtypes(dtype):
    a, b = Tensor(np.ones((2, 300)), dtype=dtype), Tensor(np.full((300, 2), 3), dtype=dtype)
    assert (a @ b).dtype is dtypes.as_dtype(dtype)
    expected = 900 % 256 if dtype == "uint8" else 900
    same((a @ b).to("float64"), np.full((2, 2), expected))


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ba,ca", (2, 3), (4, 3)), ("ij->ji", (2, 3)),
    ("ba", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("iij->ji", (3, 3, 2)), ("iii->", (2, 2, 2)), ("ij->", (2, 3)),
    ("ij->j", (2, 3)), ("i,j->ij", (2,), (3,)), ("i,i->", (3,), (3,)), ("i,i->i", (3,), (3,)),
    ("ij,ij->i", (2, 3), (2, 3)), ("ij,ij->", (2, 3), (2, 3)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)), ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bij,bjk->kbi", (5, 2, 3), (5, 3, 4)), ("aij,ajk->ik", (2, 3, 4), (2, 4, 5)), ("abc,d->c", (2, 3, 4), (5,)),
    ("iij,j->i", (3, 3, 4), (4,)), ("a,ab,b->", (2,), (2, 3), (3,)), ("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5)),
    ("...ij,...jk->...ik", (5, 1, 2, 3), (6, 3, 4)), ("...ij,jk", (5, 2, 3), (3, 4)),
    ("i...->...", (2, 3, 4)), ("...a,a", (2, 3, 4), (4,)), ("...ii->...i", (2, 3, 3)), ("...,...->...", (2, 1), (1, 3)),
    (",ij->ij", (), (2, 3)), ("ij,ij,ij->ij", (2, 3), (2, 3), (2, 3)), ("ij,jk->ik", (2, 0), (0, 4)),
    ("Ab,bA->A", (2, 3), (3, 2)), (" i j , j k -> k i ", (2, 3), (3, 4)), ("ij,jk->ik", (2, 1), (3, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", EQUATIONS, ids=str)
def test_einsum(case):
    equation, *shapes = case
    arrays = [integers(*shape, seed=i) for i, shape in enumerate(shapes)]
    expected = np.einsum(equation, *arrays)
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    same(Tensor.einsum(equation, *tensors), expected)
    same(Tensor.einsum(equation, tensors), expected)
    out = Tensor.einsum(equation, *tensors)
    c = integers(*expected.shape, seed=9)
    for i, gradient in enumerate((out * Tensor(c)).sum().gradient(*tensors)):
        # Multilinear: the derivative's product with operand i is the value again.
        assert (gradient.numpy() * arrays[i]).sum() == (expected * c).sum()


@st.composite
def equations(draw):
    """Operands over few letters, each with one size, and an output of some of them."""
    sizes = dict(zip("abcd", draw(st.permutations([1, 2, 3, 4]))))
    terms = draw(st.lists(st.lists(st.sampled_from("abcd"), max_size=3), min_size=1, max_size=3))
    seen = sorted({letter for term in terms for letter in term})
    output = draw(st.lists(st.sampled_from(seen), unique=True)) if seen else []
    arrow = draw(st.booleans())
    equation = ",".join("".join(t) for t in terms) + ("->" + "".join(output) if arrow else "")
    return equation, [tuple(sizes[letter] for letter in term) for term in terms]


@given(equations())
@settings(deadline=None, max_examples=60)
def test_any_einsum(case):
    equation, shapes = case
    arrays = [integers(*shape, seed=i) for i, shape in enumerate(shapes)]
    same(Tensor.einsum(equation, *map(Tensor, arrays)), np.einsum(equation, *arrays))


def test_an_ellipsis_that_the_output_lacks_is_summed_over():
    """As in PyTorch; NumPy raises."""
    a, b = integers(2, 3, 4), integers(2, 3, 4, seed=1)
    same(Tensor.einsum("b...,b...->b", Tensor(a), Tensor(b)), (a * b).sum((1, 2)))


def test_a_contraction_of_two_is_a_matrix_product():
    """Where both operands have axes of their own einsum must not make their outer product."""
    out = Tensor.einsum("bij,bjk->bki", Tensor(integers(5, 2, 3)), Tensor(integers(5, 3, 4)))
    seen, stack = set(), [out.node]
    while stack:
        node = stack.pop()
        seen.add(node.op.name)
        stack.extend(node.sources)
    assert "matmul" in seen and "mul" not in seen


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda a: a @ a, RuntimeError, r"matmul: expected inner sizes that agree, got \(2, 3\) @ \(2, 3\)"),
    (lambda a: a @ a[0, :2], RuntimeError, "inner sizes"),
    (lambda a: a @ a[0, 0], RuntimeError, r"use \*"),
    (lambda a: a @ a.T.double(), RuntimeError, "one numeric dtype"),
    (lambda a: (a > 0) @ (a.T > 0), RuntimeError, "numeric dtype"),
    (lambda a: a.expand(4, 2, 3) @ a.T.expand(5, 3, 2), RuntimeError, "broadcast together"),
    (lambda a: a.mm(a[0]), RuntimeError, "two matrices"),
    (lambda a: a[None].bmm(a.T), RuntimeError, "two batches"),
    (lambda a: a.outer(a), RuntimeError, "two vectors"),
    (lambda a: a.linear(a.T), RuntimeError, r"a weight \(out, in\)"),
    (lambda a: a.linear(a, a), RuntimeError, r"a bias of shape \(2,\)"),
    (lambda a: Tensor.einsum("ij,jk->ik", a), ValueError, "one term per operand"),
    (lambda a: Tensor.einsum("i->i", a), ValueError, "a letter for each axis"),
    (lambda a: Tensor.einsum("...ijk->i", a), ValueError, "a letter for each axis"),
    (lambda a: Tensor.einsum("ij->ik", a), ValueError, "occur in the input"),
    (lambda a: Tensor.einsum("ij->ii", a), ValueError, "output letters that differ"),
    (lambda a: Tensor.einsum("i1->i", a), ValueError, "letters, commas"),
    (lambda a: Tensor.einsum("ij,ij->ij", a, a.T), RuntimeError, "one size for each letter"),
    (lambda a: Tensor.einsum("ii->i", a), RuntimeError, "one size for each letter"),
    (lambda a: Tensor.einsum("ij->ij", [[1]]), TypeError, "tensors after the equation"),
    (lambda a: Tensor.einsum("ij->ij"), TypeError, "tensors after the equation"),
])  # fmt: skip
def test_errors(call, error, says):
    with pytest.raises(error, match=says):
        call(Tensor(integers(2, 3)))
