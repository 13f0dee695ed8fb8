"""The catalog of a real, mounted hsmfs: rehearsed, backed up while it runs, lost and made again."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tools.lib.tempfs import TempFs

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in sorted(root.rglob("*")):
        stat = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        link = os.readlink(path) if path.is_symlink() else ""
        names = {} if path.is_symlink() else {n: os.getxattr(path, n) for n in os.listxattr(path)}
        kept = {n: v for n, v in names.items() if not n.startswith("user.hsm.")}
        found[os.fspath(path.relative_to(root))] = (
            stat.st_ino, stat.st_mode, stat.st_uid, stat.st_gid, stat.st_nlink, stat.st_mtime_ns,
            data, link, tuple(sorted(kept.items())),
        )  # fmt: skip
    return found


def test_lost_and_made_again(tmp_path: Path) -> None:
    with TempFs(folder=tmp_path / "fs") as fs:
        rng = random.Random(3)
        for name, size in (("a.dcm", 200_000), ("b/c.dcm", 6_000_000), ("b/empty", 0)):
            path = fs.mountpoint / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(rng.randbytes(size))
        os.setxattr(fs.mountpoint / "a.dcm", "user.study", b"42")
        os.link(fs.mountpoint / "a.dcm", fs.mountpoint / "b/again")
        os.symlink("../a.dcm", fs.mountpoint / "b/link")
        os.chown(fs.mountpoint / "b/c.dcm", 1234, 567)
        fs.control("archive", "--now", "--wait", fs.mountpoint)
        found = fs.ask("rebuild", "--sample", "3")
        assert found["coverage"] == 100.0
        assert found["lines"] == found["same"] == 3
        assert found["snapshot"] is not None
        backups = tmp_path / "backups"
        made = fs.ask("catalog", "backup", backups)
        assert made["new_pieces"] == made["pieces"]
        assert fs.ask("catalog", "backup", backups)["new_pieces"] <= made["pieces"]
        fs.control("release", fs.mountpoint / "a.dcm", fs.mountpoint / "b/c.dcm")
        before = tree(fs.mountpoint)
        fs.stop()
        state = next(tmp_path.rglob("catalog.db")).parent
        shutil.rmtree(state)
        report = fs.ask("rebuild")
        assert report["findings"] == 0
        fs.start()
        assert tree(fs.mountpoint) == before
        assert fs.ask("fsck")["clean"] is True
        fs.stop()
        for path in state.glob("catalog.db*"):
            path.unlink()
        fs.control("catalog", "restore", backups)
        fs.start()
        assert tree(fs.mountpoint).keys() == before.keys()
