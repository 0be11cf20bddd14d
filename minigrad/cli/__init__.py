"""The ``minigrad`` command: one module per subcommand, imported only when it runs."""

from __future__ import annotations

import codecs
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

from minigrad import device
from minigrad.cli.parser import make_parser
from minigrad.config import settings
from minigrad.errors import MinigradError
from minigrad.interrupt import Interrupts

_COMPARING = ("bisect", "diff", "fuzz")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0: done; 1: an error of minigrad's, printed as ``error: ...`` (with its traceback where ``MINIGRAD_DEBUG`` is 1 or
    more), but 2 from bisect, diff and fuzz, whose 1 says that backends differ; 130: stopped by Ctrl-C; 141: nobody
    reads the output any more (``| head``). Wrong usage raises ``SystemExit(2)``, as argparse does.

    Args:
        argv: the arguments; by default those of the process.
    """
    _show_what_can_be_shown()
    args = make_parser().parse_args(argv)
    device.look_here()
    debug = 0
    try:
        with Interrupts(raising=True):
            debug = settings.debug
            code: int = importlib.import_module(f"minigrad.cli.{args.command}").run(args)
            sys.stdout.flush()
    except MinigradError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2 if args.command in _COMPARING else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # what is still to be written when the interpreter ends goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


_STAND_INS = {"─": "-", "━": "-", "█": "#", "×": "x", "·": ".", "…": "~"}  # where an encoding has no such character


def _show_what_can_be_shown() -> None:
    """Have output streams replace characters that they cannot show: figures must not be lost over a line."""

    def stand_in(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(_STAND_INS.get(c, "?") for c in error.object[error.start : error.end]), error.end

    codecs.register_error("minigrad", stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="minigrad")
