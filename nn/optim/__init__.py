"""Optimizers, with PyTorch's arguments, defaults, formulas and numbers."""

from minigrad.nn import lr_scheduler
from minigrad.nn.optim.adam import Adam, AdamW
from minigrad.nn.optim.optimizer import Optimizer, ParamGroup
from minigrad.nn.optim.rmsprop import RMSprop
from minigrad.nn.optim.sgd import SGD

__all__ = ["Adam", "AdamW", "Optimizer", "ParamGroup", "RMSprop", "SGD", "lr_scheduler"]
