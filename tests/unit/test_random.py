"""Random numbers and other new tensors: known bits, reproducibility, distributions, shapes, dtypes, errors."""

import math

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, capture, dtypes, random
from minigrad.errors import ArgumentError, ArgumentTypeError, DTypeError, GradientError, ShapeError

MANY = 50_000


@pytest.fixture(autouse=True)
def seed():
    random.manual_seed(0)


def words(count):
    return Tensor.wrap(random.bits(count, "numpy")).numpy()


# The stream.


@pytest.mark.parametrize(
    "counter, key, word",
    [
        ((0, 0), (0, 0), 0x6B200159),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), 0x1CB996FC),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), 0xC4923A9C),
    ],
)
def test_bits_are_those_of_the_published_vectors(counter, key, word):
    random.set_rng_state((key[0] | key[1] << 32, counter[0] | counter[1] << 32))
    assert words(1)[0] == word


def test_the_counter_carries():
    random.set_rng_state((5, 2**32 - 2))
    together = words(4)
    for i in range(4):
        random.set_rng_state((5, 2**32 - 2 + i))
        assert words(1)[0] == together[i]
    assert len(set(together.tolist())) == 4


def test_a_seed_repeats_and_another_differs():
    draws = []
    for seed in (1, 1, 2, 1 + 2**32, -1, 2**64 - 1):
        minigrad.manual_seed(seed)
        draws.append(Tensor.rand(20).tolist() + Tensor.randn(3).tolist())
    assert draws[0] == draws[1] and draws[4] == draws[5]
    assert len({tuple(d) for d in draws}) == 4


def test_state_is_saved_and_restored():
    Tensor.rand(7)
    state = random.get_rng_state()
    first, second = Tensor.randn(5), Tensor.rand(5)
    random.set_rng_state(state)
    assert Tensor.randn(5).tolist() == first.tolist() and Tensor.rand(5).tolist() == second.tolist()


def test_numbers_belong_to_the_call_not_to_when_they_are_computed():
    a, b = Tensor.rand(4), Tensor.rand(4)
    late = b.tolist(), a.tolist()
    random.manual_seed(0)
    assert (Tensor.rand(4).tolist(), Tensor.rand(4).tolist()) == late[::-1]
    assert a.tolist() == late[1] and (a + 0).tolist() == late[1]


def test_draws_do_not_overlap():
    seen = [x for count in (3, 10, 1, 6) for x in words(count).tolist()]
    random.manual_seed(0)
    assert words(20).tolist() == seen


def test_the_seed_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MINIGRAD_SEED", "42")
    monkeypatch.setattr(random, "_state", [])
    first = Tensor.rand(3).tolist()
    minigrad.manual_seed(42)
    assert Tensor.rand(3).tolist() == first


def test_a_recording_draws_from_its_own_base():
    recording = capture.Recording()
    random.set_rng_state((3, 2**32 - 5))  # so that offsets carry
    with capture.recording(recording):
        a, b = Tensor.rand(4), Tensor.randint(9, low=0, high=1000)
    assert recording.drawn == 4 + 18 and random.get_rng_state() == (3, 2**32 - 5)
    assert Tensor.rand(4).tolist() == a.tolist() and Tensor.randint(9, high=1000).tolist() == b.tolist()


def test_drawing_again_compiles_nothing():
    from minigrad.realize import cache_size

    Tensor.rand(13).realize()
    before = cache_size()
    for _ in range(3):
        Tensor.rand(13).realize()
    assert cache_size() == before


# Distributions. The stream is fixed, so these cannot fail by chance.


def test_uniform_numbers():
    x = Tensor.rand(MANY).numpy()
    assert 0 <= x.min() and x.max() < 1 and x.dtype == np.float32
    np.testing.assert_array_equal(x * 2**24, np.floor(x * 2**24))
    grid = np.arange(1, MANY + 1) / MANY
    assert np.abs(np.sort(x) - grid).max() < 1.63 / math.sqrt(MANY)  # Kolmogorov and Smirnov, 1 %
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 3 / math.sqrt(MANY)


