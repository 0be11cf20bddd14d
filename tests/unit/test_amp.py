"""Mixed precision: what autocast casts, and the scaler of the loss."""

import math

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, autocast, dtypes, jit, nn
from minigrad.errors import ArgumentError, DTypeError, StateDictError
from minigrad.nn import optim
from minigrad.nn.amp import GradScaler

HALVES = [dtypes.float16, dtypes.bfloat16]


def products():
    """Every way to a sum of products, as functions of an input and a weight."""
    x, w = Tensor.randn(3, 4), Tensor.randn(4, 5)
    image, filters, bias = Tensor.randn(2, 3, 7, 5), Tensor.randn(4, 3, 3, 3), Tensor.randn(4)
    return {
        "matmul": (Tensor.matmul, x, w),
        "vector": (Tensor.matmul, x, w[:, 0]),
        "reflected": (lambda x, w: x.numpy() @ w, x, w),
        "mm": (Tensor.mm, x, w),
        "bmm": (Tensor.bmm, x[None], w[None]),
        "linear": (Tensor.linear, x, w.T, Tensor.randn(5)),
        "einsum": (lambda x, w: Tensor.einsum("ij,jk->ik", x, w), x, w),
        "conv2d": (Tensor.conv2d, image, filters, bias),
        "conv_transpose2d": (Tensor.conv_transpose2d, image, filters.transpose(0, 1), bias),
    }


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", products())
def test_sums_of_products_are_those_of_the_half_type(name, dtype):
    function, *args = products()[name]
    with autocast(dtype):
        found = function(*args)
    expected = Tensor.matmul if name == "reflected" else function
    expected = expected(*[a.cast(dtype) for a in args])
    assert found.dtype is dtype
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_what_is_not_float32_stays():
    wide, whole = Tensor.randn(3, 4, dtype="float64"), Tensor.arange(12).reshape(4, 3)
    with autocast("float16"):
        assert (wide @ Tensor.randn(4, 3, dtype="float64")).dtype is dtypes.float64
        assert (whole @ whole.T).dtype is whole.dtype
        assert (Tensor.randn(3, 4) + 1).exp().dtype is dtypes.float32
        assert (Tensor.randn(3, 4).cast("bfloat16") @ Tensor.randn(4, 3)).dtype is dtypes.float16


def test_norms_pools_and_activations_follow_their_input_and_losses_are_float32():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 6)
    )  # fmt: skip
    seen = []
    for layer in net.children():
        layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    x, y = Tensor.randn(2, 3, 7, 5), Tensor(np.array([3, 5]))
    with autocast():
        logits = net(x)
        losses = [logits.cross_entropy(y), logits.log_softmax(1).nll_loss(y), logits.mse_loss(Tensor.zeros(2, 6))]
    assert seen == [dtypes.float16] * 6 and [loss.dtype for loss in losses] == [dtypes.float32] * 3
    losses[0].backward()
    assert {p.grad.dtype for p in net.parameters()} == {dtypes.float32}
    assert net[1].running_mean.dtype is dtypes.float32


def test_blocks_nest_and_end():
    x, w = Tensor.randn(3, 4), Tensor.randn(4, 5)
    with autocast("float16"):
        with autocast("bfloat16"):
            assert (x @ w).dtype is dtypes.bfloat16
        with autocast(enabled=False):
            assert (x @ w).dtype is dtypes.float32
        assert (x @ w).dtype is dtypes.float16
    assert (x @ w).dtype is dtypes.float32
    assert autocast("bfloat16")(lambda: x @ w)().dtype is dtypes.bfloat16


def test_only_half_types():
    with pytest.raises(DTypeError, match="float16 or bfloat16"):
        autocast("float32")


def test_a_captured_step_is_captured_anew_in_another_precision():
    w = Tensor.randn(4, 5)
    product = jit(lambda x: x @ w)
    x = Tensor.randn(3, 4)
    found = []
    for _ in range(2):
        found.append(product(x).dtype)
        with autocast():
            found.append(product(x).dtype)
    assert found == [dtypes.float32, dtypes.float16] * 2


# The scaler -----------------------------------------------------------------------------------------------------------


