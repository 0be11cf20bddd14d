"""How good networks are on images that they have not seen: one, or several whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.errors import ArgumentError
from minigrad.jit import jit
from minigrad.mode import no_grad
from minigrad.nn.data import DataLoader
from minigrad.nn.data.transforms import Compose
from minigrad.nn.module import Module
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.tensor import Tensor

TOP = 5
PIXELS, IMAGES = 1 << 20, 1000  # that are evaluated at once, at most


@dataclass(frozen=True)
class Evaluation:
    """What networks said about images, and how right that was.

    Attributes:
        labels: (N,), what the images show.
        predicted: (N,), the most probable class.
        confidence: (N,), its probability.
        loss: mean of -log(probability of the label).
        top1: share of the images whose most probable class is the label.
        top5: share of the images whose label is among the five most probable classes.
    """

    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    loss: float
    top1: float
    top5: float

    def wrong(self) -> npt.NDArray[np.int64]:
        """The numbers of the images that were taken for something else, those with the most confidence first."""
        found = np.flatnonzero(self.predicted != self.labels)
        return found[np.argsort(-self.confidence[found], kind="stable")]

    def confusion(self, classes: int) -> npt.NDArray[np.int64]:
        """How many images of each class (row) were taken for each class (column)."""
        flat = np.bincount(self.labels * classes + self.predicted, minlength=classes * classes)
        return flat.reshape(classes, classes).astype(np.int64)


class Evaluator:
    """Runs networks over images, in evaluation mode; of several the probabilities are averaged.

    Averaging is how the course's ensemble of 7 AlexNets went from 18.2 % to 16.4 % of errors.

    Args:
        models: one or more, with the same classes.
        preprocessing: of each model, or one for all.

    Raises:
        ArgumentError: if there are no models, or not as many preprocessings.
    """

    def __init__(self, models: Sequence[Module], preprocessing: Preprocessing | Sequence[Preprocessing]) -> None:
        prepared = [preprocessing] * len(models) if isinstance(preprocessing, Preprocessing) else list(preprocessing)
        if not models or len(prepared) != len(models):
            expected = "at least one model, and a preprocessing for each"
            raise ArgumentError.of("Evaluator", expected, f"{len(models)} and {len(prepared)}")
        self.models = list(models)

        @jit
        def probabilities(images: Tensor) -> Tensor:
            several = [model(p(images)).float().softmax(1) for model, p in zip(self.models, prepared)]
            total: Tensor = sum(several[1:], several[0]) / len(several)
            return total

        @jit
        def judge(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            said: Tensor = probabilities(images)
            own = said.gather(1, labels.unsqueeze(1))
            behind = ~(said <= own)  # classes that are more probable, or NaN
            rank = behind.sum(1)
            confidence = said.max(1)
            return -own.log().sum(), (rank < 1).sum(), (rank < TOP).sum(), said.argmax(1), confidence

        self.probabilities, self._judge = probabilities, judge

    def __call__(self, batches: Iterable[Any]) -> Evaluation:
        """Judge what the models say about ``batches`` of images and labels; leaves them in evaluation mode."""
        loss, top1, top5 = 0.0, 0, 0
        labels, predicted, confidence = [], [], []
        for model in self.models:
            model.eval()
        with no_grad():
            for images, y in batches:
                off, first, among, said, how_sure = self._judge(images, y)
                loss, top1, top5 = loss + off.item(), top1 + first.item(), top5 + among.item()
                labels.append(y.numpy())
                predicted.append(said.numpy())
                confidence.append(how_sure.numpy())
        truth = np.concatenate(labels) if labels else np.zeros(0, np.int64)
        count = max(len(truth), 1)
        said = np.concatenate(predicted) if predicted else truth
        sure = np.concatenate(confidence) if confidence else truth.astype(np.float32)
        return Evaluation(truth, said, sure, loss / count, top1 / count, top5 / count)

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (N, classes) of images (N, C, H, W) of bytes."""
        for model in self.models:
            model.eval()
        with no_grad():
            found: npt.NDArray[np.float32] = self.probabilities(Tensor(images)).numpy()
        return found


def held_out_batches(dataset: Any, preprocessing: Preprocessing, device: str | None = None) -> DataLoader:
    """The images of a data set in their order, scaled and cut, in batches of a size that fits into memory."""
    channels, height, width = preprocessing.shape
    batch_size = max(1, min(IMAGES, PIXELS // (channels * height * width)))
    found = preprocessing.transforms(dataset[0][0].shape[1:])
    return DataLoader(dataset, batch_size, transform=Compose(found) if found else None, device=device)
