"""The case-study networks, inference and training, against the same networks of PyTorch's layers."""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad
from minigrad import Tensor, nn

OPTIONS: dict[str, dict[str, Any]] = {"googlenet": {"aux": False}}

Step = Callable[[], float]
Agree = Callable[[str, Any, Any, int], None]


def network_rows(names: tuple[str, ...], batch: int, repeats: int, torch: Any, agree: Agree) -> list[dict[str, Any]]:
    """Rows of ``minigrad bench --what networks``: two for each network, milliseconds of an image.

    Args:
        names: networks of ``nn.models``.
        batch: images in a batch.
        repeats: rounds, in which minigrad and PyTorch take turns.
        torch: the module, or None.
        agree: raises if two arrays differ by more than sums of so many products may.
    """
    rows = []
    for name in names:
        minigrad.manual_seed(0)
        model = network(name)
        theirs = None if torch is None else mirror(torch, model)
        rng = np.random.default_rng(0)
        images = rng.standard_normal((batch, *model.input_size), dtype=np.float32)
        labels = rng.integers(0, 10, batch)
        for what, make in (("inference", _inference), ("training", _training)):
            ours, reference = make(model, theirs, images, labels, torch)
            if reference is not None:
                agree(f"{name} {what}", ours(), reference(), 10_000)
            candidates = {"minigrad": ours} | ({"PyTorch": reference} if reference is not None else {})
            times, processor = _turns(candidates, repeats)
            row: dict[str, Any] = {"name": f"{name} {what}"}
            for unit, taken in (("ms/image", times), ("CPU ms/image", processor)):
                for who, seconds in taken.items():
                    row[f"{who} {unit}"] = 1e3 * statistics.median(seconds) / batch
            if reference is not None:
                row["x PyTorch"] = statistics.median(a / b for a, b in zip(times["minigrad"], times["PyTorch"]))
            rows.append(row)
    return rows


def network(name: str) -> nn.models.Network:
    """A network that can be compared: PyTorch's dropout draws other numbers, so there is none."""
    model = nn.models.get(name, **OPTIONS.get(name, {}))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _turns(candidates: dict[str, Step], repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each candidate in each round, after one that does not count; and those of all cores together.

    The second tell more where other processes share the cores, if threads that wait sleep (OMP_WAIT_POLICY=passive).
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    processor: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(-1, repeats):
        for name, step in candidates.items():
            start, busy = time.perf_counter(), time.process_time()
            step()
            if round_ >= 0:
                times[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - busy)
    return times, processor


def _inference(model: Any, theirs: Any, images: Any, labels: Any, torch: Any) -> tuple[Any, Any]:
    model.eval()
    forward = minigrad.jit(model.__call__)
    x = Tensor(images)

    def ours() -> Any:
        with minigrad.no_grad():
            return forward(x).numpy()

    if theirs is None:
        return ours, None
    theirs.eval()
    given = torch.as_tensor(images)

    def reference() -> Any:
        with torch.no_grad():
            return theirs(given).cpu().numpy()

    return ours, reference


def _training(model: Any, theirs: Any, images: Any, labels: Any, torch: Any) -> tuple[Any, Any]:
    settings: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
    model.train()
    optimizer = nn.optim.SGD(model.parameters(), **settings)

    @minigrad.jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss  # type: ignore[no-any-return]

    x, y = Tensor(images), Tensor(labels)
    if theirs is None:
        return lambda: step(x, y).item(), None
    theirs.train()
    other = torch.optim.SGD(theirs.parameters(), **settings)
    given, wanted = torch.as_tensor(images), torch.as_tensor(labels)

    def reference() -> Any:
        other.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(given), wanted)
        loss.backward()
        other.step()
        return loss.item()

    return lambda: step(x, y).item(), reference


# The same network of PyTorch's layers --------------------------------------------------------------------------------