def test_uniform_bits_are_the_words():
    bits = words(100)
    random.manual_seed(0)
    np.testing.assert_array_equal(Tensor.rand(100).numpy(), (bits >> 8).astype("f4") * np.float32(2**-24))
    random.manual_seed(0)
    np.testing.assert_array_equal(Tensor.rand(100, dtype="float64").numpy(), (bits >> 8) * 2.0**-24)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=str)
def test_uniform_numbers_stay_below_the_upper_bound(dtype):
    x = Tensor.rand(MANY, dtype=dtype)
    assert x.dtype is dtype and 0 <= x.min().item() and x.max().item() < 1
    y = Tensor.uniform(MANY, low=1.0, high=1.25, dtype=dtype)
    assert y.dtype is dtype and 1 <= y.min().item() and y.max().item() < 1.25
    assert abs(y.double().mean().item() - 1.125) < 0.02


def test_normal_numbers():
    x = Tensor.randn(MANY).numpy().astype("f8")
    assert np.isfinite(x).all() and abs(x.mean()) < 4 / math.sqrt(MANY) and abs(x.std() - 1) < 0.01
    assert abs((x**3).mean()) < 0.05 and abs((x**4).mean() - 3) < 0.15
    for limit, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert abs((np.abs(x) < limit).mean() - share) < 0.005
    y = Tensor.normal(MANY, mean=3.0, std=0.5).numpy()
    assert abs(y.mean() - 3) < 0.02 and abs(y.std() - 0.5) < 0.01


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=str)
def test_normal_numbers_agree_between_dtypes(dtype):
    x = Tensor.randn(1000, dtype=dtype)
    random.manual_seed(0)
    wide = Tensor.randn(1000, dtype="float64").numpy()
    np.testing.assert_allclose(x.numpy().astype("f8"), wide, rtol=2**-7, atol=1e-6)


def test_integers():
    x = Tensor.randint(MANY, low=-3, high=7)
    assert x.dtype is dtypes.int32
    counts = np.bincount(x.numpy() + 3, minlength=10)
    assert len(counts) == 10 and ((counts - MANY / 10) ** 2 / (MANY / 10)).sum() < 21.7  # chi squared, 1 %
    wide = Tensor.randint(1000, low=-(2**62), high=2**62)
    assert wide.dtype is dtypes.int64 and wide.min().item() < -(2**61) and wide.max().item() > 2**61
    assert Tensor.randint(5, low=7, high=8).tolist() == [7] * 5
    assert Tensor.randint(5, high=3, dtype="uint8").dtype is dtypes.uint8


def test_integers_called_as_in_pytorch():
    ours = Tensor.randint(2, 3, low=1, high=10).tolist()
    for call in (lambda: Tensor.randint(1, 10, (2, 3)), lambda: Tensor.randint((2, 3), low=1, high=10)):
        random.manual_seed(0)
        assert call().tolist() == ours
    assert Tensor.randint(10, (2, 3)).shape == (2, 3)
    for call in (lambda: Tensor.randint(2, 3), lambda: Tensor.randint(5, 5, (2,))):
        with pytest.raises(ArgumentError, match="low < high"):
            call()


def test_permutations():
    x = Tensor.randperm(1000)
    assert x.dtype is dtypes.int64 and sorted(x.tolist()) == list(range(1000)) and x.tolist() != list(range(1000))
    firsts = np.bincount([Tensor.randperm(4).tolist()[0] for _ in range(200)], minlength=4)
    assert firsts.min() > 25
    assert Tensor.randperm(0).tolist() == []


