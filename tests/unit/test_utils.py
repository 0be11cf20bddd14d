"""nn.utils: gradients clipped, parameters as one vector."""

import math

import numpy as np
import pytest
from steps import arrays, classes, net, same_with_jit

from minigrad import Tensor, dtypes, jit, nn
from minigrad.errors import CaptureError, ShapeError
from minigrad.nn import optim
from minigrad.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    get_total_norm,
    parameters_to_vector,
    vector_to_parameters,
)

SHAPES = [(3, 4), (5,), ()]


def graded(scale=1.0):
    """Parameters with gradients, and one without; the gradients as arrays."""
    rng = np.random.default_rng(0)
    grads = [np.asarray(rng.standard_normal(shape) * scale, "float32") for shape in SHAPES]
    params = [Tensor.zeros(*shape, requires_grad=True) for shape in (*SHAPES, (7,))]
    for param, grad in zip(params, grads):
        param.grad = Tensor(grad)
    return params, grads


@pytest.mark.parametrize("order", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_clipping_the_norm(order, bound):
    params, grads = graded()
    flat = np.concatenate([g.ravel() for g in grads]).astype("f8")
    norm = np.linalg.norm(flat, order)
    found = clip_grad_norm_(iter(params), bound, order)
    # A norm of 18 numbers, and a root: some roundings of 2^-24 each.
    np.testing.assert_allclose(found.item(), norm, rtol=1e-6)
    for param, grad in zip(params, grads):
        np.testing.assert_allclose(param.grad.numpy(), grad * min(1, bound / (norm + 1e-6)), rtol=2e-6)
    assert params[-1].grad is None


@pytest.mark.parametrize("order, bound", [(2.0, 0.5), (2, 100.0), (1.0, 2.0), (math.inf, 0.1)])
def test_clipping_the_norm_equals_pytorchs(order, bound):
    torch = pytest.importorskip("torch")
    params, grads = graded()
    theirs = [torch.zeros(g.shape, requires_grad=True) for g in grads]
    for param, grad in zip(theirs, grads):
        param.grad = torch.tensor(grad)
    expected = torch.nn.utils.clip_grad_norm_(theirs, bound, order)
    np.testing.assert_allclose(clip_grad_norm_(params, bound, order).item(), expected.item(), rtol=1e-6)
    for param, other in zip(params, theirs):
        np.testing.assert_allclose(param.grad.numpy(), other.grad.numpy(), rtol=2e-6)


def test_a_norm_that_is_not_finite():
    params, grads = graded()
    params[0].grad = Tensor(np.full((3, 4), np.inf, "float32"))
    with pytest.raises(RuntimeError, match="finite norm"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(params[1].grad.numpy(), grads[1])
    assert clip_grad_norm_(params, 1.0).item() == math.inf
    assert not params[1].grad.numpy().any()
    params, _ = graded()
    assert math.isfinite(clip_grad_norm_(params, 1.0, error_if_nonfinite=True).item())


def test_norms_of_halves_do_not_overflow():
    grad = Tensor(np.full(300, 6e4, "float16"))
    assert get_total_norm(grad).item() == pytest.approx(6e4 * math.sqrt(300), rel=1e-3)
    param = Tensor(np.zeros(300, "float16"), requires_grad=True)
    param.grad = grad
    clip_grad_norm_(param, 1.0)
    assert param.grad.dtype is dtypes.float16
    np.testing.assert_allclose(param.grad.numpy().astype("f8"), 1 / math.sqrt(300), rtol=2**-10)


def test_nothing_to_clip():
    assert clip_grad_norm_([], 1.0).item() == 0.0
    assert clip_grad_norm_([Tensor([1.0], requires_grad=True)], 1.0).item() == 0.0


def test_clipping_values():
    params, grads = graded(2.0)
    clip_grad_value_(params, 0.75)
    for param, grad in zip(params, grads):
        np.testing.assert_array_equal(param.grad.numpy(), grad.clip(-0.75, 0.75))


@pytest.mark.parametrize("clip", [
    lambda p: clip_grad_norm_(p, 0.05),
    lambda p: clip_grad_norm_(p, 0.02, math.inf),
    lambda p: clip_grad_value_(p, 0.01),
])  # fmt: skip
def test_clipping_in_captured_steps(clip):
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.5, momentum=0.9)

        @wrap
        def step(x, y):
            optimizer.zero_grad()
            loss = model(x).cross_entropy(y)
            loss.backward()
            norm = clip(model.parameters())
            optimizer.step()
            return loss, norm

        out = [step(x, y) for x, y in zip(arrays(6, 4), classes(6))]
        return out, list(model.parameters()), [p.grad for p in model.parameters()]

    same_with_jit(scenario, captures=1)


def test_a_norm_is_not_read_inside_a_captured_step():
    with pytest.raises(CaptureError):
        jit(lambda x: get_total_norm([x], error_if_nonfinite=True))(Tensor([1.0]))


def test_parameters_as_a_vector_and_back():
    layer, other = nn.Linear(3, 4), nn.Linear(3, 4)
    vector = parameters_to_vector(layer.parameters())
    assert vector.shape == (16,)
    np.testing.assert_array_equal(vector.numpy(), np.concatenate([p.numpy().ravel() for p in layer.parameters()]))
    weight = other.weight
    vector_to_parameters(vector, other.parameters())
    assert other.weight is weight and weight.requires_grad
    np.testing.assert_array_equal(other.weight.numpy(), layer.weight.numpy())
    np.testing.assert_array_equal(other.bias.numpy(), layer.bias.numpy())
    (vector * vector).sum().backward()
    np.testing.assert_allclose(layer.bias.grad.numpy(), 2 * layer.bias.numpy())
    with pytest.raises(ShapeError, match="16 elements"):
        vector_to_parameters(vector[1:], other.parameters())
