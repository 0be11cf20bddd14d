"""``minigrad backends``: what can run here, and what is missing for the rest."""

from __future__ import annotations

import argparse
from contextlib import suppress

from minigrad import device


def run(args: argparse.Namespace) -> int:
    """Print each backend, available or not, and why not, and its devices; the default device is marked."""
    default = device.default()
    with suppress(Exception):  # what MINIGRAD_BACKEND names may be missing or broken
        default = device.resolve(default)
    for name, reason in sorted(device.available_backends().items()):
        mark = "*" if name == default.partition(":")[0] else " "
        print(f"{mark} {name:<12} {'available' if reason is None else f'missing: {reason}'}")
        found = device.device_names(name) if reason is None else []
        for index, description in enumerate(found if found != [name] else ()):
            known = f"{name}:{index}" if index else name
            print(f"  {'*' if known == default else ' '} {known:<12} {description}")
    print("* is the default; MINIGRAD_BACKEND or --backend names another, by number or by a part of its description")
    return 0
