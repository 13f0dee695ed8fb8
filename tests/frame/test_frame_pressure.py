"""When a disk counts as busy."""

from __future__ import annotations

import pytest

from hsmfs import clock, logs, pressure
from hsmfs.pressure import DiskPressure

LINE = " {major} 0 {name} 5 6 7 8 9 10 11 12 {flying} 14 15 16 17 18 19 20\n"


@pytest.fixture
def now(monkeypatch):
    class Now:
        ns = 10**9

    monkeypatch.setattr(pressure.time, "monotonic_ns", lambda: Now.ns)
    return Now


def disks(path, flying, major=8):
    path.write_text(
        LINE.format(major=7, name="loop0", flying=0)
        + LINE.format(major=major, name="sda", flying=flying)
    )
    return DiskPressure(str(path))


def test_requests_in_flight_count_for_a_while(tmp_path, now):
    seen = disks(tmp_path / "stats", 9)
    assert seen.busy()
    disks(tmp_path / "stats", 0)
    now.ns += 5 * 10**7
    assert seen.busy()
    now.ns += 10**9
    assert not seen.busy()


def test_burning_a_disc_does_not_count(tmp_path, now):
    assert not disks(tmp_path / "stats", 9, major=11).busy()


def test_a_slow_call_counts(tmp_path, now):
    seen = disks(tmp_path / "stats", 0)
    seen.took(9_000_000)
    assert not seen.busy()
    seen.took(30_000_000)
    assert seen.busy()


def test_nobody_can_tell(tmp_path, now):
    assert DiskPressure(str(tmp_path / "none")).busy()


def test_jobs_beside_are_done_in_order():
    done, beside = [], clock.Beside("test")
    for number in range(100):
        beside.do(lambda number=number: done.append(number))
    beside.end()
    assert done == list(range(100))


def test_a_log_written_beside_is_whole_after_a_flush(tmp_path):
    with open(tmp_path / "log", "w", encoding="utf-8") as stream:
        handler = logs._Aside(stream)
        for number in range(100):
            handler.emit(logs.logging.makeLogRecord({"msg": f"line {number}"}))
        handler.flush()
        assert (tmp_path / "log").read_text().splitlines() == [
            f"line {number}" for number in range(100)
        ]
