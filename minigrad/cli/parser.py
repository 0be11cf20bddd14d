"""The options of every subcommand. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import ast
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from minigrad import __version__
from minigrad.config import SWITCHES


def make_parser() -> argparse.ArgumentParser:
    """The parser of the ``minigrad`` command; ``args.command`` names the module of ``minigrad.cli`` that runs it."""
    parser = _Parser(prog="minigrad", description="Train networks and measure the engine.")
    parser.add_argument("--version", action="version", version=f"minigrad {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("backends", help="list the backends, and what is missing for those that cannot run here")
    text = "train a network by a recipe, or go on with a training that was stopped"
    train = commands.add_parser("train", help=text, description=text, formatter_class=_Formatter)
    train.add_argument("network", metavar="NETWORK", nargs="?", help="a name that nn.models.get knows, or lenet")
    add_train_options(train)
    text = "say how good networks are on images that they have not seen, and the average of them"
    _add_evaluate_options(commands.add_parser("evaluate", help=text, description=text, formatter_class=_Formatter))
    text = "say what is in images"
    _add_predict_options(commands.add_parser("predict", help=text, description=text, formatter_class=_Formatter))
    text = "show a network layer by layer: volumes, parameters, memory, multiply-adds, receptive fields"
    _add_summary_options(commands.add_parser("summary", help=text, description=text, formatter_class=_Formatter))
    text = "show what a trained network learned: PNG files, and a report with all of them"
    _add_visualize_options(commands.add_parser("visualize", help=text, description=text, formatter_class=_Formatter))
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
    _add_backends_option(bisect, None, "(default: those of the file)")
    return parser


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``minigrad train``; those of the recipe are named for its fields."""
    _add_backend_option(parser)
    parser.add_argument("--recipe", metavar="NAME", help="where to start from (default: what fits the network)")
    text = "mnist, fashion-mnist, cifar10, cifar100, or a folder with a folder for each class"
    parser.add_argument("--data-set", metavar="NAME", help=f"{text} (default: the recipe's)")
    _add_data_option(parser)
    text = "a folder for checkpoints, log and pictures (default: a new one in runs)"
    parser.add_argument("--out", metavar="FOLDER", help=text)
    text = "go on from a checkpoint, or from the folder of a run (default: --out, or the latest in runs)"
    parser.add_argument("--resume", metavar="FILE", nargs="?", const="", help=text)
    parser.add_argument("--workers", type=_natural, default=1, help="threads that prepare batches")
    parser.add_argument("--save-seconds", type=_positive, default=60, help="how often to save within an epoch")
    parser.add_argument("--save-steps", type=_count, metavar="N", help="save after so many steps, too")
    recipe = parser.add_argument_group("recipe", "What these options leave open is as the recipe has it.")
    add = recipe.add_argument
    add("--epochs", type=_count, help="passes over the training data")
    add("--batch-size", type=_count, metavar="N", help="images in a step")
    add("--accumulate", type=_count, metavar="N", help="parts in which a batch is worked on: less memory")
    add("--optimizer", choices=("sgd", "adam", "adamw"), help="sgd has momentum")
    add("--lr", type=_positive, help="learning rate, the largest where it varies")
    add("--momentum", type=_share, help="of sgd")
    add("--nesterov", action=argparse.BooleanOptionalAction, help="whether that is Nesterov's")
    add("--weight-decay", type=_not_negative, metavar="X", help="see nn.optim")
    schedules = ("constant", "cosine", "one-cycle", "milestones", "plateau")
    add("--schedule", choices=schedules, help="how the learning rate changes")
    add("--milestones", type=_numbers, metavar="N,N", help="epochs after which it is multiplied by gamma")
    add("--gamma", type=_share, help="factor of milestones and plateau")
    add("--patience", type=_natural, metavar="N", help="epochs without a better accuracy that make a plateau")
    add("--warmup", type=_not_negative, metavar="N", help="epochs in which the rate grows at first")
    add("--label-smoothing", type=_share, metavar="X", help="share of the target that is spread over all classes")
    add("--clip-norm", type=_positive, metavar="X", help="largest norm of the gradient")
    add("--ema", type=_share, metavar="X", help="decay of a moving average of the weights, which is evaluated then")
    add("--precision", choices=("float32", "float16", "bfloat16"), help="in which products are computed")
    text = "whether intermediate results are computed again in the backward pass: less memory"
    add("--checkpoint-gradients", action=argparse.BooleanOptionalAction, help=text)
    add("--stop-after", type=_count, metavar="N", help="epochs without a better accuracy after which to stop")
    add("--validation", type=_natural, metavar="N", help="training images that are held out to measure on")
    text = "changes to training images: crop, resized-crop, flip, shift, rotate, scale, jitter, erase; or none"
    add("--augment", type=_strengths, metavar="NAME=X,...", help=text)
    add("--resize", type=_count, metavar="N", help="pixels that images are scaled to before they are cut")
    add("--option", type=_option, action="append", metavar="NAME=VALUE", help="of the network; may be repeated")
    add("--seed", type=int, help="determines initial weights, orders, augmentation and dropout")


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    _add_backend_option(parser)
    text = "files that `minigrad train` wrote, or the folders of its runs"
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", help=text)
    parser.add_argument("--data-set", metavar="NAME", help="(default: the one that they were trained on)")
    _add_data_option(parser)
    parser.add_argument("--mistakes", metavar="FILE", help="draw images that were taken for something else")
    parser.add_argument("--confusion", metavar="FILE", help="draw how many of each class were taken for each class")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")


