"""LeNet-5 (LeCun et al., 1998): CONV-POOL-CONV-POOL-CONV-FC, 5x5 filters at stride 1 and 2x2 pooling at stride 2."""

from __future__ import annotations

from minigrad.errors import ArgumentError
from minigrad.nn import init
from minigrad.nn.activation import ReLU, Tanh
from minigrad.nn.conv import Conv2d
from minigrad.nn.linear import Linear
from minigrad.nn.models.network import Network
from minigrad.nn.pool import AvgPool2d, MaxPool2d
from minigrad.tensor import Tensor

ACTIVATIONS = {"relu": ReLU, "tanh": Tanh}
POOLS = {"max": MaxPool2d, "average": AvgPool2d}


class LeNet5(Network):
    """LeNet-5 with the names of its paper: convolutions C1, C3, C5, pools S2, S4, fully connected F6.

    It takes grey images of 28x28, which C1 pads by 2 (or of 32x32 with ``padding=0``), to logits. C3 sees all maps of
    S2 and the output layer is linear, where the paper has a table of connections and radial basis functions.

    Args:
        num_classes: number of logits.
        activation: ``"relu"``, or ``"tanh"`` as in 1998. With relu parameters start as the layers draw them, uniform
            within 1/sqrt(fan in): that learns MNIST better than He's wider start. With tanh weights start as Glorot
            and Bengio advise, biases at 0.
        pool: ``"max"``, or ``"average"`` as in 1998.
        padding: zeros around the image.

    Raises:
        ArgumentError: if the activation or the pool is another.

    >>> net = LeNet5()
    >>> sum(p.numel() for p in net.parameters())
    61706
    >>> net(Tensor.zeros(2, 1, 28, 28)).shape
    (2, 10)
    """

    def __init__(self, num_classes: int = 10, activation: str = "relu", pool: str = "max", padding: int = 2) -> None:
        super().__init__()
        for name, value, known in (("activation", activation, ACTIVATIONS), ("pool", pool, POOLS)):
            if value not in known:
                raise ArgumentError.of("lenet5", f"{name} {' or '.join(map(repr, known))}", repr(value))
        side = 32 - 2 * padding
        self.input_size = (1, side, side)
        self.input_hint = {28: "padding=0 takes 32x32", 32: "padding=2 takes 28x28"}.get(side, "")
        self.c1 = Conv2d(1, 6, 5, padding=padding)
        self.s2 = POOLS[pool](2)
        self.c3 = Conv2d(6, 16, 5)
        self.s4 = POOLS[pool](2)
        self.c5 = Conv2d(16, 120, 5)
        self.f6 = Linear(120, 84)
        self.out = Linear(84, num_classes)
        self.activation = ACTIVATIONS[activation]()
        if activation == "tanh":
            for name, parameter in self.named_parameters():
                init.zeros_(parameter) if name.endswith("bias") else init.xavier_uniform_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) to (N, num_classes)."""
        x = self.s2(self.activation(self.c1(x)))
        x = self.s4(self.activation(self.c3(x)))
        x = self.activation(self.c5(x)).flatten(1)
        return self.out(self.activation(self.f6(x)))  # type: ignore[no-any-return]


def lenet5(num_classes: int = 10, activation: str = "relu", pool: str = "max", padding: int = 2) -> LeNet5:
    """A new :class:`LeNet5`, of 61,706 parameters for 10 classes; the net of 1998 with ``"tanh"`` and ``"average"``."""
    return LeNet5(num_classes, activation, pool, padding)
