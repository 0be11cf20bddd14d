"""Train LeNet-5 on MNIST, in a new folder of runs; ``--resume FOLDER`` goes on with one that was stopped.

``minigrad train lenet --help`` lists what can be varied without writing a program.
"""

import argparse

import minigrad
from minigrad import nn
from minigrad.nn.training import Trainer, new_run, recipe

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--recipe", default="lenet", choices=("lenet", "lenet-augmented"))
parser.add_argument("--epochs", type=int)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--backend", help="as `minigrad backends` lists them")
parser.add_argument("--data", help="where MNIST lies; by default MINIGRAD_DATA, the cache, or a download")
parser.add_argument("--out", help="folder for checkpoints, log and pictures; by default a new one in runs")
parser.add_argument("--resume", metavar="FOLDER", help="the folder of a training to go on with")
args = parser.parse_args()

if args.backend:
    minigrad.set_backend(args.backend)
chosen = recipe(args.recipe).replace(seed=args.seed)
if args.epochs:
    chosen = chosen.replace(epochs=args.epochs)

trainer = Trainer(chosen, nn.data.mnist(args.data), out=args.resume or args.out or new_run("lenet"))
if args.resume:
    trainer.resume(args.resume)
trainer.fit()
