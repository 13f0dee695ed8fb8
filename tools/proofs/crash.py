"""kill -9 at every named point: nothing acknowledged is lost, nothing is corrupt, nothing stuck.

    tools/prove crash [--points REGEX] [--seed N] [--jobs 2]

A first life lists the points it passes. Then each point ends a life of its own; the daemon is
started again, fsck repairs and must then find nothing, every path is compared with the model, and
all that was left undone is done. A second kind of life keeps what is changed in place: after its
end a rollback must have every byte back.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from lib.crashlab import (
    KEPT,
    POLICIES,
    Died,
    Lab,
    adopt_life,
    bad_lives,
    files_life,
    kept_life,
    media_life,
    tier_life,
    undone,
)
from lib.tempfs import TempFs, TempFsError

LEAST = 60
KEPT_LIFE, _OF_BYTES = " (kept)", re.compile(r"(files|keeping|rollback)\.").match
GONE = {"trash": {"keep": "0 s"}}
"""Settings of a life in which nothing is kept."""


def new_fs(folder: Path, point: str = "") -> TempFs:
    """Two tiers, small discs, nothing kept in the trash, or all if the point is of such a life;
    laid out, not yet made.
    """
    policies = folder / "policies.toml"
    fs = TempFs(
        {
            "library": {"drives": 2, "disc": "32 MiB"},
            "engine": {"policies": policies},
            **(KEPT if point.endswith(KEPT_LIFE) else GONE),
        },
        folder=folder,
        fast_tier=True,
    )
    fs.lay_out()
    policies.write_text(POLICIES)
    return fs


def life(lab: Lab, kept: bool) -> None:
    """Everything, in order."""
    if kept:
        kept_life(lab)
        return
    files_life(lab)
    media_life(lab)
    adopt_life(lab)
    tier_life(lab)


def points(folder: Path, seed: int) -> list[str]:
    """The points that a whole life passes; those of bytes in the other kind, with KEPT_LIFE."""
    kept = [f"{one}{KEPT_LIFE}" for one in _passed(folder, seed, kept=True) if _OF_BYTES(one)]
    return _passed(folder, seed, kept=False) + kept


def _passed(folder: Path, seed: int, *, kept: bool) -> list[str]:
    listed = folder / f"points-{kept}"
    fs = new_fs(folder / f"list-{kept}", KEPT_LIFE if kept else "")
    fs.set_environment(HSMFS_CRASH_LIST=str(listed))
    with fs:
        lab = Lab(fs, seed)
        life(lab, kept)
        faults = lab.compare()
        passed = listed.read_text() if kept else ""  # and not what comes after the life
        faults += undone(lab)
        if faults:
            raise AssertionError(f"without a crash: {faults[0]}")
    return list(dict.fromkeys((passed or listed.read_text()).splitlines()))


def die_at(point: str, folder: Path, seed: int) -> list[str]:
    """One life that ends at the point; what is wrong after it, a line each."""
    fs = new_fs(folder, point)
    lab = Lab(fs, seed)
    try:
        if not live_until_killed(fs, lab, point):
            return ["the life ended without passing the point"]
        fs.kill()
        fs.set_environment(HSMFS_CRASH="")
        finish_init(fs)
        fs.start()
        return after(fs, lab)
    except Exception as fault:
        return [f"{type(fault).__name__}: {fault}", *fs.log_tail().splitlines()[-5:]]
    finally:
        fs.kill()


def finish_init(fs: TempFs) -> None:
    """As an admin does whose init was cut off: again. One that is whole refuses."""
    try:
        fs.control("init")
    except TempFsError as refusal:
        if "initialised before" not in str(refusal):
            raise


def live_until_killed(fs: TempFs, lab: Lab, point: str) -> bool:
    """Make, start, live, stop; True if the SIGKILL at the point cut that off."""
    fs.set_environment(HSMFS_CRASH=point.removesuffix(KEPT_LIFE))
    try:
        fs.control("init")
        fs.start()
        life(lab, kept=point.endswith(KEPT_LIFE))
        fs.stop()
    except Died:
        return True
    except TempFsError as fault:
        # hsmctl init, the start and the stop are watched by TempFs itself.
        if "-9" not in str(fault).splitlines()[0]:
            raise
        return True
    return False


def after(fs: TempFs, lab: Lab) -> list[str]:
    """Judge a restarted daemon."""
    lab.finish()
    faults = lab.compare()
    fs.control("fsck", "--repair", check=False)
    left = fs.ask("fsck", check=False)
    faults += [f"fsck: {finding}" for finding in left["findings"]]
    if lab.origin_at:
        return faults + undone(lab)
    lab.settle()
    fs.control("pin", "--off", str(fs.mountpoint))
    fs.control("archive", "--now", "--wait", "--copies", "2", str(fs.mountpoint))
    fs.control("release", str(fs.mountpoint))
    faults += [f"after archive and release: {fault}" for fault in lab.compare()]
    return faults


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default=".", help="only points that match")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hsmfs-crash-") as name:
        folder = Path(name)
        found = points(folder, given.seed)
        chosen = [point for point in found if re.search(given.points, point)]
        p.say(f"seed {given.seed}; the lives pass {len(found)} points")
        bad = bad_lives(
            p.say, given.jobs, folder, chosen,
            lambda point, where: die_at(point, where, given.seed),
        )  # fmt: skip
        least = LEAST if given.points == "." else 1
        p.figure("points killed at", len(chosen), at_least=least)
        p.figure("lives that ended badly", bad, at_most=0)


if __name__ == "__main__":
    with proof("kill -9 at any named point loses and corrupts nothing") as p:
        main(p)
