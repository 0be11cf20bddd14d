"""``minigrad backends``: what can run here, and what is missing for the rest."""

from __future__ import annotations

import argparse

from minigrad import device


def run(args: argparse.Namespace) -> int:
    """Print a line per backend: available or not, and why not; the default one is marked."""
    for name, reason in sorted(device.available_backends().items()):
        mark = "*" if name == device.default().partition(":")[0] else " "
        print(f"{mark} {name:<12} {'available' if reason is None else f'missing: {reason}'}")
    print("* is the default; MINIGRAD_BACKEND or --backend names another")
    return 0
