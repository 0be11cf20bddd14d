"""``minigrad summary``: a network layer by layer, without running it."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console

from minigrad import nn


def run(args: argparse.Namespace) -> int:
    """Print the table that fits the terminal, or JSON, Markdown or the formulas of one layer."""
    options = dict(args.option or ())
    if args.classes is not None:
        options["num_classes"] = args.classes
    found = nn.summary(
        nn.models.get(args.network, **options),
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
