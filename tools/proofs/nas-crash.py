"""The daemon killed under load from the network: nothing acknowledged is lost, clients go on.

    tools/prove nas-crash [--kills N] [--seed N]

In a real kernel (User Mode Linux) clients of NFS 3, 4.1, 4.2 and of SMB write files and records of
a file that stays open, and note what was acknowledged. The daemon gets SIGKILL, again and again,
and once a planned stop; each time a new one is started. Then every acknowledged byte is looked for,
on the mount and by the clients.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib.lab import READY_S, inside
from lib.nas import load, nfs, smb
from lib.smbd import Samba
from lib.tempfs import TempFs

CLAIM = "the daemon's death under load from the network loses nothing that was acknowledged"
LIMIT_S = 900
"""Only what hangs takes so long; on a busy machine each death takes more than a minute."""
KILLS = 5
MODULES = f"{nfs.MODULES} {smb.MODULES}"
WORKERS = 2
"""Clients a version of NFS, and of SMB."""
ACTS = 10
"""What each client has done at least between two deaths of the daemon."""
SMB = "smb"
PAUSE_S = 60.0
"""What a client waits at most: for a daemon to start, the server's grace period (10 s) and its own
pauses before it asks once more (up to 15 s each)."""


class Load:
    """Clients at work, a process each."""

    def __init__(self, fs: TempFs, samba: Samba) -> None:
        self.fs, self.stop = fs, Path("/run/stop")
        self.journals = Path("/run/journals")
        self.journals.mkdir()
        self.folders: dict[str, Path] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        for version in nfs.VERSIONS:
            mount = nfs.mount(fs.mountpoint, version)
            for number in range(WORKERS):
                self._start(mount / f"{version}-{number}")
        (fs.mountpoint / SMB).mkdir()
        (fs.mountpoint / SMB).chmod(0o777)
        fs.control("export", "smb", "files", fs.mountpoint / SMB)
        self.by_smb = smb.mount(samba, "files", options="actimeo=0")
        for number in range(WORKERS):
            self._start(self.by_smb / f"{number}", SMB, "--smb")

    def _start(self, folder: Path, above: str = "", *options: str) -> None:
        folder.mkdir()
        name = f"{above}/{folder.name}" if above else folder.name
        self.folders[name] = folder
        words = [load.__file__, folder, self.journal(name), self.stop, *options]
        self.processes.append(subprocess.Popen([sys.executable, "-P", *map(str, words)]))

    def journal(self, name: str) -> Path:
        """What the client of a folder notes."""
        return self.journals / name.replace("/", "-")

    def acknowledged(self) -> dict[str, int]:
        """How much has been acknowledged so far to each client."""
        texts = {file.name: file.read_text() for file in self.journals.iterdir()}
        return {name: t.count('"file"') + t.count('"record"') for name, t in texts.items()}

    def end(self) -> None:
        """All stop, after what they do now."""
        self.stop.touch()
        for process in self.processes:
            if process.wait(2 * PAUSE_S):
                raise RuntimeError(f"a client ended with {process.returncode}")


@dataclass
class Away:
    """The longest of all deaths: seconds without a daemon, and then until every client went on."""

    daemon_s: float = 0.0
    clients_s: float = 0.0


def goes_on(work: Load, acts: int = 1) -> float:
    """Wait until so much more was acknowledged to every client; the seconds it took."""
    before = work.acknowledged()
    return nfs.until(
        lambda: all(work.acknowledged()[name] >= count + acts for name, count in before.items()),
        "every client goes on", 2 * PAUSE_S,
    )  # fmt: skip


def live(p: Proof, kills: int, seed: int) -> None:
    """Everything, inside the lab's kernel."""
    chance = random.Random(seed)
    nfs.serve()
    with (
        TempFs(folder=Path("/run/hsmfs"), ready_s=READY_S) as fs,
        smb.serve(Path("/run/smb")) as samba,
    ):
        fs.control("export", "nfs", fs.mountpoint, "--to", nfs.CLIENTS, "--options",
                   "no_root_squash")  # fmt: skip
        work = Load(fs, samba)
        nfs.until(lambda: len(work.acknowledged()) == len(work.folders), "load")
        away = Away()
        for number in range(kills + 1):
            goes_on(work, ACTS)
            time.sleep(chance.uniform(0.0, 2.0))
            before = sum(work.acknowledged().values())
            planned = number == kills
            began = time.monotonic()
            fs.stop() if planned else fs.crash()
            stopped = time.monotonic()
            fs.start()
            started = time.monotonic()
            pause = goes_on(work)
            away.daemon_s = max(away.daemon_s, started - began)
            away.clients_s = max(away.clients_s, pause)
            what = "planned stop" if planned else f"kill {number + 1}"
            p.say(
                f"{what}: {before} acknowledged before; {stopped - began:.1f} s to end,"
                f" {started - stopped:.1f} s to start; clients go on {pause:.1f} s later"
            )
        work.end()
        judge(p, fs, work, away)
        smb.umount(work.by_smb)


def judge(p: Proof, fs: TempFs, work: Load, away: Away) -> None:
    """What the journals say, on the mount and by the clients."""
    nfs.drop_caches()
    files = records = 0
    longest, lost = (0.0, ""), []
    errors: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    by_smb = 0
    for name, folder in work.folders.items():
        for place in (fs.mountpoint / name, folder):
            found = load.judge(place, work.journal(name))
            lost += [f"{place}: {what}" for what in found.lost]
        files, records = files + found.files, records + found.records
        longest = max(longest, (found.pause_s, name))
        errors[name.startswith(SMB)] += found.errors
        by_smb += (found.files + found.records) * name.startswith(SMB)
    p.figure("files acknowledged (close, rename)", files, at_least=100)
    p.figure("records acknowledged (fsync) of open files", records, at_least=100)
    p.figure("of both by SMB", by_smb, at_least=50)
    p.figure("of these lost or wrong", len(lost), at_most=0)
    for what in lost[:5]:
        p.say(f"  {what}")
    p.figure("errors that clients of NFS met", errors[False].total(), at_most=0)
    p.say(f"  {dict(errors[False])}")
    p.say(f"clean errors that clients of SMB met: {dict(errors[True])}")
    p.figure("longest time without a daemon", away.daemon_s, "s")
    p.figure("then until every client went on", away.clients_s, "s", at_most=PAUSE_S)
    p.figure(f"longest act of a client ({longest[1]})", longest[0], "s", at_most=PAUSE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        with proof(CLAIM) as p:
            live(p, given.kills, given.seed)
    words = [__file__, "--inside", "--kills", str(given.kills), "--seed", str(given.seed)]
    code = inside(words, memory="1536M", limit_s=LIMIT_S, modules=MODULES)
    if code == 124:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
