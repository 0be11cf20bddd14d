"""The options of every subcommand. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import ast
import math
from collections.abc import Callable

from minigrad import __version__

LENET_RATES = {"adam": 0.002, "sgd": 0.02}  # learning rates that reach 99 % of MNIST's test images in 5 epochs


def make_parser() -> argparse.ArgumentParser:
    """The parser of the ``minigrad`` command; ``args.command`` names the module of ``minigrad.cli`` that runs it."""
    parser = argparse.ArgumentParser(prog="minigrad", description="Train networks and measure the engine.")
    parser.add_argument("--version", action="version", version=f"minigrad {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("backends", help="list the backends, and what is missing for those that cannot run here")
    train = commands.add_parser("train", help="train a network")
    nets = train.add_subparsers(dest="net", required=True, metavar="NET")
    add_lenet_options(nets.add_parser("lenet", help="LeNet-5 on MNIST", formatter_class=_Formatter))
    text = "show a network layer by layer: volumes, parameters, memory, multiply-adds, receptive fields"
    _add_summary_options(commands.add_parser("summary", help=text, description=text, formatter_class=_Formatter))
    _add_bench_options(commands.add_parser("bench", help="time the engine", formatter_class=_Formatter))
    text = "run random programs on several backends, and write what differs as a script"
    _add_fuzz_options(commands.add_parser("fuzz", help=text, description=text, formatter_class=_Formatter))
    text = "compare backends with the float64 oracle and with each other, primitive by primitive"
    _add_diff_options(commands.add_parser("diff", help=text, description=text, formatter_class=_Formatter))
    text = "find the first kernel of a reproducer at which backends diverge"
    bisect = commands.add_parser("bisect", help=text, description=text, formatter_class=_Formatter)
    bisect.add_argument(
        "repro", metavar="REPRO", help="a script that `minigrad fuzz` or MINIGRAD_VALIDATE=1 has written"
    )
    _add_backends_option(bisect, None, "(default: all that can run here)")
    return parser


def add_lenet_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``minigrad train lenet`` and of ``examples/train_lenet.py``."""
    _add_backend_option(parser)
    parser.add_argument("--epochs", type=_count, default=5, help="passes over the training data")
    parser.add_argument("--batch-size", type=_count, default=64, help="images per step")
    parser.add_argument("--optimizer", choices=LENET_RATES, default="sgd", help="sgd has momentum 0.9")
    rates = ", ".join(f"{name} {rate}" for name, rate in LENET_RATES.items())
    parser.add_argument("--lr", type=_positive, help=f"learning rate to start with (default: {rates})")
    parser.add_argument("--seed", type=int, default=0, help="draws the initial weights and the order of the images")
    parser.add_argument("--data", metavar="FOLDER", help="where MNIST lies (default: MINIGRAD_DATA, cache, download)")
    parser.add_argument("--out", metavar="FILE", help="save the trained weights here (.safetensors)")


def _add_summary_options(parser: argparse.ArgumentParser) -> None:
    text = "a name that nn.models.get knows, such as lenet5, or a pattern such as '(CONV-RELU)*2-POOL-FC,SOFTMAX'"
    parser.add_argument("network", metavar="NETWORK", help=text)
    parser.add_argument("--input", type=_sizes, metavar="CxHxW", help="size of an image (default: the network's own)")
    parser.add_argument("--classes", type=_count, metavar="N", help="number of classes (default: the network's own)")
    text = "an argument of the network's function, such as padding=0, or a count of the pattern; may be repeated"
    parser.add_argument("--option", type=_option, action="append", metavar="NAME=VALUE", help=text)
    parser.add_argument("--batch", type=_count, default=1, metavar="N", help="images in a step, for training memory")
    parser.add_argument("--optimizer", choices=("sgd", "adam", "adamw"), default="sgd", help="sgd has momentum")
    parser.add_argument("--training", action="store_true", help="in training mode, in which it may have more parts")
    text = "what is inside a module so many levels down is one row; 1 gives the stages"
    parser.add_argument("--depth", type=_natural, default=0, metavar="N", help=f"{text} (default: all layers)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all figures as JSON")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown, every number in full")
    form.add_argument("--explain", metavar="LAYER", help="write out the formulas of a layer with their numbers")


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    what = ("lenet", "kernels", "conv", "networks", "loader")
    text = "LeNet-5's training step, the kernels of its layers, larger convolutions, whole networks, or making batches"
    parser.add_argument("--what", choices=what, default="lenet", help=text)
    _add_backend_option(parser)
    parser.add_argument("--batch-size", type=_count, help="images per step (default: 128; 8 for conv and networks)")
    names = "alexnet,vgg16,googlenet,resnet18,resnet50,resnet20"
    parser.add_argument("--networks", type=_names, default=names, help="of `nn.models`, for --what networks")
    parser.add_argument("--repeats", type=_count, default=50, help="measurements of each; the median is shown")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")


