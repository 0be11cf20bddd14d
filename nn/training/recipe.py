"""Recipes: what a training consists of, as configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from minigrad.errors import ArgumentError, ArgumentTypeError
from minigrad.nn.training.augmentation import AUGMENTATIONS

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "one-cycle", "milestones", "plateau")
PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. ``replace`` gives another one, and every field is an option of ``minigrad train``.

    Attributes:
        network: a name that ``nn.models.get`` knows.
        options: of the network, such as ``{"dropout": 0.2}``.
        data_set: ``mnist``, ``fashion-mnist``, ``cifar10`` or a folder of images; for people and the command line.
        resize: images are first scaled to cover this many pixels; None: as many as the network takes.
        augment: changes at random to training images, as pairs of a name (see ``augmentation``) and a strength.
        validation: how many training images are held out; accuracy on them after each epoch decides on plateaus, the
            best epoch and early stopping. With 0 it is that on the test images.
        epochs: passes over the training images.
        batch_size: images in a step.
        accumulate: parts into which a batch is divided to save memory; the gradient is that of the whole batch, unless
            the network normalises over batches.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        lr: the learning rate, its largest where a schedule varies it.
        momentum: of SGD.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: see the optimizer.
        schedule: ``constant``; ``cosine`` (half a cosine down to 0); ``one-cycle``; ``milestones`` or ``plateau``,
            which multiply by ``gamma`` after some epochs, or when accuracy has not grown in ``patience`` epochs.
        milestones: numbers of epochs.
        gamma: as said.
        patience: as said.
        warmup: epochs in which the rate first grows in proportion; of a one-cycle schedule, until its peak.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al., 2016).
        clip_norm: the largest norm of the gradient; None does not clip.
        ema: decay of an exponential moving average of the weights, which is what is evaluated then; None keeps none.
        precision: ``float16`` or ``bfloat16`` compute products in that; see :class:`minigrad.autocast`.
        checkpoint_gradients: whether each part of the network is computed again in the backward pass: less memory.
        stop_after: epochs without a better accuracy after which the training stops early; None never does.
        seed: determines initial weights, orders, augmentation and dropout.

    >>> Recipe("lenet5", epochs=3).epochs
    3

    Raises:
        ArgumentError: if a value makes no sense.
    """

    network: str
    options: Mapping[str, Any] = field(default_factory=dict)
    data_set: str = "mnist"
    resize: int | None = None
    augment: tuple[tuple[str, float], ...] = ()
    validation: int = 0
    epochs: int = 5
    batch_size: int = 64
    accumulate: int = 1
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    patience: int = 5
    warmup: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    precision: str = "float32"
    checkpoint_gradients: bool = False
    stop_after: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ArgumentError.of("Recipe", f"{name} among {', '.join(known)}", repr(getattr(self, name)))
        for kind, _ in self.augment:
            if kind not in AUGMENTATIONS:
                raise ArgumentError.of("Recipe", f"augment among {', '.join(AUGMENTATIONS)}", repr(kind))
        for name in ("epochs", "batch_size", "accumulate"):
            self._check(name, "at least 1", getattr(self, name) >= 1)
        for name in ("validation", "momentum", "weight_decay", "warmup", "patience"):
            self._check(name, "at least 0", getattr(self, name) >= 0)
        self._check("lr", "above 0", self.lr > 0)
        self._check("gamma", "in (0, 1)", 0 < self.gamma < 1)
        self._check("label_smoothing", "in [0, 1]", 0 <= self.label_smoothing <= 1)
        self._check("clip_norm", "above 0", self.clip_norm is None or self.clip_norm > 0)
        self._check("ema", "in (0, 1)", self.ema is None or 0 < self.ema < 1)
        self._check("stop_after", "at least 1", self.stop_after is None or self.stop_after >= 1)
        self._check("resize", "at least 1", self.resize is None or self.resize >= 1)
        if self.warmup >= self.epochs:
            expected, hint = f"warmup of less than the {self.epochs} epochs", "shorten it (--warmup) with the training"
            raise ArgumentError.of("Recipe", expected, f"{self.warmup:g} epochs", hint)
        self._check("milestones", "given if and only if they are the schedule",
                    bool(self.milestones) == (self.schedule == "milestones"))  # fmt: skip

    def _check(self, name: str, expected: str, holds: bool) -> None:
        if not holds:
            raise ArgumentError.of("Recipe", f"{name} {expected}", getattr(self, name))

    def replace(self, **changes: Any) -> Recipe:
        """The recipe with other values for some fields.

        Raises:
            ArgumentTypeError: if there is no field of a name.
        """
        known = [f.name for f in fields(self)]
        if unknown := sorted(changes.keys() - set(known)):
            raise ArgumentTypeError.of("Recipe", f"fields among {', '.join(known)}", ", ".join(unknown))
        return replace(self, **changes)

    def changes(self, other: Recipe) -> list[str]:
        """In which fields another recipe differs, for people.

        >>> Recipe("lenet5", epochs=5).changes(Recipe("lenet5", epochs=6, optimizer="adam"))
        ['epochs 5 -> 6', 'optimizer sgd -> adam']
        """
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return [f"{name} {before} -> {after}" for name, before, after in pairs if before != after]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe of :meth:`to_json`; fields that it lacks have their defaults, those unknown are ignored.

        >>> Recipe.from_json(Recipe("lenet5", lr=0.5).to_json()).lr
        0.5
        """
        given = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        given["augment"] = tuple((kind, strength) for kind, strength in given.get("augment", ()))
        given["milestones"] = tuple(given.get("milestones", ()))
        return cls(**given)
