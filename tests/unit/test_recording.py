"""Graphs recorded as programs, training runs as data, and the comparison of two ways to one value."""

import numpy as np
import pytest

from minigrad import Tensor, dtypes, random
from minigrad.graph import apply, project
from minigrad.shapes import Window
from minigrad.testing.bounds import Bounded
from minigrad.testing.evaluate import run
from minigrad.testing.laws import check_alike, measured
from minigrad.testing.programs import on
from minigrad.testing.recording import record
from minigrad.testing.training import Layer, TrainingRun

NET = (
    Layer("Conv2d", {"in_channels": 2, "out_channels": 3, "kernel_size": 3}),
    Layer("MaxPool2d", {"kernel_size": 2}),
    Layer("Residual", {"layers": (Layer("Conv2d", {"in_channels": 3, "out_channels": 3, "kernel_size": 1}),)}),
    Layer("Flatten"),
    Layer("Dropout", {"p": 0.25}),
    Layer("Linear", {"in_features": 18, "out_features": 4}),
)
ADAM = TrainingRun((2, 6, 8), NET, 4, "cross_entropy", "Adam", {"lr": 0.01}, batch=3, steps=2, seed=5)
SGD = TrainingRun((2, 6, 8), NET, 4, "mse_loss", "SGD", {"lr": 0.1, "momentum": 0.9}, batch=3, steps=2, seed=6)


def graph():
    x = (Tensor(np.arange(48, dtype=np.float32).reshape(1, 2, 4, 6)) * 0.5 + 1).node
    pooled = apply("max_pool", x, window=Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)))
    values, taps = project(pooled, 0), project(pooled, 1)
    return [apply("barrier", values, taps, token=object()), taps.cast(dtypes.float32) + values]


def test_a_recorded_graph_is_the_graph():
    program = record(graph())
    assert {"max_pool", "project", "barrier", "const", "cast"} <= {step.op for step in program.steps}
    for a, b in zip(run(program.build(on("numpy")).results), run(graph()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("training", [ADAM, SGD], ids=["Adam", "SGD"])
def test_a_recorded_run_is_the_run(training):
    """Every loss, and the state at the end; the random numbers of others are left as they were."""
    before = random.get_rng_state()
    whole, program = training.run("numpy"), training.program()
    assert random.get_rng_state() == before
    results = run(program.build(on("numpy")).results)
    each = 1 + len(whole.state)
    assert len(results) == 2 * each and len(whole.losses) == 2
    found = [results[0], results[each], *results[each + 1 :]]
    for a, b in zip(found, [*whole.losses, *whole.state], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(results[1], results[each + 1]), "the second step changed nothing"


def test_the_first_layer_of_whole_numbers_gives_whole_numbers():
    net = TrainingRun((2, 6, 8), NET, 4, integers=True).net()
    values = [p.numpy() for p in net.parameters()]
    assert all(np.array_equal(v, np.rint(v)) for v in values[:2])
    assert not any(np.array_equal(v, np.rint(v)) for v in values[2:])


def test_two_ways_to_one_value():
    def ways():
        x = Tensor(np.linspace(1, 2, 7, dtype=np.float32)).node
        return apply("exp", x), apply("reciprocal", apply("exp", -x))

    here, there = ways()
    tally = check_alike([here], measured([there]), "exp")
    assert tally.is_conclusive and tally.elements == 7
    here, there = ways()
    ((value, error),) = measured([there])
    with pytest.raises(AssertionError, match="exp, result 0"):
        check_alike([here], [Bounded(value * (1 + 1e-5), error)], "exp")
