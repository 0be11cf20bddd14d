"""How the ``minigrad`` command is called here, for messages that tell a person what to type."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command() -> str:
    """By its name where the shell finds it, else as this process was called; from another program, as a module.

    >>> command().split()[-2:]
    ['-m', 'minigrad']
    """
    called = sys.argv[0]
    if Path(called).stem != "minigrad":
        return f"{shlex.quote(sys.executable)} -m minigrad"
    found = shutil.which("minigrad")
    return "minigrad" if found and os.path.exists(called) and os.path.samefile(found, called) else shlex.quote(called)
