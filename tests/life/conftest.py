"""Programs that people use on a NAS, on a real mount; each also with its files on discs between.

Nothing stays on disk of a file that was released, not even a head, so that small files count, too.
In the lab's kernel, with HSMFS_LIFE=v3, v4.2 or smb, the programs work on a client's mount
(tools/lib/nas/life.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lib.lab import READY_S
from tools.lib.nas import nfs, smb
from tools.lib.tempfs import TempFs, TempFsError

OVER = os.environ.get("HSMFS_LIFE", "")
"""The version of NFS that is between, whose server runs already, or smb; if any."""
AWAY_S = 60.0
RSYNC = "-aH" if OVER else "-aHAX"
"""All that the way to the mount keeps: nfsd offers no extended attributes of a FUSE filesystem."""
TAR = ("--sparse",) if OVER else ("--xattrs", "--xattrs-include=*", "--acls", "--sparse")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if marker := item.get_closest_marker("programs"):
            lacking = [name for name in marker.args if not shutil.which(name)]
            if lacking:
                reason = f"{', '.join(lacking)} not installed: tools/test installs them"
                item.add_marker(pytest.mark.skip(reason=reason))


class Life:
    """A mount, and what the tests do between a program's runs.

    Attributes:
        top: the folder as programs see it.
        folder: the same on the host of the mount.
    """

    def __init__(self, fs: TempFs, top: Path, folder: Path) -> None:
        self.fs, self.top, self.folder = fs, top, folder

    def here(self, path: Path) -> Path:
        """A path of the programs' on the host of the mount."""
        return self.folder / path.relative_to(self.top)

    def run(self, *words: str | Path, stdin: str = "", **kwargs) -> str:
        """What a program prints; it must succeed."""
        done = subprocess.run(
            list(map(str, words)), input=stdin, capture_output=True, text=True, timeout=100,
            check=False, **kwargs,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def files(self, top: Path) -> list[Path]:
        """All that have bytes."""
        found = (Path(folder, name) for folder, _, names in os.walk(top) for name in names)
        return [p for p in found if p.is_file() and not p.is_symlink() and p.stat().st_size]

    def states(self, top: Path) -> set[str]:
        return {os.getxattr(path, "user.hsm.state").decode() for path in self.files(self.here(top))}

    def away(self, top: Path) -> None:
        """All files below are on discs, and not on disk any more."""
        self.fs.control("archive", "--now", "--wait", self.here(top))
        until = time.monotonic() + AWAY_S
        while self.states(top) != {"migrated"}:
            assert time.monotonic() < until, self.states(top)
            if OVER:
                nfs.drop_caches()  # a client gives back what it was told it may keep open
            with contextlib.suppress(TempFsError):  # kernels close files a moment after programs
                self.fs.control("release", self.here(top))

    def back(self, top: Path) -> None:
        """All of them are on disk again."""
        self.fs.control("recall", "--wait", self.here(top))
        assert "migrated" not in self.states(top)


@pytest.fixture(scope="session")
def _mounted() -> Iterator[Life]:
    with (
        tempfile.TemporaryDirectory(prefix="hsmfs-life-") as folder,
        TempFs({"fs": {"head": 0}}, folder=Path(folder) / "fs", ready_s=READY_S) as fs,
    ):
        Path(folder).chmod(0o755)
        with _WAYS[OVER](fs) as life:
            yield life
        assert fs.ask("fsck")["clean"] is True


@contextlib.contextmanager
def _here(fs: TempFs) -> Iterator[Life]:
    yield Life(fs, fs.mountpoint, fs.mountpoint)


@contextlib.contextmanager
def _over_nfs(fs: TempFs) -> Iterator[Life]:
    fs.control("export", "nfs", fs.mountpoint, "--to", nfs.CLIENTS, "--options", "no_root_squash")
    top = nfs.mount(fs.mountpoint, OVER)
    yield Life(fs, top, fs.mountpoint)
    nfs.umount(top)
    fs.control("export", "rm", "nfs", fs.mountpoint)


@contextlib.contextmanager
def _over_smb(fs: TempFs) -> Iterator[Life]:
    folder = fs.mountpoint / "share"
    folder.mkdir()
    folder.chmod(0o777)
    with smb.serve(fs.folder.parent / "smb") as samba:
        fs.control("export", "smb", "share", folder)
        top = smb.mount(samba, "share")
        yield Life(fs, top, folder)
        smb.umount(top)
        fs.control("export", "rm", "smb", "share")


_WAYS = {"": _here, "v3": _over_nfs, "v4.2": _over_nfs, "smb": _over_smb}


@pytest.fixture
def life(_mounted: Life) -> Life:
    return _mounted


@pytest.fixture
def share(life: Life, request: pytest.FixtureRequest) -> Path:
    """A folder of the mount for one test."""
    folder = life.top / request.node.name
    folder.mkdir()
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders, names of all kinds, links, holes, times, modes, xattrs; on the host."""
    rng = random.Random(4)
    top = tmp_path / "tree"
    for number in range(6):
        folder = top / f"folder {number}" / "患者"
        folder.mkdir(parents=True)
        for name, size in (("a.txt", 700), ("b", 70_000), ("Ü ü#%", 9)):
            (folder / name).write_bytes(rng.randbytes(size))
    (top / "empty").touch()
    (top / "private").write_bytes(b"x" * 5000)
    (top / "private").chmod(0o600)
    (top / "link").symlink_to("folder 1/患者/b")
    os.link(top / "private", top / "hard link")
    with (top / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    os.setxattr(top / "private", "user.colour", b"green\0")
    for path in top.rglob("*"):
        os.utime(path, ns=(10**18, rng.randrange(10**18)), follow_symlinks=False)
    return top
