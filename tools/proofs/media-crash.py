"""kill -9 during a move, burn, rebuild, export: robot, discs and catalog agree after the restart.

    tools/prove media-crash [--points REGEX] [--seed N] [--jobs 2]

The daemon lives through acts, one after another, and each act's points are listed. Then each point
ends a life of its own, begun from a copy of what lay there before the act. The daemon is started
and stopped: robot, discs and catalog are compared, without its own code. The act is done again,
all files are recalled from discs and compared with the model, and all must agree once more.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from lib.agreement import MAIL, STORED, disagreements, discs
from lib.crashlab import Died, Lab, bad_lives
from lib.tempfs import TempFs, TempFsError

LEAST = 40
STATE = ("pool", "state", "library", "spool")
"""Folders of an hsmfs that outlive its daemon."""
USERS = re.compile(r"(files|housekeeping|purge|pin|trash|control|demote|pools|init)\.")
"""Points that have nothing to do with media; tools/prove crash has them."""
OFTEN = re.compile(r"robot|drive\.burn|burn\.(started|ended|verified|committed)")
"""Points that end a life in each act that passes them, and at their second pass too: one copy is
burned, one disc is moved already. The others do so in the first act that passes them."""
GOES_ON = "robot.lifted"
"""Here the robot, which is a machine of its own, may end the move though the daemon is dead."""


def new_fs(folder: Path) -> TempFs:
    """Two drives and small discs; laid out, not yet made."""
    fs = TempFs(
        {
            "library": {"drives": 2, "disc": "16 MiB", "magazines": 2},
            "trash": {"keep": "0 s"},
            "sets": {"parity": "raid5", "discs": 3, "release_needs": "copies"},
        },
        folder=folder,
    )
    fs.lay_out()
    return fs


# Acts: each may be done again after it was cut off.


def archive(folder: str) -> Callable[[Lab], None]:
    def act(lab: Lab) -> None:
        lab.control("archive", "--now", "--wait", "--copies", "2", str(lab.path(folder)))

    return act


def recall(lab: Lab) -> None:
    """Everything from discs, the ones that are not in drives too."""
    lab.control("release", str(lab.fs.mountpoint))
    for name, entry in lab.model.items():
        if entry and entry[0] == "file":
            lab.read(name)


def move(lab: Lab) -> None:
    """A disc from its slot to the mail slot and back to a slot."""
    elements = lab.fs.ask("library", "inventory")["elements"]
    slots = [e for e in elements if e["kind"] == "storage"]
    mail = [e for e in elements if e["kind"] == "import_export"]
    brought = [e["barcode"] for e in mail if e["barcode"]]
    barcode = brought[0] if brought else [e["barcode"] for e in slots if e["barcode"]][-1]
    if not brought:
        lab.control("library", "move", barcode, str(mail[0]["address"]))
    empty = [e for e in slots if e["barcode"] in (None, barcode)]
    lab.control("library", "move", barcode, str(empty[-1]["address"]))


def close(lab: Lab) -> None:
    """Parity for the sets that are not full."""
    for group in lab.fs.ask("volume", "set", "ls"):
        if group["state"] == "open":
            lab.control("volume", "close", group["set"])
    with lab.step({}):
        while any(s["state"] != "closed" for s in lab.fs.ask("volume", "set", "ls")):
            time.sleep(0.1)


def rebuild(lab: Lab) -> None:
    """A disc of a set is taken away by hand, and made anew from the others."""
    shelf = lab.fs.folder / "library/shelf"
    with lab.step({}):
        members = lab.fs.ask("volume", "set", "info", "SET00001")["discs"]
        if not shelf.exists():
            there = discs(lab.fs.folder / "library")
            gone = next(
                d for m in members for d in there[m["disc"]] if d.address in STORED
            )
            shelf.mkdir()
            os.rename(gone.folder, shelf / gone.folder.name)
        lab.fs.control("library", "inventory")
        (barcode,) = os.listdir(shelf)
        if any(m["disc"] == barcode for m in members):
            lab.fs.control("volume", "rebuild", barcode, "--wait")


VAULT = "SET00002"
"""The set that is exported; the other copies of its files stay."""


def export(lab: Lab) -> None:
    """A set leaves the library: an operator takes its discs from the mail slots."""
    library = lab.fs.folder / "library"
    with lab.step({}):
        members = lab.fs.ask("volume", "set", "info", VAULT)["discs"]
        inside = {m["disc"] for m in members if not (library / "shelf" / m["disc"]).exists()}
        leaving = {disc["barcode"] for disc in lab.fs.ask("volume", "leaving")}
        if inside - leaving:
            lab.fs.control("volume", "export", *sorted(inside - leaving), "--to", "vault")
        while inside:
            lab.fs.control("library", "inventory")
            for disc in (d for name in sorted(inside) for d in discs(library)[name]):
                if disc.address in MAIL:
                    os.rename(disc.folder, library / "shelf" / disc.folder.name)
                    inside.discard(disc.folder.name)
            time.sleep(0.1)
        lab.fs.control("library", "inventory")


def import_(lab: Lab) -> None:
    """The operator brings it back, as many discs at a time as there are mail slots."""
    library = lab.fs.folder / "library"
    with lab.step({}):
        members = [m["disc"] for m in lab.fs.ask("volume", "set", "info", VAULT)["discs"]]
        while not all(d.address in STORED for m in members for d in discs(library)[m]):
            mail = [library / f"elements/{address:05d}" for address in MAIL]
            free = [slot for slot in mail if slot.exists() and not any(slot.iterdir())]
            outside = [m for m in members if (library / "shelf" / m).exists()]
            for barcode, slot in zip(outside, free, strict=False):
                os.rename(library / "shelf" / barcode, slot / barcode)
            lab.fs.control("volume", "import")


def archive_more(lab: Lab) -> None:
    """More discs than there are drives, so that some are put away."""
    archive("b")(lab)
    archive("c")(lab)


ACTS: dict[str, Callable[[Lab], None]] = {
    "burn": archive("a"),
    "burn on": archive_more,
    "recall": recall,
    "move": move,
    "close": close,
    "rebuild": rebuild,
    "export": export,
    "import": import_,
}


def fill(lab: Lab) -> None:
    """Files of all kinds, one greater than half a disc."""
    for folder in ("a", "b", "c"):
        lab.mkdir(folder)
        lab.write(f"{folder}/empty", b"")
        lab.write(f"{folder}/small", lab.data(3000))
        lab.write(f"{folder}/text", b"text that compresses well\n" * 20_000)
        lab.write(f"{folder}/large", lab.data(5_000_000))
        lab.write(f"{folder}/larger", lab.data(4_200_000))
        lab.link(f"{folder}/small", f"{folder}/small too")


# Lives


@dataclass(frozen=True)
class Death:
    """Where a life ends: at the n-th pass. goes_on: the robot ends its move alone."""

    act: str
    point: str
    n: int = 1
    goes_on: bool = False

    def __str__(self) -> str:
        again = f" ({self.n})" if self.n > 1 else ""
        return f"{self.act}: {self.point}{again}" + (", robot goes on" if self.goes_on else "")


@dataclass
class Stage:
    """What lay there before an act, and the points that the act passes."""

    folder: Path
    lab: Lab
    points: Counter[str]

    def replay(self, folder: Path) -> Lab:
        """The same again in another folder."""
        fs = new_fs(folder)
        for name in STATE:
            subprocess.run(
                ["cp", "-a", "--sparse=always", self.folder / name, folder], check=True
            )
        lab = copy.copy(self.lab)
        lab.model, lab.fs = dict(self.lab.model), fs
        lab.doubt, lab.durable = {}, set()
        return lab


def stages(p: Proof, folder: Path, seed: int) -> dict[str, Stage]:
    """Live through all acts and keep what lies there before each."""
    fs = new_fs(folder / "list")
    lab = Lab(fs, seed)
    with fs:
        fill(lab)
    found: dict[str, Stage] = {}
    for act, do in ACTS.items():
        before, listed = folder / f"before {act}", folder / f"points of {act}"
        before.mkdir()
        for name in STATE:
            subprocess.run(
                ["cp", "-a", "--sparse=always", fs.folder / name, before], check=True
            )
        fs.set_environment(HSMFS_CRASH_LIST=str(listed))
        fs.start()
        try:
            start = len(listed.read_text().splitlines()) if found and listed.exists() else 0
            do(lab)
            fs.stop()
        finally:
            fs.kill()
        passed = listed.read_text().splitlines()[start:]
        points = Counter(point for point in passed if not USERS.match(point))
        frozen = copy.copy(lab)
        frozen.model = dict(lab.model)
        found[act] = Stage(before, frozen, points)
        faults = disagreements(fs.folder, settled=True)
        if faults:
            raise AssertionError(f"without a crash, after {act}: {faults[0]}")
    for blind in overlooked(fs.folder):
        p.require(False, f"the comparison does not see {blind}")
    return found


def overlooked(folder: Path) -> list[str]:
    """Faults made on purpose, which the comparison does not see."""
    blind = []
    full = next(d for (d,) in discs(folder / "library").values() if d.status == "CLOSED")
    image, elsewhere = full.folder / "disc.iso", folder / "library/shelf"
    elsewhere.mkdir(exist_ok=True)
    os.rename(full.folder, elsewhere / full.folder.name)
    if not disagreements(folder, settled=True):
        blind.append("a disc that was taken away")
    os.rename(elsewhere / full.folder.name, full.folder)
    image.chmod(0o600)
    with image.open("r+b") as out:
        out.seek(image.stat().st_size // 2)
        byte = out.read(1)
        out.seek(-1, os.SEEK_CUR)
        out.write(bytes([byte[0] ^ 1]))
    if not disagreements(folder, settled=True):
        blind.append("a byte of a disc that is another one")
    return blind


def deaths(found: dict[str, Stage]) -> list[Death]:
    """Every point's first pass, more of those in OFTEN, and what the robot may do."""
    every: list[Death] = []
    for act, stage in found.items():
        for point, passes in stage.points.items():
            if OFTEN.match(point):
                every += [Death(act, point, n) for n in (1, 2) if n <= passes]
            elif not any(death.point == point for death in every):
                every.append(Death(act, point))
    return every + [replace(death, goes_on=True) for death in every if death.point == GOES_ON]


