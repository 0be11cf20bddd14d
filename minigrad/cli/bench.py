"""``minigrad bench``: the training step of LeNet-5, its layers' kernels and its data, against PyTorch if that is here.

Results are compared before anything is timed. Then all candidates take turns, round by round, and what is shown are
medians, and the median of the ratios within a round: a machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import minigrad
from minigrad import Tensor, device, nn
from minigrad.cli.bench_loader import loader_rows
from minigrad.cli.bench_networks import network_rows
from minigrad.errors import MinigradError
from minigrad.graph import apply, project
from minigrad.primitive import TABLE
from minigrad.realize import Run, prepare
from minigrad.shapes import Window

Step = Callable[[], Any]
WARM_UP = 5
REST = 0.02  # seconds
IN_A_ROW = 5


class BenchmarkError(MinigradError, AssertionError):
    """Candidates whose results differ are not worth timing."""


def run(args: argparse.Namespace) -> int:
    """Run ``minigrad bench``."""
    if args.backend:
        minigrad.set_backend(args.backend)
    torch = _torch()
    batch = args.batch_size or (8 if args.what in ("conv", "networks") else 128)
    report = {"machine": _machine(torch), "backend": device.default(), "batch_size": batch}
    benchmarks: dict[str, Callable[[int, int, Any], list[dict[str, Any]]]] = {
        "lenet": bench_lenet,
        "kernels": bench_kernels,
        "conv": bench_conv,
        "loader": bench_loader,
        "networks": partial(network_rows, args.networks, agree=_close),
    }
    report["rows"] = benchmarks[args.what](batch, args.repeats, torch)
    _show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def interleave(candidates: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each of ``repeats`` rounds, after a warm-up.

    Calls follow one another as in training: a turn is the mean of a few. Worker threads of some libraries spin for a
    while after a call, on the core that the next candidate needs: each turn begins with a rest and an uncounted call.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(-WARM_UP, repeats):
        for name, step in candidates.items():
            time.sleep(REST)
            step()
            start = time.perf_counter()
            for _ in range(IN_A_ROW):
                step()
            if round_ >= 0:
                times[name].append((time.perf_counter() - start) / IN_A_ROW)
    return times


def bench_lenet(batch: int, repeats: int, torch: Any) -> list[dict[str, Any]]:
    """One training step (forward, backward, SGD with momentum): captured, not captured, and PyTorch's."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 1, 28, 28), dtype=np.float32)
    labels = rng.integers(0, 10, batch)
    eager, captured = _lenet_step(images, labels, False), _lenet_step(images, labels, True)
    candidates = {"minigrad, jit": captured, "minigrad": eager}
    if torch is not None:
        candidates["PyTorch"] = _torch_lenet_step(torch, images, labels)
    losses = {name: [float(step()) for _ in range(10)] for name, step in candidates.items()}
    _agree(losses, 1e-4)
    python: list[float] = []
    with _launches() as launched:
        for _ in range(WARM_UP + repeats):
            launched.clear()
            start = time.perf_counter()
            eager()
            python.append(time.perf_counter() - start - sum(launched))
    rows = _rows(interleave(candidates, repeats))
    rows.append({"name": "minigrad: Python of a step", "ms": statistics.median(python[WARM_UP:]) * 1e3})
    return rows


def bench_loader(batch: int, repeats: int, torch: Any) -> list[dict[str, Any]]:
    """How fast batches are made, and how long a training step waits for them."""
    return loader_rows(_lenet_training(captured=True), batch, repeats)


def _lenet_step(images: Any, labels: Any, captured: bool) -> Step:
    step = _lenet_training(captured)
    return lambda: step(Tensor(images), Tensor(labels)).item()


def _lenet_training(captured: bool) -> Callable[[Tensor, Tensor], Tensor]:
    minigrad.manual_seed(0)
    model = nn.models.lenet5()
    optimizer = nn.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss  # type: ignore[no-any-return]

    return minigrad.jit(step) if captured else step


