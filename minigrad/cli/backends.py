"""``minigrad backends``: what can run here, and what is missing for the rest."""

from __future__ import annotations

import argparse

from minigrad import device


def run(args: argparse.Namespace) -> int:
    """Print each backend, available or not, and why not, and its devices; the default device is marked."""
    default = device.default()
    wrong = ""
    try:
        default = device.resolve(default)
    except Exception as error:  # what MINIGRAD_BACKEND names may be missing or broken
        wrong, default = str(error), ""
    for name, reason in sorted(device.available_backends().items()):
        mark = "*" if name == default.partition(":")[0] else " "
        print(f"{mark} {name:<12} {'available' if reason is None else f'missing: {reason}'}")
        found = device.device_names(name) if reason is None else []
        for index, description in enumerate(found if found != [name] else ()):
            known = f"{name}:{index}" if index else name
            print(f"  {'*' if known == default else ' '} {known:<12} {description}")
    if wrong:
        print(wrong)
    print("* is the default; MINIGRAD_BACKEND or --backend names another, by number or by a part of its description")
    return 0
