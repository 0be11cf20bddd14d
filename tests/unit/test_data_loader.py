"""Data sets and the loader: batches, orders, threads, errors that cross them, positions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad
from minigrad import Tensor
from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError, ShapeError, StateDictError
from minigrad.nn.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, collate, random_split
from minigrad.nn.data.order import integers, permutation, uniform
from minigrad.nn.data.transforms import RandomTransform


class Squares:
    """A user's data set, of the kind that PyTorch takes."""

    def __init__(self, count=10):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return np.full((2, 3), index, np.uint8), index**2


class Noise(RandomTransform):
    """Adds a number of its own to each image."""

    def __call__(self, images, rng):
        return images + rng.integers(1000, size=(len(images), *[1] * (images.ndim - 1)))


class Failing(Squares):
    def __getitem__(self, index):
        if index == 5:
            raise LookupError("example 5 is broken")
        return super().__getitem__(index)


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minigrad-loader")]


def wait_until_gone():
    """Threads end after what they are doing."""
    end = time.monotonic() + 10
    while loader_threads() and time.monotonic() < end:
        time.sleep(0.005)
    assert loader_threads() == []


def values(loader):
    return [[part.tolist() for part in batch] for batch in loader]


# Data sets


def test_a_tensor_dataset_gives_examples_and_batches():
    images, labels = np.arange(24).reshape(4, 2, 3), np.arange(4)
    data = TensorDataset(Tensor(images), labels)
    assert len(data) == 4
    image, label = data[-1]
    np.testing.assert_array_equal(image, images[3])
    assert label == 3
    for part, whole in zip(data.take(np.array([3, 1, 1])), (images, labels)):
        np.testing.assert_array_equal(part, whole[[3, 1, 1]])
    with pytest.raises(ShapeError, match=r"\(4, 2, 3\), \(5,\)"):
        TensorDataset(images, np.arange(5))
    with pytest.raises(ShapeError, match="TensorDataset"):
        TensorDataset(np.float32(3))
    with pytest.raises(ArgumentError, match="at least one array"):
        TensorDataset()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.data())
def test_parts_and_joins_take_what_they_give_one_by_one(sizes, data):
    ends = np.cumsum([0, *sizes])
    parts = [TensorDataset(np.arange(a, b), -np.arange(a, b)) for a, b in zip(ends, ends[1:])]
    both = ConcatDataset([*parts, Squares(0)])
    assert len(both) == sum(sizes)
    chosen = data.draw(st.lists(st.integers(-len(both), len(both) - 1), max_size=8)) if len(both) else []
    some = Subset(both, chosen)
    assert [some[i][0] for i in range(len(some))] == [c % len(both) for c in chosen]
    if chosen:
        at = data.draw(st.lists(st.integers(0, len(chosen) - 1), min_size=1, max_size=8))
        got = some.take(np.array(at))
        assert [part.tolist() for part in got] == [[some[i][f] for i in at] for f in (0, 1)]


def test_indices_out_of_range_are_refused_when_the_subset_is_made():
    for wrong in ([10], [-11], [0, 99]):
        with pytest.raises(AxisError, match="Subset"):
            Subset(Squares(), wrong)
    for wrong in (10, -11):
        with pytest.raises(IndexError, match="ConcatDataset"):
            ConcatDataset([Squares(4), Squares(6)])[wrong]
    with pytest.raises(ArgumentError, match="ConcatDataset"):
        ConcatDataset([])


def test_joined_sets_whose_examples_differ_give_an_error():
    both = ConcatDataset([TensorDataset(np.zeros((2, 3))), TensorDataset(np.zeros((2, 4)))])
    with pytest.raises(ShapeError, match=r"\(3,\) and \(4,\)"):
        both.take(np.array([0, 3]))


