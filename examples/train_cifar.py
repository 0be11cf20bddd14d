"""Train a residual network on CIFAR-10, in a new folder of runs; ``--resume FOLDER`` goes on with one that was stopped.

The recipe ``cifar-resnet`` is that of He et al. (2015, section 4.2), ``cifar-quick`` takes a tenth of the epochs. On a
CPU an epoch of ResNet-20 takes minutes; ``--backend opencl`` is several times as fast as NumPy.
"""

import argparse

import minigrad
from minigrad import nn
from minigrad.nn.training import Trainer, new_run, recipe

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--recipe", default="cifar-quick", choices=("cifar-quick", "cifar-resnet"))
parser.add_argument("--network", default="resnet20", help="resnet20, 32, 44, 56, 110, or plain20 and so on to compare")
parser.add_argument("--epochs", type=int)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--backend", help="as `minigrad backends` lists them")
parser.add_argument("--data", help="where CIFAR-10 lies; by default MINIGRAD_DATA, the cache, or a download")
parser.add_argument("--out", help="folder for checkpoints, log and pictures; by default a new one in runs")
parser.add_argument("--resume", metavar="FOLDER", help="the folder of a training to go on with")
args = parser.parse_args()

if args.backend:
    minigrad.set_backend(args.backend)
chosen = recipe(args.recipe).replace(network=args.network, seed=args.seed)
if args.epochs:
    chosen = chosen.replace(epochs=args.epochs, warmup=min(chosen.warmup, args.epochs / 3))

trainer = Trainer(chosen, nn.data.cifar10(args.data), out=args.resume or args.out or new_run("cifar"))
if args.resume:
    trainer.resume(args.resume)
trainer.fit()