def _add_fuzz_options(parser: argparse.ArgumentParser) -> None:
    _add_backends_option(parser, ("numpy", "opencl"), "(default: numpy,opencl)")
    parser.add_argument("--seconds", type=_positive, default=60, help="after this time no new program is run")
    parser.add_argument("--seed", type=_natural, help="determines what is drawn (default: drawn itself, and printed)")
    parser.add_argument("--workers", type=_count, help="processes (default: 2, or 1 on one core)")
    parser.add_argument("--what", type=_names, help="programs, rows, gradients, training (default: all)")
    parser.add_argument("--out", metavar="FOLDER", default=".", help="where reproducers are written")
    parser.add_argument("--chunk", type=_natural, help="run only these programs of the seed, whatever time they take")


def _add_diff_options(parser: argparse.ArgumentParser) -> None:
    _add_backends_option(parser, ("numpy", "opencl"), "(default: numpy,opencl)")
    parser.add_argument("--ops", type=_names, default=("all",), help="primitives, or all (default: all)")
    parser.add_argument("--examples", type=_count, default=5, help="of each primitive, and of its derivative")
    parser.add_argument("--seed", type=_natural, default=0, help="determines the examples")
    parser.add_argument("--example", type=_natural, metavar="N", help="print and run this one example alone")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")


def _add_backends_option(parser: argparse.ArgumentParser, default: tuple[str, ...] | None, shown: str) -> None:
    text = f"names as `minigrad backends` lists them, or pkg.mod:Class, separated by commas {shown}"
    parser.add_argument("--backends", type=_names, default=default, metavar="NAMES", help=text)


def _add_backend_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", help="as `minigrad backends` lists them (default: MINIGRAD_BACKEND, else numpy)")


class _Formatter(argparse.HelpFormatter):
    """Help that ends with the default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.nargs != 0 and action.default not in (None, argparse.SUPPRESS)
        shown = has_default and "(default" not in (action.help or "")
        return f"{action.help} (default: %(default)s)" if shown else action.help


def _number(convert: Callable[[str], float], rule: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """An argparse type: ``convert``, and a usage error where the number does not keep the rule."""

    def parse(text: str) -> float:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not holds(value):
            raise argparse.ArgumentTypeError(f"expected {rule}, got {text!r}")
        return value

    return parse


def _names(text: str) -> tuple[str, ...]:
    """An argparse type: different names, separated by commas."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected names separated by commas, got {text!r}")
    return found


def _sizes(text: str) -> tuple[int, ...]:
    """An argparse type: positive integers with an x between them."""
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected sizes such as 3x224x224, got {text!r}")
    return tuple(map(int, parts))


def _option(text: str) -> tuple[str, object]:
    """An argparse type: a name and a Python literal, or a word."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(value, value))
    except (ValueError, SyntaxError):
        return name, value


_natural = _number(int, "an integer of at least 0", lambda value: value >= 0)
_count = _number(int, "an integer of at least 1", lambda value: value >= 1)
_positive = _number(float, "a number above 0", lambda value: 0 < value < math.inf)
