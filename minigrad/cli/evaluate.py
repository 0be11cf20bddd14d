"""``minigrad evaluate``: how good trained networks are, one by one and together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import minigrad
from minigrad.errors import DataError
from minigrad.nn.training import Evaluation, Evaluator, ModelInfo, load_model, open_images
from minigrad.nn.training.evaluate import TOP, held_out_batches
from minigrad.nn.training.plots import plot_confusion, plot_wrong


def run(args: argparse.Namespace) -> int:
    """Print top-1, top-5 and loss of each network and, of several, of the average of their probabilities."""
    if args.backend is not None:
        minigrad.set_backend(args.backend)
    loaded = [load_model(path) for path in args.checkpoints]
    models, infos = [model for model, _ in loaded], [info for _, info in loaded]
    _check_alike(args.checkpoints, infos)
    info = infos[0]
    channels, height, _ = info.preprocessing.shape
    size, mode = info.preprocessing.resize or height, "L" if channels == 1 else "RGB"
    images = open_images(args.data_set or info.data_set, args.data, size, mode)
    if images.classes != info.classes:
        raise DataError.of(images.source, f"the {len(info.classes)} classes of {args.checkpoints[0]}", images.classes)

    def judge(chosen: Sequence[int]) -> Evaluation:
        evaluator = Evaluator([models[n] for n in chosen], [infos[n].preprocessing for n in chosen])
        return evaluator(held_out_batches(images.test, info.preprocessing))

    rows = [(path, judge([n])) for n, path in enumerate(args.checkpoints)]
    if len(models) > 1:
        rows.append((f"average of {len(models)}", judge(range(len(models)))))
    evaluation = rows[-1][1]
    if args.json:
        figures = [{"name": name, "top1": e.top1, "top5": e.top5, "loss": e.loss} for name, e in rows]
        print(json.dumps({"images": len(images.test), "source": images.source, "networks": figures}, indent=2))
    else:
        print(f"{len(images.test)} images from {images.source}")
        width = max(len(name) for name, _ in rows)
        columns = {"top-1": "9.2%", "top-5": "9.2%", "loss": "8.4f"}
        if len(info.classes) <= TOP:  # all are among the first five
            del columns["top-5"]
        print(" " * width, *(f"{title:>{form.partition('.')[0]}}" for title, form in columns.items()))
        for name, e in rows:
            shown = {"top-1": e.top1, "top-5": e.top5, "loss": e.loss}
            print(f"{name:{width}}", *(f"{shown[title]:>{form}}" for title, form in columns.items()))
    if args.mistakes:
        plot_wrong(evaluation, images.test, info.classes, args.mistakes)
    if args.confusion:
        plot_confusion(evaluation.confusion(len(info.classes)), info.classes, args.confusion)
    return 0


def _check_alike(paths: Sequence[str], infos: Sequence[ModelInfo]) -> None:
    """Networks are averaged over the same images and classes."""
    first = infos[0]
    for path, info in zip(paths, infos):
        for what in ("classes", "data_set"):
            if getattr(info, what) != getattr(first, what):
                expected = f"the {what.replace('_', ' ')} of {paths[0]}, {getattr(first, what)}"
                raise DataError.of(path, expected, getattr(info, what), "evaluate them one by one")
        one, other = info.preprocessing, first.preprocessing
        if (one.shape, one.resize) != (other.shape, other.resize):
            raise DataError.of(path, f"a network for images of {other.shape}", one.shape, "evaluate them one by one")
