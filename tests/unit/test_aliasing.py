"""Which tensors share memory, what a write shows where, and what gradients make of it."""

import numpy as np
import pytest

from minigrad import Tensor, no_grad
from minigrad.errors import GradientError, ShapeError


def grid(*shape):
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


VIEWS = {
    "index": (lambda t: t[1], lambda x: x[1]),
    "slice": (lambda t: t[1:, ::2], lambda x: x[1:, ::2]),
    "negative step": (lambda t: t[::-1, 3:0:-2], lambda x: x[::-1, 3:0:-2]),
    "None and ...": (lambda t: t[None, ..., 1], lambda x: x[None, ..., 1]),
    "permute": (lambda t: t.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "transpose": (lambda t: t.transpose(0, 1), lambda x: x.swapaxes(0, 1)),
    "T": (lambda t: t.T, lambda x: x.T),
    "flip": (lambda t: t.flip(0, 2), lambda x: np.flip(x, (0, 2))),
    "unsqueeze": (lambda t: t.unsqueeze(1), lambda x: x[:, None]),
    "squeeze": (lambda t: t[:, :1].squeeze(1), lambda x: x[:, 0]),
    "reshape": (lambda t: t.reshape(4, 6), lambda x: x.reshape(4, 6)),
    "view": (lambda t: t.view(-1), lambda x: x.reshape(-1)),
    "flatten": (lambda t: t.flatten(1), lambda x: x.reshape(2, -1)),
    "shrink": (lambda t: t.shrink((None, (1, 2), (0, 3))), lambda x: x[:, 1:2, :3]),
    "split": (lambda t: t.split(2, 2)[1], lambda x: x[..., 2:]),
    "unbind": (lambda t: t.unbind(2)[3], lambda x: x[..., 3]),
    "diagonal": (lambda t: t.diagonal(1, 1, 2), lambda x: np.einsum("ijj->ij", x[:, :, 1:])),
    "detach": (lambda t: t.detach(), lambda x: x),
    "view of a view": (lambda t: t.T[1:].flip(1)[..., 0].unsqueeze(0), lambda x: np.flip(x.T[1:], 1)[..., 0][None]),
    "diagonal of a view": (lambda t: t[:, ::-1].T.diagonal(), lambda x: np.einsum("iik->ki", x[:, ::-1].T[:3])),
    "transposed reshape": (lambda t: t.T.reshape(4, 3, 1, 2), lambda x: x.T.reshape(4, 3, 1, 2)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_writes_to_a_view_show_in_the_base(name):
    ours, numpys = VIEWS[name]
    x = grid(2, 3, 4)
    tensor = Tensor(x)
    numpys(x)[...] = -1
    ours(tensor).assign(-1)
    np.testing.assert_array_equal(tensor.numpy(), x)


@pytest.mark.parametrize("name", VIEWS)
def test_writes_to_the_base_show_in_a_view(name):
    ours, numpys = VIEWS[name]
    x = grid(2, 3, 4)
    tensor = Tensor(x)
    view = ours(tensor)
    tensor[:, 1:] = 100
    x[:, 1:] = 100
    np.testing.assert_array_equal(view.numpy(), numpys(x))
    tensor += 1
    np.testing.assert_array_equal(view.numpy(), numpys(x) + 1)


COPIES = {
    "clone": lambda t: t.clone(),
    "contiguous": lambda t: t.T.contiguous(),
    "integer array": lambda t: t[[0, 1]],
    "mask": lambda t: t[t > 3],
    "pad": lambda t: t.pad((0, 0)),
    "roll": lambda t: t.roll(0, 1),
    "repeat": lambda t: t.repeat(1, 1, 1),
    "cat of one": lambda t: Tensor.cat([t]),
    "reshape that no view says": lambda t: t.T.reshape(24),
    "arithmetic": lambda t: t + 0,
    "Tensor": lambda t: Tensor(t),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("realized", [False, True])
def test_copies_do_not_alias(name, realized):
    tensor = Tensor(grid(2, 3, 4))
    copy = COPIES[name](tensor)
    before = COPIES[name](Tensor(grid(2, 3, 4))).numpy()
    if realized:
        copy.realize()
    tensor.assign(-1)
    np.testing.assert_array_equal(copy.numpy(), before)
    copy.assign(7)
    np.testing.assert_array_equal(tensor.numpy(), np.full((2, 3, 4), -1.0))


def test_contiguous_of_what_is_contiguous_is_itself():
    tensor = Tensor(grid(2, 3))
    assert tensor.contiguous() is tensor
    assert tensor[1:].contiguous().shape == (1, 3)


def test_the_tensor_copies_the_array_and_numpy_copies_the_tensor():
    array = grid(2, 2)
    tensor = Tensor(array)
    array[:] = 9
    assert tensor.tolist() == [[0, 1], [2, 3]]
    out = tensor.numpy()
    out[:] = 9
    assert tensor.tolist() == [[0, 1], [2, 3]]


def test_an_expanded_view_is_read_only():
    tensor = Tensor(grid(1, 3))
    wide = tensor.expand(4, 3)
    for write in (lambda: wide.assign(0), lambda: wide.__setitem__(slice(2), 0), lambda: wide.T.assign(0)):
        with pytest.raises(ShapeError, match="expanded"):
            write()
    tensor += 1
    np.testing.assert_array_equal(wide.numpy(), np.broadcast_to(grid(1, 3) + 1, (4, 3)))  # but it shows what is written
    wide[1].assign(0)  # one row of it has each element once
    assert tensor.tolist() == [[0, 0, 0]]


def test_readers_of_an_old_version_keep_its_values():
    tensor = Tensor(grid(4))
    doubled = tensor * 2
    tensor += 10
    tripled = tensor * 3
    tensor[0] = -1
    np.testing.assert_array_equal(doubled.numpy(), grid(4) * 2)
    np.testing.assert_array_equal(tripled.numpy(), (grid(4) + 10) * 3)
    np.testing.assert_array_equal(tensor.numpy(), [-1, 11, 12, 13])


def test_augmented_assignment_through_an_index():
    tensor, x = Tensor(grid(3, 4)), grid(3, 4)
    tensor[1] += 1
    x[1] += 1
    tensor[:, ::2] *= 2
    x[:, ::2] *= 2
    tensor[[0, 2]] -= 5
    x[[0, 2]] -= 5
    tensor[tensor > 4] /= 2
    x[x > 4] /= 2
    for row, expected in zip(tensor, x):
        row += 1
        expected += 1
    np.testing.assert_array_equal(tensor.numpy(), x)


def test_overlapping_reads():
    """The right side is read before anything is written."""
    tensor, x = Tensor(grid(6)), grid(6)
    tensor[1:] = tensor[:-1]
    x[1:] = x[:-1].copy()
    np.testing.assert_array_equal(tensor.numpy(), x)
    tensor[:] = tensor.flip()
    np.testing.assert_array_equal(tensor.numpy(), x[::-1])
    square = Tensor(grid(3, 3))
    square.assign(square.T)
    np.testing.assert_array_equal(square.numpy(), grid(3, 3).T)


def test_a_write_to_a_view_outlives_the_view_and_writes_keep_their_order():
    tensor = Tensor(grid(4))
    for i in range(10):
        tensor[i % 4] = i
        tensor[1:3] += 1
    x = grid(4)
    for i in range(10):
        x[i % 4] = i
        x[1:3] += 1
    np.testing.assert_array_equal(tensor.numpy(), x)


def test_a_view_outlives_its_base():
    view = Tensor(grid(4))[1:]
    view += 1
    np.testing.assert_array_equal(view.numpy(), [2, 3, 4])


def test_a_write_to_a_leaf_that_requires_a_gradient_raises():
    leaf = Tensor(grid(3), requires_grad=True)
    for write in (lambda: leaf.assign(0), lambda: leaf.__setitem__(0, 0), lambda: leaf[1:].assign(0), leaf.zero_):
        with pytest.raises(GradientError, match="no_grad"):
            write()
    with no_grad():
        leaf[0] = 5
        leaf *= 2
    assert leaf.tolist() == [10, 2, 4] and leaf.requires_grad and leaf.is_leaf
    (leaf * leaf).sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), [20, 4, 8])


def test_derivatives_see_the_version_they_read():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    square = y * y  # of the first version
    y[1] = 10.0
    cube = y * y * y  # of the second
    (square + cube).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2 + 3, 4 + 0, 6 + 27])


def test_in_place_is_differentiable():
    x, v = Tensor([1.0, 2.0, 3.0], requires_grad=True), Tensor([4.0, 5.0], requires_grad=True)
    y = x * 1
    y[1:] = v * v
    y *= 2
    y[::-1] += x
    (y * Tensor([1.0, 10.0, 100.0])).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2 + 100, 10, 1])
    np.testing.assert_array_equal(v.grad.numpy(), [160, 2000])


def test_a_view_taken_before_a_differentiable_write_sees_it():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    first = y[0]
    y *= y
    first.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [18, 0])


def test_detach_shares_memory_without_history():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    free = y.detach()
    assert not free.requires_grad
    free[0] = 7
    assert y.tolist() == [7, 4]
    with no_grad():
        x[1] = 5
    assert x.detach().tolist() == [1, 5]
