"""The loader: batches of a data set, made ahead of time on threads, in an order that the seed determines.

What a batch holds depends on ``(seed, epoch, number of the batch)`` alone: threads change when it is made, not what it
is. So a pass can be continued anywhere, also in another process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

import numpy as np

from minigrad import capture, random
from minigrad import device as devices
from minigrad.errors import ArgumentError, StateDictError
from minigrad.nn.data.dataset import Batch, Indices, take
from minigrad.nn.data.order import batch_generator, permutation
from minigrad.nn.data.transforms import Transform, apply
from minigrad.tensor import Tensor
from minigrad.tensor.base import host_node

Call: TypeAlias = Callable[[], Any]

# What a thread prepares ahead unless told. A device that computes on the same cores lets the threads run only now and
# then, for as long as several small steps take; large batches take longer, and memory.
AHEAD_BATCHES, AHEAD_BYTES = (2, 16), 16 << 20


class DataLoader:
    """Mini-batches of a data set as tensors; iterating is one pass over it, an epoch.

    Each pass has an order of its own, if shuffled. Batches are tuples of tensors (or tensors, if an example is not a
    tuple). While one is used, threads prepare the next ones and send them to the device; an exception there is raised
    where the batch is asked for.

    Args:
        dataset: a :class:`Dataset`, or anything with ``__len__`` and ``__getitem__``.
        batch_size: examples in a batch; the last one has what is left.
        shuffle: whether each pass draws an order.
        num_workers: threads that prepare batches; with 0, each is made when it is asked for. With more than one, the
            data set and the transform are used by several threads at once.
        drop_last: leave out a last batch that is smaller.
        prefetch_factor: batches that each thread prepares ahead; None: as many as 16 MiB hold, from 2 to 16.
        transform: applied to the images (the first part) of whole batches, on those threads: a function of an array, or
            one of :mod:`minigrad.nn.data.transforms`.
        collate_fn: makes a batch out of a list of examples, instead of :func:`collate`.
        seed: determines orders and what transforms draw; by default, the seed of :func:`minigrad.manual_seed`.
        device: where batches go; by default, where new tensors go.

    Attributes:
        waited: seconds that whoever iterates has waited for batches to be made, over all passes. Its share of the time
            that the passes took says whether the loader holds the training up.

    Raises:
        ArgumentError: if a size or a number of threads makes no sense.

    >>> from minigrad.nn.data import TensorDataset
    >>> loader = DataLoader(TensorDataset(np.arange(5)), batch_size=2, shuffle=True, seed=1)
    >>> [x.tolist() for (x,) in loader], [x.tolist() for (x,) in loader], len(loader)
    ([[3, 2], [0, 1], [4]], [[0, 3], [4, 2], [1]], 3)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 1,
        drop_last: bool = False,
        prefetch_factor: int | None = None,
        transform: Transform | None = None,
        collate_fn: Callable[[Sequence[Any]], Batch] | None = None,
        seed: int | None = None,
        device: str | None = None,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("prefetch_factor", prefetch_factor, 1)
        ):  # fmt: skip
            if value is not None and value < least:
                raise ArgumentError.of("DataLoader", f"a {name} of at least {least}", value)
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self.transform, self.collate_fn, self.device = transform, collate_fn, device
        self.seed = random.get_rng_state()[0] if seed is None else seed
        self.waited = 0.0
        self._epoch = self._batch = 0  # position: of the pass under way, what its consumer has got
        self._under_way = False

    def __len__(self) -> int:
        """Batches of a whole pass."""
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """The rest of a pass whose position was loaded, else the whole of the next one."""
        if self._under_way:
            self._epoch, self._batch = self._epoch + 1, 0
        self._under_way = True
        return self._timed(self._epoch, self._batch)

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be number ``epoch``, counted from 0; otherwise each is the one after the last.

        A position within that epoch that was loaded stays.
        """
        if self._under_way or epoch != self._epoch:
            self._epoch, self._batch, self._under_way = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """The epoch, how many of its batches the consumer has got, and what the order depends on; all integers.

        Batches that are prepared but not yet asked for do not count.
        """
        return {"epoch": self._epoch, "batch": self._batch, **self._order_settings()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Have the next pass continue where :meth:`state_dict` was called.

        Raises:
            StateDictError: if the loader whose position it is had another order: another data set, batch size or seed.
        """
        settings = self._order_settings()
        if state.keys() != {"epoch", "batch", *settings}:
            raise StateDictError.of("DataLoader", f"epoch, batch, {', '.join(settings)}", ", ".join(state))
        if different := [name for name, value in settings.items() if state[name] != value]:
            expected = ", ".join(f"{name} {state[name]}" for name in different)
            got = ", ".join(f"{name} {settings[name]}" for name in different)
            raise StateDictError.of("DataLoader", expected, got, "make the loader as it was when its state was taken")
        self._epoch, self._batch, self._under_way = state["epoch"], state["batch"], False

    def _order_settings(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "examples": len(self.dataset),
            "batch_size": self.batch_size,
            "shuffle": int(self.shuffle),
            "drop_last": int(self.drop_last),
        }

    def _timed(self, epoch: int, first: int) -> Iterator[Any]:
        """The pass, with the time until each batch is there, and the position after it."""
        capture.forbid_host_data()
        batches = self._sent_batches(epoch, first)
        for number in range(first, len(self)):
            start = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - start
            self._epoch, self._batch, self._under_way = epoch, number + 1, True
            yield batch
        batches.close()
        self._epoch, self._batch, self._under_way = epoch + 1, 0, False

    def _sent_batches(self, epoch: int, first: int) -> Generator[Any, None, None]:
        """Batches of a pass from number ``first`` on, made and sent to the device on threads if there are any."""
        count, device = len(self.dataset), devices.canonical(self.device)
        order = permutation(count, self.seed, epoch) if self.shuffle else np.arange(count)
        calls = (
            partial(self._send, device, order[number * self.batch_size : (number + 1) * self.batch_size], epoch, number)
            for number in range(first, len(self))
        )
        if self.num_workers:
            yield from _ahead(calls, self.num_workers, self.prefetch_factor)
        else:
            for call in calls:
                yield call()

    def _send(self, device: str, indices: Indices, epoch: int, number: int) -> Any:
        """A batch as tensors, on their way to the device."""
        batch = self._make(indices, epoch, number)
        tensors = [Tensor.wrap(host_node(field, None, device, ahead=True)) for field in _parts(batch)]
        return tuple(tensors) if isinstance(batch, tuple) else tensors[0]

    def _make(self, indices: Indices, epoch: int, number: int) -> Batch:
        if self.collate_fn is not None:
            batch = self.collate_fn([self.dataset[index] for index in indices.tolist()])
            batch = tuple(batch) if isinstance(batch, list) else batch
        else:
            batch = take(self.dataset, indices)
        if self.transform is None:
            return batch
        images, *others = _parts(batch)
        images = apply(self.transform, images, batch_generator(self.seed, epoch, number))
        return (images, *others) if isinstance(batch, tuple) else images


