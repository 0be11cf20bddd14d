"""The case-study networks."""

from minigrad.nn.models.lenet import LeNet5, lenet5
from minigrad.nn.models.registry import available, get

__all__ = ["LeNet5", "available", "get", "lenet5"]
