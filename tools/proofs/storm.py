"""A virus scan of 50,000 reads moves the robot no more than the guard allows, and no person waits.

    tools/prove storm [--reads N] [--local | --nfs]

A tree of stubs on many discs is scanned on the mount by a program that is called as a scanner is,
and over NFS, in a real kernel (User Mode Linux), by an account that a rule names: these are
refused. On both ways one that nobody knows reads with many threads, and is put into the slow lane.
Meanwhile a person reads files of discs of their own; how long that takes is compared with how long
it took before. The library's times are a fiftieth of real ones, and so are the guard's.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _verdict import Proof, proof
from lib import scanner
from lib.lab import READY_S, inside
from lib.nas import nfs
from lib.tempfs import Tables, TempFs

CLAIM = "a recall storm moves the robot no more than the guard allows, and no person waits for it"
READS = 50_000
FILES, SIZE, HEAD = 2000, 8000, 4096
TURNS = 8
"""Files that the person reads, before the storm and again during each."""
THINK_S = 2.0
FASTER = 50
DRIVES, SLOW_DISCS = 2, 12
SCANNER_UID, UNKNOWN_UID = 2000, 2001
THREADS = 32
LIMIT_S = 600
QUICK: Tables = {
    "library": {"drives": DRIVES, "disc": "1 MiB", "magazines": 10},
    "fs": {"head": HEAD},
    "guard": {"mode": "on"},
}
TIMED: Tables = {
    **QUICK,
    "library": {
        **QUICK["library"], "exchange": f"{60_000 // FASTER} ms", "load": f"{20_000 // FASTER} ms",
        "read_rate": "60 MB/s",
    },
    "guard": {"mode": "on", "slow_discs": SLOW_DISCS * FASTER},
}  # fmt: skip
RULE = f"""
[[rule]]
name = "scanner-account"
uid = [{SCANNER_UID}]
outcome = "eacces"
"""


class Site:
    """The tree, the person and the storms; `view` is the mount as they see it."""

    def __init__(self, p: Proof, fs: TempFs) -> None:
        self.p, self.fs = p, fs
        self.view = fs.mountpoint
        self.turn = 0

    def fill(self, storms: int) -> None:
        """The scanned tree on many discs, each file of the person's on one of its own."""
        tree, own = self.fs.mountpoint / "tree", self.fs.mountpoint / "own"
        tree.mkdir()
        own.mkdir()
        for number in range(FILES):
            (tree / f"{number}").write_bytes(os.urandom(SIZE))
        self.fs.control("archive", "--now", "--wait", tree, timeout_s=LIMIT_S)
        for number in range(TURNS * (storms + 1)):
            (own / f"{number}").write_bytes(os.urandom(SIZE))
            self.fs.control("archive", "--now", "--wait", own / f"{number}")
        self.fs.control("release", self.fs.mountpoint)
        self.fs.stop()
        self.fs.reconfigure(TIMED)
        self.fs.start()

    def loads(self) -> int:
        """Discs that went into drives so far."""
        return sum(drive["loads"] for drive in self.fs.ask("drive", "list"))

    def person(self) -> list[float]:
        """Seconds for each of some files, one after the other."""
        took = []
        for _ in range(TURNS):
            began = time.monotonic()
            assert len((self.view / f"own/{self.turn}").read_bytes()) == SIZE
            took.append(time.monotonic() - began)
            self.turn += 1
            time.sleep(THINK_S)
        return took

    @contextmanager
    def storm(self, name: str, uid: int, threads: int, reads: int) -> Iterator[Scan]:
        """A scanner at work until the block ends."""
        words = [scanner.__file__, name, uid, threads, reads, self.view / "tree"]
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(
                [sys.executable, "-P", *map(str, words)], stdout=out, stdin=subprocess.DEVNULL
            )
            scan = Scan(process, out.fileno())
            try:
                yield scan
            finally:
                process.send_signal(signal.SIGKILL)
                began = time.monotonic()
                process.wait(60)
                scan.died_in = time.monotonic() - began

    def judge(self, what: str, before: list[float], during: list[float]) -> None:
        """The person, with the storm and without."""
        quiet, loud = statistics.median(before), statistics.median(during)
        self.p.say(f"{what}: a person's recalls took " + ", ".join(f"{t:.2f}" for t in during))
        self.p.figure(f"{what}: person's recall without the storm", quiet, "s (median)")
        self.p.figure(f"{what}: with it", loud, "s (median)")
        self.p.figure(f"{what}: longest with it, as a factor", max(during) / quiet)
        self.p.figure(f"{what}: person's recall, with by without", loud / quiet, at_most=1.5)


