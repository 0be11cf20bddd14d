"""``minigrad summary``: a network layer by layer, without running it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from rich.console import Console

from minigrad import nn
from minigrad.errors import ArgumentError

FILES = (".safetensors", ".pth", ".pt")


def run(args: argparse.Namespace) -> int:
    """Print the table that fits the terminal, or JSON, Markdown or the formulas of one layer."""
    found = nn.summary(
        network(args.network, args.input, args.classes, dict(args.option or ())),
        args.input,
        args.batch,
        optimizer=args.optimizer,
        depth=args.depth,
        training=args.training,
    )
    if args.json:
        print(json.dumps({"network": args.network, **found.to_dict()}, indent=2))
    elif args.markdown:
        print(found.to_markdown())
    elif args.explain is not None:
        print(found.explain(args.explain))
    elif sys.stdout.isatty():
        Console().print(found)
    else:
        print(found)
    return 0


def network(
    name: str, input_size: tuple[int, ...] | None, classes: int | None, options: dict[str, object]
) -> nn.Module:
    """The network of that name, that pattern or in that file; what is None is left to it.

    Raises:
        ArgumentError: if there are options for a network in a file, or there is no network of that name.
        DataError: if the file cannot be used.
    """
    if classes is not None:
        options = {**options, "num_classes": classes}
    if name in nn.models.available():
        return nn.models.get(name, **options)
    if name and Path(name).exists() or name.startswith(("/", ".", "~")) or name.endswith(FILES):
        if options:
            raise ArgumentError.of("summary", "no options: the file says which network it is of", ", ".join(options))
        return nn.training.load_model(name)[0]
    if not re.match(r"\s*[\[(]*\s*[A-Z]", name) or name.lower() in nn.models.available():
        return nn.models.get(name)  # raises, and says which names there are
    if input_size is not None:
        options = {**options, "input_size": input_size}
    return nn.models.from_pattern(name, **options)  # type: ignore[arg-type]
