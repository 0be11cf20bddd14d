"""The case-study networks."""

from minigrad.nn.models.lenet import LeNet5, lenet5

__all__ = ["LeNet5", "lenet5"]