def trained(dtype, wrap, steps=12, make=optim.SGD, **scaling):
    """Losses, scales and final weights of a small network whose loss falls."""
    minigrad.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer, scaler = make(net.parameters(), lr=0.05), GradScaler(enabled=bool(scaling), **scaling)
    x, y = Tensor.randn(32, 6), Tensor(np.arange(32) % 4)

    def step(x, y):
        optimizer.zero_grad()
        with autocast(dtype):
            loss = net(x).cross_entropy(y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    run, losses, scales = wrap(step), [], []
    for _ in range(steps):
        losses.append(run(x, y).item())
        scales.append(scaler.get_scale())
    return losses, scales, [p.numpy() for p in net.parameters()], optimizer


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("wrap", [jit, lambda f: f], ids=["jit", "plain"])
def test_training_in_half_precision(dtype, wrap):
    losses, scales, weights, _ = trained(dtype, wrap, init_scale=2.0**10)
    assert losses[-1] < losses[0] and scales == [2.0**10] * 12
    assert {w.dtype for w in weights} == {np.dtype("float32")}


def test_a_learning_rate_that_changes_captures_nothing_anew():
    w, calls = Tensor([1.0, 2.0], requires_grad=True), []
    optimizer, scaler = optim.SGD([w], lr=0.5), GradScaler(init_scale=2.0)

    @jit
    def step(x):
        calls.append(1)
        optimizer.zero_grad()
        scaler.scale((w * x).sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    for n in range(4):
        optimizer.param_groups[0]["lr"] = 0.5**n
        step(Tensor([1.0, 1.0]))
    assert w.tolist() == [1.0 - 1.875, 2.0 - 1.875] and len(calls) == 1


def test_jit_changes_nothing():
    plain, captured = (trained(dtypes.float16, wrap, init_scale=2.0**30) for wrap in (lambda f: f, jit))
    assert plain[:2] == captured[:2]
    for a, b in zip(plain[2], captured[2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_steps_that_overflow_are_skipped_and_the_scale_shrinks(make):
    """Under 2^30 gradients of about 1 are infinite in float16, until the scale has come down."""
    steps = 20
    losses, scales, _, optimizer = trained(dtypes.float16, jit, steps, make, init_scale=2.0**30)
    skipped = sum(a > b for a, b in zip([2.0**30, *scales], scales))
    assert 3 < skipped < steps - 3
    assert scales == [2.0 ** (30 - min(n, skipped)) for n in range(1, steps + 1)]
    assert losses[: skipped + 1] == losses[:1] * (skipped + 1) and losses[-1] < losses[skipped]
    if make is optim.Adam:
        counts = {state["step"].item() for state in optimizer.state.values()}
        assert counts == {steps - skipped}


def test_the_scale_grows_after_steps_without_overflow_but_not_to_infinity():
    _, scales, _, _ = trained(dtypes.bfloat16, jit, steps=7, init_scale=4.0, growth_interval=3)
    assert scales == [4.0, 4.0, 8.0, 8.0, 8.0, 16.0, 16.0]
    largest = 2.0**127
    _, scales, _, _ = trained(dtypes.bfloat16, jit, steps=1, init_scale=largest, growth_interval=1)
    assert math.isfinite(scales[0])


def test_gradients_too_small_for_float16_survive():
    w = Tensor([[1.0], [2.0]], requires_grad=True)

    def gradient(scaler):
        w.grad = None
        with autocast():
            loss = (Tensor([[1e-4, 1e-4]]) @ w).float().sum() * 1e-4
        scaler.scale(loss).backward()
        scaler.unscale_(optim.SGD([w]))
        return w.grad.numpy().ravel()

    assert not gradient(GradScaler(enabled=False)).any()
    np.testing.assert_allclose(gradient(GradScaler()), 1e-8, rtol=2e-3)  # float16 has 11 bits


def test_the_same_scales_and_weights_as_pytorch():
    torch = pytest.importorskip("torch")
    grads = [[1.0, 2.0], [math.inf, 1.0], [0.5, -1.0], [1.0, math.nan], [2.0, 2.0], [1.0, 1.0], [3.0, 1.0]]
    settings = dict(init_scale=8.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=2)
    ours, theirs = Tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer, reference = optim.SGD([ours], lr=0.1, momentum=0.9), torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    scaler, expected = GradScaler(**settings), torch.amp.GradScaler("cpu", **settings)
    expected.scale(torch.tensor(1.0))  # makes its tensors
    for grad in grads:
        ours.grad, theirs.grad = Tensor(grad), torch.tensor(grad)
        for one, other in ((scaler, optimizer), (expected, reference)):
            one.step(other)
            one.update()
        assert scaler.state_dict() == expected.state_dict()
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)


def test_state_dicts():
    scaler, other = GradScaler(init_scale=64.0, growth_interval=5), GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    assert GradScaler(enabled=False).state_dict() == {} and GradScaler(enabled=False).get_scale() == 1.0
    with pytest.raises(StateDictError, match="scale"):
        other.load_state_dict({})


def test_wrong_use():
    w = Tensor([1.0], requires_grad=True)
    w.grad = Tensor([2.0])
    scaler, optimizer = GradScaler(), optim.SGD([w])
    scaler.unscale_(optimizer)
    with pytest.raises(ArgumentError, match="one call"):
        scaler.unscale_(optimizer)
    for wrong in ({"init_scale": 0.0}, {"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"growth_interval": 0}):
        with pytest.raises(ArgumentError, match="growth_factor > 1"):
            GradScaler(**wrong)
