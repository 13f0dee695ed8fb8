"""What every test has: a quiet log, a seed that is printed, and reasons for skips."""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings

from hsmfs import clock, durable
from hsmfs.watchdog import LoopWatch

settings.register_profile(
    "hsmfs", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("hsmfs")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hsmfs")
    group.addoption("--seed", type=int, help="seed of random and hypothesis; printed at the end")
    group.addoption("--gc", action="store_true", help="collect garbage after each test")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # The controller draws the seed; xdist hands its options to the workers.
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**32)
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = config.option.seed


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    terminalreporter.write_line(f"seed {config.option.seed}: --seed={config.option.seed} repeats")


SMALL = """
[daemon]
mountpoint = "{0}/mnt"
state = "{0}/state"
socket = "{0}/sock"
[[pool]]
name = "pool"
path = "{0}/pool"
[library]
kind = "simulated"
path = "{0}/library"
drives = 2
magazines = 1
slots_per_magazine = 4
disc = "16 MiB"
exchange = "0 s"
load = "0 s"
seek = "0 s"
read_rate = "10 GB/s"
write_rate = "10 GB/s"
[engine]
spool = "{0}/spool"
spool_limit = "1 GiB"
min_residence = "0 s"
"""


@pytest.fixture
def patient_clock(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> trio.testing.MockClock:
    """As autojump_clock, but time stands still while a thread or a sync works.

    Not while it waits for the loop itself, as readers of a drive do.
    """
    working = 0

    def work(more: int) -> None:
        nonlocal working
        working += more
        autojump_clock.autojump_threshold = math.inf if working else 0.01

    def counted(wait: Callable[..., Awaitable[Any]], more: int) -> Callable[..., Awaitable[Any]]:
        async def run(*args: Any, **kwargs: Any) -> Any:
            work(more)
            try:
                return await wait(*args, **kwargs)
            finally:
                work(-more)

        return run

    to_loop = trio.from_thread.run
    monkeypatch.setattr(trio.to_thread, "run_sync", counted(trio.to_thread.run_sync, 1))
    monkeypatch.setattr(durable, "flushed", counted(durable.flushed, 1))
    monkeypatch.setattr(clock.Beside, "run", counted(clock.Beside.run, 1))
    monkeypatch.setattr(
        trio.from_thread, "run", lambda f, *args, **more: to_loop(counted(f, -1), *args, **more)
    )
    autojump_clock.autojump_threshold = 0.01
    return autojump_clock


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A configuration with one pool and a small library without delays, in a temporary folder."""
    (tmp_path / "mnt").mkdir()
    path = tmp_path / "hsmfs.toml"
    path.write_text(SMALL.format(tmp_path))
    return path


def fuse_problem() -> str | None:
    """Why nothing can be mounted here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return f"/dev/fuse: {e.strerror}"
    return None


LONG_S = 300
"""A test with a longer timeout than that is begun first, lest it be left to the end."""


def _long_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """xdist gives each worker a quarter of its share to begin with: that begins with long tests."""

    def is_long(item: pytest.Item) -> bool:
        marker = item.get_closest_marker("timeout")
        return marker is not None and marker.args[0] > LONG_S

    long = [item for item in items if is_long(item)]
    rest = [item for item in items if not is_long(item)]
    share = max(len(items) // workers // 4, 2)
    order = list[pytest.Item]()
    for worker in range(workers):
        order += long[worker::workers]
        fill = max((worker + 1) * share - len(order), 0)
        order += rest[:fill]
        del rest[:fill]
    return order + rest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if workers := getattr(config, "workerinput", {}).get("workercount", 0):
        items[:] = _long_ones_first(items, workers)
    reasons = {
        "root": None if os.geteuid() == 0 else "needs root",
        "mount": fuse_problem(),
    }
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


class _Loud(logging.Handler):
    """Collects what no test may log unless it says so."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []
        self.allowed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def unexpected(self) -> list[str]:
        lines = [
            f"{r.levelname} {r.name}: {r.getMessage()} {getattr(r, 'fields', '')}"
            for r in self.records
        ]
        return [line for line in lines if not any(re.search(a, line) for a in self.allowed)]


_loud = pytest.StashKey[_Loud]()


@contextmanager
def _listening(item: pytest.Item) -> Iterator[_Loud]:
    loud = _Loud()
    loud.allowed = [str(mark.args[0]) for mark in item.iter_markers("expect_log")]
    item.stash[_loud] = loud
    root = logging.getLogger()
    root.addHandler(loud)
    try:
        yield loud
    finally:
        root.removeHandler(loud)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _listening(item) as loud:
        result = yield
    if unexpected := loud.unexpected():
        pytest.fail("logged without @pytest.mark.expect_log:\n" + "\n".join(unexpected))
    if item.config.getoption("--gc"):
        gc.collect()
    return result


@pytest.fixture
def expect_log(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`expect_log("regex")` allows lines that match from now on, as the marker does for all."""

    def allow(regex: str) -> None:
        request.node.stash[_loud].allowed.append(regex)

    return allow


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    random.seed(request.config.option.seed)


@pytest.fixture
async def loop_watch() -> AsyncIterator[LoopWatch]:
    """Fails the test if any step of the event loop takes longer than 50 ms."""
    with LoopWatch(sample=True) as watch:
        yield watch
    assert not watch.stalls, "\n".join(map(str, watch.stalls))


@pytest.fixture
def repo() -> Path:
    """The checkout."""
    return Path(__file__).parent.parent
