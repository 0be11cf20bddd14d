"""What a training's last bits depend on besides its recipe: noted in checkpoints, compared on resuming."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping

import minigrad
from minigrad import device as devices


def environment(device: str) -> dict[str, str]:
    """Versions, machine and device, and what the backend says its results depend on.

    >>> environment("numpy")["backend"]
    'numpy'
    """
    return {
        "minigrad": minigrad.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "backend": device.partition(":")[0],
        "device": device,
        **devices.get(device).backend.fingerprint(),
    }


def warn_of_differences(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Warn if a training goes on somewhere else than it was saved: it may not end with the same bits."""
    names = [*before, *(name for name in now if name not in before)]
    changed = [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]
    if changed:
        lines = "".join(f"\n  {name}: {was or 'unknown'} -> {is_now or 'unknown'}" for name, was, is_now in changed)
        text = "resumed in another environment: the results may differ in the last bits from those of a whole run"
        warnings.warn(text + lines, stacklevel=3)