@given(st.integers(0, 40), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 3))
def test_a_random_split_loses_and_repeats_nothing(count, weights, seed):
    lengths = [count * w // max(sum(weights), 1) for w in weights]
    lengths[0] += count - sum(lengths)
    parts = random_split(Squares(count), lengths, seed)
    assert [len(part) for part in parts] == lengths
    assert sorted(i for part in parts for i in part.indices.tolist()) == list(range(count))
    again = random_split(Squares(count), lengths, seed)
    assert [p.indices.tolist() for p in parts] == [p.indices.tolist() for p in again]


def test_fractions_are_rounded_down_and_the_rest_goes_to_the_first():
    assert [len(p) for p in random_split(Squares(11), [0.25, 0.25, 0.5])] == [3, 3, 5]
    assert [len(p) for p in random_split(Squares(10), [0.7, 0.2, 0.1])] == [7, 2, 1]
    assert [len(p) for p in random_split(Squares(1), [0.5, 0.5])] == [1, 0]
    for wrong in ([5, 6], [0.5, 0.4], [-1, 11], [4.5, 5.5], []):
        with pytest.raises(ArgumentError, match="random_split"):
            random_split(Squares(10), wrong)


# Collating


def test_numbers_and_arrays_are_stacked_part_by_part():
    image, label, weight, right = collate([(np.zeros(3, np.uint8), 1, 0.5, True), (np.ones(3, np.uint8), 2, 1, False)])
    assert (image.dtype, label.dtype, weight.dtype, right.dtype) == (np.uint8, np.int64, np.float32, bool)
    assert image.shape == (2, 3) and weight.tolist() == [0.5, 1.0]
    assert collate([np.int16(3), np.int16(4)]).dtype == np.int16
    assert collate([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])]).tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("examples", "error", "text"),
    [
        ([(np.zeros((1, 3, 4)), 1), (np.zeros((1, 5, 4)), 2)], ShapeError, r"part 0 .*\(1, 3, 4\) and \(1, 5, 4\)"),
        ([(1, 2), (1, 2, 3)], ArgumentError, "some of 2, some of 3"),
        ([(1, 2), 1], ArgumentError, "some of 1, some of 2"),
        ([("cat", 1), ("dog", 2)], ArgumentTypeError, "part 0 .* str"),
        ([{"x": 1}], ArgumentTypeError, "dict"),
        ([], ArgumentError, "none"),
    ],
)
def test_examples_that_do_not_fit_say_what_differs(examples, error, text):
    with pytest.raises(error, match=text):
        collate(examples)


# The loader


