"""The daemon killed under load from the network: nothing acknowledged is lost, clients go on.

    tools/prove nas-crash [--kills N] [--seed N]

In a real kernel (User Mode Linux) clients of NFS 3 and 4.2 write files and records of a file that
stays open, and note what was acknowledged. The daemon gets SIGKILL, again and again, and once a
planned stop; each time a new one is started. Then every acknowledged byte is looked for, on the
mount and by the clients.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib.lab import READY_S, inside
from lib.nas import load, nfs
from lib.tempfs import TempFs

CLAIM = "the daemon's death under load from the network loses nothing that was acknowledged"
LIMIT_S = 420
KILLS = 5
WORKERS = 2
"""Clients a version of NFS."""
PAUSE_S = 60.0


class Load:
    """Clients at work, a process each."""

    def __init__(self, fs: TempFs) -> None:
        self.fs, self.stop = fs, Path("/run/stop")
        self.journals = Path("/run/journals")
        self.journals.mkdir()
        self.folders: dict[str, Path] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        for version in nfs.VERSIONS:
            mount = nfs.mount(fs.mountpoint, version)
            for number in range(WORKERS):
                folder = mount / f"{version}-{number}"
                folder.mkdir()
                self.folders[folder.name] = folder
                words = [load.__file__, folder, self.journals / folder.name, self.stop]
                self.processes.append(subprocess.Popen([sys.executable, "-P", *map(str, words)]))

    def acknowledged(self) -> int:
        """How much has been acknowledged so far."""
        texts = [file.read_text() for file in self.journals.iterdir()]
        return sum(text.count('"file"') + text.count('"record"') for text in texts)

    def end(self) -> None:
        """All stop, after what they do now."""
        self.stop.touch()
        for process in self.processes:
            if process.wait(2 * PAUSE_S):
                raise RuntimeError(f"a client ended with {process.returncode}")


def goes_on(work: Load) -> float:
    """Wait until every client has done something more; the seconds it took."""
    sizes = {file: file.stat().st_size for file in work.journals.iterdir()}
    return nfs.until(
        lambda: all(file.stat().st_size > size for file, size in sizes.items()),
        "every client goes on", 2 * PAUSE_S,
    )  # fmt: skip


def live(p: Proof, kills: int, seed: int) -> None:
    """Everything, inside the lab's kernel."""
    chance = random.Random(seed)
    nfs.serve()
    with TempFs(folder=Path("/run/hsmfs"), ready_s=READY_S) as fs:
        fs.control("export", "nfs", fs.mountpoint, "--to", nfs.CLIENTS, "--options",
                   "no_root_squash")  # fmt: skip
        work = Load(fs)
        nfs.until(lambda: work.acknowledged() > 20, "load")
        goes_on(work)
        for number in range(kills + 1):
            time.sleep(chance.uniform(1.0, 3.0))
            before = work.acknowledged()
            planned = number == kills
            fs.stop() if planned else fs.crash()
            fs.start()
            pause = goes_on(work)
            what = "planned stop" if planned else f"kill {number + 1}"
            p.say(f"{what}: {before} acknowledged before; clients go on {pause:.1f} s after start")
        work.end()
        judge(p, fs, work)


def judge(p: Proof, fs: TempFs, work: Load) -> None:
    """What the journals say, on the mount and by the clients."""
    nfs.drop_caches()
    files = records = 0
    longest, errors, lost = 0.0, {}, []
    for name, folder in work.folders.items():
        for place in (fs.mountpoint / name, folder):
            found = load.judge(place, work.journals / name)
            lost += [f"{place}: {what}" for what in found.lost]
        files, records = files + found.files, records + found.records
        longest = max(longest, found.pause_s)
        for error, count in found.errors.items():
            errors[error] = errors.get(error, 0) + count
    p.figure("files acknowledged (close, rename)", files, at_least=100)
    p.figure("records acknowledged (fsync) of open files", records, at_least=100)
    p.figure("of these lost or wrong", len(lost), at_most=0)
    for what in lost[:5]:
        p.say(f"  {what}")
    p.figure("errors ESTALE that clients met", errors.pop("ESTALE", 0), at_most=0)
    p.figure("other errors that clients met", sum(errors.values()), at_most=0)
    p.say(f"  {errors}" if errors else "  none: every call waited for the next daemon")
    p.figure("longest call of a client", longest, "s", at_most=PAUSE_S)


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
    code = inside(words, memory="1536M", limit_s=LIMIT_S, modules=nfs.MODULES)
    if code == 124:
        print(f"NOT PROVED: {CLAIM}: the lab's kernel ended early")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
