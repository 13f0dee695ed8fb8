"""nfsd is started anew for a new mount, and never left stopped. nfsd itself: tests/lab."""

from pathlib import Path

import pytest

from hsmfs.shares import nfs, nfsd
from hsmfs.shares.share import ShareError

MOUNT = Path("/srv/archive")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Tools that note their words; exportfs fails if the file `refuse` is there."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, more in (
        ("rpc.nfsd", f"echo $1 >{tmp_path}/threads"),
        ("exportfs", f"[ ! -e {tmp_path}/refuse ]"),
        ("sm-notify", f"rm -f {tmp_path}/sm/*"),
    ):
        (bin / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n{more}\n')
        (bin / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:/usr/bin:/bin")
    monkeypatch.setattr(nfs, "FILE", tmp_path / "exports.d/hsmfs.exports")
    monkeypatch.setattr(nfsd, "NFSD", tmp_path)
    monkeypatch.setattr(nfsd, "MONITORED", tmp_path / "sm")
    (tmp_path / "threads").write_text("8\n")
    return tmp_path


def calls(tools):
    return (tools / "calls").read_text().splitlines()[2:]  # the first two are the export's


def test_with_as_many_threads_as_before(tools):
    nfs.add(MOUNT, "*", MOUNT)
    assert nfsd.renew(MOUNT, tools) == nfsd.threads() == 8
    assert calls(tools) == [
        "rpc.nfsd 0", "exportfs -r", "exportfs -f", "rpc.nfsd 8", "sm-notify -f",
    ]  # fmt: skip


def test_one_that_was_left_stopped_is_started(tools):
    nfs.add(MOUNT, "*", MOUNT)
    (tools / "threads").write_text("0\n")
    (tools / nfsd.MARK).write_text("8\n")  # the daemon was killed between stop and start
    assert nfsd.renew(MOUNT, tools) == nfsd.threads() == 8
    assert not (tools / nfsd.MARK).exists()


def test_clients_with_locks_are_told_the_next_time_too(tools):
    nfs.add(MOUNT, "*", MOUNT)
    (tools / "sm").mkdir()
    (tools / "sm/10.0.0.7").write_text("what statd wrote\n")
    nfsd.renew(MOUNT, tools)
    assert (tools / "sm/10.0.0.7").read_text() == "what statd wrote\n"


def test_also_when_exports_are_refused(tools):
    nfs.add(MOUNT, "*", MOUNT)
    (tools / "refuse").touch()
    with pytest.raises(ShareError):
        nfsd.renew(MOUNT, tools)
    assert nfsd.threads() == 8


def test_servers_of_others_are_left_alone(tools):
    nfs.add(Path("/srv/other"), "*", Path("/srv/other"))
    assert nfsd.renew(MOUNT, tools) == 0
    nfs.add(MOUNT, "*", MOUNT)
    (tools / "threads").write_text("0\n")
    assert nfsd.renew(MOUNT, tools) == 0
    assert not [call for call in (tools / "calls").read_text().splitlines() if "rpc" in call]
