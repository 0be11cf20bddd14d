"""A training with everything that has a state, to be killed: ``python worker.py FOLDER [--slow SECONDS]``.

Given the folder of a run that was killed, it goes on with that.
"""

import argparse
import sys
import time
from pathlib import Path

import minigrad
from minigrad.nn.training import Recipe, Trainer
from minigrad.nn.training.checkpoint import CHECKPOINT

sys.path.insert(0, str(Path(__file__).parents[1]))
from images import blob_data, small_net  # noqa: E402

RECIPE = Recipe(
    "small", epochs=3, batch_size=24, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3, schedule="cosine",
    warmup=0.5, label_smoothing=0.1, clip_norm=1.0, ema=0.9, precision="float16", accumulate=2, stop_after=2,
    augment=(("shift", 2), ("rotate", 5)), validation=20, seed=3,
)  # fmt: skip


def make(out, **options):
    """The trainer, at the beginning."""
    minigrad.manual_seed(RECIPE.seed)
    return Trainer(RECIPE, blob_data(200, 40, side=14), small_net(), out=out, **options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that each step takes longer")
    args = parser.parse_args()
    minigrad.set_backend(args.backend)
    trainer = make(args.folder, save_steps=2)
    if (args.folder / CHECKPOINT).exists():
        trainer.resume(args.folder)
    step = trainer.step
    trainer.step = lambda *batch: (time.sleep(args.slow), step(*batch))[1]
    trainer.fit()
