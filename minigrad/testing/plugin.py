"""The pytest plugin of the conformance kit: which backends are tested, how thoroughly, and what was not tested and why.

::

    pytest -p minigrad.testing.plugin --pyargs minigrad.testing.conformance --backend NAME-or-pkg.mod:Class
"""

from __future__ import annotations

import functools
import math
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from minigrad.errors import BackendUnavailable, MinigradError

LEVELS = (
    "memory and copies",
    "elementwise primitives and casts",
    "movement, reductions, scans and indexing",
    "contractions and windows",
    "derivatives",
    "programs, captured steps and training",
)
SHRINKING = 20.0  # seconds: Hypothesis takes minutes, and nothing is shown meanwhile
DECLARED = "declared: "  # how the reason of a skip begins that a backend's own capabilities give
DEVICES = pytest.StashKey[dict[str, str]]()  # devices under test -> how the command line named them
SUITE = "minigrad.testing.conformance"
_OUTCOMES = ("passed", "failed", "skipped", "left out as declared")
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
        choices=range(len(LEVELS)),
        metavar="N",
        default=len(LEVELS) - 1,
        help="test levels 0 to N: " + ", ".join(f"{n} {name}" for n, name in enumerate(LEVELS)),
    )
    choices = "; ".join(f"{name}: {text}" for name, text in _PROFILES.items())
    group.addoption("--profile", choices=_PROFILES, default="ci", help=choices)


def pytest_configure(config: pytest.Config) -> None:
    """Settle which backends are tested, before tests are collected."""
    config.addinivalue_line("markers", "level(n): the level of the conformance kit that a test belongs to")
    try:
        _load_profile(config.getoption("--profile"))
        config.stash[DEVICES] = _devices(config.getoption("--backend"))
    except MinigradError as error:
        raise pytest.UsageError(str(error)) from error


def _load_profile(name: str) -> None:
    from minigrad import extras

    settings = extras.load("hypothesis", "test").settings
    settings.register_profile("ci", max_examples=30, derandomize=True, deadline=None, print_blob=True, database=None)
    settings.register_profile("soak", max_examples=3000, deadline=None, print_blob=True)
    settings.load_profile(name)


def _devices(wanted: str | None) -> dict[str, str]:
    """The devices to test, opened, each with the name that was given for it."""
    from minigrad import device

    if wanted is None:
        return {name: name for name, reason in device.available_backends().items() if reason is None}
    device.look_here()  # a backend in the making is where its author stands; `pytest` alone does not look
    return {_opened(name): name for name in wanted.split(",")}


