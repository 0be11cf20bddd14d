"""Train LeNet-5 on MNIST, in the folder runs/lenet: ``--resume`` goes on with what is there.

``minigrad train lenet --help`` lists what can be varied without writing a program.
"""

import argparse

import minigrad
from minigrad import nn
from minigrad.nn.training import Trainer, recipe

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--recipe", default="lenet", help="lenet, or lenet-augmented for 99.4 %% and more")
parser.add_argument("--epochs", type=int)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--backend", help="as `minigrad backends` lists them")
parser.add_argument("--data", help="where MNIST lies; by default MINIGRAD_DATA, the cache, or a download")
parser.add_argument("--out", default="runs/lenet", help="folder for checkpoints, log and pictures")
parser.add_argument("--resume", action="store_true")
args = parser.parse_args()

if args.backend:
    minigrad.set_backend(args.backend)
chosen = recipe(args.recipe).replace(seed=args.seed)
if args.epochs:
    chosen = chosen.replace(epochs=args.epochs)

trainer = Trainer(chosen, nn.data.mnist(args.data), out=args.out)
if args.resume:
    trainer.resume(args.out)
trainer.fit()
