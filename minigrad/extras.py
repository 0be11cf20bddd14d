"""Optional libraries: imported where they are needed, with an error that names the extra that brings them."""

from __future__ import annotations

import importlib
from typing import Any

from minigrad.errors import MissingExtra

_NAMES = {"PIL": "Pillow"}  # of packages that are called otherwise than what is imported


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
        package = module.partition(".")[0]
        if error.name != package:
            raise
        hint = f'pip install "minigrad[{extra}]"'
        raise MissingExtra.of(_NAMES.get(package, package), "it to be installed", "no such package", hint) from error
