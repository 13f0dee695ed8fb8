"""Programs that copy and keep copies: rsync, cp, tar, rclone, restic."""

import os
from pathlib import Path

import pytest

from .conftest import RSYNC, TAR

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def same(life, one: Path, other: Path, how: str = RSYNC) -> None:
    """Bytes, modes, owners, times, links and xattrs."""
    life.run("diff", "--recursive", "--no-dereference", one, other)
    assert differences(life, one, other, how) == ""


def differences(life, one: Path, other: Path, how: str = RSYNC) -> str:
    """As rsync sees them, without reading any bytes."""
    words = ("rsync", how, "--delete", "--dry-run", "--itemize-changes")
    return life.run(*words, f"{one}/", f"{other}/")


@pytest.mark.programs("rsync")
def test_rsync(life, share, tree):
    life.run("rsync", RSYNC, f"{tree}/", f"{share}/")
    same(life, tree, share)
    life.away(share)
    # The second run looks at sizes and times only: no disc is read.
    assert differences(life, tree, share) == ""
    assert life.states(share) == {"migrated"}
    changed = tree / "folder 2/患者/b"
    with changed.open("r+b") as file:
        file.seek(40_000)
        file.write(b"new")
    life.run("rsync", RSYNC, "--inplace", "--no-whole-file", f"{tree}/", f"{share}/")
    same(life, tree, share)
    life.away(share)
    (tree / "folder 1/患者/b").unlink()
    life.run("rsync", RSYNC, "--delete", "--checksum", f"{tree}/", f"{share}/")
    same(life, tree, share)


@pytest.mark.programs("cp", "rsync")
def test_cp_in_out_and_across(life, share, tree, tmp_path):
    life.run("cp", "-a", tree, share / "in")
    same(life, tree, share / "in")
    assert (share / "in/sparse").stat().st_blocks < 1024
    life.away(share / "in")
    life.run("cp", "-a", share / "in", tmp_path / "out")
    same(life, tree, tmp_path / "out")
    life.away(share / "in")
    life.run("cp", "-a", share / "in", share / "across")
    same(life, tree, share / "across")


@pytest.mark.programs("tar")
def test_tar_both_ways(life, share, tree, tmp_path):
    life.run("tar", *TAR, "-cf", tmp_path / "1.tar", "-C", tree, ".")
    life.run("tar", *TAR, "-xpf", tmp_path / "1.tar", "-C", share)
    same(life, tree, share)
    life.away(share)
    life.run("tar", "--compare", "-f", tmp_path / "1.tar", "-C", share)
    life.away(share)
    # An archive that lies on the mount, of files that are on discs.
    folder = share.with_name("of tar")
    folder.mkdir()
    life.run("tar", *TAR, "-czf", folder / "2.tgz", "-C", share, ".")
    life.away(folder)
    (tmp_path / "2").mkdir()
    life.run("tar", *TAR, "-xzpf", folder / "2.tgz", "-C", tmp_path / "2")
    same(life, tree, tmp_path / "2")


@pytest.mark.programs("rclone")
def test_rclone(life, share, tree, tmp_path):
    environment = {**os.environ, "RCLONE_CONFIG": str(tmp_path / "rclone.conf")}
    rclone = ("rclone", "--links", "--retries", "1")
    life.run(*rclone, "sync", tree, share, env=environment)
    life.away(share)
    # Compares sizes and times: nothing is copied, nothing is recalled.
    life.run(*rclone, "sync", tree, share, env=environment)
    assert life.states(share) == {"migrated"}
    life.run(*rclone, "check", "--download", tree, share, env=environment)
    life.run(*rclone, "move", share, tmp_path / "moved", env=environment)
    life.run(*rclone, "check", "--download", tree, tmp_path / "moved", env=environment)
    assert life.files(share) == []


@pytest.mark.programs("restic")
def test_restic(life, share, tree, tmp_path):
    environment = {
        **os.environ, "RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(share),
        "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
    }  # fmt: skip

    def restic(*words):
        return life.run("restic", "--quiet", *words, env=environment)

    restic("init")
    restic("backup", tree)
    life.away(share)
    restic("check", "--read-data", "--no-cache")
    (tree / "later").write_bytes(b"later" * 1000)
    life.away(share)
    restic("backup", tree)
    life.away(share)
    restic("restore", "latest", "--target", tmp_path / "restored")
    same(life, tree, Path(f"{tmp_path}/restored{tree}"), "-aHAX")
    restic("forget", "--keep-last", "1", "--prune")
    restic("check", "--read-data")
