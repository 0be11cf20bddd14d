"""``minigrad predict``: what a trained network sees in images."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

import minigrad
from minigrad.errors import DataError
from minigrad.nn.training import Evaluator, load_model

_BATCH = 64
_BRIGHT, _DARK = 0.6, 0.3  # mean brightness from where on images look inverted


def run(args: argparse.Namespace) -> int:
    """Print the most probable classes of each image, or all probabilities as JSON; 1 if some are no images, else 0."""
    if args.backend is not None:
        minigrad.set_backend(args.backend)
    model, info = load_model(args.checkpoint)
    prepared = info.preprocessing
    read, failed = {}, False
    for path in args.images:
        try:
            read[path] = prepared.read(path)
        except DataError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    if not read:
        return 1
    images = np.stack(list(read.values()))
    if args.invert:
        images = 255 - images
    elif np.mean(prepared.mean) < _DARK and images.mean() > 255 * _BRIGHT:
        print("these images are bright and those that the network has learnt from are dark: --invert?", file=sys.stderr)
    evaluator = Evaluator([model], prepared)
    parts = [evaluator.predict(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    probabilities = np.concatenate(parts)
    if args.json:
        found = [dict(zip(info.classes, map(float, row))) for row in probabilities]
        print(json.dumps(dict(zip(read, found)), indent=2))
        return int(failed)
    width = max(map(len, info.classes))
    for path, row in zip(read, probabilities):
        print(path)
        for label in np.argsort(-row, kind="stable")[: args.top]:
            print(f"  {info.classes[label]:<{width}} {row[label]:>8.2%}  {'█' * round(30 * float(row[label]))}")
    return int(failed)
