"""A mounted hsmfs whose files lie on one closed set of 10+2 discs, to be broken and put back.

`make` fills and closes the set once and keeps a copy of everything while the daemon is down;
`fresh` puts that back, so that every scenario begins with the same twelve good discs.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.tempfs import TempFs

DISC = 24 * 1024 * 1024
SECTOR = 2048
DATA, PARITY = 10, 2
TABLES: dict[str, dict[str, Any]] = {
    "library": {"drives": 4, "magazines": 2, "disc": "24 MiB"},
    "fs": {"head": 0},
    "engine": {"spool_limit": "1 GiB", "recall_retries": 1, "recall_retry_wait": "0 s"},
    "sets": {"parity": "raid6", "discs": DATA + PARITY},
}


class SetLab:
    """See the module.

    Attributes:
        fs: the hsmfs; started by `fresh`.
        sums: SHA-256 of each file by its path below the mount.
        discs: barcodes of the set by index, data discs first.
        files_on: paths of the files of each data disc.
    """

    def __init__(self, rng: random.Random, place: Path | None = None) -> None:
        self.rng = rng
        self.root = Path(tempfile.mkdtemp(prefix="hsmfs-set-", dir=place))
        self.fs = TempFs(TABLES, folder=self.root / "fs")
        self.sums: dict[str, str] = {}
        self.discs: list[str] = []
        self.files_on: dict[str, set[str]] = {}

    def make(self) -> None:
        """Write files of all sizes until ten discs are full, and close their set."""
        fs = self.fs
        fs.lay_out()
        fs.control("init")
        fs.start()
        number = 0
        while not self._set_full():
            self._write(number)
            number += 1
            fs.control("archive", "--wait", "--now", fs.mountpoint / f"{number - 1:02d}")
        self._until_closed()
        info = fs.ask("volume", "set", "info", "SET00001")
        self.discs = [disc["disc"] for disc in info["discs"]]
        for barcode in self.discs[:DATA]:
            self.files_on[barcode] = self.found("--volume", barcode) & self.sums.keys()
        # What begins the next set may not be released: only the set's own files are looked at.
        mine = set().union(*self.files_on.values())
        self.sums = {name: sha for name, sha in self.sums.items() if name in mine}
        for folder in sorted({name.split("/")[0] for name in mine}):
            fs.control("release", fs.mountpoint / folder, check=False)
        fs.stop()
        subprocess.run(["cp", "-a", "--sparse=always", fs.folder, self.root / "good"], check=True)

    def found(self, *wanted: str) -> set[str]:
        """Files that `hsmctl find` names, below the mount."""
        paths = self.fs.control("find", *wanted, "-0").split("\0")
        return {str(Path(path).relative_to(self.fs.mountpoint)) for path in paths if path}

    def _write(self, number: int) -> None:
        """About one disc's worth: small files, text that compresses, and a large one."""
        folder = self.fs.mountpoint / f"{number:02d}"
        folder.mkdir()
        left = DISC - (2 << 20)
        sizes = [self.rng.randrange(1, 200_000) for _ in range(30)]
        sizes += [self.rng.randrange(1 << 20, 6 << 20)]
        sizes += [max(1, left - sum(sizes))]
        for at, size in enumerate(sizes):
            data = self.rng.randbytes(size)
            if at % 5 == 0:
                data = (b"%d lines of text \n" % at) * (size // 18 + 1)
            path = folder / f"文件 {at:03d}"
            path.write_bytes(data)
            self.sums[str(path.relative_to(self.fs.mountpoint))] = hashlib.sha256(data).hexdigest()

    def _set_full(self) -> bool:
        sets = self.fs.ask("volume", "set", "ls")
        return bool(sets) and (sets[0]["data_discs"] >= DATA and sets[0]["state"] != "open")

    def _until_closed(self) -> None:
        deadline = time.monotonic() + 300
        while self.fs.ask("volume", "set", "ls")[0]["state"] != "closed":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the set is not closed:\n{self.fs.log_tail()}")
            time.sleep(0.5)

    # Scenarios

    @contextmanager
    def fresh(self, *faults: dict[str, Any]) -> Iterator[None]:
        """All discs good again and the daemon down; in the block break things, then `start`."""
        self.fs.kill()
        shutil.rmtree(self.fs.folder, ignore_errors=True)
        good = self.root / "good"
        subprocess.run(["cp", "-a", "--sparse=always", good, self.fs.folder], check=True)
        if faults:
            (self.fs.folder / "library/faults.json").write_text(json.dumps(faults))
        try:
            yield
        finally:
            self.fs.kill()

    def image(self, barcode: str) -> Path:
        """The image of a disc, wherever it lies."""
        (found,) = (self.fs.folder / "library/elements").rglob(f"{barcode}/disc.iso")
        return found

    def take_out(self, *barcodes: str) -> None:
        """Put discs onto the shelf."""
        for barcode in barcodes:
            disc = self.image(barcode).parent
            shelf = self.fs.folder / "library/shelf"
            shelf.mkdir(exist_ok=True)
            disc.rename(shelf / barcode)

    def served(self) -> tuple[set[str], set[str]]:
        """Recall everything and read it; files that are right, and files that are not served."""
        self.fs.start()
        self.fs.control("library", "inventory", check=False)
        folders = sorted({name.split("/")[0] for name in self.sums})
        self.fs.control(
            "recall", "--wait", *(self.fs.mountpoint / name for name in folders),
            check=False, timeout_s=900,
        )  # fmt: skip
        right: set[str] = set()
        refused: set[str] = set()
        for name, sha in sorted(self.sums.items()):
            try:
                data = (self.fs.mountpoint / name).read_bytes()
            except OSError:
                refused.add(name)
                continue
            if hashlib.sha256(data).hexdigest() != sha:
                raise AssertionError(f"{name} was served with wrong bytes")
            right.add(name)
        return right, refused

    def close(self) -> None:
        """Remove everything."""
        self.fs.kill()
        shutil.rmtree(self.root, ignore_errors=True)
