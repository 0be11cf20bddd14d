"""``minigrad train``: a network, by a recipe; or a training that was stopped, from where it stood."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import minigrad
from minigrad import nn
from minigrad.errors import ArgumentError, DataError
from minigrad.nn.training import Recipe, Trainer, load_training, new_run, open_images, recipe, recipe_for
from minigrad.nn.training.checkpoint import CHECKPOINT, RUNS, check_folder

SHORT = {"lenet": "lenet5"}


def run(args: argparse.Namespace) -> int:
    """Train with the options of ``parser.add_train_options``; the last line printed is the test accuracy."""
    if args.backend is not None:
        minigrad.set_backend(args.backend)
    checkpoint = None if args.resume is None else _checkpoint(args)
    chosen = _recipe(args, checkpoint)
    out = Path(args.out) if args.out else checkpoint.parent if checkpoint else new_run(chosen.network)
    check_folder(out, resumed=checkpoint is not None)  # before data is downloaded
    model = nn.models.get(chosen.network, **chosen.options)
    channels, height, _ = model.input_size
    images = open_images(chosen.data_set, args.data, chosen.resize or height, "L" if channels == 1 else "RGB")
    counts = f"{len(images.train)} training and {len(images.test)} test images"
    print(f"{chosen.network} on {chosen.data_set}: {counts} from {images.source}")
    trainer = Trainer(
        chosen, images, out=out, workers=args.workers, save_seconds=args.save_seconds, save_steps=args.save_steps
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        where = f"epoch {trainer.epoch + 1} of {chosen.epochs}, step {trainer.steps}"
        over = f"this training is over, after {trainer.steps} steps; --epochs N with a larger N trains on"
        print(f"{checkpoint}: {over}" if trainer.is_over else f"going on from {checkpoint}: {where}")
    trainer.fit()
    return 0


def _recipe(args: argparse.Namespace, checkpoint: Path | None) -> Recipe:
    """The recipe of the checkpoint, of the option or of the network, with what the options say.

    Raises:
        ArgumentError: if it is not clear what to train, or options contradict each other.
    """
    names = {field.name for field in fields(Recipe)}
    given: dict[str, Any] = {name: value for name, value in vars(args).items() if name in names and value is not None}
    options = dict(args.option or ())
    if args.network is not None:
        given["network"] = SHORT.get(args.network, args.network)
    if checkpoint is not None:
        if args.recipe is not None:
            raise ArgumentError.of("minigrad train", "--recipe or --resume", "both", "single options change a recipe")
        base = Recipe.from_json(load_training(checkpoint)[1]["recipe"])
        if base.network != given.get("network", base.network):
            hint = "leave the network out to go on with it"
            raise DataError.of(str(checkpoint), f"a training of {given['network']}", f"one of {base.network}", hint)
    elif args.recipe is not None:
        base = recipe(args.recipe)
    elif args.network is not None:
        if Path(args.network, CHECKPOINT).exists():
            hint = f"to go on with it: --resume {args.network}"
            raise ArgumentError.of("minigrad train", "the name of a network", "the folder of a training", hint)
        base = recipe_for(given["network"])
    else:
        hint = f"networks: {', '.join(nn.models.available())}"
        raise ArgumentError.of("minigrad train", "a NETWORK, a --recipe or --resume", "none of them", hint)
    if given.get("schedule", "milestones") != "milestones" and "milestones" not in given:
        given["milestones"] = ()
    if "milestones" in given and given["milestones"]:
        given.setdefault("schedule", "milestones")
    return base.replace(**given, options={**base.options, **options})


def _checkpoint(args: argparse.Namespace) -> Path:
    """The checkpoint to go on from: the one named, that of ``--out``, or the latest in ``runs``."""
    place = args.resume or args.out
    if place:
        path = Path(place)
        return path / CHECKPOINT if path.is_dir() else path
    name = SHORT.get(args.network, args.network) or "*"
    found = sorted(RUNS.glob(f"{name}-*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise DataError.of("minigrad train --resume", f"a checkpoint in {RUNS}/{name}-*", "none", "name one")
    return found[-1]