def die(death: Death, stage: Stage, folder: Path) -> list[str]:
    """One life; what is wrong after it, a line each."""
    lab = stage.replay(folder)
    fs = lab.fs
    try:
        fs.set_environment(HSMFS_CRASH=f"{death.point}:{death.n}")
        if not killed(fs, lambda: ACTS[death.act](lab)):
            return ["the act ended without passing the point"]
        fs.kill()
        fs.set_environment(HSMFS_CRASH="")
        if death.goes_on:
            go_on(fs.folder)
        return after(lab, ACTS[death.act])
    except Exception as fault:
        return [f"{type(fault).__name__}: {fault}", *fs.log_tail().splitlines()[-5:]]
    finally:
        fs.kill()
        shutil.rmtree(folder, ignore_errors=True)


def killed(fs: TempFs, act: Callable[[], None]) -> bool:
    """Start, act, stop; True if a SIGKILL cut that off."""
    try:
        fs.start()
        act()
        fs.stop()
    except Died:
        return True
    except TempFsError as fault:
        # The start and the stop are watched by TempFs itself.
        if "-9" not in str(fault).splitlines()[0]:
            raise
        return True
    return False


def go_on(folder: Path) -> None:
    """The robot puts the disc that it holds where it was told to."""
    with sqlite3.connect(folder / "state/catalog.db") as catalog:
        told = "SELECT barcode, dst FROM moves WHERE finished_ns IS NULL ORDER BY id DESC"
        barcode, dst = catalog.execute(told).fetchone()
    catalog.close()
    elements = folder / "library/elements"
    os.rename(elements / "00001" / barcode, elements / f"{dst:05d}" / barcode)


