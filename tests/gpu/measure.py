"""What is measured on a GPU besides ``minigrad bench``: bandwidth, and training in reduced precision.

PyTorch takes part where it is installed: eager, channels last, the fastest algorithms of cuDNN, on the same GPU, in
turn.
"""

import argparse
import statistics
import sys
import time

import numpy as np

import minigrad
from minigrad import Tensor, nn
from minigrad import device as devices
from minigrad.cli.bench_networks import mirror
from minigrad.realize import prepare


def median_seconds(candidates, repeats):
    """Of each candidate; they take turns, after two that do not count."""
    times = {name: [] for name in candidates}
    for round_ in range(-2, repeats):
        for name, step in candidates.items():
            start = time.perf_counter()
            step()
            if round_ >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def bandwidth(opened, size, repeats):
    """A fused pass over three arrays, and a copy by the driver, in bytes read and written per second."""
    backend, passes = opened.backend, 16
    with devices.backend(opened.name):
        a, b, c = (Tensor.uniform(size).realize() for _ in "abc")
        run = prepare([(a * b + c).relu().node], [])
    run.launch()
    launch = backend.bind(run.calls())
    source, target = run.table[0].memory, run.table[-1].memory

    def fused():
        with backend.session():
            for _ in range(passes):
                launch()
        backend.synchronize()

    def copy():
        for _ in range(passes):
            backend.copy(source, target, size * 4)
        backend.synchronize()

    seconds = median_seconds({"fused": fused, "copy": copy}, repeats)
    moved = {"fused": 4 * size * 4 * passes, "copy": 2 * size * 4 * passes}
    rates = {name: moved[name] / seconds[name] / 1e9 for name in seconds}
    print(f"relu(a * b + c) over {size:,} floats {rates['fused']:.0f} GB/s, copy {rates['copy']:.0f} GB/s, "
          f"ratio {rates['fused'] / rates['copy']:.2f}", flush=True)  # fmt: skip


def training(name, batch, how, repeats, torch):
    """Images per second of training steps; ``how`` is TF32 or bfloat16."""
    minigrad.manual_seed(0)
    model, rng = nn.models.get(name), np.random.default_rng(0)
    settings = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
    images = rng.standard_normal((batch, *model.input_size), dtype=np.float32)
    labels = rng.integers(0, 10, batch)
    candidates = {}
    if torch is not None:
        candidates["PyTorch"] = torch_step(torch, mirror(torch, model), images, labels, settings, how)
    optimizer = nn.optim.SGD(model.parameters(), **settings)

    @minigrad.jit
    def step(x, y):
        optimizer.zero_grad()
        with minigrad.autocast("bfloat16", enabled=how == "bfloat16"):
            loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = Tensor(images), Tensor(labels)
    candidates["minigrad"] = lambda: step(x, y).item()
    minigrad.set_float32_matmul_precision("high" if how == "TF32" else "highest")
    seconds = median_seconds(candidates, repeats)
    minigrad.set_float32_matmul_precision("highest")
    rates = {who: batch / s for who, s in seconds.items()}
    shown = ", ".join(f"{who} {rate:.0f} images/s" for who, rate in rates.items())
    ratio = f", ratio {rates['minigrad'] / rates['PyTorch']:.2f}" if torch is not None else ""
    print(f"{name} training, batch {batch}, {how}: {shown}{ratio}", flush=True)


def torch_step(torch, model, images, labels, settings, how):
    place = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = how == "TF32"
    model = model.to(place, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    x = torch.as_tensor(images).to(place, memory_format=torch.channels_last)
    y = torch.as_tensor(labels).to(place)

    def step():
        optimizer.zero_grad()
        with torch.autocast(place, torch.bfloat16, enabled=how == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=1 << 27, help="floats of an elementwise pass")
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    minigrad.set_backend(args.backend)
    try:
        import torch
    except ImportError:
        torch = None
    print("PyTorch:", "not installed" if torch is None else torch.__version__)
    bandwidth(devices.get(devices.default()), args.size, args.repeats)
    for how in ("bfloat16", "TF32"):
        training(args.network, args.batch, how, args.repeats, torch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
