"""``minigrad visualize``: pictures of what a network learned, and a report with all of them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

import minigrad
from minigrad import extras
from minigrad.errors import ArgumentError, DataError
from minigrad.nn import Module
from minigrad.nn.data import Dataset, Subset
from minigrad.nn.training import ModelInfo, load_model, open_images
from minigrad.nn.visualize import gallery
from minigrad.nn.visualize.gallery import Fitted
from minigrad.nn.visualize.probe import Array
from minigrad.nn.visualize.report import made, write_report
from minigrad.nn.visualize.runs import curves_section

SHOWN = 3  # images of a data set, unless some are named


def run(args: argparse.Namespace) -> int:
    """Write the pictures that the arguments ask for, and the report; print the paths."""
    extras.load("matplotlib.figure", "viz")  # this, and what else may be wrong, now and not after minutes of computing
    if args.unit is not None and args.layer is None:
        raise ArgumentError.of("visualize", "--layer with --unit", "--unit alone", "say whose unit it is")
    if args.backend is not None:
        minigrad.set_backend(args.backend)
    made(args.out)
    curves = [curves_section(args.runs)] if args.runs else []
    model, info = load_model(args.checkpoint)
    subject = gallery.Subject(model, info.preprocessing, info.classes)
    images = {path: info.preprocessing.read(path) for path in args.image}
    dataset = _dataset(args, info)
    if dataset is not None and not images:
        images = _first_of_classes(dataset, info.classes)

    sections = [gallery.filters_section(subject)]
    if images:
        sections.append(gallery.image_section(subject, images, args.layer, args.unit))
    if dataset is not None:
        sections.append(gallery.patches_section(subject, dataset, args.layer, args.unit))
        sections.append(gallery.confusion_section(subject, dataset))
    title, facts = f"What {info.network} learned", _facts(args.checkpoint, model, info)
    for path in write_report(args.out, title, facts, sections + curves, _command(args)):
        print(path)
    return 0


def _facts(checkpoint: str, model: Module, info: ModelInfo) -> dict[str, str]:
    """What the report says at its top."""
    names = ", ".join(info.classes[:12]) + (f" and {len(info.classes) - 12} more" if info.classes[12:] else "")
    count = "" if info.images is None else f" ({info.images:,} images)"
    facts = {
        "checkpoint": checkpoint,
        "trained on": f"{info.data_set}{count}, {info.epoch} epoch{'s' * (info.epoch != 1)}",
        "input": "x".join(map(str, info.preprocessing.shape)),
        "classes": names,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
    }
    if info.accuracy is not None:
        facts["accuracy when saved"] = f"{100 * info.accuracy:.2f} %"
    return facts


def _command(args: argparse.Namespace) -> str:
    """The command line that the arguments are of."""
    given = [("--image", path) for path in args.image]
    given += [("--runs", path) for path in args.runs]
    named = {"--data-set": args.data_set, "--data": args.data, "--limit": args.limit, "--layer": args.layer,
             "--unit": args.unit, "--out": args.out}  # fmt: skip
    given += [(option, str(value)) for option, value in named.items() if value is not None]
    return shlex.join(["minigrad", "visualize", args.checkpoint, *(word for pair in given for word in pair)])


def _dataset(args: argparse.Namespace, info: ModelInfo) -> Dataset | None:
    """The test images to search and to judge; none where images are named and no data set is."""
    if args.image and args.data_set is None and args.data is None:
        return None
    channels, height, _ = info.preprocessing.shape
    size, mode = info.preprocessing.resize or height, "L" if channels == 1 else "RGB"
    source = open_images(args.data_set or info.data_set, args.data, size, mode)
    if tuple(source.classes) != info.classes:
        raise DataError.of(source.source, f"the {len(info.classes)} classes of {args.checkpoint}", source.classes)
    images = Fitted(source.test, info.preprocessing)
    return images if args.limit is None else Subset(images, range(min(args.limit, len(images))))


def _first_of_classes(dataset: Dataset, classes: Sequence[str]) -> dict[str, Array]:
    """The first images of some classes, by what they show."""
    found: dict[int, tuple[str, Array]] = {}
    for index in range(len(dataset)):
        image, label = dataset[index]
        found.setdefault(label, (f"test image {index} ({classes[label]})", image))
        if len(found) == SHOWN:
            break
    return dict(found.values())
