"""Backends with planted faults, for the tests of the tools that must find them: NumPy's, but for one primitive."""

import os
import time
from dataclasses import replace

from minigrad.backends.numpy import NumpyBackend


class Wrong(NumpyBackend):
    """Takes one primitive for another."""

    name = "wrong"
    planted, instead = "sigmoid", "tanh"

    def lower(self, kernel):
        body = tuple(
            i._replace(op=self.instead) if i.op == self.planted and self.strikes() else i for i in kernel.epilogue
        )
        return super().lower(replace(kernel, epilogue=body))

    def strikes(self):
        """Called when the primitive is met; whether its result is wrong."""
        return True


class Raises(Wrong):
    """Cannot compile the primitive, and does not declare it."""

    name = "raises"

    def strikes(self):
        raise RuntimeError("the planted compiler error")


class Dies(Wrong):
    """Takes the process with it, as drivers do."""

    name = "dies"

    def strikes(self):
        os.abort()


class Hangs(Wrong):
    """Never answers."""

    name = "hangs"

    def strikes(self):
        time.sleep(1000)


class Lacks(NumpyBackend):
    """Declares that it does not have the primitive."""

    name = "lacks"
    capabilities = replace(NumpyBackend.capabilities, unsupported=frozenset({"sigmoid"}))
