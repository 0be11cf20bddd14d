"""Shared by all tests: a clean environment, then the plugin, which gives devices, settings and Hypothesis profiles."""

import os
import random

import numpy as np
import pytest

# Before minigrad is imported: what a developer has set must not change what the tests see.
for _name in [n for n in os.environ if n.startswith("MINIGRAD_") and n != "MINIGRAD_DATA"]:
    del os.environ[_name]

pytest_plugins = ["minigrad.testing.plugin"]


@pytest.fixture(autouse=True)
def _same_start(monkeypatch):
    """Whatever ran before: seeds of others, and no default device of a test's own."""
    random.seed(0)
    np.random.seed(0)
    monkeypatch.setattr("minigrad.device._process_default", [])
