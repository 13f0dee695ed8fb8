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


@pytest.mark.parametrize(
    ("took_ms", "slept", "counts"), [(9, True, False), (30, True, True), (30, False, False)]
)
def test_a_call_that_slept_for_long_counts(tmp_path, now, monkeypatch, took_ms, slept, counts):
    """One that is slow because others have the processor does not."""
    seen = disks(tmp_path / "stats", 0)
    assert not seen.busy()
    sleeps = seen.begin()
    now.ns += took_ms * 10**6
    monkeypatch.setattr(pressure, "_sleeps", lambda: sleeps + slept)
    seen.ended(sleeps)
    assert seen.busy() == counts


def test_dirty_pages_are_looked_at_now_and_then(tmp_path, now, monkeypatch):
    monkeypatch.setattr(pressure, "DISK", disks(tmp_path / "stats", 0))
    file = tmp_path / "vmstat"
    lines = "nr_dirty {}\nnr_writeback 1\nnr_dirty_background_threshold 9\n"
    file.write_text(lines.format(2))
    seen = pressure.WritePressure(str(file))
    assert not seen.may_block(1)
    file.write_text(lines.format(8))
    assert not seen.may_block(1)
    now.ns += 10**8
    assert seen.may_block(1)
    assert pressure.WritePressure(str(tmp_path / "none")).may_block(1)


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
