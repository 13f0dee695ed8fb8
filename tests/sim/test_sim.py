"""A short life from each of some seeds, an exact replay, and a failure that shrinks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsmfs import clock
from hsmfs.pool.store import Pool
from hsmfs.types import InodeNo

from . import disks, machine

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.programs("xorriso")


def sim(*words: str, nice: int = 0) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a simulation takes the whole process over."""
    return subprocess.run(
        ["nice", f"-n{nice}", sys.executable, "-m", "tests.sim", *words],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"}, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_is_lost_in_some_short_lives():
    seeds = ("--seeds", "250", "--first", "1000", "--years", "0.08", "--events", "6")
    done = sim(*seeds, nice=19)  # it computes, and others wait and have limits
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("library", [("--whole",), ("--arms", "2"), ("--whole", "--arms", "2")])
def test_nothing_is_lost_in_other_libraries(library):
    done = sim(*library, "--seeds", "25", "--years", "0.08", "--events", "6", nice=19)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize("how", [(), ("--whole",)])
def test_a_seed_replays_exactly(how):
    first, second = (sim("--seed", "7", "--events", "6", *how) for _ in range(2))
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    assert first.stdout.split("trace ")[-1] == second.stdout.split("trace ")[-1]


def test_a_planted_bug_is_found_and_its_plan_shrinks():
    done = sim("--seed", "1", "--years", "0.5", "--events", "14", "--mutant", "retention-ignored",
               "--shrink")  # fmt: skip
    assert done.returncode == 1
    assert "was deleted before its time" in done.stdout
    assert " to 1 steps" in done.stdout


def test_who_changes_a_file_dates_it_by_the_simulated_clock(tmp_path, monkeypatch):
    """The real time would be in manifests and snapshots, and a disc a sector larger by chance."""
    monkeypatch.setattr(clock, "now_ns", lambda: 5 * 10**9)
    Pool.create(tmp_path / "pool")
    fd = machine._born_dated(Pool("p", tmp_path / "pool"), InodeNo(7), create=True)
    assert os.fstat(fd).st_mtime_ns == 5 * 10**9
    os.close(fd)
    with (tmp_path / "f").open("wb") as file:
        machine._dated(os.pwrite)(file.fileno(), b"x", 0)
        assert os.fstat(file.fileno()).st_mtime_ns == 5 * 10**9
        file.flush()
        kept = disks.Disks(tmp_path)
        kept._copy(file.name)
    assert (tmp_path / "durable" / "f").stat().st_mtime_ns == 5 * 10**9
