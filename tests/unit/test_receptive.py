"""Receptive fields and strides of a summary, against what happens to an output when pixels are perturbed."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.nn.module import Module

SIDES = (72, 77)


class Plus(Module):
    """The sum of what several modules make of their input."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        first, *others = (branch(x) for branch in self.branches)
        for other in others:
            first = first + other
        return first


class Cat(Plus):
    """The channels of what several modules make of their input, side by side."""

    def forward(self, x):
        return Tensor.cat([branch(x) for branch in self.branches], axis=1)


class Apply(Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def conv(channels, out, kernel, **options):
    return nn.Conv2d(channels, out, kernel, **options)


def seq(*modules):
    return nn.Sequential(*modules)


NETWORKS = {
    "one 3x3": lambda: conv(3, 4, 3),
    "5x5 with stride and padding": lambda: conv(3, 4, 5, stride=2, padding=2),
    "axes that differ": lambda: conv(3, 4, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    "two 3x3 are a 5x5": lambda: seq(conv(3, 4, 3), nn.ReLU(), conv(4, 2, 3)),
    "dilation after stride": lambda: seq(conv(3, 4, 3, stride=2), conv(4, 2, 3, dilation=2), conv(2, 2, 2)),
    "pools": lambda: seq(conv(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), conv(4, 2, 3)),
    "pools that round up": lambda: seq(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, ceil_mode=True)),
    "a pool with dilation": lambda: seq(conv(3, 4, 2), nn.MaxPool2d(2, 2, dilation=3)),
    "groups": lambda: seq(conv(4, 4, 3, groups=4), conv(4, 8, 1), conv(8, 8, 3, groups=2)),
    "a residual block": lambda: Plus(seq(conv(3, 4, 3, padding=1), conv(4, 3, 3, padding=1)), nn.Identity()),
    "a projection shortcut": lambda: seq(
        Plus(seq(conv(3, 4, 3, stride=2, padding=1), conv(4, 4, 3, padding=1)), conv(3, 4, 1, stride=2)), conv(4, 4, 3)
    ),
    "option A": lambda: Plus(
        conv(3, 5, 3, stride=2, padding=1), Apply(lambda x: x[:, :, ::2, ::2].pad(((0, 0), (0, 2), (0, 0), (0, 0))))
    ),
    "inception": lambda: seq(
        conv(3, 4, 3, stride=2),
        Cat(
            conv(4, 2, 1),
            seq(conv(4, 2, 1), conv(2, 3, 3, padding=1)),
            seq(conv(4, 2, 1), conv(2, 2, 5, padding=2)),
            seq(nn.MaxPool2d(3, 1, 1), conv(4, 1, 1)),
        ),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ),
    "branches off centre": lambda: Plus(
        conv(3, 2, 3), Apply(lambda x: x[:, :2, 2:, :-2]), Apply(lambda x: x[:, :2, :-2, 2:])
    ),
    "normalisation": lambda: seq(
        conv(3, 8, 3), nn.LocalResponseNorm(5), nn.BatchNorm2d(8).eval(), nn.Dropout(), conv(8, 2, 3)
    ),
    "transposed convolution": lambda: seq(conv(3, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)),
    "up by blocks": lambda: seq(conv(3, 4, 3, stride=3), nn.ConvTranspose2d(4, 2, 3, stride=3)),
    "up by blocks, then on": lambda: seq(conv(3, 4, 3, stride=3), nn.ConvTranspose2d(4, 2, 3, stride=3), conv(2, 2, 2)),
    "up twice": lambda: seq(
        conv(3, 4, 4, stride=4), nn.ConvTranspose2d(4, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 3, stride=2)
    ),
    "up by repetition": lambda: seq(conv(3, 4, 3, stride=2), nn.Upsample(scale_factor=2), conv(4, 2, 3)),
    "up by channels": lambda: seq(conv(3, 8, 3, stride=2), nn.PixelShuffle(2), conv(2, 2, 3)),
    "blocks to channels": lambda: seq(
        conv(3, 2, 3, padding=1), nn.ZeroPad2d((0, 1, 0, 0)), nn.PixelUnshuffle(2), conv(8, 2, 3)
    ),
    "channels joined and split": lambda: seq(
        conv(3, 4, 3), Apply(lambda x: x.flatten(2)), nn.Identity(), Apply(lambda x: x.unflatten(2, (SIDES[0] - 2, -1)))
    ),
    "channels last": lambda: seq(
        conv(3, 4, 3, stride=2), Apply(lambda x: x.permute(0, 2, 3, 1)), nn.Linear(4, 3),
        Apply(lambda x: x.permute(0, 3, 1, 2)), conv(3, 2, 3),
    ),
    "shuffled channels": lambda: seq(
        conv(3, 6, 3), Apply(lambda x: x.unflatten(1, (2, 3)).permute(0, 2, 1, 3, 4).flatten(1, 2)), conv(6, 2, 3)
    ),
    "turned round": lambda: seq(conv(3, 2, 3, stride=2), Apply(lambda x: x.flip(2)), conv(2, 2, (4, 1), stride=2)),
}  # fmt: skip


def positive(model):
    """Weights above 0, so that nothing cancels and every pixel counts."""
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.requires_grad = False
        parameter.assign(rng.uniform(0.1, 0.3, parameter.shape).astype("float32"))
    return model.eval()


def windows(model, channels, axis):
    """First and last pixel along one axis that each position of the output depends on: rows (first, last)."""
    rng = np.random.default_rng(1)
    image = rng.uniform(0.5, 1.0, (1, channels, *SIDES)).astype("float32")
    images = np.repeat(image, SIDES[axis] + 1, 0)
    for pixel in range(SIDES[axis]):  # one line of pixels at a time, far above all others: maxima notice it
        images[(pixel, slice(None), pixel) if axis == 0 else (pixel, slice(None), slice(None), pixel)] += 1e3
    out = model(Tensor(images)).numpy()
    changed = np.abs(out[:-1] - out[-1:]).max(axis=(1, 3 - axis)) > 1e-3  # (pixel, position)
    return [(int(np.flatnonzero(seen)[0]), int(np.flatnonzero(seen)[-1])) for seen in changed.T]


@pytest.mark.parametrize("name", NETWORKS)
def test_fields_and_strides_are_those_that_perturbed_pixels_show(name):
    model = positive(NETWORKS[name]())
    channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels if name[:4] != "pool" else 3
    last = nn.summary(model, (channels, *SIDES)).layers[-1]
    for axis, side in enumerate(SIDES):
        found = windows(model, channels, axis)
        inside = [(first, end) for first, end in found if first > 8 and end < side - 9]  # away from padding
        period = 12 if name.startswith(("up", "transposed")) else 1  # all positions between two of the source's pixels
        assert len(inside) > period
        assert max(end - first + 1 for first, end in inside) == last.receptive_field[axis]
        steps = {abs(after[0] - before[0]) for before, after in zip(inside, inside[period:])}
        assert steps == {last.stride[axis] * period}


def test_the_field_of_a_whole_network_is_where_its_gradient_is_not_zero():
    net = positive(nn.models.cifar_resnet(20))
    rows = {row.name: row for row in nn.summary(net, (3, 144, 160)).rows}
    maps = {}
    for name in ("layer1.2.conv2", "layer2.0.add", "layer3.2.conv2"):
        module = dict(net.named_modules())[name.replace(".add", "")]
        module.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output}))
    image = Tensor(np.ones((1, 3, 144, 160), np.float32), requires_grad=True)
    net(image)
    for name, output in maps.items():
        middle = tuple(n // 2 for n in output.shape[2:])
        (gradient,) = output[0, 0, middle[0], middle[1]].gradient(image)
        seen = gradient.numpy()[0].any(0)
        assert (int(seen.any(1).sum()), int(seen.any(0).sum())) == rows[name].receptive_field


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (lambda: seq(nn.Flatten(), nn.Linear(4 * 35 * 38, 5)), (None, None)),
        (lambda: seq(Apply(lambda x: x.mean((2, 3))), nn.Linear(4, 5)), (None, None)),
        (lambda: Apply(lambda x: x.cumsum(3)), (3, None)),
        (lambda: Apply(lambda x: x.softmax(2)), (None, 3)),
        (lambda: Apply(lambda x: x * x.mean((2, 3), keepdims=True)), (None, None)),  # squeeze and excite
        (lambda: Apply(lambda x: x.transpose(2, 3) @ x), (None, None)),
        (lambda: Apply(lambda x: x.max_pool2d((35, 1))), (71, 3)),
        (lambda: seq(nn.AvgPool2d((35, 38)), nn.Flatten(), nn.Linear(4, 5)), (71, 77)),
    ],
)
def test_what_sees_a_whole_axis(tail, expected):
    model = seq(conv(3, 4, 3, stride=2), tail())
    assert nn.summary(model, (3, *SIDES)).layers[-1].receptive_field == expected


def test_uneven_adaptive_pools_see_at_most_what_is_said():
    model = positive(seq(conv(3, 4, 3), nn.AdaptiveAvgPool2d((9, 7))))
    last = nn.summary(model, (3, *SIDES)).layers[-1]
    for axis in (0, 1):
        found = windows(model, 3, axis)
        extents = [end - first + 1 for first, end in found]
        assert max(extents) <= last.receptive_field[axis] <= max(extents) + 2