def _torch_lenet_step(torch: Any, images: Any, labels: Any) -> Step:
    layers = torch.nn
    minigrad.manual_seed(0)
    ours = nn.models.lenet5()
    pool = layers.MaxPool2d(2)
    relu = layers.ReLU()
    convolutions = layers.Conv2d(1, 6, 5, padding=2), layers.Conv2d(6, 16, 5), layers.Conv2d(16, 120, 5)
    linears = layers.Linear(120, 84), layers.Linear(84, 10)
    first, second, third = convolutions
    model = layers.Sequential(
        first, relu, pool, second, relu, pool, third, relu, layers.Flatten(), linears[0], relu, linears[1]
    )
    with torch.no_grad():
        for theirs, mine in zip(model.parameters(), ours.parameters()):
            theirs.copy_(torch.as_tensor(mine.numpy()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.as_tensor(images), torch.as_tensor(labels)

    def step() -> float:
        optimizer.zero_grad()
        loss = layers.functional.cross_entropy(model(x.clone()), y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def bench_kernels(batch: int, repeats: int, torch: Any) -> list[dict[str, Any]]:
    """Each contraction and pool of LeNet-5, forward and both ways back, one kernel at a time."""
    return _compared(_kernels(batch, torch), repeats)


def bench_conv(batch: int, repeats: int, torch: Any) -> list[dict[str, Any]]:
    """Kernels of the convolutions of larger networks, each alone, on operands that lie as the backend likes."""
    rows = []
    for name, (x, w, g), attrs, reference in _convolutions(batch, torch):
        flops = TABLE["conv"].flops(None, g.shape, x.shape, w.shape)
        spatial = {"spatial": x.shape[2:]}
        for way, op, sources, more in (
            ("forward", "conv", (x, w), {}),
            ("input gradient", "conv_input_grad", (g, w), spatial),
            ("weight gradient", "conv_weight_grad", (x, g), {}),
        ):
            step, result = _alone(op, sources, attrs | more)
            candidates = {"minigrad": step}
            if reference is not None:
                candidates["PyTorch"] = reference[way]
                _close(f"{name} {way}", result, reference[way]().cpu().numpy(), flops // result.size // 2)
            times = interleave(candidates, repeats)
            row = {"name": f"{name} {way}", "ms": statistics.median(times["minigrad"]) * 1e3}
            for who, seconds in times.items():
                row[f"{who} GFLOP/s"] = flops / statistics.median(seconds) / 1e9
            rows.append(row)
    return rows


def _alone(op: str, sources: tuple[Tensor, ...], attrs: dict[str, Any]) -> tuple[Step, Any]:
    """The kernel of one primitive, and its result; copies into other orders run once before."""
    node = apply(op, *[source.node for source in sources], **attrs)
    run = prepare([node], [])
    assert run is not None
    run.launch()
    memory = [buffer.memory for buffer in run.table]
    core = [(program, [memory[p] for p in at]) for program, at, kernel in run.compiled.launches if kernel.op == op]
    launch, backend = run.device.backend.bind(core), run.device.backend

    def step() -> None:
        with backend.session():
            launch()
            backend.synchronize()

    return step, Tensor.wrap(node).numpy()


# Channels, filters, size, kernel, stride: VGG's and ResNet's 3x3 convolutions, 1x1 ones, and ResNet's first.
_SHAPES = (
    *((c, c, size, 3, 1) for c, size in ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14))),
    *((c, c, size, 3, 1) for c, size in ((64, 56), (128, 28), (256, 14), (512, 7))),
    *((64, 256, 56, 1, 1), (256, 64, 56, 1, 1), (512, 2048, 7, 1, 1), (256, 512, 56, 1, 2), (3, 64, 224, 7, 2)),
)


def _convolutions(batch: int, torch: Any) -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor], Any, Any]]:
    rng = np.random.default_rng(0)
    for channels, filters, size, kernel, stride in _SHAPES:
        padding = kernel // 2
        window = Window((kernel,) * 2, (stride,) * 2, ((padding, padding),) * 2, (1, 1))
        shapes = (batch, channels, size, size), (filters, channels, kernel, kernel)
        out = (batch, filters, *window.output_size("conv2d", shapes[0][2:]))
        x, w, g = (rng.standard_normal(shape, dtype=np.float32) for shape in (*shapes, out))
        reference = None
        if torch is not None:
            tx, tw, tg = map(torch.as_tensor, (x, w, g))
            options = {"stride": stride, "padding": padding}
            reference = {
                "forward": _finished(torch, torch.nn.functional.conv2d, tx, tw, **options),
                "input gradient": _finished(torch, torch.nn.grad.conv2d_input, tx.shape, tw, tg, **options),
                "weight gradient": _finished(torch, torch.nn.grad.conv2d_weight, tx, tw.shape, tg, **options),
            }
        name = f"{kernel}x{kernel}{f'/{stride}' if stride > 1 else ''} {channels}-{filters} at {size}"
        tensors = (Tensor(x).realize(), Tensor(w).realize(), Tensor(g).realize())
        yield name, tensors, {"window": window, "groups": 1}, reference


