"""Logs: one line a record whatever the bytes, priorities for the journal, floods bounded."""

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hsmfs import logs
from hsmfs.states import FileState


@pytest.fixture
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


Setup = Callable[..., io.StringIO]


@pytest.fixture
def log_to(root_as_it_was: None) -> Setup:
    def setup(**options: Any) -> io.StringIO:
        stream = io.StringIO()
        logs.setup(stream=stream, **options)
        return stream

    return setup


def test_logfmt(log_to: Setup) -> None:
    out = log_to(journal=False)
    logs.get("hsmfs.engine.recall").info(
        "recalled 100%s", ino=42, volume="S 1", state=FileState.MIGRATED, why=None, ok=True
    )
    line = out.getvalue()
    assert line.startswith("time=20")
    assert line.endswith(
        'level=info room=engine.recall event="recalled 100%s" ino=42 volume="S 1" '
        "state=migrated why=- ok=true\n"
    )


def test_names_of_any_bytes_stay_on_one_line(log_to: Setup) -> None:
    out = log_to(journal=True)
    name = b'\xff\n\x1b"a=b\\ \xe4\xb8\xad'
    for value in (name, os.fsdecode(name), Path(os.fsdecode(name))):
        logs.get("hsmfs.fs").info("x", path=value)
    line = '<6>level=info room=fs event=x path="\\xff\\n\\x1b\\"a=b\\\\ 中"'
    assert out.getvalue().splitlines() == [line] * 3


def test_json_reads_back(log_to: Setup) -> None:
    out = log_to(style="json", journal=False)
    logs.get("hsmfs.fs").info("moved", path=b"/a\xff", seconds=1.23456789)
    record = json.loads(out.getvalue())
    assert (record["event"], record["path"], record["seconds"]) == ("moved", "/a\\xff", 1.234568)


@pytest.mark.expect_log("bad|broke")
def test_journal_priorities_and_traces(log_to: Setup) -> None:
    out = log_to(journal=True)
    log = logs.get("hsmfs.x")
    log.debug("hidden")
    log.warning("bad")
    try:
        raise ValueError("why\nso")
    except ValueError as e:
        log.exception("broke", e)
    first, second = out.getvalue().splitlines()
    assert first.startswith("<4>level=warning")
    assert second.startswith("<3>level=error room=x event=broke error=why\\nso trace=")


def test_journal_is_found_by_its_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "stream", "w") as stream:
        at = os.fstat(stream.fileno())
        assert not logs.is_journal(stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{at.st_dev}:{at.st_ino}")
        assert logs.is_journal(stream)
    assert not logs.is_journal(io.StringIO())


@pytest.mark.expect_log("flood")
def test_floods_of_warnings_are_bounded_and_counted(
    log_to: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("hsmfs.logs.time.monotonic", lambda: now)
    out = log_to(journal=True)
    log = logs.get("hsmfs.x")
    for number in range(80):
        log.warning("flood", number=number)
        log.info("moved", number=number)
    now = 11.0
    log.warning("flood", number=80)
    lines = out.getvalue().splitlines()
    assert sum("event=moved" in line for line in lines) == 80
    assert sum("event=flood" in line for line in lines) == 51
    assert lines[-1].endswith("number=80 left_out=30")
