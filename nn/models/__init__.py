"""The case-study networks, by function and by name."""

from minigrad.nn.models.alexnet import AlexNet, TorchvisionAlexNet, alexnet
from minigrad.nn.models.cifar_resnet import CifarResNet, cifar_resnet
from minigrad.nn.models.googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from minigrad.nn.models.lenet import LeNet5, lenet5
from minigrad.nn.models.network import Network
from minigrad.nn.models.pattern import PatternNet, from_pattern, to_pattern
from minigrad.nn.models.registry import available, get
from minigrad.nn.models.resnet import ResNet, resnet, resnet18, resnet34, resnet50, resnet101, resnet152
from minigrad.nn.models.vgg import VGG, vgg, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "AlexNet", "CifarResNet", "GoogLeNet", "GoogLeNetOutputs", "LeNet5", "Network", "PatternNet", "ResNet",
    "TorchvisionAlexNet", "VGG", "alexnet", "available", "cifar_resnet", "from_pattern", "get", "googlenet", "lenet5",
    "resnet", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "to_pattern", "vgg", "vgg11", "vgg13",
    "vgg16", "vgg19",
]  # fmt: skip
