"""Train LeNet-5 on MNIST: ``python examples/train_lenet.py --help`` lists the options."""

import argparse

import minigrad
from minigrad import nn
from minigrad.cli.parser import LENET_RATES, add_lenet_options
from minigrad.nn.training import train_classifier

parser = argparse.ArgumentParser(description=__doc__)
add_lenet_options(parser)
args = parser.parse_args()

if args.backend:
    minigrad.set_backend(args.backend)
minigrad.manual_seed(args.seed)

digits = nn.data.mnist(args.data)
model = nn.models.lenet5()
rate = args.lr or LENET_RATES[args.optimizer]
if args.optimizer == "sgd":
    optimizer = nn.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
else:
    optimizer = nn.optim.Adam(model.parameters(), rate)

train_classifier(
    model,
    optimizer,
    train=(digits.train_images, digits.train_labels),
    test=(digits.test_images, digits.test_labels),
    epochs=args.epochs,
    batch_size=args.batch_size,
    seed=args.seed,
    out=args.out,
)
