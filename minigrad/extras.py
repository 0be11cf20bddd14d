"""Optional libraries: imported where they are needed, with an error that names the extra that brings them."""

from __future__ import annotations

import importlib
from typing import Any

from minigrad.errors import MissingExtra


def load(module: str, extra: str) -> Any:
    """The optional library ``module``, which ``pip install "minigrad[extra]"`` brings.

    >>> load("json", "test").dumps([1])
    '[1]'

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        hint = f'pip install "minigrad[{extra}]"'
        raise MissingExtra.of(module, "an installed package", "none of that name", hint) from error
