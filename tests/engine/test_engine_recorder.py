"""Recorded traces: what is asked becomes lines that the simulator reads; full files turn over."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.config import TraceConfig
from hsmfs.engine.recorder import Recorder
from hsmfs.errors import Conflict, TraceError
from hsmfs.simulate import trace


async def test_recalls_and_burns_are_recorded_and_can_be_replayed(lab, tmp_path):
    file = tmp_path / "t.jsonl"
    inos = [await lab.file(b"f%d" % n, b"x" * 100_000) for n in range(2)]
    await lab.engine.recorder.start(file)
    with pytest.raises(Conflict):
        await lab.engine.recorder.start(file)
    await lab.archive(*inos, release=True)
    for ino in inos:
        await lab.engine.recaller.request(ino, RecallClass.BULK, "test")
    ended = await lab.engine.recorder.stop()
    found = trace.load(file)
    assert ended.requests == len(found.requests) == 3
    assert [(r.burn, r.urgency) for r in found.requests] == [
        (True, RecallClass.STANDARD), (False, RecallClass.BULK), (False, RecallClass.BULK),
    ]  # fmt: skip
    assert len(found.discs) == 1 and found.requests[1].places != found.requests[2].places
    assert found.magazines == [1], "it lies in a drive, out of the magazine"


async def test_a_full_file_is_turned_over_and_the_oldest_goes(lab, tmp_path, expect_log):
    file = tmp_path / "t.jsonl"
    settings = lab.engine.config.trace.model_copy(update={"size": 100, "keep": 2})
    recorder = Recorder(lab.engine.catalog, lab.engine.robot, settings)
    await recorder.start(file)
    for n in range(4):
        for _ in range(5):
            recorder.burn("S0001D01", 10 + n)
        await recorder._write()
    found = sorted(p.name for p in tmp_path.glob("t.jsonl*"))
    assert found == ["t.jsonl", "t.jsonl.1", "t.jsonl.2"]
    assert [r.size for r in trace.load(tmp_path / "t.jsonl.1").requests] == [13] * 5
    (tmp_path / "other").write_text("precious")
    with pytest.raises(TraceError, match="no trace of ours"):
        await Recorder(lab.engine.catalog, lab.engine.robot, settings).start(tmp_path / "other")
    assert (tmp_path / "other").read_text() == "precious"
    with pytest.raises(TraceError):
        await Recorder(lab.engine.catalog, lab.engine.robot, settings).start(tmp_path / "no/t")
    file.write_text("it is another's now " * 9)
    expect_log("trace ended")
    for _ in range(9):
        recorder.burn("S0001D01", 1)
    await recorder._write()
    assert recorder.now is None


async def test_it_sleeps_until_there_is_something_to_write(tmp_path, autojump_clock, monkeypatch):
    robot, writes = SimpleNamespace(magazine_of=lambda barcode: None), []
    recorder = Recorder(None, robot, TraceConfig())
    monkeypatch.setattr(recorder, "_file", tmp_path / "t.jsonl")

    async def write() -> None:
        writes.append(trio.current_time())

    monkeypatch.setattr(recorder, "_write", write)
    async with trio.open_nursery() as nursery:
        await nursery.start(recorder.run)
        await trio.sleep(3600.0)
        recorder.burn("S0001D01", 10)
        recorder.burn("S0001D02", 10)
        await trio.sleep(3600.0)
        assert writes == [3601.0]
        nursery.cancel_scope.cancel()
    assert len(writes) == 2, "at the end what is left"


async def test_without_a_recording_nothing_is_kept(lab):
    lab.engine.recorder.burn("S0001D01", 10)
    assert lab.engine.recorder.now is None
    with pytest.raises(Conflict):
        await lab.engine.recorder.stop()
