"""``minigrad train``: LeNet-5 on MNIST."""

from __future__ import annotations

import argparse

from minigrad.cli.parser import LENET_RATES


def run(args: argparse.Namespace) -> int:
    """Train with the options of ``parser.add_lenet_options`` and print the test accuracy at the end."""
    import minigrad
    from minigrad import nn
    from minigrad.nn.training import train_classifier

    if args.backend is not None:
        minigrad.set_backend(args.backend)
    minigrad.manual_seed(args.seed)
    digits = nn.data.mnist(args.data)
    print(f"MNIST from {digits.source}: {len(digits.train_labels)} training and {len(digits.test_labels)} test images")
    model = nn.models.lenet5()
    rate = args.lr or LENET_RATES[args.optimizer]
    optimizer: nn.optim.Optimizer
    if args.optimizer == "sgd":
        optimizer = nn.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    else:
        optimizer = nn.optim.Adam(model.parameters(), rate)
    train_classifier(
        model,
        optimizer,
        (digits.train_images, digits.train_labels),
        (digits.test_images, digits.test_labels),
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        out=args.out,
    )
    return 0
