"""The CuPy backend on the recorder, as a backend that the conformance kit can be given::

    PYTHONPATH=tests python -m pytest -p minigrad.testing.plugin --pyargs minigrad.testing.conformance \\
        --backend cupy_recorded:RecordedCupy
"""

import sys
from functools import cache

from cupy_recorder import CUBLAS, Recorder

from minigrad.backends.cupy import driver
from minigrad.backends.cupy.backend import CupyBackend


@cache
def recorder():
    """The recorder of this process, which is CuPy for all of it."""
    made = Recorder(executes=True)
    made.level, made.limit = "-O0", 4 << 30
    sys.modules["cupy"], sys.modules[CUBLAS] = made.cupy, made.cublas
    driver._listing.cache_clear()
    return made


class RecordedCupy(CupyBackend):
    """CuPy and cuBLAS are recorded, functions executed by the CPU."""

    name = "cupy_recorded"

    @classmethod
    def available(cls):
        recorder()
        return driver.reason()