def _close(name: str, got: Any, expected: Any, terms: int = 1) -> None:
    """Compare results that are sums of ``terms`` products each: their errors grow with the root of that."""
    error = np.abs(np.asarray(got, np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30)
    allowed = 1e-5 * max(1.0, terms**0.5 / 100)
    if error > allowed:
        raise BenchmarkError.of(name, f"results within {allowed:.0e} of the largest value", f"{error:.1e}")


def _compared(kernels: Iterator[tuple[str, Step, Step | None, int]], repeats: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, step, reference, flops in kernels:
        candidates = {"minigrad": step} | ({"PyTorch": reference} if reference is not None else {})
        if reference is not None:
            _close(name, step(), reference())
        times = interleave(candidates, repeats)
        row = _rows(times)[0] | {"name": name}
        if len(times) > 1:
            row["PyTorch ms"] = statistics.median(times["PyTorch"]) * 1e3
        row["GFLOP/s"] = flops / row["ms"] / 1e6
        rows.append(row)
    return rows


def _kernels(batch: int, torch: Any) -> Iterator[tuple[str, Step, Step | None, int]]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Tensor:
        return Tensor(rng.standard_normal(shape, dtype=np.float32)).realize()

    def ours(name: str, *sources: Tensor, **attrs: Any) -> Step:
        f = minigrad.jit(lambda *xs: Tensor.wrap(apply(name, *[x.node for x in xs], **attrs)))
        return _read(f, *sources)

    def theirs(f: Callable[..., Any] | None, *sources: Tensor) -> Step | None:
        if f is None:
            return None
        tensors = [torch.as_tensor(s.numpy()) for s in sources]
        return lambda: f(*tensors).detach().cpu().numpy()

    grad = None if torch is None else torch.nn.grad
    functional = None if torch is None else torch.nn.functional
    layers = (("c1", (1, 28, 28), 6, 2), ("c3", (6, 14, 14), 16, 0), ("c5", (16, 5, 5), 120, 0))
    for name, shape, filters, padding in layers:
        window = Window((5, 5), (1, 1), ((padding, padding),) * 2, (1, 1))
        x, w = draw(batch, *shape), draw(filters, shape[0], 5, 5)
        attrs = {"window": window, "groups": 1}
        out = (batch, filters, *window.output_size("conv2d", shape[1:]))
        g = draw(*out)
        flops = TABLE["conv"].flops(None, out, x.shape, w.shape)
        p = padding
        yield f"{name} forward", ours("conv", x, w, **attrs), theirs(
            functional and (lambda x, w, p=p: functional.conv2d(x, w, padding=p)), x, w
        ), flops  # fmt: skip
        if shape[0] > 1:
            yield f"{name} input gradient", ours("conv_input_grad", g, w, **attrs, spatial=shape[1:]), theirs(
                grad and (lambda g, w, s=x.shape, p=p: grad.conv2d_input(s, w, g, padding=p)), g, w
            ), flops  # fmt: skip
        yield f"{name} weight gradient", ours("conv_weight_grad", x, g, **attrs), theirs(
            grad and (lambda x, g, s=w.shape, p=p: grad.conv2d_weight(x, s, g, padding=p)), x, g
        ), flops  # fmt: skip
    for name, shape in (("s2", (6, 28, 28)), ("s4", (16, 10, 10))):
        x, halves = draw(batch, *shape), Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1))
        pool = minigrad.jit(lambda x, window=halves: Tensor.wrap(project(apply("max_pool", x.node, window=window), 0)))
        reference = functional and (lambda x: functional.max_pool2d(x, 2))
        yield f"{name} forward", _read(pool, x), theirs(reference, x), x.numel()
    for name, inner, outer in (("f6", 120, 84), ("out", 84, 10)):
        x, w = draw(batch, inner), draw(inner, outer)
        reference = None if torch is None else torch.matmul
        yield f"{name} forward", ours("matmul", x, w), theirs(reference, x, w), 2 * batch * inner * outer