def mirror(torch: Any, model: nn.Module) -> Any:
    """The network in PyTorch, with equal weights, in PyTorch's own names and functions."""
    theirs = mirrored(torch, model)
    state = {name: torch.as_tensor(tensor.numpy()) for name, tensor in model.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs


def mirrored(torch: Any, module: Any) -> Any:
    """The network in PyTorch, with weights of its own."""
    layers, name = torch.nn, type(module).__name__
    if isinstance(module, nn.Conv2d):
        sizes = (module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding)
        return layers.Conv2d(*sizes, groups=module.groups, bias=module.bias is not None)
    if isinstance(module, nn.MaxPool2d):
        return layers.MaxPool2d(module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode)
    simple: dict[type[nn.Module], Callable[[Any], Any]] = {
        nn.Linear: lambda m: layers.Linear(m.in_features, m.out_features),
        nn.BatchNorm2d: lambda m: layers.BatchNorm2d(m.num_features, m.eps, m.momentum),
        nn.LocalResponseNorm: lambda m: layers.LocalResponseNorm(m.size, m.alpha, m.beta, m.k),
        nn.ReLU: lambda m: layers.ReLU(inplace=True),
        nn.Dropout: lambda m: layers.Dropout(m.p),
        nn.AdaptiveAvgPool2d: lambda m: layers.AdaptiveAvgPool2d(m.output_size),
        nn.Identity: lambda m: layers.Identity(),
        nn.Flatten: lambda m: layers.Flatten(),
    }
    if type(module) in simple:
        return simple[type(module)](module)
    children = {key: mirrored(torch, child) for key, child in module.named_children()}
    if isinstance(module, nn.Sequential):
        return layers.Sequential(OrderedDict(children))

    class Mirror(layers.Module):  # type: ignore[name-defined, misc]
        def forward(self, x: Any) -> Any:
            return FORWARD[name](torch, self, x)

    theirs = Mirror()
    for key, child in children.items():
        theirs.add_module(key, child)
    for key in ("stride", "in_channels", "out_channels", "residual"):
        setattr(theirs, key, getattr(module, key, None))
    return theirs


def _shortcut(m: Any, x: Any) -> Any:
    if not m.residual:
        return 0.0
    return m.downsample(x) if hasattr(m, "downsample") else x


def _subsample(torch: Any, m: Any, x: Any) -> Any:
    padding = (0, 0, 0, 0, 0, m.out_channels - m.in_channels)
    return torch.nn.functional.pad(x[:, :, :: m.stride, :: m.stride], padding)


def _basic(torch: Any, m: Any, x: Any) -> Any:
    return m.relu(m.bn2(m.conv2(m.relu(m.bn1(m.conv1(x))))) + _shortcut(m, x))


def _bottleneck(torch: Any, m: Any, x: Any) -> Any:
    out = m.relu(m.bn2(m.conv2(m.relu(m.bn1(m.conv1(x))))))
    return m.relu(m.bn3(m.conv3(out)) + _shortcut(m, x))


def _resnet(torch: Any, m: Any, x: Any) -> Any:
    x = m.maxpool(m.relu(m.bn1(m.conv1(x))))
    return m.fc(m.avgpool(m.layer4(m.layer3(m.layer2(m.layer1(x))))).flatten(1))


def _cifar_resnet(torch: Any, m: Any, x: Any) -> Any:
    x = m.layer3(m.layer2(m.layer1(m.relu(m.bn1(m.conv1(x))))))
    return m.fc(m.avgpool(x).flatten(1))


def _inception(torch: Any, m: Any, x: Any) -> Any:
    return torch.cat([m.branch1(x), m.branch2(x), m.branch3(x), m.branch4(x)], 1)


def _googlenet(torch: Any, m: Any, x: Any) -> Any:
    x = m.norm1(m.maxpool1(m.conv1(x)))
    x = m.maxpool2(m.norm2(m.conv3(m.conv2(x))))
    x = m.maxpool3(m.inception3b(m.inception3a(x)))
    x = m.inception4e(m.inception4d(m.inception4c(m.inception4b(m.inception4a(x)))))
    x = m.inception5b(m.inception5a(m.maxpool4(x)))
    return m.fc(m.dropout(m.avgpool(x).flatten(1)))


FORWARD: dict[str, Callable[[Any, Any, Any], Any]] = {
    "AlexNet": lambda torch, m, x: m.classifier(m.features(x).flatten(1)),
    "VGG": lambda torch, m, x: m.classifier(m.avgpool(m.features(x)).flatten(1)),
    "GoogLeNet": _googlenet,
    "Inception": _inception,
    "ConvReLU": lambda torch, m, x: m.relu(m.conv(x)),
    "ResNet": _resnet,
    "CifarResNet": _cifar_resnet,
    "BasicBlock": _basic,
    "Bottleneck": _bottleneck,
    "Subsample": _subsample,
}