@given(
    count=st.integers(0, 30),
    batch_size=st.integers(1, 9),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    workers=st.integers(0, 3),
    vectorised=st.booleans(),
)
def test_every_example_comes_once_a_pass(count, batch_size, shuffle, drop_last, workers, vectorised):
    data = TensorDataset(np.arange(count), np.arange(count) ** 2) if vectorised else Squares(count)
    loader = DataLoader(data, batch_size, shuffle, num_workers=workers, drop_last=drop_last, seed=3)
    found = [labels.tolist() for _, labels in loader]
    sizes = [batch_size] * (count // batch_size) + ([count % batch_size] if count % batch_size else [])
    assert [len(labels) for labels in found] == [s for s in sizes if s == batch_size or not drop_last]
    assert len(loader) == len(found)
    seen = [label for labels in found for label in labels]
    squares = [i**2 for i in range(count)]
    if not drop_last:
        assert (sorted(seen) if shuffle else seen) == squares
    elif not shuffle:
        assert seen == squares[: len(seen)]
    assert len(set(seen)) == len(seen)


def test_batches_are_tuples_of_tensors_or_tensors_as_examples_are():
    images, labels = next(iter(DataLoader(Squares(), batch_size=4)))
    assert isinstance(images, Tensor) and images.shape == (4, 2, 3) and images.dtype == minigrad.dtypes.uint8
    assert labels.dtype == minigrad.dtypes.int64
    (only,) = DataLoader([1.5, 2.5], batch_size=2)
    assert isinstance(only, Tensor) and only.tolist() == [1.5, 2.5]
    (pair,) = DataLoader([[1, 2], [3, 4]], batch_size=2, collate_fn=lambda rows: [np.array(rows), np.arange(len(rows))])
    assert [part.tolist() for part in pair] == [[[1, 2], [3, 4]], [0, 1]]


def test_batches_go_to_the_device_that_is_named_or_the_default_of_who_iterates(twin):
    data = TensorDataset(np.arange(4))
    assert {x.device for (x,) in DataLoader(data, device=twin)} == {twin}
    loader = DataLoader(data, num_workers=2)
    with minigrad.backend(twin):
        assert {x.device for (x,) in loader} == {twin}
    assert {x.device for (x,) in loader} == {"numpy"}


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_order_and_draws_depend_on_the_seed_and_the_pass_alone(workers):
    def passes(seed, workers):
        loader = DataLoader(Squares(), 3, shuffle=True, seed=seed, num_workers=workers, transform=Noise())
        return [values(loader) for _ in range(3)]

    expected = passes(1, 0)
    np.random.seed(7)
    assert passes(1, workers) == expected
    assert passes(2, workers) != expected
    assert len({str(found) for found in expected}) == 3, "each pass is different"


def test_without_a_seed_it_is_that_of_manual_seed():
    data = TensorDataset(np.arange(50))
    minigrad.manual_seed(5)
    Tensor.rand(3).realize()
    implicit = values(DataLoader(data, 50, shuffle=True))
    assert implicit == values(DataLoader(data, 50, shuffle=True, seed=5))
    minigrad.manual_seed(6)
    assert implicit != values(DataLoader(data, 50, shuffle=True))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    assert permutation(8, seed=1).tolist() == [3, 5, 2, 7, 0, 6, 1, 4], "the order must never change between versions"
    orders = {tuple(permutation(50, seed, epoch)) for seed in (-1, 0, 1, 2**63, 2**65 + 2) for epoch in range(5)}
    assert len(orders) == 25
    np.random.seed(3)
    assert tuple(permutation(50, 2, 3)) in orders, "seeds count modulo 2^64"


def test_drawn_numbers_never_change_between_versions():
    loader = DataLoader(TensorDataset(np.zeros((4, 1))), 2, seed=1, transform=Recorder())
    loader.set_epoch(2)
    for _ in loader:
        pass
    assert loader.transform.drawn == [[5, 4, 6], [4, 2, 8]]


class Recorder(RandomTransform):
    def __init__(self):
        self.drawn = []

    def __call__(self, images, rng):
        self.drawn.append(integers(rng, 0, 9, (3,)).tolist())
        return images


def test_draws_are_uniform():
    rng = np.random.default_rng(0)
    found = integers(rng, -2, 2, (3, 4000))
    assert found.shape == (3, 4000)
    counts = np.bincount(found.reshape(-1) + 2, minlength=5)
    assert len(counts) == 5 and abs(counts - 2400).max() < 5 * 2400**0.5  # five standard deviations
    numbers = uniform(rng, 3, 5, (10000,))
    assert 3 <= numbers.min() < 3.01 and 4.99 < numbers.max() < 5
    assert abs(numbers.mean() - 4) < 5 * (4 / 12 / 10000) ** 0.5


def test_set_epoch_chooses_the_pass():
    loader = DataLoader(Squares(), 3, shuffle=True, seed=1)
    first, second = values(loader), values(loader)
    loader.set_epoch(0)
    assert values(loader) == first
    assert values(loader) == second
    iterator = iter(loader)
    next(iterator)
    loader.set_epoch(0)
    assert values(loader) == first


# Positions


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", range(9))
def test_a_pass_continues_where_it_was_left(stop, workers):
    def make():
        return DataLoader(Squares(11), 3, shuffle=True, seed=4, num_workers=workers, transform=Noise())

    straight = make()
    expected = [(epoch, batch) for epoch in range(3) for batch in values(straight)]
    loader, found = make(), []
    for epoch in range(3):
        for batch in loader:
            found.append((epoch, [part.tolist() for part in batch]))
            if len(found) == stop:
                break
        if len(found) == stop:
            break
    state, again = loader.state_dict() if stop else make().state_dict(), make()
    again.load_state_dict(state)
    assert again.state_dict() == state
    for epoch in range(state["epoch"], 3):
        again.set_epoch(epoch)  # keeps the position that was loaded
        found += [(epoch, batch) for batch in values(again)]
    assert (found if stop else found[: len(expected)]) == expected


def test_what_is_prepared_but_not_asked_for_does_not_count():
    loader = DataLoader(Squares(12), 2, num_workers=2, prefetch_factor=3)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 0)
    iterator = iter(loader)
    for number in range(6):
        next(iterator)
        time.sleep(0.01)  # the threads go ahead
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, number + 1)
    assert next(iterator, None) is None
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 0)


def test_a_pass_that_was_saved_at_its_last_batch_has_nothing_left():
    loader = DataLoader(Squares(4), 2)
    iterator = iter(loader)
    next(iterator), next(iterator)
    again = DataLoader(Squares(4), 2)
    again.load_state_dict(loader.state_dict())
    assert values(again) == []
    assert len(values(again)) == 2


def test_a_pass_that_was_given_up_is_followed_by_the_next():
    loader = DataLoader(Squares(), 3, shuffle=True, seed=1)
    first, second = values(loader), values(loader)
    loader = DataLoader(Squares(), 3, shuffle=True, seed=1)
    for _ in loader:
        break
    assert values(loader) == second != first


