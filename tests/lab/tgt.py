"""A SCSI media changer with write-once burners: tgt over loopback iSCSI, in the lab's kernel.

Discs are sparse files named by their barcode; tgt's DVD+R drives take any number of bytes. Run as
a program it builds one and runs a command: `python tests/lab/tgt.py DISCS DRIVES COMMAND...`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROBOT, DRIVE, SLOT, MAIL = 1, 500, 1000, 2000
TRANSPORT_TYPE, STORAGE_TYPE, MAIL_TYPE, DRIVE_TYPE = 1, 2, 3, 4
DISC_BYTES = 2_295_104 * 2048
"""What tgt says of a blank disc."""
NAME = "iqn.2026-11.test:library"


@dataclass(frozen=True)
class Tgt:
    """A library that runs in this kernel until it is switched off.

    Attributes:
        discs: the folder of the discs' files
    """

    discs: Path
    drives: int
    slots: int
    mails: int = 2

    @staticmethod
    def build(
        folder: Path, barcodes: list[str], *, drives: int = 2, spare: int = 2, mails: int = 2
    ) -> Tgt:
        """Start tgt, define the library, log in to it, and wait until its devices are there."""
        tgt = Tgt(folder / "discs", drives, len(barcodes) + spare, mails)
        tgt.discs.mkdir(parents=True)
        (folder / "changer").write_bytes(bytes(1 << 20))
        nowhere = subprocess.DEVNULL
        subprocess.run(["tgtd"], stdout=nowhere, stderr=nowhere, check=True)
        _until(lambda: _ok("tgtadm", "--lld", "iscsi", "--op", "show", "--mode", "sys"))
        _tgt("new", "target", "-T", NAME)
        for number in range(1, drives + 1):
            first = tgt.discs / f".drive{number}"
            _run("tgtimg", "--op", "new", "--device-type", "cd", "--type", "dvd+r",
                 "--file", str(first))  # fmt: skip
            _tgt("new", "logicalunit", "--lun", str(number), "-b", str(first), "--device-type=cd")
            _unit(number, f"scsi_sn=DRIVE{number:03}")
            _unit(number, "online=0")
        changer = drives + 1
        _tgt("new", "logicalunit", "--lun", str(changer), "-b", str(folder / "changer"),
             "--device-type=changer")  # fmt: skip
        tgt._define(changer, barcodes)
        _tgt("bind", "target", "-I", "ALL")
        tgt._log_in(folder)
        return tgt

    def _define(self, changer: int, barcodes: list[str]) -> None:
        _unit(changer, f"media_home={self.discs}")
        _unit(changer, f"element_type={TRANSPORT_TYPE},start_address={ROBOT},quantity=1")
        _unit(changer, f"element_type={DRIVE_TYPE},start_address={DRIVE},quantity={self.drives}")
        for number in range(self.drives):
            _unit(changer, f"element_type={DRIVE_TYPE},address={DRIVE + number},tid=1,"
                           f"lun={number + 1}")  # fmt: skip
        _unit(changer, f"element_type={STORAGE_TYPE},start_address={SLOT},quantity={self.slots}")
        if self.mails:
            _unit(changer, f"element_type={MAIL_TYPE},start_address={MAIL},quantity={self.mails}")
        for number, barcode in enumerate(barcodes):
            self.blank(barcode)
            self.put(barcode, SLOT + number)

    def blank(self, barcode: str) -> None:
        """Make a new blank disc of this name, or make the old one blank."""
        disc = self.discs / barcode
        if disc.exists() and not disc.stat().st_size:
            return
        disc.unlink(missing_ok=True)
        _run("tgtimg", "--op", "new", "--device-type", "cd", "--type", "dvd+r",
             "--file", str(disc))  # fmt: skip

    def put(self, barcode: str, address: int) -> None:
        """Put a disc into a slot by hand."""
        kind = MAIL_TYPE if address >= MAIL else STORAGE_TYPE
        _unit(self.drives + 1, f"element_type={kind},address={address},barcode={barcode},sides=1")

    def take(self, address: int) -> None:
        """Take whatever is in a slot out by hand."""
        kind = MAIL_TYPE if address >= MAIL else STORAGE_TYPE
        _unit(self.drives + 1, f"element_type={kind},address={address},clear_slot=1")

    def empty_mail(self, places: list[dict[str, Any]]) -> list[str]:
        """Take by hand what lies in mail slots, as the daemon lists its places; the labels."""
        found = [place for place in places if place["full"] and place["address"] >= MAIL]
        for place in found:
            self.take(place["address"])
        return [place["barcode"] for place in found]

    def _log_in(self, folder: Path) -> None:
        """The kernel's own initiator, with its state in memory."""
        name = folder / "initiatorname"
        name.write_text("InitiatorName=iqn.2026-11.test:host\n")
        _run("mount", "--bind", str(name), "/etc/iscsi/initiatorname.iscsi")
        for part in ("nodes", "send_targets"):
            Path("/etc/iscsi", part).mkdir(exist_ok=True)
            _run("mount", "-t", "tmpfs", part, f"/etc/iscsi/{part}")
        _run("iscsid")
        discover = ("iscsiadm", "-m", "discovery", "-t", "st", "-p", "127.0.0.1")
        _until(lambda: _ok(*discover))
        self.plug()

    def plug(self) -> None:
        """Connect the library to this host and wait for its devices."""
        _run("iscsiadm", "-m", "node", "-l")
        wanted = self.drives + 1
        _until(lambda: sum(_type(d) in ("5", "8") for d in _generics()) >= wanted)
        _until(lambda: len(list(Path("/dev").glob("sr[0-9]*"))) >= self.drives)
        _until(lambda: all(Path("/dev", d.name).exists() for d in _generics()))

    @staticmethod
    def unplug() -> None:
        """Disconnect it: every device of it goes."""
        _run("iscsiadm", "-m", "node", "-u")


def _generics() -> list[Path]:
    return sorted(Path("/sys/class/scsi_generic").glob("sg*"))


def _type(device: Path) -> str:
    return (device / "device/type").read_text().strip()


def _unit(number: int, parameters: str) -> None:
    _tgt("update", "logicalunit", "--lun", str(number), "--params", parameters)


def _tgt(operation: str, mode: str, *more: str) -> None:
    _run("tgtadm", "--lld", "iscsi", "--op", operation, "--mode", mode, "--tid", "1", *more)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")


def _ok(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _until(holds, patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError("the lab's library does not come up")
        time.sleep(0.05)


if __name__ == "__main__":
    count, bays, *words = sys.argv[1:]
    Tgt.build(Path("/run/lab"), [f"S0001D{n:02}" for n in range(1, int(count) + 1)],
              drives=int(bays))  # fmt: skip
    sys.exit(subprocess.run(words, check=False).returncode)
