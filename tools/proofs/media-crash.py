"""kill -9 during work on media: robot, discs and catalog agree after the restart.

    tools/prove media-crash [--points REGEX] [--seed N] [--jobs 2]

The daemon lives through acts, one after another: burn, recall, move, parity, a disc made anew,
export, import, the catalog made from discs, discs adopted, repack. Each act's points are listed.
Then each point ends a life of its own, begun from a copy of what lay there before the act. The
daemon is started and stopped: robot, discs and catalog are compared, without its own code. The act
is done again, all files are recalled from discs and compared with the model, and all must agree
once more.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from lib import mediaacts as acts
from lib.agreement import DRIVES, disagreements, discs, full
from lib.crashlab import Died, Entry, Lab, bad_lives
from lib.tempfs import TempFs, TempFsError

from hsmfs.catalog.catalog import Catalog

LEAST = 40
STATE = ("pool", "state", "library", "spool")
"""Folders of an hsmfs that outlive its daemon."""
USERS = re.compile(r"(catalog|files|housekeeping|purge|pin|trash|control|demote|pools|init)\.")
"""Points that have nothing to do with media; tools/prove crash has them."""
OFTEN = re.compile(r"robot|drive\.burn|burn\.(started|ended|verified|committed)")
"""Points that end a life in each act that passes them; in the first one that does so twice at their
second pass too: one copy is burned, one disc is moved already. The others do so in the first act
that passes them."""
GOES_ON = "robot.lifted"
"""Here the robot, which is a machine of its own, may end the move though the daemon is dead."""


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
    do: acts.Act
    lab: Lab
    points: Counter[str]

    def replay(self, folder: Path) -> Lab:
        """The same again in another folder."""
        fs = acts.new_fs(folder)
        keep(self.folder, folder)
        lab = copy.copy(self.lab)
        lab.model, lab.fs = dict(self.lab.model), fs
        lab.doubt, lab.durable = {}, set()
        return lab


def keep(source: Path, target: Path) -> None:
    """A copy of what outlives a daemon."""
    folders = [source / name for name in STATE]
    subprocess.run(["cp", "-a", "--sparse=always", *folders, target], check=True)


def all_acts(adopted: dict[str, Entry]) -> dict[str, acts.Act]:
    """The acts in their order."""
    return {
        "burn": acts.archive("a"),
        "burn on": acts.archive("b", "c"),  # more discs than drives, so that some are put away
        "recall": acts.recall,
        "move": acts.move,
        "close": acts.close,
        "rebuild": acts.rebuild,
        "export": acts.export,
        "import": acts.import_,
        "catalog": acts.lose_catalog,
        "adopt": acts.adopt(adopted),
        "repack": acts.repack,
    }


def stages(p: Proof, folder: Path, seed: int) -> dict[str, Stage]:
    """Live through all acts and keep what lies there before each."""
    fs = acts.new_fs(folder / "list")
    lab = Lab(fs, seed)
    with fs:
        acts.fill(lab)
    found: dict[str, Stage] = {}
    for act, do in all_acts(acts.foreign_discs(folder / "other", lab)).items():
        before, listed = folder / f"before {act}", folder / f"points of {act}"
        before.mkdir()
        keep(fs.folder, before)
        frozen = copy.copy(lab)
        frozen.model = dict(lab.model)
        fs.set_environment(HSMFS_CRASH_LIST=str(listed))
        fs.start()
        try:
            do(lab)
            acts.settle(lab)
            fs.stop()
        finally:
            fs.kill()
        passed = listed.read_text().splitlines()
        points = Counter(point for point in passed if not USERS.match(point))
        found[act] = Stage(before, do, frozen, points)
        faults = disagreements(fs.folder, settled=True)
        if faults:
            raise AssertionError(f"without a crash, after {act}: {faults[0]}")
    for blind in overlooked(fs.folder):
        p.require(False, f"the comparison does not see {blind}")
    return found


def overlooked(folder: Path) -> list[str]:
    """Faults made on purpose, which the comparison does not see."""
    blind = []
    (disc,) = discs(folder / "library")[full(folder)[0]]
    image, elsewhere = disc.folder / "disc.iso", folder / "library/shelf"
    os.rename(disc.folder, elsewhere / disc.folder.name)
    if not disagreements(folder, settled=True):
        blind.append("a disc that was taken away")
    os.rename(elsewhere / disc.folder.name, disc.folder)
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
                every.append(Death(act, point))
                if passes > 1 and not any(d.point == point and d.n > 1 for d in every):
                    every.append(Death(act, point, 2))
            elif not any(death.point == point for death in every):
                every.append(Death(act, point))
    return every + [replace(death, goes_on=True) for death in every if death.point == GOES_ON]


def die(death: Death, stage: Stage, folder: Path) -> list[str]:
    """One life; what is wrong after it, a line each."""
    lab = stage.replay(folder)
    fs = lab.fs
    try:
        fs.set_environment(HSMFS_CRASH=f"{death.point}:{death.n}")
        if not killed(fs, lambda: stage.do(lab)):
            return ["the act ended without passing the point"]
        fs.kill()
        fs.set_environment(HSMFS_CRASH="")
        if death.goes_on:
            go_on(fs.folder)
        return after(lab, stage.do)
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
    """The robot puts its disc where it was told to; without a catalog that was into a drive."""
    elements = folder / "library/elements"
    (disc,) = (elements / "00001").iterdir()
    state = folder / "state"
    if (state / "catalog.db").exists():
        # What the journal of moves got last is in the redo log.
        with closing(Catalog.open(state)) as catalog:
            told = "SELECT dst FROM moves WHERE finished_ns IS NULL ORDER BY id DESC LIMIT 1"
            target = catalog.db.execute(told).get
    else:
        drives = (address for address in DRIVES if not any((elements / f"{address:05d}").iterdir()))
        target = next(drives)
    os.rename(disc, elements / f"{target:05d}" / disc.name)


def after(lab: Lab, act: acts.Act) -> list[str]:
    """Judge what is there now, and what it becomes."""
    fs = lab.fs
    if not (fs.folder / "state/catalog.db").exists():
        fs.control("rebuild")  # no daemon starts before that is done
    fs.start()
    fs.stop()
    faults = [f"after the restart: {f}" for f in disagreements(fs.folder, settled=False)]
    fs.start()
    lab.settle()
    act(lab)
    fs.control("archive", "--now", "--wait", "--copies", "2", str(fs.mountpoint))
    acts.order(lab, "/release", {"paths": [{"path": "/"}]})
    faults += lab.compare()
    findings = fs.ask("fsck", check=False)["findings"]
    faults += [f"fsck: {finding}" for finding in findings]
    acts.settle(lab)
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
