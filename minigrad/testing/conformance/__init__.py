"""The conformance suite: what every backend must do, as tests that run on any installed one.

::

    pytest -p minigrad.testing.plugin --pyargs minigrad.testing.conformance --backend NAME-or-pkg.mod:Class

Its levels build on one another, from memory (0) over primitives (1 to 3) and derivatives (4) to programs and training
(5), so that a backend in the making passes one after the other; ``--level N`` stops at one. What a backend declares
that it cannot do is left out and counted; what it declares that it does is checked.
"""
