"""tools/conformance: what counts as a failure, and the temporary hsmfs's configuration."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools/lib"))

import suites  # noqa: E402
from churn import Churn  # noqa: E402
from churn import _outcome as churn_outcome  # noqa: E402
from tempfs import TempFs  # noqa: E402

from hsmfs import config  # noqa: E402


def _program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def _suite(folder: Path, **scripts: str) -> Path:
    _program(folder / "pjdfstest", "exit 0")
    for name, body in scripts.items():
        _program(folder / "tests" / "group" / f"{name}.t", body)
    return folder


def _run(suite: Path, folder: Path, limit_s: float = 30) -> suites.Outcome:
    return suites.pjdfstest(
        suite, folder, jobs=2, limit_s=limit_s, only=None, report=lambda line: None
    )


@pytest.mark.root
def test_failed_missing_and_todo_tests_are_told_apart(tmp_path: Path) -> None:
    suite = _suite(
        tmp_path / "suite",
        fails="echo 1..3; echo ok 1; echo 'not ok 2 - tried x, got EIO'; echo 'not ok 3 # TODO y'",
        short="echo 1..4; echo ok 1",
        good="echo 1..1; echo ok 1",
    )
    outcome = _run(suite, tmp_path)
    assert outcome.ran == 5
    assert outcome.failures == {
        "group/fails#2": "tried x, got EIO",
        "group/short#plan": "ran 1 of 4 tests",
    }


@pytest.mark.root
def test_a_script_that_hangs_is_stopped_and_fails(tmp_path: Path) -> None:
    outcome = _run(_suite(tmp_path / "suite", hangs="echo 1..1; sleep 600"), tmp_path, 0.2)
    assert outcome.failures == {"group/hangs#plan": "ran 0 of 1 tests, stopped after 0.2 s"}


def test_only_new_failures_and_tree_differences_count() -> None:
    baseline = suites.Outcome(2, {"a#1": "EIO"}, {"f": "x", "gone": "y"})
    mount = suites.Outcome(2, {"a#1": "EIO", "b#1": "ENOENT"}, {"f": "z"})
    assert suites.new_failures(mount, baseline) == {
        "b#1": "ENOENT",
        "tree f": "expected x, got z",
        "tree gone": "expected y, got absent",
    }


def test_a_tree_shows_content_links_and_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    odd = os.fsencode(folder) + b"/\xff\xe4"
    Path(os.fsdecode(odd)).write_text("one")
    os.link(odd, folder / "second")
    before = suites.tree(folder)
    assert "links 2" in before["second"]
    assert before["second"] == before[os.fsdecode(b"\xff\xe4")]
    (folder / "second").write_text("two")
    assert suites.tree(folder)["second"] != before["second"]


def test_churn_that_moves_nothing_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    control = _program(tmp_path / "bin" / "hsmctl", 'echo "no such disc" >&2; exit 4')
    with Churn([str(control)], tmp_path, seed=1) as churn:
        while not all(churn.refused[verb] for verb in ("archive", "release", "recall")):
            time.sleep(0.01)
    faults = churn.faults()
    assert set(faults) == {"churn archive", "churn release", "churn recall"}
    assert "no such disc" in faults["churn recall"]


def test_the_tool_ends_with_a_verdict(tmp_path: Path) -> None:
    fsx = _program(tmp_path / "fsx", 'for last; do :; done; echo "READ BAD DATA"; exit 120')
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools/conformance", "fsx", "--binary", fsx, "--procs", "1",
         "--on", tmp_path, "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["holds"] is False
    assert result["failures"] == {"fsx seed 1": "exit status 120: READ BAD DATA"}


def test_a_suite_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools/conformance", "fsstress", "--binary",
         tmp_path / "none", "--on", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{tmp_path}/none: not there" in done.stderr


def test_a_temporary_hsmfs_has_a_valid_configuration(tmp_path: Path) -> None:
    fs = TempFs({"library": {"drives": 3}, "pool": {"capacity": "1 GiB"}}, folder=tmp_path / "t",
                python=Path(sys.executable))  # fmt: skip
    fs.lay_out()
    loaded = config.load(fs.config)
    assert loaded.library.drives == 3
    assert loaded.pool[0].capacity == 2**30
    assert stat.S_IMODE(fs.folder.stat().st_mode) == 0o755


def test_a_suite_is_held_still_and_goes_on(tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    loop = f"while :; do echo >> {ticks}; sleep 0.01; done"
    # Not sh: dash forks by vfork, so that with a child stopped before its exec it waits as "D".
    suite = threading.Thread(target=suites._run, args=(["/bin/bash", "-c", loop], tmp_path, 600))
    suite.start()
    while not (ticks.exists() and suites._running):
        time.sleep(0.01)
    (group,) = suites._running
    state = Path(f"/proc/{group}/stat")
    try:
        with suites.held_still():
            while state.read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.01)
            seen = ticks.stat().st_size
            time.sleep(0.1)
            assert ticks.stat().st_size - seen <= 1, "only a child that was about to write"
        while ticks.stat().st_size <= seen + 1:
            time.sleep(0.01)
    finally:
        os.killpg(group, signal.SIGKILL)
        suite.join()
    assert not suites._running


def test_an_outcome_is_told_from_an_error() -> None:
    end = '{"files": 2, "bytes": 5, "failed": 0}'
    assert churn_outcome(f'{{"kind": "step"}}\n{end}\n'.encode()) == json.loads(end)
    assert churn_outcome(json.dumps(json.loads(end), indent=2).encode()) == json.loads(end)
    assert churn_outcome(b'{"error": "NotFound"}') is None
    assert churn_outcome(b"") is None