def _read(f: Callable[..., Tensor], *sources: Tensor) -> Step:
    return lambda: f(*sources).numpy()


@contextmanager
def _launches() -> Iterator[list[float]]:
    """Collects the seconds of each launch list: what is left of a step is Python."""
    seconds: list[float] = []
    original = Run.launch

    def timed(self: Run) -> None:
        start = time.perf_counter()
        original(self)
        self.device.backend.synchronize()
        seconds.append(time.perf_counter() - start)

    Run.launch = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        Run.launch = original  # type: ignore[method-assign]


def _agree(losses: dict[str, list[float]], tolerance: float) -> None:
    (first, expected), *others = losses.items()
    for name, got in others:
        if not np.allclose(got, expected, rtol=tolerance):
            raise BenchmarkError.of("bench", f"the same losses from {first} and {name}", f"{expected} and {got}")


def _rows(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    base = times.get("PyTorch")
    rows = []
    for name, seconds in times.items():
        row = {"name": name, "ms": statistics.median(seconds) * 1e3, "least ms": min(seconds) * 1e3}
        if base is not None:
            row["x PyTorch"] = statistics.median(a / b for a, b in zip(seconds, base))
        rows.append(row)
    return rows


def _torch() -> Any:
    """PyTorch, if it is installed; on the GPU, if that is where minigrad is, and as exact."""
    try:
        import torch
    except ImportError:
        return None
    if device.default().partition(":")[0] == "cupy" and torch.cuda.is_available():
        torch.set_default_device("cuda")
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
    return torch


def _finished(torch: Any, function: Callable[..., Any], *arguments: Any, **options: Any) -> Step:
    """Calls a function of PyTorch, and returns its result when it is there."""

    def step() -> Any:
        result = function(*arguments, **options)
        if result.is_cuda:
            torch.cuda.synchronize()
        return result

    return step


def _machine(torch: Any) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    threads = None if torch is None else torch.get_num_threads()
    versions = {"python": platform.python_version(), "numpy": np.__version__, "minigrad": minigrad.__version__}
    if torch is not None:
        versions["torch"] = torch.__version__
    return {"machine": platform.machine(), "versions": versions, "torch threads": threads, "peak KiB at start": peak}


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in report["rows"] for key in row))
    table = Table(title=f"{report['backend']}, batch {report['batch_size']}, medians")
    for column in columns:
        named = column == "name"
        table.add_column(column, justify="left" if named else "right", no_wrap=named)
    for row in report["rows"]:
        table.add_row(*[_cell(row.get(column)) for column in columns])
    console = Console()
    console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in report["machine"]["versions"].items())
    threads = report["machine"]["torch threads"]
    console.print(versions + ("" if threads is None else f" on {threads} threads"), highlight=False)


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3f}"
