"""The order in which the kernels of a schedule run: what frees memory early, what takes it late.

A schedule comes in the order in which its results ask for kernels. That leaves, say, every weight gradient of a network
to the end of the backward pass, and with them all activations and their gradients in memory. Here a kernel runs as soon
as it can if it frees at least as much memory as it takes.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Set

from minigrad.schedule import Draft, Schedule


def put_in_order(schedule: Schedule, outputs: Set[int], donations: Mapping[int, int]) -> Schedule:
    """The same drafts in another order: of those that can run, the one that frees most; where none frees, the first.

    Args:
        schedule: its drafts are in an order in which they can run.
        outputs: values that have memory of their own in any case.
        donations: outputs and the inputs that they may overwrite: whoever reads the input runs before, if it can.
    """
    return dataclasses.replace(schedule, drafts=_Sorter(schedule, outputs, donations).run())


class _Sorter:
    """Drafts by their position in the schedule."""

    def __init__(self, schedule: Schedule, outputs: Set[int], donations: Mapping[int, int]) -> None:
        self.drafts, self.values, self.outputs = schedule.drafts, schedule.values, outputs
        place = {draft: n for n, draft in enumerate(self.drafts)}
        self.writes = [{store.target for store in draft.stores} for draft in self.drafts]
        self.reads = [{load.base for load in draft.loads} for draft in self.drafts]
        self.writers: defaultdict[int, set[int]] = defaultdict(set)
        self.readers: defaultdict[int, set[int]] = defaultdict(set)
        for n in range(len(self.drafts)):
            for v in self.writes[n]:
                self.writers[v].add(n)
            for v in self.reads[n]:
                self.readers[v].add(n)
        self.before = [
            {w for v in draft.needs() for w in self.writers[v]}.union(place[d] for d in draft.after) - {n}
            for n, draft in enumerate(self.drafts)
        ]
        self.followers: defaultdict[int, list[int]] = defaultdict(list)
        for n, needed in enumerate(self.before):
            for other in needed:
                self.followers[other].append(n)
        self.begun: set[int] = set()  # values that have memory: some draft has written them
        self.overwritten: defaultdict[int, list[int]] = defaultdict(list)
        for out, into in donations.items():
            for writer in self.writers[out]:
                self.overwritten[writer].append(into)

    def run(self) -> list[Draft]:
        ready = [n for n, needed in enumerate(self.before) if not needed]  # sorted
        done = []
        while ready:
            polite = [n for n in ready if not self._overwrites_what_is_read(n)] or ready
            change, frugal = min((self._memory(n), n) for n in polite)
            chosen = frugal if change <= 0 else polite[0]
            ready.remove(chosen)
            done.append(self.drafts[chosen])
            self.begun |= self.writes[chosen]
            for v in self.writes[chosen]:
                self.writers[v].discard(chosen)
            for v in self.reads[chosen]:
                self.readers[v].discard(chosen)
            for follower in self.followers[chosen]:
                self.before[follower].discard(chosen)
                if not self.before[follower]:
                    bisect.insort(ready, follower)
        return done

    def _overwrites_what_is_read(self, n: int) -> bool:
        """Whether another draft still has to read what this one could be written over."""
        return any(self.readers[v] - {n} for v in self.overwritten[n])

    def _memory(self, n: int) -> int:
        """Bytes that are taken when a draft runs, less those that are free when it has run."""
        change = 0
        for v in (self.writes[n] | self.reads[n]) - self.outputs:
            value = self.values[v]
            if value.op.name == "buffer":
                continue
            size = math.prod(value.shape) * value.dtype.itemsize
            if v in self.writes[n] and v not in self.begun:
                change += size
            if self.readers[v] <= {n} and self.writers[v] <= {n}:
                change -= size
        return change
