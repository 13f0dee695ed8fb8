"""A short life from each of some seeds, an exact replay, and a failure that shrinks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.programs("xorriso")


def sim(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a simulation takes the whole process over."""
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", *words], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"}, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_in_some_short_lives():
    done = sim("--seeds", "250", "--first", "1000", "--years", "0.08", "--events", "6")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_a_seed_replays_exactly():
    first, second = (sim("--seed", "7", "--events", "6") for _ in range(2))
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    assert first.stdout.split("trace ")[-1] == second.stdout.split("trace ")[-1]


def test_a_planted_bug_is_found_and_its_plan_shrinks():
    done = sim("--seed", "1", "--years", "0.5", "--events", "14", "--mutant", "retention-ignored",
               "--shrink")  # fmt: skip
    assert done.returncode == 1
    assert "was deleted before its time" in done.stdout
    assert " to 1 steps" in done.stdout
