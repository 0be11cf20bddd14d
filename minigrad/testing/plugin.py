"""The pytest plugin of the conformance kit: which backends are tested, how thoroughly, and what was not tested and why.

::

    pytest -p minigrad.testing.plugin --pyargs minigrad.testing.conformance --backend NAME-or-pkg.mod:Class
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

LEVELS = (
    "memory and copies",
    "elementwise primitives and casts",
    "movement, reductions, scans and indexing",
    "contractions and windows",
    "derivatives",
    "programs, captured steps and training",
)
DECLARED = "declared: "  # how the reason of a skip begins that a backend's own capabilities give
DEVICES = pytest.StashKey[list[str]]()
_PROFILES = {
    "ci": "the same few examples every time",
    "soak": "new examples, and a hundred times as many",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the kit."""
    group = parser.getgroup("minigrad", "conformance of minigrad's backends")
    group.addoption(
        "--backend",
        metavar="NAME",
        help="backends to test, as `minigrad backends` lists them, or pkg.mod:Class; separated by commas "
        "(default: all that can run here)",
    )
    group.addoption(
        "--level",
        type=int,
        metavar="N",
        default=len(LEVELS) - 1,
        help="test levels 0 to N: " + ", ".join(f"{n} {name}" for n, name in enumerate(LEVELS)),
    )
    choices = "; ".join(f"{name}: {text}" for name, text in _PROFILES.items())
    group.addoption("--profile", choices=_PROFILES, default="ci", help=choices)


def pytest_configure(config: pytest.Config) -> None:
    """Settle which backends are tested, before tests are collected."""
    config.addinivalue_line("markers", "level(n): the level of the conformance kit that a test belongs to")
    _load_profile(config.getoption("--profile"))
    from minigrad.errors import MinigradError

    try:
        config.stash[DEVICES] = _devices(config.getoption("--backend"))
    except MinigradError as error:
        raise pytest.UsageError(str(error)) from error


def _load_profile(name: str) -> None:
    from hypothesis import settings

    settings.register_profile(
        "ci", max_examples=30, derandomize=True, deadline=None, print_blob=True, database=None
    )
    settings.register_profile("soak", max_examples=3000, deadline=None, print_blob=True)
    settings.load_profile(name)


def _devices(wanted: str | None) -> list[str]:
    """The devices to test, opened."""
    from minigrad import device

    if wanted is None:
        return [name for name, reason in device.available_backends().items() if reason is None]
    return [device.canonical(_registered(name)) for name in wanted.split(",")]


def _registered(name: str) -> str:
    """``pkg.mod:Class`` made known under its own name; any other name as it is."""
    from minigrad import device

    module, _, attribute = name.partition(":")
    if not attribute.isidentifier() or module in device.available_backends():
        return name
    return device.register(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per device."""
    if "device" in metafunc.fixturenames:
        found = metafunc.config.stash[DEVICES]
        metafunc.parametrize("device", found, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The name of every backend under test, one after the other."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _verified() -> Iterator[None]:
    """Graphs and kernels are verified between stages; random numbers start anew; settings are put back."""
    from minigrad import config, manual_seed

    manual_seed(0)
    with config.settings.override(**vars(config.settings) | {"verify": True}):
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the levels above the one asked for."""
    level = config.getoption("--level")
    left_out = [item for item in items if any(m.args[0] > level for m in item.iter_markers("level"))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What each backend declares."""
    from minigrad import device, dtypes

    lines = []
    for name in config.stash[DEVICES]:
        can = device.get(name).backend.capabilities
        kinds = ", ".join(d.name for d in dtypes.ALL if d in can.dtypes)
        lines.append(f"backend {name}: {_described(name)}")
        lines.append(f"  dtypes: {'all' if len(can.dtypes) == len(dtypes.ALL) else kinds}")
        lines.append(
            f"  flush_denormals: {can.flush_denormals}, contracts_fma: {can.contracts_fma}, "
            f"deterministic: {can.deterministic}, max_allocation: {can.max_allocation}, "
            f"unsupported: {', '.join(sorted(can.unsupported)) or 'none'}"
        )
    return lines


def _described(name: str) -> str:
    from minigrad import device

    kind, _, index = name.partition(":")
    return device.device_names(kind)[int(index or 0)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was left out because a backend declares that it cannot do it."""
    reasons = Counter(
        report.longrepr[2].partition(DECLARED)[2]
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and DECLARED in report.longrepr[2]
    )
    if reasons:
        terminalreporter.section("left out, as declared")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")