def _ahead(calls: Iterator[Call], threads: int, each: int | None) -> Generator[Any, None, None]:
    """What the calls return, in their order, made on threads that are up to ``each`` ahead; None: what fits batches.

    The threads end with this generator, once it is exhausted, closed or dropped, and do not keep the process from
    ending.
    """
    waiting: SimpleQueue[tuple[Future[Any], Call] | None] = SimpleQueue()
    ahead: deque[Future[Any]] = deque()
    for i in range(threads):
        Thread(target=_serve, args=(waiting,), name=f"minigrad-loader-{i + 1}", daemon=True).start()
    try:
        _submit(calls, waiting, ahead, threads * (each or AHEAD_BATCHES[0]))
        while ahead:
            batch = ahead.popleft().result()  # raises what the call has raised
            if each is None:
                nbytes = sum(part.numel() * part.dtype.itemsize for part in _parts(batch))
                each = int(np.clip(AHEAD_BYTES // max(nbytes, 1), *AHEAD_BATCHES))
            _submit(calls, waiting, ahead, threads * each)
            yield batch
    finally:
        for future in ahead:
            future.cancel()
        for _ in range(threads):
            waiting.put(None)


def _submit(calls: Iterator[Call], waiting: SimpleQueue[Any], ahead: deque[Future[Any]], count: int) -> None:
    """Have the next calls made, as far as there are any, until ``count`` are ahead."""
    for call in islice(calls, count - len(ahead)):
        ahead.append(Future())
        waiting.put((ahead[-1], call))


def _serve(waiting: SimpleQueue[tuple[Future[Any], Call] | None]) -> None:
    """A thread: make calls until there is None."""
    while (job := waiting.get()) is not None:
        future, call = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
        del job, future, call  # nothing is kept while waiting


def _parts(batch: Any) -> Sequence[Any]:
    return batch if isinstance(batch, tuple) else (batch,)
