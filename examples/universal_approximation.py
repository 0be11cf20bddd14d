"""One hidden layer approximates any continuous function, if it is wide enough; a deeper net needs fewer parameters.

Fits a continuous function on [-1, 1] by nets with one hidden layer of growing width, and for each of them by a deeper,
thinner net with as many parameters, and draws both beside the function (Cybenko, 1989; Hornik, 1991; on depth:
Telgarsky, 2016). ``python examples/universal_approximation.py --help`` lists the options.
"""

import argparse
import math

import numpy as np

import minigrad
from minigrad import Tensor, extras, jit, nn

DEPTH = 4  # hidden layers of the deeper nets
POINTS = 512
STEEP = 8.0


def function(x):
    """A wave that quickens to the right, and a kink: continuous, and not smooth everywhere."""
    return np.sin(3 * (x + 2) ** 2) * 0.6 + np.abs(x)


def net(width, hidden):
    """A net from R to R with so many hidden layers of tanh."""
    sizes = [1] + [width] * hidden
    layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(width, 1))
    for parameter in layers[0].parameters():  # steps as steep as the function's, all over the interval
        nn.init.uniform_(parameter, -STEEP, STEEP)
    return model


def parameters(width, hidden):
    """How many parameters ``net(width, hidden)`` has."""
    return 2 * width + (hidden - 1) * width * (width + 1) + width + 1


def width_with(count, hidden):
    """The largest width with at most ``count`` parameters, and at least 1."""
    return max((w for w in range(1, count) if parameters(w, hidden) <= count), default=1)


def fit(model, x, y, steps):
    """Train on all points at once; returns the root of the mean squared error and what the net gives."""
    optimizer = nn.optim.Adam(model.parameters(), lr=0.03)
    schedule = nn.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    @jit
    def step(x, y):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        loss = step(x, y)
        schedule.step()
    return math.sqrt(loss.item()), model(x).numpy()[:, 0]


def draw(path, x, y, fits):
    """The function and what each net made of it: wide nets above, deep ones below."""
    extras.load("matplotlib", "viz")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(fits), 6), layout="constrained")
    for axes, (title, fitted) in zip(
        figure.subplots(2, len(fits), sharex=True, sharey=True, squeeze=False).T.flat,
        [entry for pair in fits for entry in pair],
    ):
        axes.plot(x, y, color="0.6", linewidth=3, label="function")
        axes.plot(x, fitted, color="tab:red", linewidth=1, label="net")
        axes.set_title(title, fontsize=9)
    figure.axes[0].legend(loc="upper center", fontsize=8)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 16, 64, 256], help="of the one hidden layer")
    parser.add_argument("--steps", type=int, default=2000, help="of training, for each net")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="draw the fits here (.png, .svg, .pdf); needs matplotlib")
    args = parser.parse_args()

    points = np.linspace(-1, 1, POINTS, dtype=np.float32)
    values = function(points).astype(np.float32)
    x, y = Tensor(points[:, None]), Tensor(values[:, None])
    print(f"{'parameters':>10}  {'1 hidden layer':>18}  {f'{DEPTH} hidden layers':>18}   (root mean squared error)")
    fits = []
    for width in args.widths:
        count = parameters(width, 1)
        thin = width_with(count, DEPTH)
        pair = []
        for size, hidden in ((width, 1), (thin, DEPTH)):
            minigrad.manual_seed(args.seed)
            error, fitted = fit(net(size, hidden), x, y, args.steps)
            pair.append((error, f"{hidden} x {size}: {parameters(size, hidden)} parameters, error {error:.4f}", fitted))
        (wide, *_), (deep, *_) = pair
        print(f"{count:>10}  {f'{width} wide: {wide:.4f}':>18}  {f'{thin} wide: {deep:.4f}':>18}", flush=True)
        fits.append([entry[1:] for entry in pair])
    if args.plot:
        draw(args.plot, points, values, fits)
        print(f"drawn to {args.plot}")
