"""Each fault that the simulated library can act out leads to what docs/faults.md says.

    tools/prove faults [--only REGEX] [--jobs 2]

Each scene has an hsmfs of its own with files on two discs. A fault is armed in the library's
faults.json, a user reads, and what came of it is compared with the table: the reader's bytes or
its errno and how long that took, the words in the log, the states of disc, copy and drive, what
`hsmctl why` and `info` say, and whether all is well when the fault is gone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import errno
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from lib.tempfs import REPOSITORY, TempFs

TABLE = REPOSITORY / "docs/faults.md"
WAIT_LIMIT_S = 4.0
SLACK_S = 4.0
"""What a busy machine may add to a bounded wait."""
SIZE = 300_000
FILLER_BYTES, MOST_FILLERS = 12 << 20, 8
FILE = "scan.dcm"


@dataclass
class Row:
    """A line of the table."""

    name: str
    outcome: str
    """'data' or 'EIO'."""
    log: list[str]
    """Words that the log must hold."""


@dataclass
class Scene:
    """A file on discs, and the means to break and to look."""

    fs: TempFs
    content: bytes = b""
    outcome: str = "data"
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    fsck: set[str] = field(default_factory=set)
    """What fsck must find in the end."""

    @property
    def path(self) -> Path:
        return self.fs.mountpoint / FILE

    def require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.faults.append(otherwise)

    def write(self, name: str = FILE) -> None:
        self.content = random.Random(name).randbytes(SIZE)
        (self.fs.mountpoint / name).write_bytes(self.content)

    def archive(self, copies: int = 2, name: str = FILE) -> None:
        path = str(self.fs.mountpoint / name)
        self.fs.control("archive", "--now", "--wait", "--copies", str(copies), path)

    def stub(self, copies: int = 2) -> list[dict[str, Any]]:
        """A migrated file, its discs back in their slots; its copies."""
        self.write()
        self.archive(copies)
        self.fs.control("release", str(self.path))
        for number in range(MOST_FILLERS):
            if not any(copy["place"].startswith("drive") for copy in self.copies()):
                return self.copies()
            # Other discs take their places in the drives: two copies of a large file at once.
            (self.fs.mountpoint / f"filler-{number}").write_bytes(os.urandom(FILLER_BYTES))
            self.archive(2, f"filler-{number}")
        raise AssertionError("the file's discs stay in their drives")

    def copies(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.fs.ask("info", str(self.path))["copies"]
        return found

    def arm(self, *faults: dict[str, Any]) -> None:
        """Put exactly these faults in force."""
        target = self.fs.folder / "library/faults.json"
        part = target.with_suffix(".new")
        part.write_text(json.dumps(faults))
        part.rename(target)

    def sectors(self, copy: dict[str, Any]) -> dict[str, Any]:
        """Which sectors of its disc a copy lies in."""
        return {
            "barcode": copy["volume"], "sector": copy["sector"], "count": -(-copy["stored"] // 2048)
        }  # fmt: skip

    def read(self) -> None:
        """Read the whole file as a user does; the outcome is 'data' or the name of the errno."""
        began = time.monotonic()
        try:
            found = self.path.read_bytes()
            self.outcome = "data" if found == self.content else "wrong bytes"
        except OSError as fault:
            self.outcome = errno.errorcode[fault.errno or 0]
        self.seconds = time.monotonic() - began

    def why(self) -> str:
        return self.fs.control("why", str(self.path))

    def volume(self, barcode: str) -> dict[str, Any]:
        found: dict[str, Any] = next(
            v for v in self.fs.ask("volume", "list") if v["barcode"] == barcode
        )
        return found

    def volumes(self, state: str) -> list[dict[str, Any]]:
        return [v for v in self.fs.ask("volume", "list") if v["state"] == state]

    def must_say(self, what: str, text: str, *words: object) -> None:
        for word in words:
            self.require(str(word) in text, f"{what} does not say '{word}': {text[:600]!r}")

    def mended(self) -> None:
        """The fault is gone: what is the reader's must come, without a restart."""
        self.arm()
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            before = self.outcome, self.seconds
            self.read()
            came = self.outcome
            self.outcome, self.seconds = before
            if came == "data":
                return
            time.sleep(0.2)
        self.require(False, f"after the fault was gone the reader still gets {came}")


SCENES: dict[str, Callable[[Scene], None]] = {}


