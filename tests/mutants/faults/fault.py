"""What a planted fault is."""

from __future__ import annotations

from typing import NamedTuple

KIT = ("--pyargs", "minigrad.testing.conformance")


class Fault(NamedTuple):
    """One fault, as data.

    Attributes:
        area: the part of minigrad.
        name: what it is called.
        module: the module that is changed.
        old: text that is in it exactly once.
        new: what stands there instead.
        wrong: what is wrong then, in one line.
        select: pytest's ``-k`` for the tests that should see it.
        backend: the backend on which it shows.
        tests: where the tests are, as arguments of pytest: the kit, unless what is wrong is no backend's business.
    """

    area: str
    name: str
    module: str
    old: str
    new: str
    wrong: str
    select: str
    backend: str = "numpy"
    tests: tuple[str, ...] = KIT
