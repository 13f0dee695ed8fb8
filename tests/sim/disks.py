"""What a power cut leaves of the daemon's disks: what was synced, and by chance what came after.

In a life that will end by a power cut every fsync copies the file as it is then. At the cut each
file that was written since is, by the seed, as it was synced or as it is now; the WAL may end with
any of its newer bytes. The mapped redo log, which is never synced, may be anything that it was; of
the one that is synced any sector may have been written since. SQLite recovers and checkpoints in C,
so what that syncs is copied when the catalog was opened, and when it says that it made a
checkpoint.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from bisect import bisect_left
from pathlib import Path
from typing import Any

from hsmfs.catalog import redo
from hsmfs.catalog.catalog import Catalog
from hsmfs.pool import store

TREES = ("state", "pool")
WAL = "catalog.db-wal"
WAL_HEADER, FRAME_HEADER = 32, 24
SECTOR = 512
"""Bytes that a disk writes all or none of."""


class Disks:
    """Keeps the durable state of a world's folders beside them."""

    def __init__(self, root: Path) -> None:
        self._root, self._kept = root, root / "durable"
        self._trees = tuple(f"{root / tree}/" for tree in TREES)
        self._synced: set[int] = set()
        self._wal = Wal(root / "state" / WAL, self._kept / "state" / WAL)

    def install(self) -> None:
        """From now on know what is durable."""
        shutil.rmtree(self._kept, ignore_errors=True)
        for tree in TREES:
            if (self._root / tree).exists():
                shutil.copytree(self._root / tree, self._kept / tree)
        real_fsync, real_fdatasync = os.fsync, os.fdatasync

        def fsync(fd: int) -> None:
            real_fsync(fd)
            self._keep(fd)

        def fdatasync(fd: int) -> None:
            real_fdatasync(fd)
            self._keep(fd)

        os.fsync, os.fdatasync = fsync, fdatasync  # type: ignore[assignment]
        store.syncfs = lambda fd: self._keep_tree("pool")
        opened, start = Catalog.__init__, Catalog._start_anew

        def recovered(catalog: Catalog, *given: Any) -> None:
            opened(catalog, *given)
            self._keep_tree("state")

        def started(catalog: Catalog) -> bool:
            anew: bool = start(catalog)
            self._keep_tree("state")
            return anew

        Catalog.__init__ = recovered  # type: ignore[method-assign]
        Catalog._start_anew = started  # type: ignore[method-assign]

    def _keep(self, fd: int) -> None:
        """What was synced; of a folder, the names of files that were."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not f"{path}/".startswith(self._trees):
            return
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            self._synced.add(found.st_ino)
            self._copy(path)
        elif stat.S_ISDIR(found.st_mode):
            for entry in os.scandir(path):
                if entry.inode() in self._synced and entry.is_file():
                    self._copy(entry.path)

    def _copy(self, path: str) -> None:
        """Plain strings and reads: a life syncs thousands of times."""
        if path == str(self._wal.path):
            self._wal.keep()
            return
        kept = f"{self._kept}{path.removeprefix(str(self._root))}"
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        with open(path, "rb") as file, open(kept, "wb", buffering=0) as copy:
            copy.write(file.read())
            os.utime(copy.fileno(), ns=(os.fstat(file.fileno()).st_mtime_ns,) * 2)

    def _keep_tree(self, tree: str) -> None:
        for folder, _, names in os.walk(self._root / tree):
            for name in names:
                self._copy(os.path.join(folder, name))

    def cut(self, rng: random.Random) -> None:
        """The power is off."""
        self._cut_catalog(rng)
        pool = self._root / "pool"
        files = sorted(p for p in pool.rglob("*") if p.is_file())
        for path in files:
            kept = self._kept / path.relative_to(self._root)
            if kept.exists() and rng.random() < 0.7:
                if _bytes(kept) != _bytes(path):
                    shutil.copy2(kept, path)
            elif not kept.exists() and rng.random() < 0.5:
                path.unlink()
        shutil.rmtree(self._kept)

    def _cut_catalog(self, rng: random.Random) -> None:
        state, kept = self._root / "state", self._kept / "state"
        (state / "catalog.db-shm").unlink(missing_ok=True)
        wal, durable = state / WAL, kept / WAL
        if durable.exists():
            now, then = _bytes(wal), _bytes(durable)
            if now.startswith(then) and rng.random() < 0.5:
                wal.write_bytes(now[: rng.randint(len(then), len(now))])
            else:
                wal.write_bytes(then)
        mapped = kept / redo.FILE
        if mapped.exists():
            chance = rng.random()
            if chance < 0.4:
                shutil.copyfile(mapped, state / redo.FILE)
            elif chance < 0.6:
                (state / redo.FILE).write_bytes(bytes(mapped.stat().st_size))
        synced = state / redo.SYNCED
        if synced.exists():
            pairs = zip(_sectors(kept / redo.SYNCED), _sectors(synced), strict=True)
            synced.write_bytes(b"".join(rng.choice(pair) for pair in pairs))


def _sectors(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + SECTOR] for at in range(0, len(data), SECTOR)]


class Wal:
    """SQLite's WAL and its durable copy, of which only what is new is written: it is synced often.

    Frames bear the header's salt, and up to the last commit they stay as they are until the WAL
    starts anew with another salt; old ones follow behind (sqlite.org/fileformat2.html section 4.1).
    """

    def __init__(self, path: Path, kept: Path) -> None:
        self.path, self._kept = path, kept
        self._salt = b""
        self._frames = 0
        """Those that are in the copy and will not change."""

    def keep(self) -> None:
        """All of it is durable now."""
        with self.path.open("rb") as wal:
            header = os.pread(wal.fileno(), WAL_HEADER, 0)
            salt, size = header[16:24], FRAME_HEADER + int.from_bytes(header[8:12], "big")
            if not salt or salt != self._salt:
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path, self._kept)
                self._salt, self._frames = salt, 0
                return

            def frame(number: int) -> bytes:
                return os.pread(wal.fileno(), FRAME_HEADER, WAL_HEADER + number * size)

            frames = bisect_left(
                range(os.fstat(wal.fileno()).st_size // size), True,
                key=lambda number: frame(number)[8:16] != salt,
            )  # fmt: skip
            start = WAL_HEADER + self._frames * size
            with self._kept.open("r+b") as kept:
                kept.seek(start)
                kept.write(os.pread(wal.fileno(), (frames - self._frames) * size, start))
            while frames and not any(frame(frames - 1)[4:8]):
                frames -= 1  # of no commit yet
            self._frames = frames


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
