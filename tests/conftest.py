"""Shared by all tests: a clean environment, checks between stages, Hypothesis profiles, and the devices."""

import os
import random

# Before minigrad is imported: what a developer has set must not change what the tests see.
for _name in [n for n in os.environ if n.startswith("MINIGRAD_") and n != "MINIGRAD_DATA"]:
    del os.environ[_name]

import hypothesis
import numpy as np
import pytest

import minigrad
from minigrad import config
from minigrad import device as devices

# ci: the same examples every time, few of them, in time for each change. soak: new ones, for as long as it may take.
hypothesis.settings.register_profile(
    "ci", max_examples=30, derandomize=True, deadline=None, print_blob=True, database=None
)
hypothesis.settings.register_profile("soak", max_examples=3000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """Graphs and kernels are verified between stages; settings changed by a test are put back."""
    for name, value in vars(config.settings).items():
        monkeypatch.setattr(config.settings, name, value)
    monkeypatch.setattr(config.settings, "verify", True)


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)
    minigrad.manual_seed(0)


@pytest.fixture(params=[n for n, reason in devices.available_backends().items() if reason is None], scope="session")
def device(request):
    """The name of every backend that can run here, one after the other."""
    return request.param