def _add_predict_options(parser: argparse.ArgumentParser) -> None:
    _add_backend_option(parser)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file or folder that `minigrad train` wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files in any usual format")
    parser.add_argument("--top", type=_count, default=3, metavar="N", help="how many classes to show for each")
    parser.add_argument("--invert", action="store_true", help="dark becomes light: for digits written on white paper")
    parser.add_argument("--json", action="store_true", help="print all probabilities as JSON")


def _add_summary_options(parser: argparse.ArgumentParser) -> None:
    text = "a name that nn.models.get knows, such as lenet5; a pattern such as '(CONV-RELU)*2-POOL-FC,SOFTMAX'; "
    parser.add_argument("network", metavar="NETWORK", help=text + "or what `minigrad train` wrote, a file or a folder")
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


def _add_visualize_options(parser: argparse.ArgumentParser) -> None:
    _add_backend_option(parser)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file or folder that `minigrad train` wrote")
    text = "explain what the network says of these files (default: of the first test images of some classes)"
    parser.add_argument("--image", metavar="FILE", nargs="+", action="extend", default=[], help=text)
    text = "its test images are searched and judged (default: without --image, the one that it was trained on)"
    parser.add_argument("--data-set", metavar="NAME", help=text)
    parser.add_argument("--data", metavar="DIR", help="where data sets lie (default: MINIGRAD_DATA, cache, download)")
    parser.add_argument("--limit", type=_count, metavar="N", help="look at the first N test images only (default: all)")
    text = "dotted name of the layer whose maps and units are shown (default: the last with maps)"
    parser.add_argument("--layer", metavar="NAME", help=text)
    parser.add_argument("--unit", type=_natural, metavar="N", help="show this unit of the layer only")
    text = "logs of trainings, or their folders: draw their curves side by side (default: none)"
    parser.add_argument("--runs", metavar="LOG", nargs="+", action="extend", default=[], help=text)
    parser.add_argument("--out", metavar="DIR", default="visualize", help="where the pictures and report.html go")


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    what = ("lenet", "kernels", "conv", "networks", "loader")
    text = "LeNet-5's training step, the kernels of its layers, larger convolutions, whole networks, or making batches"
    parser.add_argument("--what", choices=what, default="lenet", help=text)
    _add_backend_option(parser)
    parser.add_argument("--batch-size", type=_count, help="images per step (default: 128; 8 for conv and networks)")
    names = "alexnet,vgg16,googlenet,resnet18,resnet50,resnet20"
    parser.add_argument("--networks", type=_names, default=names, help="of `nn.models`, for --what networks")
    parser.add_argument("--repeats", type=_count, default=50, help="measurements of each; the median is shown")
    parser.add_argument("--json", type=_file, metavar="FILE", help="also write the figures here")


