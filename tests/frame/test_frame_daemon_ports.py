"""Service notification and the event loop's watchdog."""

import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hsmfs import limits, sdnotify
from hsmfs.watchdog import Host, LoopClock, LoopWatch, Stall, log_stall


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield s


def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not sdnotify.notify("READY=1")


def test_states_are_told(manager: socket.socket) -> None:
    sdnotify.ready("mounted on /srv")
    assert manager.recv(100) == b"READY=1\nSTATUS=mounted on /srv"
    sdnotify.stopping("finishing a burn")
    assert manager.recv(100) == b"STOPPING=1\nSTATUS=finishing a burn"
    sdnotify.status("idle")
    assert manager.recv(100) == b"STATUS=idle"
    sdnotify.extend(1.5)
    assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=1500000"


async def test_keep_alive_at_a_third_of_the_interval(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with trio.move_on_after(25):
        await sdnotify.keep_alive()
    assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3


async def test_keep_alive_ends_when_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await sdnotify.keep_alive()
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert sdnotify.watchdog_interval() is None


def spin(seconds: float) -> None:
    """Compute for so long, however long that takes on a busy machine."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def test_a_stall_is_seen_with_its_stack() -> None:
    seen: list[Stall] = []
    with LoopWatch(0.05, seen.append, sample=True) as watch:
        await trio.lowlevel.checkpoint()
        spin(0.2)
        while not watch.caught:  # on a busy machine the sampler may come late
            pass
        await trio.lowlevel.checkpoint()
    assert watch.stall_count == len(seen) == len(watch.stalls) == 1
    assert seen[0].seconds + seen[0].queued >= 0.2
    assert "spin(" in seen[0].stack
    assert sum(watch.counts) == watch.steps >= 1
    assert watch.worst == seen[0].seconds
    assert sum(watch.counts[7:]) == 1, "longer than 50 ms"


async def test_a_stack_is_not_that_of_another_step() -> None:
    with LoopWatch(0.05, sample=True) as watch:
        await trio.lowlevel.checkpoint()
        while not watch.caught:
            pass
        await trio.lowlevel.checkpoint()
        assert not watch.caught


async def test_what_the_host_took_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(Host, "took", lambda self: [0, next(seconds) * 10**9])
    with LoopWatch(0.05) as watch:
        await trio.lowlevel.checkpoint()
        spin(0.2)
        await trio.lowlevel.checkpoint()
    assert (watch.stall_count, watch.preempted) == (0, 1)
    assert watch.worst < 0.05 < 0.2 <= watch.worst_wall


def test_what_the_host_took_of_each_processor(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    lines = ["cpu  1 0 0 9 0 0 0 7", "cpu0 1 0 0 9 0 0 0 7", "cpu1 0 0 0 9 0 0 0 0", "intr 1"]
    stat.write_text("".join(f"{line} 0 0\n" for line in lines))
    assert Host(str(stat)).took() == [7 * 10**9 // os.sysconf("SC_CLK_TCK"), 0]
    assert Host(str(tmp_path / "none")).took() == []


def test_the_loop_and_its_watch_share_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are as long as they are, and sleeps end in time, whoever looked at the clock."""

    async def live(watch: LoopWatch, shared: LoopClock) -> float:
        with watch:
            await trio.sleep(0.1)
            spin(0.06)
            await trio.lowlevel.checkpoint()
            spin(0.03)
            began = shared.current_time()
            await trio.sleep(0.05)
            return shared.current_time() - began

    monkeypatch.setattr(Host, "took", lambda self: [0])  # of others, too
    shared = LoopClock()
    watch = LoopWatch(0.05, clock=shared)
    slept = trio.run(live, watch, shared, clock=shared)
    assert (watch.stall_count, len(watch.stalls)) == (1, 1)
    assert watch.worst_wall >= 0.06
    assert slept >= 0.05


async def test_a_wait_is_no_stall(loop_watch: LoopWatch, autojump_clock: MockClock) -> None:
    await trio.sleep(1000)
    await trio.to_thread.run_sync(time.sleep, 0.1)
    assert loop_watch.stall_count == 0


@pytest.mark.expect_log("event loop stalled")
def test_a_stall_is_logged() -> None:
    log_stall(Stall("task", 0.2, 0.0, ""))


def test_bounds_of_the_histogram_hold_the_threshold() -> None:
    from hsmfs.watchdog import BOUNDS

    assert limits.LOOP_STALL_SECONDS in BOUNDS
