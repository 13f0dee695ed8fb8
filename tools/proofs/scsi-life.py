"""A whole life on a SCSI library: real DICOM files to write-once discs, through loss, and back.

    tools/prove scsi-life [--no-barcodes]

Everything happens in a real kernel (User Mode Linux) with a SCSI media changer and two write-once
burners, sets of three data discs and one of parity: archive, release, recall; a disc pulled out
with the robot, recall through parity, the disc made anew; the set exported to a vault and imported
again; the catalog lost and made again from the discs. After each step every file is compared with
what was written. With --no-barcodes as for a changer that reads none: which disc is where is lost
with the catalog, too, and found out by the labels inside.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib.demo import dicom
from lib.lab import inside, scsi_fs
from lib.tempfs import TempFs

from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink
from tests.lab.tgt import MAIL, SLOT, Tgt

CLAIM = "real files live on a SCSI library, and outlive the loss of a disc and of the catalog"
PLACE = "vault A, shelf 3"
LIMIT_S = 300
STEP_S = 120.0
MEMORY = "3072M"
FILES = 500
DRIVES, DISCS = 2, 8
DISC = "64 MiB"
DATA, PARITY = 3, 1
POLL_S = 0.5
LABELS = "labels.json"
"""In the library's path: which disc without a barcode lies where."""


class Life:
    """The archive, its library, and what every file must be."""

    def __init__(self, p: Proof, fs: TempFs, tgt: Tgt) -> None:
        self.p, self.fs, self.tgt = p, fs, tgt
        self.api = Client(SocketLink(fs.socket))
        self.archive = fs.mountpoint / "archive"
        self.meant: dict[str, tuple[str, int, int, int]] = {}
        """By path: checksum, mode, size, time of modification."""
        self.bodies: dict[str, str] = {}
        """What the lab calls discs that bear no barcode."""

    def meet(self, barcodes: list[str]) -> None:
        """Each disc is loaded once and given a name."""
        self.fs.control("library", "inventory", "--rescan", timeout_s=STEP_S)
        for place in self.api.get("/library"):
            if SLOT <= place["address"] < SLOT + len(barcodes):
                self.bodies[place["barcode"]] = barcodes[place["address"] - SLOT]
        self.p.figure("discs without a barcode", len(self.bodies), at_least=len(barcodes))

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

    def close_sets(self) -> None:
        """Parity is burned for the discs that the sets have, and verified."""
        for found in self.api.get("/sets"):
            self.fs.control("volume", "close", found["set"])
        deadline = time.monotonic() + STEP_S
        while any(s["state"] != "closed" for s in self.api.get("/sets")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"parity: {self.api.get('/sets')}")
            time.sleep(POLL_S)

    def export(self) -> list[str]:
        """The first set goes to the vault; somebody takes from the mail slots what comes."""
        [found, *_] = self.api.get("/sets")
        sheet = self.fs.folder / "labels.pdf"
        self.fs.control("volume", "export", found["set"], "--to", PLACE, "--labels", sheet)
        self.p.require(sheet.read_bytes().startswith(b"%PDF-"), "the label sheet is no PDF")
        taken: list[str] = []
        deadline = time.monotonic() + STEP_S
        while self.api.get("/export"):
            self.api.post("/library/inventory", timeout=None)
            taken += self.tgt.empty_mail(self.api.get("/library"))
            if time.monotonic() > deadline:
                raise TimeoutError(f"export: {self.api.get('/export')}")
        self.p.figure("discs in the vault", len(taken), at_least=DATA + PARITY)
        return taken

    def import_(self, barcodes: list[str]) -> None:
        """They are brought back, as many at a time as there are mail slots."""
        for start in range(0, len(barcodes), self.tgt.mails):
            for number, barcode in enumerate(barcodes[start : start + self.tgt.mails]):
                self.tgt.put(self.bodies.get(barcode, barcode), MAIL + number)
            self.fs.control("volume", "import")

    def refused(self) -> None:
        """A file whose disc lies in the vault is not to be had, and an operator is asked."""
        path = max(self._files(), key=lambda p: p.stat().st_size)
        try:
            path.read_bytes()
            self.p.require(False, f"{path.name} was read although its disc is in the vault")
        except OSError:
            wanted = self.api.get("/requests")
            self.p.require(bool(wanted), "no operator was asked for the disc")

    def lose_catalog(self) -> None:
        """The state directory is gone; it is made again from the discs alone."""
        self.fs.stop()
        (self.fs.folder / LABELS).unlink(missing_ok=True)
        state = self.fs.folder / "state"
        state.rename(self.fs.folder / "lost")
        state.mkdir()
        self.p.say(self.fs.control("rebuild", timeout_s=STEP_S, check=False).strip())
        self.fs.start()

    def volumes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.get("/volumes")
        return found

    def pull_data(self) -> str:
        """The robot puts a data disc into the mail slot and somebody takes it away."""
        [found, *_] = self.api.get("/sets")
        discs = self.api.get(f"/sets/{found['set']}")["discs"]
        barcode = next(
            d["disc"] for d in discs if d["role"] == "data" and not d["place"].startswith("drive")
        )
        self.fs.control("library", "move", barcode, str(MAIL))
        self.tgt.take(MAIL)
        self.fs.control("library", "inventory")
        self.p.say(f"disc {barcode} is gone")
        return str(barcode)

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


