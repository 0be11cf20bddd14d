"""One program at a time from a Hypothesis strategy: a text determines which."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from minigrad import extras
from minigrad.testing.programs import Program


def draw_once(drawn: Any, key: str, check: Callable[[Program], object], simplest: bool = False) -> None:
    """Draw one program and check it, in a run of Hypothesis of its own: within one run many resemble each other.

    Args:
        drawn: a strategy of programs.
        key: determines which program is drawn, in processes with the same ``PYTHONHASHSEED``.
        check: called with it; what it raises makes Hypothesis call it with simpler programs, and is raised at the end.
        simplest: call it with the strategy's simplest program before, with which every run begins.
    """
    hypothesis = extras.load("hypothesis", "test")
    chosen = hypothesis.settings(
        max_examples=2,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
        print_blob=False,
    )
    left_out = iter([] if simplest else [True])

    def property_(program: Program) -> None:
        if not next(left_out, False):
            check(program)

    seed = int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")
    hypothesis.seed(seed)(chosen(hypothesis.given(drawn)(property_)))()
