"""The main job from end to end: a real daemon, a real mount, hsmctl as people call it."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tools.lib.tempfs import TempFs, TempFsError

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture
def fs(tmp_path: Path):
    with TempFs(folder=tmp_path / "fs") as running:
        yield running


def contents() -> dict[bytes, bytes]:
    rng = random.Random(1)
    names = [b"scan.dcm", "患者/影像 1.dcm".encode(), b"bad\xff", b"empty", b"deep/er/f"]
    sizes = [300_000, 5_000_000, 70_000, 0, 4096]
    return {name: rng.randbytes(size) for name, size in zip(names, sizes, strict=True)}


def copy_in(fs: TempFs) -> dict[bytes, bytes]:
    files = contents()
    for name, data in files.items():
        path = os.path.join(os.fsencode(fs.mountpoint), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(data)
    return files


def read_back(fs: TempFs, files: dict[bytes, bytes]) -> None:
    for name, data in files.items():
        path = os.path.join(os.fsencode(fs.mountpoint), name)
        assert Path(os.fsdecode(path)).read_bytes() == data


def test_a_path_goes_to_a_disc_and_comes_back(fs: TempFs) -> None:
    files = copy_in(fs)
    large = fs.mountpoint / "患者/影像 1.dcm"
    assert "5 files archived" in fs.control("archive", "--now", "--wait", fs.mountpoint)
    assert "5 files released" in fs.control("release", fs.mountpoint)
    info = fs.ask("info", large)
    assert info["entry"]["state"] == "migrated"
    assert info["proven_copies"] == 1
    assert "nobody reads it" in fs.control("why", large)
    assert str(large) in fs.control("find", "--state", "migrated")
    assert large.stat().st_blocks * 512 < 100_000
    read_back(fs, files)
    assert fs.ask("info", large)["entry"]["state"] == "premigrated"
    fs.control("release", large)
    assert "covers it" in fs.control("recall", "--estimate", large)
    assert "1 file recalled" in fs.control("recall", "--wait", large)
    assert "1 on disk already" in fs.control("prefetch", large)
    wishes = fs.folder / "wishes.list"
    wishes.write_text("path /患者/影像 1.dcm\n")
    assert "1 on disk already" in fs.control("prefetch", "--list", wishes)
    assert "counts at once" in fs.control("config", "reload")
    assert not fs.ask("info", large)["absent"]
    assert fs.ask("fsck")["clean"] is True
    assert "unmounted" in fs.control("umount")
    assert fs.daemon is not None
    assert fs.daemon.wait(30) == 0
    fs.daemon = None
    assert not os.path.ismount(fs.mountpoint)
    assert fs.ask("fsck")["clean"] is True


def test_mount_in_the_background_and_what_was_there_before(fs: TempFs) -> None:
    files = copy_in(fs)
    fs.control("archive", "--now", "--wait", "--release", fs.mountpoint)
    fs.stop()
    pid = fs.ask("mount")["pid"]
    try:
        with pytest.raises(TempFsError, match="in use by process"):
            fs.control("mount")
        read_back(fs, files)
        assert fs.ask("status")["pid"] == pid
    finally:
        fs.control("umount")
    assert not os.path.ismount(fs.mountpoint)


def test_relative_paths_and_json_everywhere(fs: TempFs) -> None:
    copy_in(fs)
    for words in (
        ["status"], ["df"], ["ls", "."], ["info", "scan.dcm"], ["why", "scan.dcm"], ["queue"],
        ["waiters", "list"], ["volume", "list"], ["drive", "list"], ["library", "inventory"],
        ["trash", "ls"], ["pin", "scan.dcm"], ["fsck"], ["version"], ["adopt", "--list"],
        ["config", "check"], ["policy", "run", "--dry-run"], ["cancel", "scan.dcm"],
    ):  # fmt: skip
        done = subprocess.run(
            [*fs.control_command(), "--json", *words], cwd=fs.mountpoint,
            env=fs.environment(), capture_output=True, check=True,
        )  # fmt: skip
        json.loads(done.stdout)


def test_events_are_followed(fs: TempFs) -> None:
    with subprocess.Popen(
        [*fs.control_command(), "events", "--follow", "--json"], env=fs.environment(),
        stdout=subprocess.PIPE,
    ) as follower:  # fmt: skip
        try:
            assert follower.stdout is not None
            first = json.loads(follower.stdout.readline())
            assert first["seq"] == 1
            (fs.mountpoint / "one").write_text("x")
            fs.control("archive", "--now", "--wait", fs.mountpoint / "one")
            for line in follower.stdout:
                if json.loads(line)["kind"] == "archived":
                    break
        finally:
            follower.terminate()


def test_a_stop_answers_streams_and_dumps_on_usr1(fs: TempFs) -> None:
    assert fs.daemon is not None
    fs.daemon.send_signal(signal.SIGUSR1)
    fs.daemon.send_signal(signal.SIGHUP)
    with subprocess.Popen(
        [*fs.control_command(), "events", "--follow"], env=fs.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        follower.stdout.readline()
        fs.stop()  # which fails if the follower holds it up
        follower.communicate()
    assert "task hsmfs.daemon.run" in fs.log_tail(10_000)
    assert "configuration reloaded" in fs.log_tail(10_000)


def test_a_stop_finishes_the_disc_being_burned(tmp_path: Path) -> None:
    slow = {"library": {"write_rate": "4 MB/s"}}
    with TempFs(slow, folder=tmp_path / "fs") as fs:
        (fs.mountpoint / "f").write_bytes(random.Random(2).randbytes(8_000_000))
        fs.control("archive", "--now", fs.mountpoint)
        deadline = time.monotonic() + 30
        while not any(b["state"] == "burning" for b in fs.ask("queue")["burns"]):
            assert time.monotonic() < deadline
        fs.stop()
        assert fs.ask("fsck")["clean"] is True
        fs.start()
        while fs.ask("info", fs.mountpoint / "f")["entry"]["state"] != "premigrated":
            assert time.monotonic() < deadline
        assert [v["barcode"] for v in fs.ask("volume", "list", "--state", "damaged")] == []


def test_a_reader_killed_daemon_comes_back(fs: TempFs) -> None:
    files = copy_in(fs)
    fs.control("archive", "--now", "--wait", "--release", fs.mountpoint)
    fs.kill()
    fs.start()
    read_back(fs, files)
    assert fs.ask("fsck")["clean"] is True