def live(p: Proof, *, labelled: bool) -> None:
    """Everything, inside the lab's kernel."""
    began = time.monotonic()
    barcodes = [f"S0001D{number:02}" for number in range(1, DISCS + 1)]
    tgt = Tgt.build(Path("/run/lab"), barcodes, drives=DRIVES)
    tables = {
        "daemon": {"log_level": "warning"},
        "library": {"drives": DRIVES, "disc": DISC, "slots_per_magazine": 4},
        "engine": {"spool_limit": "1 GiB", "burn_wait": "0 s", "min_residence": "0 s"},
        "fs": {"head": 0},
        "recall": {"shelf_wait": "1 s"},
        "sets": {"parity": "raid5", "discs": DATA + PARITY},
    }
    place = Path("/run/hsmfs")
    if not labelled:
        tables["library"] |= {"barcodes": False, "path": str(place)}
    with scsi_fs(tables, place) as fs, telling(p, fs):
        life = Life(p, fs, tgt)
        if not labelled:
            with life.step("discs are met and named"):
                life.meet(barcodes)
        with life.step("500 files are written"):
            life.write()
        with life.step("archived: burned, read back and compared"):
            fs.control("archive", "--now", "--wait", life.archive, timeout_s=STEP_S)
        with life.step("sets closed: parity burned and read back"):
            life.close_sets()
        full = [v for v in life.volumes() if v["state"] == "full"]
        p.figure("discs burned, parity among them", len(full), at_least=DATA + PARITY)
        with life.step("released: nothing is left on disk"):
            life.release()
        with life.step("recalled and compared"):
            life.recall()
            life.compare("after the recall")
        life.release()
        with life.step("a disc pulled out with the robot"):
            pulled = life.pull_data()
        with life.step("recalled through parity and compared"):
            life.recall()
            life.compare("after the recall through parity")
        with life.step("the disc made anew on a blank"):
            fs.control("volume", "rebuild", pulled, "--wait", timeout_s=STEP_S)
        life.release()
        with life.step(f"the set exported to {PLACE}"):
            barcodes = life.export()
            life.refused()
        with life.step("the set imported"):
            life.import_(barcodes)
        with life.step("the catalog lost, and made again from the discs"):
            life.lose_catalog()
        with life.step("recalled and compared"):
            life.recall()
            life.compare("after the rebuild of the catalog")
    p.figure("seconds in all", time.monotonic() - began, "s", at_most=LIMIT_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-barcodes", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        with proof(CLAIM) as p:
            live(p, labelled=not given.no_barcodes)
    code = inside([__file__, "--inside", *sys.argv[1:]], memory=MEMORY, limit_s=2 * LIMIT_S)
    if code == 124:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