@pytest.mark.parametrize("change", ["seed", "batch_size", "count", "shuffle", "drop_last"])
def test_the_position_of_a_loader_with_another_order_is_refused(change):
    def make(seed=1, batch_size=2, count=8, shuffle=True, drop_last=False):
        return DataLoader(Squares(count), batch_size, shuffle, seed=seed, drop_last=drop_last)

    state = make().state_dict()
    other = make(**{change: not make().shuffle if change == "shuffle" else 3})
    before = other.state_dict()
    with pytest.raises(StateDictError, match="examples 8" if change == "count" else change):
        other.load_state_dict(state)
    with pytest.raises(StateDictError, match="epoch, batch"):
        make().load_state_dict({"epoch": 1})
    assert other.state_dict() == before


# Threads


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_a_thread_is_raised_where_the_batch_is_asked_for(workers):
    loader = DataLoader(Failing(), 2, num_workers=workers)
    iterator = iter(loader)
    next(iterator), next(iterator)
    with pytest.raises(LookupError, match="example 5 is broken") as error:
        next(iterator)
    assert "__getitem__" in [frame.name for frame in traceback.extract_tb(error.value.__traceback__)]
    assert loader.state_dict()["batch"] == 2
    assert next(iterator, None) is None
    wait_until_gone()


@pytest.mark.parametrize("leave", ["drop", "close", "finish", "raise"])
def test_threads_end_with_the_pass(leave):
    loader = DataLoader(Squares(40), 2, num_workers=3)
    iterator = iter(loader)
    next(iterator)
    assert loader_threads()
    if leave == "drop":
        del iterator
    elif leave == "close":
        iterator.close()
    elif leave == "finish":
        assert sum(1 for _ in iterator) == 19
    else:
        with pytest.raises(KeyboardInterrupt):
            iterator.throw(KeyboardInterrupt)
    wait_until_gone()


class Counting(Dataset):
    """A hundred examples of some bytes, which notes those that were taken."""

    def __init__(self, nbytes=1):
        self.nbytes, self.taken = nbytes, []

    def __len__(self):
        return 100

    def __getitem__(self, index):
        self.taken.append(index)
        return np.zeros(self.nbytes, np.uint8)


def test_threads_prepare_no_more_than_was_asked():
    data = Counting()
    iterator = iter(DataLoader(data, 1, num_workers=2, prefetch_factor=3))
    next(iterator)
    time.sleep(0.05)
    assert len(data.taken) <= 1 + 2 * 3
    iterator.close()


@pytest.mark.parametrize("nbytes, ahead", [(1 << 10, 16), (4 << 20, 4), (40 << 20, 2)])
def test_small_batches_are_made_further_ahead(nbytes, ahead):
    """What is computed on the same cores gives a thread its turn only now and then."""
    data = Counting(nbytes)
    iterator = iter(DataLoader(data, 1, num_workers=1))
    for number in range(1, 4):
        next(iterator)
        deadline = time.monotonic() + 60
        while len(data.taken) < number + ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(data.taken) == number + ahead
    iterator.close()


def test_batches_are_made_while_the_last_one_is_used():
    first_taken, second_taken = threading.Event(), threading.Event()

    class Waiting(Squares):
        def __getitem__(self, index):
            (second_taken if index else first_taken).set()
            return index

    iterator = iter(DataLoader(Waiting(2), 1, num_workers=1))
    next(iterator)
    assert first_taken.is_set() and second_taken.wait(10), "the second is made although nobody asked for it"
    iterator.close()


def test_the_wait_is_what_the_consumer_waits():
    class Slow(Squares):
        def __getitem__(self, index):
            time.sleep(0.02)
            return index

    slow = DataLoader(Slow(4), 1, num_workers=0)
    values(DataLoader(Squares(4), 1))
    assert slow.waited == 0
    for _ in slow:
        pass
    assert slow.waited >= 0.08
    before = slow.waited
    for _ in slow:
        pass
    assert slow.waited >= before + 0.08


SLOW = """
import time
from minigrad.nn.data import DataLoader

class Slow:
    def __len__(self):
        return 9

    def __getitem__(self, index):
        time.sleep(600 * (index > 0))
        return index

for batch in DataLoader(Slow(), num_workers=2):
    print("ready", flush=True)
    USE
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize("use", ["pass", "time.sleep(600)"], ids=["waiting", "using"])
def test_ctrl_c_ends_the_program_whatever_the_threads_do(use):
    code = SLOW.replace("USE", use)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            child.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in child.communicate(timeout=60)[1]
        finally:
            child.kill()


def test_wrong_arguments_are_refused_at_the_call():
    for name in ("batch_size", "num_workers", "prefetch_factor"):
        with pytest.raises(ArgumentError, match=name):
            DataLoader(Squares(), **{name: -1})