def test_bernoulli():
    p = Tensor([0.0, 0.25, 1.0]).expand(MANY, 3)
    x = p.bernoulli()
    assert x.dtype is dtypes.float32 and set(np.unique(x.numpy())) == {0, 1}
    np.testing.assert_allclose(x.numpy().mean(0), [0, 0.25, 1], atol=0.01)
    with pytest.raises(DTypeError, match="probabilities"):
        Tensor([1]).bernoulli()


def test_dropout():
    x = Tensor.ones(MANY, requires_grad=True)
    y = x.dropout(0.2)
    values = y.numpy()
    np.testing.assert_allclose(np.unique(values), [0, 1.25])
    assert abs((values == 0).mean() - 0.2) < 0.01
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), values)  # the same elements in the backward pass
    assert x.dropout(0.5, training=False) is x and x.dropout(0.0) is x
    assert x.dropout(1.0).numpy().max() == 0
    assert Tensor([math.inf, math.nan]).dropout(1.0).tolist() == [0, 0]
    with pytest.raises(ArgumentError, match="probability"):
        x.dropout(1.5)


@pytest.mark.parametrize("shape, inputs, outputs", [((300, 200), 200, 300), ((60, 50, 3, 3), 450, 540)])
def test_initial_weights(shape, inputs, outputs):
    for x, variance, flat in [
        (Tensor.kaiming_uniform(*shape), 2 / inputs, True), (Tensor.kaiming_normal(*shape), 2 / inputs, False),
        (Tensor.kaiming_uniform(shape, a=1.0), 1 / inputs, True),
        (Tensor.glorot_uniform(*shape), 2 / (inputs + outputs), True),
        (Tensor.xavier_uniform(shape), 2 / (inputs + outputs), True),
    ]:  # fmt: skip
        values = x.numpy()
        assert x.shape == shape and abs(values.var() / variance - 1) < 0.05
        assert bool(np.abs(values).max() <= math.sqrt(3 * variance)) == flat
    with pytest.raises(ShapeError, match="at least 2 dimensions"):
        Tensor.kaiming_normal(3)


def test_random_parameters_are_leaves():
    w = Tensor.uniform(3, low=-1.0, high=1.0, requires_grad=True)
    assert w.requires_grad and w.is_leaf
    (w * w).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * w.numpy())
    assert not Tensor.rand(3).requires_grad


@pytest.mark.parametrize("make", [Tensor.rand, Tensor.randn, Tensor.zeros, Tensor.ones, Tensor.empty])
def test_shapes_are_given_as_numbers_or_as_a_tuple(make):
    for args, shape in [((2, 3), (2, 3)), (((2, 3),), (2, 3)), (([4],), (4,)), ((), ()), (((),), ()), ((0, 2), (0, 2))]:
        x = make(*args)
        assert x.shape == x.numpy().shape == shape and x.dtype is dtypes.float32
    with pytest.raises(ShapeError):
        make(2, -1)
    with pytest.raises(ArgumentTypeError):
        make(2.5)


def test_random_integers_of_a_floating_kind_only():
    for make in (Tensor.rand, Tensor.randn):
        with pytest.raises(DTypeError, match="randint"):
            make(3, dtype="int32")


# Constants, ranges, likenesses, masks.


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_constants(dtype):
    zeros, ones, full = Tensor.zeros(2, dtype=dtype), Tensor.ones(2, dtype=dtype), Tensor.full(2, 1, dtype)
    for x, value in [(zeros, 0), (ones, 1), (full, 1)]:
        assert x.dtype is dtype
        np.testing.assert_array_equal(x.numpy(), np.full(2, value, dtype.numpy))


def test_the_dtype_of_full_is_that_of_the_number():
    for value, name in [(True, "bool_"), (2, "int32"), (2**40, "int64"), (2.0, "float32")]:
        assert Tensor.full((1,), value).dtype is getattr(dtypes, name) and Tensor.full((1,), value).item() == value


