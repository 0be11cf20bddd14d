"""Every layer and loss on every backend: outputs, running statistics and gradients, within bounds of the oracle."""

import numpy as np
import pytest
from steps import arrays, classes, same_with_jit, training

import minigrad
from minigrad import Tensor, nn, no_grad
from minigrad.testing.checks import check_program, with_gradients
from minigrad.testing.recording import record

IMAGES, VOLUMES, ROWS = (3, 4, 6, 5), (2, 4, 3, 6, 5), (5, 4, 7)


def of_classes(loss):
    """A loss of logits (N, C) for classes, one of which does not count."""
    return lambda x: loss(x, Tensor([2, 0, 3, 1, 2]))


def targets(loss, low=-1.0):
    """A loss of numbers for other numbers."""
    return lambda x: loss(x, Tensor(np.random.default_rng(3).uniform(low, 1, x.shape).astype("float32")))


# Small layers are checked together: what takes time is building kernels, and one program builds them at once.
GROUPS = {
    "activations": [
        (lambda: nn.ReLU(), ROWS), (lambda: nn.ReLU6(), ROWS), (lambda: nn.LeakyReLU(0.2), ROWS),
        (lambda: nn.PReLU(4), ROWS), (lambda: nn.ELU(1.5), ROWS), (lambda: nn.SELU(), ROWS),
        (lambda: nn.CELU(1.5), ROWS), (lambda: nn.GELU(), ROWS), (lambda: nn.GELU("tanh"), ROWS),
        (lambda: nn.SiLU(), ROWS), (lambda: nn.Mish(), ROWS), (lambda: nn.Softplus(2.0), ROWS),
        (lambda: nn.Sigmoid(), ROWS), (lambda: nn.LogSigmoid(), ROWS), (lambda: nn.Hardsigmoid(), ROWS),
        (lambda: nn.Hardswish(), ROWS), (lambda: nn.Tanh(), ROWS), (lambda: nn.Tanhshrink(), ROWS),
        (lambda: nn.Hardtanh(-0.5, 0.75), ROWS), (lambda: nn.Softsign(), ROWS), (lambda: nn.Softshrink(), ROWS),
        (lambda: nn.Hardshrink(), ROWS), (lambda: nn.Threshold(0.1, 2.0), ROWS), (lambda: nn.GLU(1), ROWS),
    ],
    "softmax": [
        (lambda: nn.Softmax(1), ROWS), (lambda: nn.Softmin(-1), ROWS), (lambda: nn.LogSoftmax(1), ROWS),
        (lambda: nn.Softmax2d(), IMAGES),
    ],
    "dense": [(lambda: nn.Linear(7, 3), ROWS), (lambda: nn.Sequential(nn.Flatten(), nn.Linear(28, 2)), ROWS)],
    "convolutions": [
        (lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), ROWS), (lambda: nn.Conv2d(4, 6, 3, stride=2), IMAGES),
        (lambda: nn.Conv3d(4, 2, 2), VOLUMES), (lambda: nn.ConvTranspose1d(4, 3, 3), ROWS),
        (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), IMAGES),
        (lambda: nn.ConvTranspose3d(4, 3, 2), VOLUMES),
    ],
    "pools": [
        (lambda: nn.MaxPool1d(2), ROWS), (lambda: nn.MaxPool2d(3, 2, padding=1), IMAGES),
        (lambda: nn.MaxPool3d(2), VOLUMES), (lambda: nn.AvgPool1d(3, 1), ROWS),
        (lambda: nn.AvgPool2d(2, ceil_mode=True), IMAGES), (lambda: nn.AvgPool3d(2), VOLUMES),
        (lambda: nn.AdaptiveAvgPool1d(3), ROWS), (lambda: nn.AdaptiveAvgPool2d((4, 1)), IMAGES),
        (lambda: nn.AdaptiveAvgPool3d(2), VOLUMES), (lambda: nn.AdaptiveMaxPool1d(4), ROWS),
        (lambda: nn.AdaptiveMaxPool2d((1, 3)), IMAGES), (lambda: nn.AdaptiveMaxPool3d((3, 1, 2)), VOLUMES),
        (lambda: lambda x: nn.MaxUnpool2d(2)(*nn.MaxPool2d(2, return_indices=True)(x), (6, 5)), IMAGES),
    ],
    "batch norm": [
        (lambda: nn.BatchNorm1d(4), ROWS), (lambda: nn.BatchNorm2d(4), IMAGES), (lambda: nn.BatchNorm3d(4), VOLUMES),
        (lambda: nn.BatchNorm2d(4, momentum=None), IMAGES), (lambda: nn.BatchNorm2d(4).eval(), IMAGES),
        (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), IMAGES),
    ],
    "other norms": [
        (lambda: nn.InstanceNorm1d(4), ROWS),
        (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGES),
        (lambda: nn.InstanceNorm3d(4), VOLUMES), (lambda: nn.GroupNorm(2, 4), IMAGES), (lambda: nn.LayerNorm(7), ROWS),
        (lambda: nn.LayerNorm((6, 5)), IMAGES), (lambda: nn.RMSNorm(7), ROWS),
        (lambda: nn.LocalResponseNorm(3, alpha=0.5), IMAGES), (lambda: nn.functional.normalize, ROWS),
        (lambda: lambda x: nn.functional.cosine_similarity(x, x.flip(0)), ROWS),
    ],
    "shapes": [
        (lambda: nn.ZeroPad2d((1, 0, 2, 1)), IMAGES), (lambda: nn.ConstantPad1d(2, 0.5), ROWS),
        (lambda: nn.ReflectionPad2d(2), IMAGES), (lambda: nn.ReplicationPad3d(1), VOLUMES),
        (lambda: nn.CircularPad2d(1), IMAGES), (lambda: nn.Upsample(scale_factor=2), IMAGES),
        (lambda: nn.Upsample((7, 3)), IMAGES), (lambda: nn.Upsample((4, 9), mode="bilinear"), IMAGES),
        (lambda: nn.Upsample(9, mode="linear", align_corners=True), ROWS), (lambda: nn.PixelShuffle(2), IMAGES),
        (lambda: nn.PixelUnshuffle(3), (2, 2, 6, 3)), (lambda: nn.Unflatten(2, (-1, 7)), ROWS),
    ],
    "dropout": [
        (lambda: nn.Dropout(0.3), ROWS), (lambda: nn.Dropout1d(0.3), ROWS), (lambda: nn.Dropout2d(0.3), IMAGES),
        (lambda: nn.Dropout3d(0.3), VOLUMES),
    ],
    "losses": [
        (lambda: of_classes(nn.CrossEntropyLoss()), (5, 4)), (lambda: of_classes(nn.NLLLoss(ignore_index=2)), (5, 4)),
        (lambda: of_classes(nn.CrossEntropyLoss(Tensor([0.5, 2.0, 1.0, 3.0]), 1, label_smoothing=0.1)), (5, 4)),
        (lambda: targets(nn.MSELoss()), ROWS), (lambda: targets(nn.L1Loss(reduction="sum")), ROWS),
        (lambda: targets(nn.HuberLoss(delta=0.5)), ROWS), (lambda: targets(nn.SmoothL1Loss(reduction="none")), ROWS),
        (lambda: targets(nn.KLDivLoss(reduction="batchmean"), 0.1), ROWS),
        (lambda: targets(nn.BCEWithLogitsLoss(pos_weight=Tensor([3.0])), 0.0), ROWS),
        (lambda: lambda x: targets(nn.BCELoss(), 0.0)(x.sigmoid()), ROWS),
    ],
    "embedding": [(lambda: lambda x: nn.Embedding(5, 4, padding_idx=1)(Tensor([[1, 3], [4, 0], [3, 3]])) + x, (2, 4))],
}  # fmt: skip


