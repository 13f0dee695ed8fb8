"""The ransomware drill on a real mount: one command takes the share back."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tools.lib.tempfs import TempFs, TempFsError

pytestmark = [pytest.mark.mount, pytest.mark.slow]
FILES = 60


def looks(top: Path) -> dict[str, tuple[object, ...]]:
    """Every path with what a user sees of it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        stat = path.lstat()
        owner = (stat.st_mode, stat.st_uid, stat.st_gid)
        names = sorted(n for n in os.listxattr(path, follow_symlinks=False) if "hsm" not in n)
        extra = {n: os.getxattr(path, n, follow_symlinks=False) for n in names}
        data: object = None
        if path.is_symlink():
            data = os.readlink(path)
        elif path.is_file():
            data = (stat.st_mtime_ns, path.read_bytes())
        found[str(path.relative_to(top))] = (*owner, tuple(extra.items()), data)
    return found


@pytest.mark.parametrize("archived", [True, False])
def test_mass_overwrite_and_deletion_are_undone_by_one_command(
    tmp_path: Path, archived: bool
) -> None:
    """Whether the discs have the files or not; those of a share lie still most of the time."""
    settings = {"trash": {"alarm": 20, "freeze": True}, "versions": {"settle": "0 s"}}
    with TempFs(settings, folder=tmp_path / "fs") as fs:
        rng, top = random.Random(7), fs.mountpoint / "share"
        (top / "empty folder").mkdir(parents=True)
        for n in range(FILES):
            path = top / f"d{n % 5}" / f"影像 {n}.dcm"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(rng.randbytes(rng.choice((0, 3000, 200_000))))
            path.chmod(0o640)
            os.chown(path, 1000 + n, 2000)
            os.utime(path, ns=(10**18, 10**18 + n))
            os.setxattr(path, "user.note", b"%d" % n)
        (top / "link").symlink_to("d0")
        os.link(top / "d1/影像 1.dcm", top / "hard")
        if archived:
            fs.control("archive", "--now", "--wait", top)
            fs.control("release", top / "d2", top / "d3")
        before = looks(top)
        # The command's times are whole seconds; and what was made just now is written down by then,
        # so that even empty files are known as such.
        second = int(time.time()) + 3
        then = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        while time.time() < second + 0.02:
            time.sleep(0.01)

        for n, path in enumerate(sorted(top.glob("d*/*.dcm"))):
            how = n % 5
            if how == 0:
                path.write_bytes(b"encrypted")
            elif how == 1:
                with path.open("r+b") as file:
                    file.write(b"X" * 100)
                path.rename(f"{path}.locked")
            elif how == 2:
                Path(f"{path}.locked").write_bytes(b"encrypted")
                path.unlink()
            elif how == 3:
                other = path.with_name("tmp")
                other.write_bytes(b"encrypted")
                other.rename(path)
            else:
                path.unlink()
        (top / "link").unlink()
        (top / "empty folder").rmdir()
        (top / "PAY.txt").write_text("pay")
        deadline = time.monotonic() + 30
        while "burst" not in fs.control("events"):
            assert time.monotonic() < deadline, "no alarm"
            time.sleep(0.2)

        (pool,) = fs.ask("status")["pools"]
        assert archived == (pool["old_versions"] == 0)
        assert archived == ("old versions of files" not in fs.control("status"))
        assert "(dry run)" in fs.control("rollback", top, "--to", then, "--dry-run")
        assert (top / "PAY.txt").exists()
        assert fs.ask("rollback", top, "--to", then, "--dry-run")["failures"] == 0
        print(fs.control("rollback", top, "--to", then))
        after = looks(top)
        assert after.keys() == before.keys()
        assert after == before
        assert "PAY.txt" in fs.control("trash", "ls")
        path = sorted(top.glob("d*/*.dcm"))[0]  # one that was overwritten
        gone, *_ = [v for v in fs.ask("versions", path) if v["where"] == "trash"]
        assert gone["id"] in fs.control("versions", path)
        fs.control("restore", path, "--version", gone["id"], "--to", top / "before")
        assert (top / "before").read_bytes() == b"encrypted"
        assert path.read_bytes() == before[str(path.relative_to(top))][-1][1]
        with pytest.raises(TempFsError, match="exists"):
            fs.control("undelete", top / "d0")
        assert fs.ask("fsck")["clean"] is True
        assert "emptied as before" in fs.control("trash", "thaw")
