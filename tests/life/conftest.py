"""Programs that people use on a NAS, on a real mount; each also with its files on discs between.

Nothing stays on disk of a file that was released, not even a head, so that small files count, too.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lib.tempfs import TempFs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if marker := item.get_closest_marker("programs"):
            lacking = [name for name in marker.args if not shutil.which(name)]
            if lacking:
                reason = f"{', '.join(lacking)} not installed: tools/test installs them"
                item.add_marker(pytest.mark.skip(reason=reason))


class Life:
    """A mount, and what the tests do between a program's runs."""

    def __init__(self, fs: TempFs) -> None:
        self.fs = fs

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
        return {os.getxattr(path, "user.hsm.state").decode() for path in self.files(top)}

    def away(self, top: Path) -> None:
        """All files below are on discs, and not on disk any more."""
        self.fs.control("archive", "--now", "--wait", "--release", top)
        until = time.monotonic() + 30
        while self.states(top) != {"migrated"}:  # the kernel closes files a moment after programs
            assert time.monotonic() < until, self.states(top)
            self.fs.control("release", top)

    def back(self, top: Path) -> None:
        """All of them are on disk again."""
        self.fs.control("recall", "--wait", top)
        assert "migrated" not in self.states(top)


@pytest.fixture(scope="session")
def _mounted() -> Iterator[Life]:
    with (
        tempfile.TemporaryDirectory(prefix="hsmfs-life-") as folder,
        TempFs({"fs": {"head": 0}}, folder=Path(folder) / "fs") as fs,
    ):
        Path(folder).chmod(0o755)
        yield Life(fs)
        assert fs.ask("fsck")["clean"] is True


@pytest.fixture
def life(_mounted: Life) -> Life:
    return _mounted


@pytest.fixture
def share(life: Life, request: pytest.FixtureRequest) -> Path:
    """A folder of the mount for one test."""
    folder = life.fs.mountpoint / request.node.name
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