def applied(make, shape, seed):
    """The results of one layer, lazy: its output, and its statistics; all it reads is in memory."""
    rng = np.random.default_rng(seed)
    x = Tensor(rng.uniform(-2, 2, shape).astype("float32"))
    layer = make()
    state = layer.state_dict() if isinstance(layer, nn.Module) else {}
    with no_grad():
        for tensor in state.values():
            if tensor.dtype.is_float:
                tensor.assign(rng.uniform(0.5, 1.5, tensor.shape).astype("float32")).realize()
    results = [layer(x)]
    if isinstance(layer, nn.Module):
        results += [b for b in layer.buffers() if b.node.buffer is None]
    return [r.node for r in results]


@pytest.mark.parametrize("group", GROUPS)
def test_layers_agree_with_the_oracle(group, device):
    minigrad.manual_seed(5)
    nodes = [n for seed, (make, shape) in enumerate(GROUPS[group]) for n in applied(make, shape, seed)]
    tally = check_program(with_gradients(record(nodes)), device, what=group)
    # Where a position of an upsampled pixel is within an error of a whole number, either neighbour is right.
    assert tally.decided > (0.9 if group == "shapes" else 0.99) * tally.elements, tally


def test_captured_steps_keep_running_statistics(device):
    """Also where a normalisation's kernels lie between convolutions, in the layouts that these ask for."""

    def scenario(wrap):
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.25),
            nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 3),
        )  # fmt: skip
        step = training(wrap, model, nn.optim.SGD(model.parameters(), 0.1, momentum=0.9))
        losses = [step(x, y) for x, y in zip(arrays(16, 2, 7, 6, count=4), classes(16, count=4))]
        evaluate = wrap(model.eval().forward)
        return losses, evaluate(arrays(3, 2, 7, 6)[0]), model.state_dict()

    with minigrad.backend(device):
        same_with_jit(scenario)
