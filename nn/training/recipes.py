"""Recipes by name: those of the course and of the papers."""

from __future__ import annotations

import re

from minigrad.errors import ArgumentError
from minigrad.nn.training.recipe import Recipe

RECIPES = {
    # 99 % of MNIST's test images after five epochs; with images moved a little, 99.4 % after fifteen.
    "lenet": Recipe("lenet5", epochs=5, batch_size=64, lr=0.02, weight_decay=5e-4),
    "lenet-augmented": Recipe(
        "lenet5", epochs=15, batch_size=64, lr=0.05, weight_decay=5e-4, warmup=1, ema=0.998, augment=(("shift", 2),)
    ),
    # Krizhevsky et al., 2012: the rate is divided by 10 when validation accuracy stops improving.
    "alexnet": Recipe(
        "alexnet", data_set="imagenet", resize=256, augment=(("crop", 0), ("flip", 0.5), ("jitter", 0.2)), epochs=90,
        batch_size=128, lr=1e-2, momentum=0.9, weight_decay=5e-4, schedule="plateau", gamma=0.1,
    ),
    # He et al., 2015, for ImageNet. The course prints a weight decay of 1e-5; the paper has 1e-4.
    "resnet": Recipe(
        "resnet50", data_set="imagenet", augment=(("resized-crop", 0.08), ("flip", 0.5)), resize=256, epochs=90,
        batch_size=256, lr=0.1, momentum=0.9, weight_decay=1e-4, schedule="plateau", gamma=0.1,
    ),
    # The same for CIFAR-10 (section 4.2): 64,000 steps, the rate divided by 10 after 32,000 and 48,000.
    "cifar-resnet": Recipe(
        "resnet20", data_set="cifar10", augment=(("crop", 4), ("flip", 0.5)), epochs=164, batch_size=128, lr=0.1,
        momentum=0.9, weight_decay=1e-4, schedule="milestones", milestones=(82, 123), gamma=0.1,
    ),
    # A tenth of the time: the rate goes up and down once (Smith and Topin, 2018).
    "cifar-quick": Recipe(
        "resnet20", data_set="cifar10", augment=(("crop", 4), ("flip", 0.5)), epochs=15, batch_size=128, lr=0.4,
        momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="one-cycle", warmup=4, label_smoothing=0.1,
    ),
}  # fmt: skip
# Networks, and the recipe for each unless another is named; the first that matches.
_FITTING = (
    (r"lenet.*", "lenet"),
    (r"alexnet|vgg.*", "alexnet"),
    (r"(resnet|plain)(20|32|44|56|110)", "cifar-resnet"),
    (r".*", "resnet"),
)


def recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ArgumentError: if there is none; it lists those that there are.

    >>> recipe("alexnet").lr
    0.01
    """
    if name not in RECIPES:
        raise ArgumentError.of("recipe", f"one of {', '.join(RECIPES)}", repr(name))
    return RECIPES[name]


def recipe_for(network: str) -> Recipe:
    """The recipe that fits a network: its own, or that of its family.

    >>> recipe_for("vgg16").network, recipe_for("vgg16").lr, recipe_for("resnet56").data_set
    ('vgg16', 0.01, 'cifar10')
    """
    name = next(name for pattern, name in _FITTING if re.fullmatch(pattern, network))
    return RECIPES[name].replace(network=network)