def scene(name: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def keep(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
        SCENES[name] = act
        return act

    return keep


@scene("drive fails while burning")
def _(s: Scene) -> None:
    s.write()
    s.arm({"kind": "burn_fails", "at_byte": 100_000})
    s.archive()
    s.require(s.fs.ask("info", str(s.path))["proven_copies"] == 2, "not two proven copies")
    spoiled = s.volumes("damaged")
    s.require(len(spoiled) == 1, f"{len(spoiled)} discs are damaged, not 1")
    s.require(all(v["reason"] for v in spoiled), "the spoiled disc has no reason")
    s.must_say("the log", s.fs.log_tail(1000), *(v["barcode"] for v in spoiled))
    s.fs.control("release", str(s.path))
    s.read()


@scene("drive fails while reading")
def _(s: Scene) -> None:
    s.stub()
    s.arm({"kind": "read_fails"})
    s.read()
    s.require(not s.volumes("suspect"), "a disc is suspected for one failure of a drive")


@scene("all drives fail while reading")
def _(s: Scene) -> None:
    copies = s.stub()
    s.arm({"kind": "read_fails", "times": None})
    s.read()
    s.must_say("why", s.why(), *(c["volume"] for c in copies), "drive", "hsmctl")
    s.arm()
    for drive in s.fs.ask("drive", "list"):
        s.fs.control("drive", "up", drive["name"])
    s.mended()


@scene("unreadable sectors")
def _(s: Scene) -> None:
    copies = s.stub()
    s.arm({"kind": "unreadable", **s.sectors(copies[0])})
    s.read()
    first = copies[0]["volume"]
    s.require(s.volume(first)["state"] == "suspect", f"disc {first} is not suspect")
    s.must_say("the disc's reason", s.volume(first)["reason"], copies[0]["sector"])
    s.must_say("the log", s.fs.log_tail(1000), first, copies[0]["sector"])
    s.require(s.copies()[0]["state"] == "damaged", "the copy is not marked damaged")
    s.require(s.copies()[1]["state"] == "valid", "the other copy is not valid")


@scene("unreadable sectors of every copy")
def _(s: Scene) -> None:
    copies = s.stub()
    s.arm(*({"kind": "unreadable", **s.sectors(copy)} for copy in copies))
    s.read()
    s.fsck = {"absent_bytes_are_on_discs"}
    for copy in copies:
        s.must_say("why", s.why(), copy["volume"], copy["sector"])
    s.must_say("why", s.why(), "hsmctl volume")


@scene("silently corrupt sectors")
def _(s: Scene) -> None:
    copies = s.stub()
    s.arm({"kind": "corrupt", **s.sectors(copies[0])})
    s.read()
    first = copies[0]["volume"]
    s.require(s.volume(first)["state"] == "suspect", f"disc {first} is not suspect")
    s.must_say("the log", s.fs.log_tail(1000), first)
    s.must_say("the disc's reason", s.volume(first)["reason"], copies[0]["sector"])
    s.require(s.copies()[0]["state"] == "damaged", "the copy is not marked damaged")


@scene("silently corrupt sectors of every copy")
def _(s: Scene) -> None:
    copies = s.stub()
    s.arm(*({"kind": "corrupt", **s.sectors(copy)} for copy in copies))
    s.read()
    s.fsck = {"absent_bytes_are_on_discs"}
    s.must_say("why", s.why(), *(copy["volume"] for copy in copies), copies[0]["sector"])


@scene("corrupt sectors on a new disc")
def _(s: Scene) -> None:
    s.write()
    blank = sorted(v["barcode"] for v in s.volumes("blank"))
    s.arm({"kind": "corrupt", "barcode": blank[0], "sector": 40, "count": 60})
    s.archive()
    spoiled = s.volumes("damaged")
    s.require([v["barcode"] for v in spoiled] == [blank[0]], f"damaged: {spoiled}")
    s.require(s.fs.ask("info", str(s.path))["proven_copies"] == 2, "not two proven copies")
    s.fs.control("release", str(s.path))
    s.read()


@scene("robot jams and lets the disc go")
def _(s: Scene) -> None:
    s.stub()
    s.arm({"kind": "robot_jam"})
    s.read()


@scene("robot jams with the disc in its gripper")
def _(s: Scene) -> None:
    s.stub()
    s.arm({"kind": "robot_jam", "leaves": "transport"})
    s.read()


@scene("robot stays jammed")
def _(s: Scene) -> None:
    s.stub()
    s.arm({"kind": "robot_jam", "times": None})
    s.read()
    s.must_say("why", s.why(), "jam", "hsmctl")
    s.mended()


@scene("disc missing from its slot")
def _(s: Scene) -> None:
    copies = s.stub()
    first = copies[0]["volume"]
    s.arm({"kind": "missing", "barcode": first})
    s.read()
    s.must_say("the log", s.fs.log_tail(1000), first)
    s.require(s.volume(first)["state"] == "lost", f"disc {first} is not lost")
    s.arm()
    s.fs.control("library", "inventory", "--rescan")
    s.require(s.volume(first)["state"] == "full", f"disc {first} did not come back")


@scene("every disc missing from its slot")
def _(s: Scene) -> None:
    copies = s.stub()
    s.arm(*({"kind": "missing", "barcode": copy["volume"]} for copy in copies))
    s.read()
    s.must_say("why", s.why(), *(copy["volume"] for copy in copies), "hsmctl")
    s.arm()
    s.fs.control("library", "inventory", "--rescan")
    s.mended()


@scene("door open for a moment")
def _(s: Scene) -> None:
    s.stub()
    s.arm({"kind": "door_open"})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        reading = pool.submit(s.read)
        time.sleep(WAIT_LIMIT_S / 4)
        s.require(not reading.done(), "the reader did not wait for the door")
        s.must_say("why", s.why(), "door")
        s.arm()
        reading.result()


@scene("door stays open")
def _(s: Scene) -> None:
    s.stub()
    s.arm({"kind": "door_open"})
    s.read()
    s.must_say("why", s.why(), "door")
    s.mended()


@scene("label of another disc")
def _(s: Scene) -> None:
    copies = s.stub()
    first, blank = copies[0]["volume"], s.volumes("blank")[0]["barcode"]
    s.arm(
        {"kind": "label", "barcode": first, "reads_as": blank},
        {"kind": "label", "barcode": blank, "reads_as": first},
    )
    s.fs.control("library", "inventory", "--rescan")
    s.read()
    s.require(s.volume(first)["state"] == "suspect", f"disc {first} is not suspect")
    s.must_say("the disc's reason", s.volume(first)["reason"], first)


@scene("labels of both copies' discs swapped with blanks")
def _(s: Scene) -> None:
    copies = s.stub()
    blanks = s.volumes("blank")
    faults = []
    for copy, blank in zip(copies, blanks, strict=False):
        pair = copy["volume"], blank["barcode"]
        for one, other in (pair, pair[::-1]):
            faults.append({"kind": "label", "barcode": one, "reads_as": other})
    s.arm(*faults)
    s.fs.control("library", "inventory", "--rescan")
    s.read()
    s.must_say("why", s.why(), *(copy["volume"] for copy in copies))
    s.arm()
    s.fs.control("library", "inventory", "--rescan")
    s.mended()


@scene("drive does not load a disc")
def _(s: Scene) -> None:
    s.stub()
    s.arm({"kind": "load_fails"})
    s.read()


@scene("a disc loads in no drive")
def _(s: Scene) -> None:
    copies = s.stub()
    first = copies[0]["volume"]
    s.arm({"kind": "load_fails", "barcode": first, "times": None})
    s.read()
    s.must_say("the log", s.fs.log_tail(1000), first)


def table() -> dict[str, Row]:
    """The facts of docs/faults.md: rows of 'fault | does | reader sees | in the log | admin'."""
    rows = {}
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 5 and cells[0] not in ("fault", "---"):
            outcome = "EIO" if cells[2].startswith("EIO") else "data"
            rows[cells[0]] = Row(cells[0], outcome, re.findall(r"`([^`]+)`", cells[3]))
    return rows


def play(name: str, folder: Path, row: Row) -> Scene:
    """One scene from its first file to fsck."""
    fs = TempFs(
        {
            "library": {"drives": 2, "disc": "32 MiB", "magazines": 2},
            "fs": {"wait_limit": f"{WAIT_LIMIT_S:g} s"},
            "engine": {"recall_retry_wait": "0.3 s", "recall_drives": 0},
            # What a fault leaves is looked at before anybody puts it right.
            "scrub": {"replace": False},
        },
        folder=folder,
    )
    s = Scene(fs)
    try:
        with fs:
            SCENES[name](s)
            log = fs.log.read_text()
            for word in row.log:
                s.require(word in log, f"the log does not say '{word}'")
            s.require(s.outcome == row.outcome, f"the reader gets {s.outcome}, not {row.outcome}")
            limit = WAIT_LIMIT_S + SLACK_S
            s.require(s.seconds < limit, f"the reader waited {s.seconds:.1f} s, not {limit:g}")
            s.arm()
            findings = fs.ask("fsck", check=False)["findings"]
            bad = {f["check"] for f in findings if f["severity"] != "note"}
            s.require(bad == s.fsck, f"fsck finds {bad}, not {s.fsck}")
    except Exception as fault:
        s.faults += [f"{type(fault).__name__}: {fault}", fs.log_tail(8)]
    return s


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=".", help="scenes that match")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    rows = table()
    p.require(rows.keys() == SCENES.keys(), f"table and scenes differ: {rows.keys() ^ SCENES}")
    chosen = [name for name in SCENES if re.search(given.only, name) and name in rows]
    with (
        tempfile.TemporaryDirectory(prefix="hsmfs-faults-") as place,
        concurrent.futures.ThreadPoolExecutor(given.jobs) as pool,
    ):
        played = {
            name: pool.submit(play, name, Path(place, str(number)), rows[name])
            for number, name in enumerate(chosen)
        }
        for name, future in played.items():
            s = future.result()
            p.say(f"{name:<50} {s.outcome:>5} after {s.seconds:4.1f} s")
            for fault in s.faults:
                p.require(False, f"{name}: {fault}")
            p.require(True, "")
    p.figure("faults acted out", len(chosen), at_least=1)
    p.figure("outcomes as documented", sum(not f.result().faults for f in played.values()))


if __name__ == "__main__":
    with proof("each fault has its documented outcome, and readers get what any copy holds") as p:
        main(p)
