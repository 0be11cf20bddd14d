"""The networks by name: what the command line and checkpoints know them by."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from minigrad.errors import ArgumentError, ArgumentTypeError, did_you_mean
from minigrad.nn.models.alexnet import alexnet
from minigrad.nn.models.cifar_resnet import cifar_resnet
from minigrad.nn.models.googlenet import googlenet
from minigrad.nn.models.lenet import lenet5
from minigrad.nn.models.network import Network
from minigrad.nn.models.resnet import DEPTHS, resnet
from minigrad.nn.models.vgg import CONFIGURATIONS, vgg

VGG_DEPTHS = {11: "A", 13: "B", 16: "D", 19: "E"}
CIFAR_DEPTHS = (20, 32, 44, 56, 110)

FACTORIES: dict[str, Callable[..., Network]] = {
    "lenet5": lenet5,
    "alexnet": alexnet,
    **{f"vgg_{letter.lower().replace('-', '_')}": partial(vgg, letter) for letter in CONFIGURATIONS},
    **{f"vgg{depth}": partial(vgg, letter) for depth, letter in VGG_DEPTHS.items()},
    **{f"vgg{depth}_bn": partial(vgg, letter, True) for depth, letter in VGG_DEPTHS.items()},
    "googlenet": googlenet,
    **{f"resnet{depth}": partial(resnet, depth) for depth in DEPTHS},
    **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in CIFAR_DEPTHS},
    **{f"plain{depth}": partial(resnet, depth, residual=False) for depth in (18, 34)},
    **{f"plain{depth}": partial(cifar_resnet, depth, False) for depth in CIFAR_DEPTHS},
}


def available() -> list[str]:
    """The names that :func:`get` knows, family by family.

    >>> "lenet5" in available()
    True
    """
    return list(FACTORIES)


def get(name: str, **options: Any) -> Network:
    """A new network by its name: ``get("lenet5", num_classes=4)`` is ``lenet5(num_classes=4)``.

    Args:
        name: one of :func:`available`.
        options: the arguments of the function of that name in ``minigrad.nn.models``.

    Raises:
        ArgumentError: if there is no network of that name; it lists those that there are.
        ArgumentTypeError: if the network has no such option; it lists those that it has. Or if one that is true or
            false is something else.

    >>> sum(p.numel() for p in get("lenet5", num_classes=4).parameters())
    61196
    """
    if not isinstance(name, str):
        raise ArgumentTypeError.of("models.get", "the name of a network", repr(name))
    if name not in FACTORIES:
        expected = f"one of {', '.join(FACTORIES)}"
        raise ArgumentError.of("models.get", expected, repr(name), did_you_mean(name, FACTORIES))
    factory = FACTORIES[name]
    signature = inspect.signature(factory)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = ", ".join(signature.parameters)
        got = str(error).removeprefix("got ")  # of "got an unexpected keyword argument"
        raise ArgumentTypeError.of(f"models.get({name!r})", f"options among {known}", got) from error
    for option, value in options.items():
        if isinstance(signature.parameters[option].default, bool) and value not in (True, False):
            raise ArgumentTypeError.of(f"models.get({name!r})", f"{option} to be true or false", repr(value))
    return factory(**options)