def _add_fuzz_options(parser: argparse.ArgumentParser) -> None:
    _add_backends_option(parser, ("numpy", "opencl"), "(default: numpy,opencl)")
    parser.add_argument("--seconds", type=_positive, default=60, help="after this time no new program is run")
    parser.add_argument("--seed", type=_natural, help="determines what is drawn (default: drawn itself, and printed)")
    parser.add_argument("--workers", type=_count, help="processes (default: 2, or 1 on one core)")
    parser.add_argument("--what", type=_names, help="programs, rows, gradients, training (default: all)")
    parser.add_argument("--out", type=_folder, metavar="FOLDER", default=".", help="where reproducers are written")
    parser.add_argument("--chunk", type=_natural, help="run only these programs of the seed, whatever time they take")


def _add_diff_options(parser: argparse.ArgumentParser) -> None:
    _add_backends_option(parser, ("numpy", "opencl"), "(default: numpy,opencl)")
    parser.add_argument("--ops", type=_names, default=("all",), help="primitives, or all (default: all)")
    parser.add_argument("--examples", type=_count, default=5, help="of each primitive, and of its derivative")
    parser.add_argument("--seed", type=_natural, default=0, help="determines the examples")
    parser.add_argument("--example", type=_natural, metavar="N", help="print and run this one example alone")
    parser.add_argument("--json", type=_file, metavar="FILE", help="also write the figures here")


def _add_backends_option(parser: argparse.ArgumentParser, default: tuple[str, ...] | None, shown: str) -> None:
    text = f"names as `minigrad backends` lists them, or pkg.mod:Class, separated by commas {shown}"
    parser.add_argument("--backends", type=_names, default=default, metavar="NAMES", help=text)


def _add_data_option(parser: argparse.ArgumentParser) -> None:
    text = "where data sets lie (default: MINIGRAD_DATA, cache, download)"
    parser.add_argument("--data", metavar="FOLDER", help=text)


def _add_backend_option(parser: argparse.ArgumentParser) -> None:
    text = "as `minigrad backends` lists them, or pkg.mod:Class (default: MINIGRAD_BACKEND, else numpy)"
    parser.add_argument("--backend", metavar="NAME", help=text)


class _Parser(argparse.ArgumentParser):
    """One whose errors are two lines; a subcommand tells its own."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments, all of them known: those that are not are this parser's error, not that of one above."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read what is right; exits with 2."""
        self.exit(2, f"error: {message}\nusage: {self.prog} --help lists what there is\n")


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
    found = tuple(name.strip() for name in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected different names separated by commas, got {text!r}")
    return found


def _file(text: str) -> Path:
    """An argparse type: a file that can be written, which is known before the work whose result goes there."""
    path = Path(text)
    try:
        there = path.exists()
        path.open("a").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"expected a file to write, got {text!r}: {error.strerror}") from error
    return path


def _folder(text: str) -> Path:
    """An argparse type: a folder, made if it is not there, in which files can be made."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"expected a folder to write into, got {text!r}: {error.strerror}") from error
    return path


def _sizes(text: str) -> tuple[int, ...]:
    """An argparse type: positive integers with an x between them."""
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected sizes such as 3x224x224, got {text!r}")
    return tuple(map(int, parts))


_WORDS: dict[str, bool | None] = {**SWITCHES, "none": None}


def _option(text: str) -> tuple[str, object]:
    """An argparse type: a name and a Python literal, or a word."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _numbers(text: str) -> tuple[float, ...]:
    """An argparse type: numbers above 0, separated by commas."""
    return tuple(_positive(part) for part in text.split(","))


def _strengths(text: str) -> tuple[tuple[str, float], ...]:
    """An argparse type: pairs such as shift=2, separated by commas, or none."""
    if text == "none":
        return ()
    pairs = [part.partition("=") for part in text.split(",")]
    return tuple((name.strip(), _not_negative(value)) for name, _, value in pairs)


_natural = _number(int, "an integer of at least 0", lambda value: value >= 0)
_count = _number(int, "an integer of at least 1", lambda value: value >= 1)
_positive = _number(float, "a number above 0", lambda value: 0 < value < math.inf)
_not_negative = _number(float, "a number of at least 0", lambda value: 0 <= value < math.inf)
_share = _number(float, "a number between 0 and 1", lambda value: 0 <= value <= 1)