@pytest.mark.parametrize("shape", [(), (1,), (2, 2)])
def test_equal_constants_are_different_tensors(shape):
    a, b = Tensor.full(shape, 2.0), Tensor.full(shape, 2.0)
    y = (a * 3 + b * 5).sum()
    ga, gb = y.gradient(a, b)
    np.testing.assert_array_equal(ga.numpy(), np.full(shape, 3))
    np.testing.assert_array_equal(gb.numpy(), np.full(shape, 5))
    with pytest.raises(GradientError):
        y.gradient(Tensor.full(shape, 2.0))
    a += 1
    assert a.numpy().flat[0] == 3 and b.numpy().flat[0] == 2


def test_constants_can_be_trained():
    w = Tensor.zeros(3, requires_grad=True)
    ((w - 1) * (w - 1)).sum().backward()
    assert w.grad.tolist() == [-2, -2, -2]


def test_constants_can_be_written_to():
    x = Tensor.empty(2, 3)
    x.assign(Tensor.arange(3))
    assert x.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize(
    "args",
    [(5,), (2, 7), (0, 10, 3), (10, 0, -3), (5, 5), (0.5, 3), (0, 1, 0.1), (1, 0, -0.25), (3.0,), (0,), (-3, 3, 2)],
)
def test_ranges_follow_numpy(args):
    expected = np.arange(*args)
    x = Tensor.arange(*args)
    assert x.dtype is (dtypes.int32 if expected.dtype.kind == "i" else dtypes.float32)
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(Tensor.arange(*args, dtype="float64").numpy(), expected, rtol=1e-14)
    assert Tensor.arange(*args, dtype="float16").dtype is dtypes.float16


def test_ranges_that_lead_away_raise():
    for args in [(0, 5, -1), (5, 0), (0, 5, 0)]:
        with pytest.raises(ArgumentError, match="leads from start to stop"):
            Tensor.arange(*args)
    assert Tensor.arange(3000, dtype="float16").numpy()[-1] == 3000  # 2999, rounded


def test_linspace_follows_numpy():
    for args in [(0, 1, 5), (3, -3, 7), (0.1, 0.7, 100), (2, 5, 1), (0, 1, 0), (1, 1, 3)]:
        x = Tensor.linspace(*args).numpy()
        np.testing.assert_allclose(x, np.linspace(*args), rtol=1e-6, atol=1e-6)
        if args[2] > 1:
            assert x[0] == np.float32(args[0]) and x[-1] == np.float32(args[1])


def test_eye_and_masks_follow_numpy():
    for args in [(3,), (2, 4), (4, 2), (0,)]:
        np.testing.assert_array_equal(Tensor.eye(*args).numpy(), np.eye(*args))
    x = np.arange(24.0).reshape(2, 3, 4)
    for k in range(-4, 5):
        np.testing.assert_array_equal(Tensor(x).tril(k).numpy(), np.tril(x, k))
        np.testing.assert_array_equal(Tensor(x).triu(k).numpy(), np.triu(x, k))
    y = Tensor(x, requires_grad=True)
    y.tril().sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), np.tril(np.ones_like(x)))
    with pytest.raises(ShapeError, match="tril"):
        Tensor([1.0]).tril()


def test_one_hot():
    x = Tensor([[2, 0], [1, 5]]).one_hot(3)
    assert x.dtype is dtypes.int64 and x.tolist() == [[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]]
    assert Tensor([200], dtype="uint8").one_hot(300).argmax().item() == 200
    with pytest.raises(DTypeError, match="integers"):
        Tensor([1.0]).one_hot(3)


def test_likenesses():
    x = Tensor([[1, 2, 3]], dtype="float16")
    for name in ("zeros_like", "ones_like", "rand_like", "randn_like"):
        y = getattr(x, name)()
        assert y.shape == x.shape and y.dtype is x.dtype
        assert getattr(Tensor, name)(x, dtype="float64").dtype is dtypes.float64
        assert getattr(x, name)(requires_grad=True).requires_grad
    assert x.full_like(7).tolist() == [[7, 7, 7]]
