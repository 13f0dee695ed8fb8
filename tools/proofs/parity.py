"""Parity costs next to nothing, and six drives of 60 MB/s are kept busy while sets are written.

    tools/prove parity [--disc-mb 600] [--discs 24] [--only encode|pipeline|drives]

encode: Reed-Solomon of 10+2 on one core, beside a plain copy in memory in the same run.
pipeline: checksums, compression, image and parity of sets that follow each other, each step on
another disc as the migrator does it; which of them would limit 18 drives (1,080 MB/s) is named.
drives: a real archive of sets of 10+2 through the daemon to six simulated drives of 60 MB/s, each
disc read back after its burn; a change of discs takes robot and drive no time of their own. A drive
is busy for bytes burned or read back, by its nominal rate, from when all six are at work until as
many discs as there are of data have begun. What stands still counts against it: changes of discs,
commits, waits for an image, and reading slower than the drive could.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import parity
import pipeline
from _verdict import Proof, proof
from common import MIB, warm_memory
from lib.tempfs import TempFs
from media import spool_beside

from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink

DRIVES = 6
RATE = 60_000_000
"""Bytes a second of one drive, either way."""
SPOOL = 28
"""Discs that fit in the spool: images made ahead, those of a set that is not full, and parity."""
WANTED = 360.0
LATER = 1080.0
FILE = 16 * MIB


def prove_encode(p: Proof) -> None:
    # A process of its own: it binds itself to one core.
    found = parity.in_child(10, 2)
    p.figure("memory copy, one core", found["memory copy"], "GB/s")
    p.figure("encode 10+2, one core", found["encode"], "GB/s", at_least=2.0)
    p.figure("fold one disc after the other", found["fold"], "GB/s")


def prove_pipeline(p: Proof, folder: Path) -> None:
    rates = pipeline.measure(folder)
    together = rates.pop("together")
    for name, rate in rates.items():
        p.figure(f"{name} alone", rate, "MB/s")
    p.figure("all of it together", together, "MB/s", at_least=WANTED)
    slowest = min(rates, key=lambda name: rates[name])
    if together >= LATER:
        p.say(f"18 drives ({LATER:.0f} MB/s): nothing here limits them")
    else:
        p.say(
            f"18 drives ({LATER:.0f} MB/s): {slowest} limits, {rates[slowest]:.0f} MB/s on"
            f" {os.cpu_count()} cores; more cores or faster memory and disks would be needed"
        )


@dataclass
class Turn:
    """One disc in a drive: its bytes, and those that were burned and read back."""

    disc: str
    size: int
    burned: int = 0
    read: int = 0
    last: int = 0
    """As the drive told last of its reading; it counts anew after a pause."""


class Drives:
    """Bytes that each drive moved, by looking at the daemon's own figures."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._turns: dict[str, Turn] = {}
        self._over: Counter[str] = Counter()
        self.burned: set[str] = set()

    def look(self) -> int:
        """Take note of what was moved since the last look; how many drives are at work."""
        busy = 0
        for drive in self._client.get("/drives"):
            name, work, disc = drive["name"], drive["work"], drive["disc"]
            turn = self._turns.get(name)
            if turn is not None and turn.disc != disc:
                # It left the drive, so it was read back to its end: see `damaged`.
                self._over[name] += 2 * turn.size
                del self._turns[name]
            busy += work in ("burning", "reading")
            if work == "burning" and disc:
                self.burned.add(disc)
                turn = self._turns.setdefault(name, Turn(disc, drive["work_total"]))
                turn.burned = drive["work_done"]
            elif work == "reading" and name in self._turns:
                turn, done = self._turns[name], drive["work_done"]
                turn.burned = turn.size
                turn.read += done - turn.last if done >= turn.last else done
                turn.last = done
        return busy

    def damaged(self) -> list[str]:
        """Discs whose burn or reading back went wrong."""
        return [disc["barcode"] for disc in self._client.get("/volumes", state="damaged")]

    def moved(self) -> Counter[str]:
        """Bytes by drive until now."""
        now = Counter({name: turn.burned + turn.read for name, turn in self._turns.items()})
        return now + self._over


def prove_drives(p: Proof, disc_mb: int, discs: int, place: Path) -> None:
    disc = disc_mb * 1_000_000 // 2048 * 2048
    with spool_beside(place) as spool:
        tables = {
            "library": {
                "drives": DRIVES, "magazines": 6, "disc": f"{disc} B", "exchange": "0 s",
                "load": "0 s", "seek": "0 s", "read_rate": "60 MB/s", "write_rate": "60 MB/s",
            },
            "engine": {
                "spool": spool, "spool_limit": f"{SPOOL * disc} B", "recall_drives": 0,
                "burn_wait": "1 h",
            },
            "sets": {"parity": "raid6", "discs": 12},
        }  # fmt: skip
        with TempFs(tables, folder=place / "fs") as fs:
            _write(fs, discs * (disc - disc // 50))
            p.say(f"{discs} discs of {disc_mb} MB to {DRIVES} drives")
            _migrate(p, fs, discs)


def _write(fs: TempFs, size: int) -> None:
    noise = os.urandom(64 * MIB)
    folder = fs.mountpoint / "data"
    folder.mkdir()
    for number in range(size // FILE):
        start = (number * 4_099_001) % (len(noise) - FILE)
        data = number.to_bytes(8, "little") + noise[start : start + FILE - 8]
        (folder / f"{number:05d}").write_bytes(data)
    os.sync()


def _migrate(p: Proof, fs: TempFs, discs: int) -> None:
    order = subprocess.Popen(
        [*fs.control_command(), "archive", "--now", "--wait", str(fs.mountpoint / "data")],
        env=fs.environment(), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    drives = Drives(Client(SocketLink(fs.socket)))
    began = ended = 0.0
    while order.poll() is None:
        busy = drives.look()
        if not began and busy == DRIVES:
            began, at_begin = time.monotonic(), drives.moved()
        if began and not ended and len(drives.burned) >= discs:
            ended, at_end = time.monotonic(), drives.moved()
        time.sleep(0.1)
    p.require(order.returncode == 0, "the archive failed")
    spoiled = drives.damaged()
    p.require(not spoiled, f"discs were not read back to their end: {spoiled}")
    p.require(bool(began and ended), "six drives were never at work at once")
    if not (began and ended):
        return
    window = ended - began
    p.figure("window", window, "s")
    shares = {
        name: (at_end[name] - at_begin[name]) / RATE / window for name in sorted(at_end)
    }
    for name, share in shares.items():
        p.figure(f"drive {name} busy", 100 * share, "%")
    p.figure("all drives busy", 100 * sum(shares.values()) / DRIVES, "%", at_least=95.0)
    sets = fs.ask("volume", "set", "ls")
    p.figure("sets", len(sets), at_least=1)


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--disc-mb", type=int, default=600)
    parser.add_argument("--discs", type=int, default=24)
    parser.add_argument("--only", choices=("encode", "pipeline", "drives"))
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="hsmfs-parity-"))
    try:
        if given.only in (None, "encode"):
            prove_encode(p)
        if given.only in (None, "pipeline"):
            warm_memory()
            prove_pipeline(p, place)
        if given.only in (None, "drives"):
            prove_drives(p, given.disc_mb, given.discs, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    with proof("parity and all before it keep six drives of 60 MB/s busy") as p:
        main(p)
