"""The training loop that ``examples/train_lenet.py`` and ``minigrad train`` share."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy.typing as npt

from minigrad.errors import DataError
from minigrad.jit import jit
from minigrad.nn.data import DataLoader, TensorDataset
from minigrad.nn.module import Module
from minigrad.nn.optim import Optimizer
from minigrad.nn.serialize import PathLike, save
from minigrad.nn.training.display import Display
from minigrad.nn.training.evaluate import evaluate
from minigrad.nn.training.metrics import Meter
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.tensor import Tensor

Array = npt.NDArray[Any]


def cosine(progress: float) -> float:
    """The factor of the learning rate after a share of the training: half a cosine from 1 to 0 (Loshchilov, 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def train_classifier(
    model: Module,
    optimizer: Optimizer,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    schedule: Callable[[float], float] = cosine,
    out: PathLike | None = None,
    metadata: dict[str, str] | None = None,
) -> float:
    """Train a network to tell classes of images apart, and show how it goes.

    Prints a line per epoch and at last ``test accuracy: 99.12 %``; on a terminal there is a progress bar below.

    Args:
        model: images (N, C, H, W) to logits (N, classes).
        optimizer: of the model's parameters; the schedule multiplies its learning rates as they are now.
        train: images (uint8) and labels to learn from.
        test: images and labels to measure the accuracy on, after every epoch.
        epochs: passes over the training images.
        batch_size: images per step.
        seed: draws the order of the images.
        preprocessing: from bytes to the network's input; by default, MNIST's.
        schedule: a factor of the learning rate for the share of the epochs that is over.
        out: where to save the weights, with metadata that says what they are of and how images were preprocessed.
        metadata: more to save with them.

    Returns:
        The accuracy on the test images after the last epoch, between 0 and 1.

    Raises:
        DivergedError: if the loss is infinite or NaN; nothing is saved.
        SystemExit: on Ctrl-C, with code 130, after a message; nothing is saved.
    """
    if out is not None and not Path(out).parent.is_dir():  # now, not after the last epoch
        raise DataError.of(str(out), "a folder that exists to save into", f"no {Path(out).parent}")
    preprocessing = preprocessing or Preprocessing()
    base_rates = [group["lr"] for group in optimizer.param_groups]

    @jit
    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        logits = model(preprocessing(images))
        loss = logits.cross_entropy(labels)
        loss.backward()
        optimizer.step()
        return loss, (logits.argmax(1) == labels).sum()

    accuracy, epoch = 0.0, 0
    images = TensorDataset(train[0], train[1].astype("int64"))
    loader = DataLoader(images, batch_size, shuffle=True, seed=seed)
    try:
        with Display(epochs, len(images)) as display:
            for epoch in range(epochs):
                for group, rate in zip(optimizer.param_groups, base_rates):
                    group["lr"] = rate * schedule(epoch / epochs)
                model.train()
                meter, start = Meter(), time.perf_counter()
                for x, y in loader:
                    loss, correct = step(x, y)
                    meter.add(loss, correct, x.shape[0])
                    display.advance(epoch, x.shape[0], meter)
                mean_loss, train_accuracy = meter.read()
                speed = len(images) / (time.perf_counter() - start)
                accuracy = evaluate(model, *test, preprocessing)
                display.line(
                    f"epoch {epoch + 1}/{epochs}: loss {mean_loss:.4f}, accuracy {100 * train_accuracy:.2f} %, "
                    f"on test images {100 * accuracy:.2f} %; {speed:,.0f} images/s"
                )
    except KeyboardInterrupt:
        print(f"stopped by Ctrl-C in epoch {epoch + 1} of {epochs}; nothing was saved", file=sys.stderr)
        raise SystemExit(130) from None
    if out is not None:
        about = {"model": type(model).__name__, "preprocessing": json.dumps(asdict(preprocessing))}
        save(out, model.state_dict(), {**about, "test_accuracy": f"{accuracy:.4f}", **(metadata or {})})
        print(f"weights saved to {out}")
    print(f"test accuracy: {100 * accuracy:.2f} %")
    return accuracy
