"""The file of exports: what is written, kept, refused and taken back. nfsd itself: tests/lab."""

from pathlib import Path

import pytest

from hsmfs.cli.main import main
from hsmfs.errors import NotFound
from hsmfs.shares import nfs
from hsmfs.shares.share import ShareError

MOUNT = Path("/srv/archive")


@pytest.fixture
def exportfs(tmp_path, monkeypatch):
    """A tool that notes its words and refuses what the file `refuse` says."""
    tool = tmp_path / "bin/exportfs"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n'
        f"if [ -e {tmp_path}/refuse ]; then echo no such keyword >&2; exit 1; fi\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.setattr(nfs, "FILE", tmp_path / "exports.d/hsmfs.exports")
    return tmp_path


def test_what_is_written_is_read_again(exportfs):
    odd = MOUNT / "CT 2024 #1" / "文件\\x"
    nfs.add(odd, "10.0.0.0/8", MOUNT, ("ro", "no_root_squash"))
    nfs.add(MOUNT, "@ward", MOUNT)
    assert {(s.path, s.to) for s in nfs.exports()} == {(odd, "10.0.0.0/8"), (MOUNT, "@ward")}
    line = next(li for li in nfs.FILE.read_text().splitlines() if li.startswith("/srv/archive/CT"))
    assert line.startswith("/srv/archive/CT\\0402024\\040\\0431/\\346")
    options = line.rpartition("(")[2].rstrip(")").split(",")
    assert options == [
        "ro", "no_root_squash", "sync", "no_subtree_check", f"fsid={nfs.fsid(odd)}",
        "mountpoint=/srv/archive",
    ]  # fmt: skip
    assert (exportfs / "calls").read_text() == "-r\n-f\n" * 2


def test_fsid_is_the_path_s_for_ever(exportfs):
    assert str(nfs.fsid(MOUNT)) == "20005713-17c9-5af9-a40c-3986b4b85209"
    first = nfs.add(MOUNT, "*", MOUNT)
    nfs.remove(MOUNT)
    assert nfs.add(MOUNT, "*", MOUNT) == first
    assert nfs.fsid(MOUNT) != nfs.fsid(MOUNT / "a")


def test_one_line_for_each_client_and_taken_back_singly(exportfs):
    nfs.add(MOUNT, "a", MOUNT)
    nfs.add(MOUNT, "b", MOUNT)
    nfs.add(MOUNT, "a", MOUNT, ("ro",))
    assert [(s.to, s.options.split(",")[0]) for s in nfs.exports()] == [("a", "ro"), ("b", "rw")]
    assert [s.to for s in nfs.remove(MOUNT, "a")] == ["a"]
    nfs.remove(MOUNT)
    assert not nfs.FILE.exists()
    with pytest.raises(NotFound):
        nfs.remove(MOUNT)


def test_what_the_server_refuses_changes_nothing(exportfs):
    nfs.add(MOUNT, "a", MOUNT)
    before = nfs.FILE.read_bytes()
    (exportfs / "refuse").touch()
    with pytest.raises(ShareError, match="no such keyword"):
        nfs.add(MOUNT, "b", MOUNT, ("nonsense",))
    with pytest.raises(ShareError):
        nfs.remove(MOUNT)
    assert nfs.FILE.read_bytes() == before


@pytest.mark.parametrize(
    ("clients", "option"),
    [("", "rw"), ("a b", "rw"), ("a(rw)", "rw"), ("a", "async"), ("a", "subtree_check"),
     ("a", "fsid=0"), ("a", "mp"), ("a", "rw) b(rw")],
)  # fmt: skip
def test_what_would_break_promises_is_refused(exportfs, clients, option):
    with pytest.raises(ShareError):
        nfs.add(MOUNT, clients, MOUNT, (option,))
    assert not nfs.FILE.exists()


def test_a_line_by_another_hand_is_never_overwritten(exportfs):
    nfs.FILE.parent.mkdir()
    nfs.FILE.write_text("/srv/archive  a(rw) b(ro)\n")
    with pytest.raises(ShareError, match="line 1"):
        nfs.add(MOUNT, "c", MOUNT)


def test_without_a_server_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nfs, "FILE", tmp_path / "exports.d/hsmfs.exports")
    with pytest.raises(ShareError) as caught:
        nfs.add(MOUNT, "a", MOUNT)
    assert "nfs-kernel-server" in caught.value.next_step
    assert not nfs.FILE.exists()


def test_hsmctl_lists_its_own_mount_s_exports(exportfs, config_file, capfd):
    mount = config_file.parent / "mnt"
    nfs.add(mount / "a b", "*", mount)
    nfs.add(MOUNT, "*", MOUNT)
    assert main(["--config", str(config_file), "export", "ls"]) == 0
    out = capfd.readouterr().out
    assert f"{mount}/a b" in out
    assert str(MOUNT) not in out
    assert main(["--config", str(config_file), "export", "rm", "nfs", str(mount / "a b")]) == 0
    assert [s.path for s in nfs.exports()] == [MOUNT]