def after(lab: Lab, act: Callable[[Lab], None]) -> list[str]:
    """Judge what is there now, and what it becomes."""
    fs = lab.fs
    fs.start()
    fs.stop()
    faults = [f"after the restart: {f}" for f in disagreements(fs.folder, settled=False)]
    fs.start()
    act(lab)
    fs.control("archive", "--now", "--wait", "--copies", "2", str(fs.mountpoint))
    fs.control("release", str(fs.mountpoint))
    faults += lab.compare()
    findings = fs.ask("fsck", check=False)["findings"]
    faults += [f"fsck: {finding}" for finding in findings]
    fs.stop()
    return faults + [f"in the end: {f}" for f in disagreements(fs.folder, settled=True)]


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default=".", help="only 'ACT: POINT's that match")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hsmfs-media-") as name:
        folder = Path(name)
        found = stages(p, folder, given.seed)
        chosen = [death for death in deaths(found) if re.search(given.points, str(death))]
        acts = ", ".join(f"{act} ({len(stage.points)} points)" for act, stage in found.items())
        p.say(f"seed {given.seed}; acts: {acts}")
        bad = bad_lives(
            p.say, given.jobs, folder, chosen,
            lambda death, where: die(death, found[death.act], where),
        )  # fmt: skip
        least = LEAST if given.points == "." else 1
        p.figure("lives that were ended", len(chosen), at_least=least)
        p.figure("lives after which something disagreed", bad, at_most=0)


if __name__ == "__main__":
    with proof("kill -9 during work on media leaves robot, discs and catalog in agreement") as p:
        main(p)
