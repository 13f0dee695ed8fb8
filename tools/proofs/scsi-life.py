"""A whole life on a SCSI library: real DICOM files to write-once discs, through loss, and back.

    tools/prove scsi-life

Everything happens in a real kernel (User Mode Linux) with a SCSI media changer and two write-once
burners: archive, release, recall, a disc pulled out with the robot, recall without it. After each
step every file is compared with what was written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOOLS), str(TOOLS.parent), str(TOOLS / "proofs")]

from _verdict import Proof, proof
from lib.demo import dicom
from lib.lab import inside, scsi_fs
from lib.tempfs import TempFs

from tests.lab.tgt import MAIL, Tgt

CLAIM = "real files live on a SCSI library, and outlive the loss of a disc"
LIMIT_S = 300
STEP_S = 120.0
MEMORY = "3072M"
FILES = 500
DRIVES, DISCS = 2, 8
DISC = "32 MiB"


class Life:
    """The archive, its library, and what every file must be."""

    def __init__(self, p: Proof, fs: TempFs, tgt: Tgt) -> None:
        self.p, self.fs, self.tgt = p, fs, tgt
        self.archive = fs.mountpoint / "archive"
        self.meant: dict[str, tuple[str, int, int, int]] = {}
        """By path: checksum, mode, size, time of modification."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.p.say(f"{what:<48} {time.monotonic() - began:>14.1f} s")

    def write(self) -> None:
        """The files of the packages; as there are fewer than 500, small ones once more."""
        found = sorted(dicom.find(), key=lambda d: d.size)
        again = found[: max(0, FILES - len(found))]
        for folder, files in (("first", found), ("second", again)):
            for file in files:
                target = self.archive / folder / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.source, target)
        for path in self._files():
            self.meant[str(path.relative_to(self.archive))] = self._look(path)
        self.p.figure("different DICOM files", len(found))
        self.p.figure("files in all", len(self.meant), at_least=FILES)
        self.p.figure("bytes", sum(size for _, _, size, _ in self.meant.values()))

    def compare(self, when: str) -> None:
        """Read every byte of every file."""
        found = {str(p.relative_to(self.archive)): self._look(p) for p in self._files()}
        wrong = [name for name in self.meant if found.get(name) != self.meant[name]]
        self.p.require(not wrong, f"{when}: {len(wrong)} files differ, such as {wrong[:3]}")
        more = found.keys() - self.meant.keys()
        self.p.require(not more, f"{when}: there are {len(more)} files that nobody wrote")

    def release(self) -> None:
        self.fs.control("release", self.archive)
        states: dict[bytes, int] = {}
        for path in self._files():
            state = os.getxattr(path, "user.hsm.state")
            states[state] = states.get(state, 0) + 1
        self.p.require(set(states) == {b"migrated"}, f"after release the states are {states}")

    def recall(self) -> None:
        """All of it, disc by disc."""
        self.fs.control("recall", "--wait", self.archive, timeout_s=STEP_S)

    def volumes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.fs.ask("volume", "list")
        return found

    def pull(self, barcode: str) -> None:
        """The robot puts a disc into the mail slot and somebody takes it away."""
        self.fs.control("library", "move", barcode, str(MAIL), timeout_s=120)
        self.tgt.take(MAIL)
        self.fs.control("library", "inventory")

    def _files(self) -> list[Path]:
        return sorted(p for p in self.archive.rglob("*") if p.is_file())

    @staticmethod
    def _look(path: Path) -> tuple[str, int, int, int]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        info = path.stat()
        return digest, info.st_mode, info.st_size, info.st_mtime_ns


@contextmanager
def telling(p: Proof, fs: TempFs) -> Iterator[None]:
    """If something fails, the end of the daemon's log is worth more than the error."""
    try:
        yield
    except BaseException:
        p.say(fs.log_tail(60))
        raise


def live(p: Proof) -> None:
    """Everything, inside the lab's kernel."""
    began = time.monotonic()
    barcodes = [f"S0001D{number:02}" for number in range(1, DISCS + 1)]
    tgt = Tgt.build(Path("/run/lab"), barcodes, drives=DRIVES)
    tables = {
        "library": {"drives": DRIVES, "disc": DISC, "slots_per_magazine": 4},
        "engine": {"spool_limit": "1 GiB", "burn_wait": "0 s", "min_residence": "0 s"},
        "fs": {"head": 0},
    }
    with scsi_fs(tables, Path("/run/hsmfs")) as fs, telling(p, fs):
        life = Life(p, fs, tgt)
        with life.step("500 files are written"):
            life.write()
        with life.step("archived: burned, read back and compared"):
            fs.control("archive", "--now", "--wait", life.archive, timeout_s=STEP_S)
        full = [v for v in life.volumes() if v["state"] == "full"]
        p.figure("discs burned", len(full), at_least=2)
        with life.step("released: nothing is left on disk"):
            life.release()
        with life.step("recalled and compared"):
            life.recall()
            life.compare("after the recall")
    p.figure("seconds in all", time.monotonic() - began, "s", at_most=LIMIT_S)


def main() -> None:
    if "--inside" in sys.argv:
        with proof(CLAIM) as p:
            live(p)
    code = inside([__file__, "--inside"], memory=MEMORY, limit_s=2 * LIMIT_S)
    if code == 124:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
