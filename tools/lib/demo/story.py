"""The demo's steps: copy in, burn, release, look at stubs, read back, compare.

Each step does what a user or an admin would: plain files on the mount, `hsmctl` for the rest. The
figures it prints come from the mount and from the daemon, none is known beforehand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tempfs import REPOSITORY, TempFs

from demo import dicom
from demo.dicom import Dicom
from demo.picture import Picture, size
from demo.watch import Watch
from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink

HEAD = 16 * 1024
COPIES = 2
SETTINGS: dict[str, dict[str, str | int]] = {
    "pool": {"capacity": "1 GiB"},
    "fs": {"head": f"{HEAD} B"},
    "trash": {"keep": "0 s"},
    "library": {
        "drives": 3, "magazines": 2, "slots_per_magazine": 8, "import_export": 2, "disc": "32 MiB",
        "exchange": "1500 ms", "load": "1 s", "seek": "20 ms",
        "read_rate": "20 MB/s", "write_rate": "8 MB/s",
    },
    "engine": {"copies": COPIES, "recall_drives": 1, "burn_wait": "1 h"},
}  # fmt: skip
"""Discs a ten-thousandth as large as real ones, a robot forty times as quick."""

_READERS = 96
_BLOCK = 1 << 20
_PATIENCE_S = 120.0
"""A step that makes no progress for so long has failed."""


class DemoError(Exception):
    """Something came out other than promised."""


class Story:
    """One run of the demo on a running hsmfs."""

    def __init__(self, fs: TempFs, picture: Picture, watch: Watch) -> None:
        self.fs, self.picture, self.watch = fs, picture, watch
        self.client = Client(SocketLink(fs.socket))
        self.top = fs.mountpoint / "dicom"
        self.files = list(dicom.find())
        self.bytes = sum(file.size for file in self.files)
        self.larger = [file for file in self.files if file.size > HEAD]

    def run(self) -> None:
        """All steps; raises DemoError if one did not come out as promised."""
        self.originals()
        self.copy_in()
        self.archive()
        self.release()
        self.headers()
        self.read_back()
        self.discs()

    def originals(self) -> None:
        """Say what is there to be archived."""
        self.picture.step("real DICOM files, as three Python packages ship them")
        for package, files in Counter(file.package for file in self.files).items():
            found = sum(file.size for file in self.files if file.package == package)
            self.picture.say(f"    {package:<13} {files:4} files  {size(found):>9}")
        if set(dicom.PACKAGES) != {file.package for file in self.files}:
            raise DemoError("a package holds no DICOM files")

    def copy_in(self) -> None:
        """Copy them to the mount and make them durable, as a modality's gateway would."""
        self.picture.step("copy them to the mount")
        self.picture.bar("copied in", len(self.files), self.bytes)
        for file in self.files:
            target = self.top / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.source.open("rb") as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, _BLOCK)
                copy.flush()
                os.fsync(copy.fileno())
            self.watch.names[target.stat().st_ino] = str(file.name)
            self.picture.advance("copied in", 1, file.size)
        self.done("copied in", f"{len(self.files)} files with fsync")

    def archive(self) -> None:
        """Have them put on two discs each, and wait until all copies were read back."""
        self.picture.step(
            f"hsmctl archive --now: {COPIES} copies on different discs, each read back"
        )
        self.picture.bar("on discs", len(self.files), self.bytes)
        self.fs.control("archive", "--now", self.top)
        self.until("on discs", len(self.files), lambda states: states["premigrated"])
        burned = [disc for disc in self.client.get("/volumes") if disc["state"] == "full"]
        used = sum(disc["used"] for disc in burned)
        self.done("on discs", f"{len(burned)} discs with {size(used)} burned and read back")

    def release(self) -> None:
        """Free the disk space: only heads stay."""
        self.picture.step("hsmctl release: only the first 16 KiB of each file stay on disk")
        before = self.on_disk()
        self.picture.bar("released", len(self.larger), sum(file.size for file in self.larger))
        self.fs.control("release", self.top)
        self.until("released", len(self.larger), lambda states: states["migrated"])
        for file in self.files:
            if (self.top / file.name).stat().st_size != file.size:
                raise DemoError(f"{file.name} has another size than its original")
        self.done(
            "released", f"{size(before)} on disk became {size(self.on_disk())};"
            " names, sizes and times are as before",
        )  # fmt: skip

    def headers(self) -> None:
        """Read the headers of stubs: no disc is asked."""
        self.picture.step("read DICOM headers of released files with pydicom")
        inside = [file for file in self.larger if dicom.header_within(file.source, HEAD)]
        began, moves = time.monotonic(), self.watch.moves
        for file in inside:
            if dicom.header(self.top / file.name) != dicom.header(file.source):
                raise DemoError(f"the header of {file.name} differs")
        took = time.monotonic() - began
        migrated = self.states()["migrated"][0]
        if migrated != len(self.larger) or self.watch.moves != moves:
            raise DemoError("reading headers within the head recalled something")
        self.picture.say(f"    {len(inside)} headers in {took:.2f} s, equal; nothing was recalled")

    def read_back(self) -> None:
        """Read every byte through the mount, as many readers at once, and compare."""
        self.picture.step(f"read everything back through the mount, {_READERS} readers at once")
        self.picture.bar("read back", len(self.files), self.bytes)
        pool = ThreadPoolExecutor(_READERS, "reader")
        try:
            work = {pool.submit(self.equal, file): file for file in self.files}
            wrong = [str(work[done].name) for done in as_completed(work) if not done.result()]
        finally:
            # Readers may wait in the kernel; they end when the mount does, not before.
            pool.shutdown(wait=False, cancel_futures=True)
        if wrong:
            raise DemoError(f"{len(wrong)} files came back different: {', '.join(wrong[:5])}")
        left = self.states()["migrated"][0]
        if left:
            raise DemoError(f"{left} files are said to be on discs alone after they were read")
        self.done(
            "read back",
            f"{len(self.files)} files, {self.bytes:,} bytes, {len(self.larger)} files from discs:"
            " SHA-256 as the originals'",
        )

    def equal(self, file: Dicom) -> bool:
        """Whether the mount gives the original's bytes."""
        digest = hashlib.sha256()
        with (self.top / file.name).open("rb", buffering=0) as copy:
            while data := copy.read(_BLOCK):
                digest.update(data)
                self.picture.advance("read back", 0, len(data))
        self.picture.advance("read back", 1, 0)
        return digest.hexdigest() == dicom.sha256(file.source)

    def discs(self) -> None:
        """Check a burned disc with the stand-alone reader, which knows nothing of hsmfs."""
        self.picture.step("check a disc without hsmfs: tools/hsm-disc verify")
        image = self.images()[-1]
        done = subprocess.run(
            [sys.executable, REPOSITORY / "tools/hsm-disc", "verify", image],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        for line in done.stdout.splitlines()[-3:]:
            self.picture.say(f"    {line}")
        if done.returncode:
            raise DemoError(f"tools/hsm-disc found fault with {image}: {done.stderr.strip()}")

    def images(self) -> list[Path]:
        """The images of burned discs, the fullest one last."""
        found = (self.fs.folder / "library").rglob("*.iso")
        return sorted(found, key=lambda path: path.stat().st_size)

    def on_disk(self) -> int:
        """Bytes that the archive's files occupy on disk, as stat says."""
        return sum((self.top / file.name).stat().st_blocks * 512 for file in self.files)

    def states(self) -> dict[str, tuple[int, int]]:
        """Files and bytes by state, as the daemon counts them."""
        found: dict[str, Any] = self.client.get("/df")
        return {row["state"]: (row["files"], row["bytes"]) for row in found["files"]}

    def until(
        self, bar: str, files: int, count: Callable[[dict[str, tuple[int, int]]], tuple[int, int]]
    ) -> None:
        """Wait until the daemon counts so many files, and move the bar meanwhile."""
        last, since = (0, 0), time.monotonic()
        while last[0] < files:
            time.sleep(0.1)
            now = count(self.states())
            self.picture.reach(bar, *now)
            busy = self.client.get("/status")["burns"]
            if now != last or busy:
                last, since = now, time.monotonic()
            if time.monotonic() > since + _PATIENCE_S:
                raise DemoError(
                    f"'{bar}' stopped at {last[0]} of {files} files\n{self.fs.log_tail()}"
                )

    def done(self, bar: str, text: str) -> None:
        """The result of a step."""
        self.picture.say(f"    {text} ({self.picture.took(bar):.1f} s)")
