"""Settings from the environment. Each is read when it is asked for, so that tests and notebooks can change it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minigrad.errors import ArgumentError

SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _integer(name: str) -> int:
    text = os.environ.get(name, "") or "0"
    if not text.lstrip("-").isdigit():
        raise ArgumentError.of(name, "an integer", repr(text))
    return int(text)


def _switch(name: str) -> bool:
    found = SWITCHES.get(os.environ.get(name, "").lower())
    return bool(_integer(name)) if found is None else found


class Settings:
    """What changes how a graph is run, but not what it computes; some of it changes the last digits.

    Attributes:
        matmul_precision: of float32 products, as :func:`minigrad.set_float32_matmul_precision` sets it.
        debug: ``MINIGRAD_DEBUG``: 1 kernels and times, 2 adds bytes, FLOPs and rates, 3 graph and schedule, 4 source.
        eager: ``MINIGRAD_EAGER``: every operation runs at once, in a kernel of its own.
        fuse: elementwise operations share kernels.
        layouts: backends may choose the axis order of activations.
        tune: ``MINIGRAD_TUNE``: backends with generated kernels measure the tiles that they could use, and remember.
        validate: ``MINIGRAD_VALIDATE``: every kernel is run again by the reference; the first that is wrong raises.
            With ``debug`` a line is printed for each.
        verify: check graphs and kernels between stages.
    """

    debug: int
    eager: bool
    fuse: bool
    tune: bool
    validate: bool

    def __init__(self) -> None:
        self.matmul_precision = "highest"
        self.layouts = True
        self.verify = False

    def __getattr__(self, name: str) -> Any:
        """What the environment says, read once, and not on importing minigrad: nobody could handle the error there."""
        if name not in _FROM_ENVIRONMENT:
            raise AttributeError(name)
        value = _FROM_ENVIRONMENT[name](self)
        setattr(self, name, value)
        return value

    @contextmanager
    def override(self, **values: object) -> Iterator[None]:
        """Within the block, other values for some settings."""
        before = {name: getattr(self, name) for name in values}
        vars(self).update(values)
        try:
            yield
        finally:
            vars(self).update(before)


_FROM_ENVIRONMENT: dict[str, Callable[[Settings], Any]] = {
    "debug": lambda settings: _integer("MINIGRAD_DEBUG"),
    "eager": lambda settings: _switch("MINIGRAD_EAGER"),
    "fuse": lambda settings: not settings.eager,
    "tune": lambda settings: _switch("MINIGRAD_TUNE"),
    "validate": lambda settings: _switch("MINIGRAD_VALIDATE"),
}
settings = Settings()


def backend() -> str:
    """``MINIGRAD_BACKEND``: the device of new tensors; ``numpy`` unless set."""
    return os.environ.get("MINIGRAD_BACKEND", "").strip() or "numpy"


def seed() -> int:
    """``MINIGRAD_SEED``: where random numbers start; 0 unless set."""
    return _integer("MINIGRAD_SEED")


def data_directory() -> Path | None:
    """``MINIGRAD_DATA``: the folder that holds ``mnist/``, ``cifar10/`` and so on."""
    text = os.environ.get("MINIGRAD_DATA", "")
    return Path(text).expanduser() if text else None


def cache_directory() -> Path:
    """``MINIGRAD_CACHE``, or the user's cache folder: downloaded data and compiled kernels."""
    text = os.environ.get("MINIGRAD_CACHE", "")
    if text:
        return Path(text).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("minigrad")