def _opened(name: str) -> str:
    from minigrad import device

    try:
        return device.canonical(name)
    except MinigradError:
        raise
    except Exception as error:  # a plugin may fail in any way when its device is opened
        got = f"{name!r}: {type(error).__name__}: {error}"
        raise BackendUnavailable.of("--backend", "a device that can be opened", got) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per device."""
    if "device" in metafunc.fixturenames:
        found = metafunc.config.stash[DEVICES]
        metafunc.parametrize("device", list(found), indirect=True, scope="session")


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
    """Leave out the levels above the one asked for; what is left runs level by level."""
    highest = config.getoption("--level")
    left_out = []
    for item in items:
        marker = item.get_closest_marker("level")
        if marker is not None:
            item.user_properties.append(("level", marker.args[0]))
            if marker.args[0] > highest:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
    items.sort(key=_level)


def _level(tested: Any) -> int:
    """The level of a test or of its report; -1 of one that has none."""
    return int(dict(tested.user_properties).get("level", -1))


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """A failing example is shrunk for :data:`SHRINKING` seconds or until Ctrl-C; then the last one is what failed."""
    given = getattr(pyfuncitem.obj, "hypothesis", None)
    if given is None:
        yield
        return
    from hypothesis.errors import HypothesisException

    from minigrad.testing.shrinking import Enough

    inner, failure, until = given.inner_test, None, math.inf

    @functools.wraps(inner)
    def watched(*args: Any, **kwargs: Any) -> None:
        nonlocal failure, until
        if time.monotonic() > until:
            raise Enough
        try:
            inner(*args, **kwargs)
        except HypothesisException:  # no failure, but how an example is given up
            raise
        except (Exception, pytest.fail.Exception) as error:
            failure, until = error, min(until, time.monotonic() + SHRINKING)
            raise

    given.inner_test = watched
    outcome: Any = yield
    given.inner_test = inner
    if failure is not None and isinstance(outcome.exception, KeyboardInterrupt):
        if not isinstance(outcome.exception, Enough):
            pyfuncitem.session.shouldstop = "Ctrl-C"
        pyfuncitem.add_report_section("call", "example", "It may be not the smallest: shrinking was cut short.")
        outcome.force_exception(failure)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure's report ends with the command that runs it again."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and "device" in getattr(item, "fixturenames", ()):
        report.sections.append(("run it again with", _command(item)))


def _command(item: pytest.Item) -> str:
    given = item.config.stash[DEVICES]
    words = ["pytest", "-p", "minigrad.testing.plugin"]
    module = getattr(item, "module", None)
    if module is not None and module.__name__.startswith(SUITE):
        words += ["--pyargs", "::".join([module.__name__, *item.nodeid.split("::")[1:]])]
    else:
        words.append(item.nodeid)
    callspec = getattr(item, "callspec", None)
    device = callspec.params.get("device") if callspec is not None else None
    if device in given:
        words += ["--backend", given[device]]
    profile = item.config.getoption("--profile")
    return shlex.join(words + (["--profile", profile] if profile != "ci" else []))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Which levels run, and what each backend declares."""
    import numpy as np

    import minigrad
    from minigrad import device, dtypes

    profile = config.getoption("--profile")
    lines = [
        f"minigrad {minigrad.__version__}, numpy {np.__version__}; levels 0 to {config.getoption('--level')}, "
        f"profile {profile}: {_PROFILES[profile]}"
    ]
    for name in config.stash[DEVICES]:
        backend = device.get(name).backend
        can = backend.capabilities
        kinds = ", ".join(d.name for d in dtypes.ALL if d in can.dtypes)
        lines.append(f"backend {name}: {_described(name)} ({type(backend).__module__}:{type(backend).__qualname__})")
        lines.append(f"  dtypes: {'all' if len(can.dtypes) == len(dtypes.ALL) else kinds}")
        lines.append(
            f"  flush_denormals: {can.flush_denormals}, contracts_fma: {can.contracts_fma}, "
            f"deterministic: {can.deterministic}, max_allocation: {can.max_allocation}"
        )
        lines.append(f"  epilogues: {', '.join(sorted(can.epilogues)) or 'none'}")
        lines.append(f"  unsupported: {', '.join(sorted(can.unsupported)) or 'none'}")
    return lines


def _described(name: str) -> str:
    from minigrad import device

    kind, _, index = name.partition(":")
    return device.device_names(kind)[int(index or 0)]


def _declared(report: Any) -> str | None:
    """What a skipped test needs that a backend declares it does not have; None for any other report."""
    if not report.skipped or not isinstance(report.longrepr, tuple):
        return None
    _, found, reason = report.longrepr[2].partition(DECLARED)
    return reason if found else None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was left out because a backend declares that it cannot do it, and the totals of each level."""
    reports = [r for found in terminalreporter.stats.values() for r in found if isinstance(r, pytest.TestReport)]
    reasons = Counter(reason for report in reports if (reason := _declared(report)) is not None)
    if reasons:
        terminalreporter.section("left out, as declared")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")
    totals: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for report in reports:
        level = _level(report)
        if level >= 0 and (report.when == "call" or not report.passed):
            totals[level]["left out as declared" if _declared(report) is not None else report.outcome] += 1
    if totals:
        terminalreporter.section("levels")
        for level in sorted(totals):
            counts = (f"{totals[level][what]} {what}" for what in _OUTCOMES if totals[level][what])
            terminalreporter.write_line(f"level {level} {LEVELS[level]}: {', '.join(counts)}")
