"""Tools that prove a backend, a primitive or a derivative right; for minigrad's own tests and for others'.

:func:`check_grads` checks derivatives against finite differences. :mod:`~minigrad.testing.evaluate` runs a graph on
the float64 oracle, :mod:`~minigrad.testing.bounds` says how far a device may be from it, and
:mod:`~minigrad.testing.strategies` draws inputs for every primitive, and whole programs (it needs Hypothesis, as in
``pip install minigrad[test]``). :mod:`~minigrad.testing.conformance` is the suite that every backend passes.
"""

from minigrad.testing.bounds import bounded, compare
from minigrad.testing.evaluate import evaluate, run
from minigrad.testing.gradients import check_grads, check_vjps

__all__ = ["bounded", "check_grads", "check_vjps", "compare", "evaluate", "run"]