class Scan:
    """A scanner that runs."""

    def __init__(self, process: subprocess.Popen[bytes], out: int) -> None:
        self.process, self._out, self.died_in = process, out, 0.0

    def done(self) -> tuple[int, int]:
        """Files read to their end, and files refused."""
        seen = os.pread(self._out, 1 << 24, 0)
        return seen.count(b"."), seen.count(b"x")


def refused(site: Site, what: str, name: str, reads: int, before: list[float]) -> None:
    """A storm that the rules keep off."""
    p, loads, began = site.p, site.loads(), time.monotonic()
    with site.storm(name, SCANNER_UID, 4, reads) as scan:
        during = site.person()
        nfs.until(lambda: sum(scan.done()) >= reads, "the scan ends", LIMIT_S)
        read, stopped = scan.done()
    p.figure(f"{what}: reads of the scan", read + stopped, at_least=reads)
    p.figure(f"{what}: seconds", time.monotonic() - began, "s")
    p.figure(f"{what}: of these refused", stopped)
    p.figure(f"{what}: discs loaded for it", site.loads() - loads - TURNS, at_most=0)
    met = [m for m in site.fs.ask("guard", "report") if m["uid"] == SCANNER_UID]
    p.figure(f"{what}: refusals in the guard's report", sum(m["files"] for m in met),
             at_least=FILES)  # fmt: skip
    site.judge(what, before, during)


def slowed(site: Site, what: str, before: list[float]) -> None:
    """A storm of which nobody knows who it is."""
    p, loads, began = site.p, site.loads(), time.monotonic()
    with site.storm("whatever", UNKNOWN_UID, THREADS, 10**9) as scan:
        nfs.until(
            lambda: any(w["slow"] for w in site.fs.ask("waiters")), "it is put into the slow lane"
        )
        during = site.person()
        read, stopped = scan.done()
        seconds = time.monotonic() - began
        discs = site.loads() - loads - TURNS
    bound = DRIVES + 1 + int(seconds * SLOW_DISCS * FASTER / 3600)
    p.figure(f"{what}: seconds", seconds, "s")
    p.figure(f"{what}: files it got in the slow lane", read)
    p.figure(f"{what}: files refused", stopped)
    p.figure(f"{what}: discs loaded for it", discs, at_most=bound)
    p.figure(f"{what}: its killed threads ended in", scan.died_in, "s", at_most=10)
    site.judge(what, before, during)


def local(p: Proof, reads: int) -> None:
    """On the mount."""
    with tempfile.TemporaryDirectory(prefix="hsmfs-storm-") as name:
        above = Path(name).parent
        if not above.stat().st_mode & 0o001:  # tools/prove's own, and other users must get through
            above.chmod(0o711)
        with TempFs(QUICK, folder=Path(name)) as fs:
            site = Site(p, fs)
            site.fill(2)
            before = site.person()
            refused(site, "known scanner", "clamscan", reads, before)
            slowed(site, "unknown scanner", before)


def over_nfs(p: Proof, reads: int) -> None:
    """By clients of NFS, inside the lab's kernel."""
    nfs.serve()
    with TempFs(QUICK, folder=Path("/run/hsmfs"), ready_s=READY_S) as fs:
        fs.control("export", "nfs", fs.mountpoint, "--to", nfs.CLIENTS, "--options",
                   "no_root_squash")  # fmt: skip
        rules = Path("/run/rules.toml")
        rules.write_text(RULE + fs.control("guard", "rules"))
        fs.control("guard", "load", rules)
        site = Site(p, fs)
        site.fill(2)
        site.view = nfs.mount(fs.mountpoint, "v4.2")
        before = site.person()
        refused(site, "NFS, scanner's account", "clamscan", reads, before)
        slowed(site, "NFS, unknown scanner", before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, default=READS)
    parser.add_argument("--local", action="store_true", help="only on the mount")
    parser.add_argument("--nfs", action="store_true", help="only over NFS")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        with proof(CLAIM) as p:
            over_nfs(p, given.reads)
    with proof(CLAIM) as p:
        if not given.nfs:
            local(p, given.reads)
        if not given.local:
            words = [__file__, "--inside", "--reads", str(given.reads)]
            code = inside(words, memory="1536M", limit_s=LIMIT_S, modules=nfs.MODULES)
            p.require(code == 0, "the part over NFS, in the lab's kernel")


if __name__ == "__main__":
    main()
