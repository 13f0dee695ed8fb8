"""Files on discs, over NFS: the head at once, the rest after a wait, and nobody else waits."""

from __future__ import annotations

import itertools
import mmap
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import nfs, readers
from .world import Nas, Section

SIZE = 1_500_000
CLIENTS = 200
CROWD_BYTES = 300_000
"""More than the head."""
PROBES = 60
PROBE_BYTES = 65536
HEADER = 65536
WAIT_S = 60.0
KILLED_S = 5.0
FAILED_S = 40.0
"""A client of NFS 4 asks again after at most 15 s, and so does one of NFS 3 after 5."""
PERIOD_S = 6.0
"""Clients of NFS 3 that were told to come later do so after 5 s (Linux fs/nfs/nfs3proc.c), most of
them at once: what is measured in less either meets them all or none."""
TICK_S = 0.01
"""This kernel's clock ticks: with one processor, who shares it is served no sooner."""
HELD_S = 1.0
"""Beside other work. Whom a held thread of nfsd keeps waits for the drives, here for ever."""


def head(nas: Nas) -> None:
    """Headers are read without a recall, whatever the client reads ahead."""
    meant = nas.offline["heads"]
    for version, mount in nas.mounts.items():
        for size in (512, 4096, HEADER):
            nfs.drop_caches()
            began = time.monotonic()
            for name, data in meant.items():
                found = _sequential(mount / name, HEADER, size)
                nas.p.require(found == data[:HEADER], f"{version}: the head of {name} differs")
            took = (time.monotonic() - began) / len(meant)
            nas.p.figure(f"{version}: 64 KiB in reads of {size}", took, "s", at_most=1.0)
    time.sleep(1.0)  # what was read ahead would be asked again by now
    states = [nas.state(name) for name in meant]
    nas.p.figure("of these recalled", sum(s != "migrated" for s in states), at_most=0)


def recall(nas: Nas) -> None:
    """A whole file comes by itself after JUKEBOX or DELAY; others are served meanwhile."""
    for version in nas.mounts:
        _recall(nas, version)


def _recall(nas: Nas, version: str) -> None:
    folder, mount = f"whole-{version}", nas.mounts[version]
    meant = nas.offline[folder]
    (nas.fs.mountpoint / folder / "resident").write_bytes(b"r" * PROBE_BYTES)
    nfs.drop_caches()
    found: dict[str, bytes] = {}

    def read(name: str) -> None:
        found[name] = (mount / name).read_bytes()

    threads = [threading.Thread(target=read, args=(name,)) for name in meant]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        slowest = max(slowest, _direct(mount / folder / "resident"))
        if time.monotonic() - began > WAIT_S:
            raise TimeoutError(f"{version}: {len(found)} of {len(meant)} files came")
        time.sleep(0.02)
    nas.p.require(found == meant, f"{version}: bytes of a recalled file differ")
    nas.p.figure(f"{version}: files recalled", time.monotonic() - began, "s")
    nas.p.figure(f"{version}: slowest read of a resident file then", slowest, "s", at_most=1.0)


def crowd(nas: Nas) -> None:
    """200 clients wait for discs with 8 threads of nfsd; resident files stay fast."""
    meant = nas.offline["crowd"]
    resident = [f"resident{n}" for n in range(PROBES)]
    for name in resident:
        (nas.fs.mountpoint / name).write_bytes(b"r" * PROBE_BYTES)
    idle = _latencies(nas, resident)
    names = sorted(meant)
    mounts = list(nas.mounts.values())
    paths = [mounts[n % len(mounts)] / name for n, name in enumerate(names)]
    words = [sys.executable, "-P", readers.__file__, str(CROWD_BYTES), *map(str, paths)]
    with nas.drives_down():
        waiting = subprocess.Popen(words, stdout=subprocess.PIPE)
        nfs.until(lambda: len(nas.api.get("/waiters")) >= CLIENTS, "200 readers wait", WAIT_S)
        waiters = nas.fs.ask("waiters")
        nas.p.figure("readers that wait for a disc", len(waiters), at_least=CLIENTS)
        _beside(nas, resident, idle)
        _given_up(nas)
    began = time.monotonic()
    said, _ = waiting.communicate(timeout=2 * WAIT_S)
    nas.p.figure("all of them served after the drives are up", time.monotonic() - began, "s")
    wrong = [name for name in names if (nas.fs.mountpoint / name).read_bytes() != meant[name]]
    nas.p.require(not wrong, f"bytes differ: {wrong[:3]}")
    nas.p.figure("readers that got their bytes", int(said or 0), at_least=CLIENTS)


def _given_up(nas: Nas) -> None:
    """A client's program that waits can be killed, and an admin ends its wait with an errno."""
    for way, patience in (("killed", KILLED_S), ("failed", FAILED_S)):
        names = [f"given-up/{n:04}" for n in range(len(nas.mounts))]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        programs = [
            subprocess.Popen(["cat", mount / name], stdout=nowhere, stderr=pipe)
            for name, mount in zip(names, nas.mounts.values(), strict=True)
        ]
        wanted = {f"/{name}" for name in names}
        nfs.until(
            lambda wanted=wanted: wanted <= {w["path"] for w in nas.api.get("/waiters")},
            "programs of clients wait", WAIT_S,
        )  # fmt: skip
        began = time.monotonic()
        for name, program in zip(names, programs, strict=True):
            if way == "killed":
                program.kill()
            else:
                nas.fs.control("waiters", "fail", "--errno", "ETIMEDOUT", "--file",
                               nas.fs.mountpoint / name)  # fmt: skip
        for version, program in zip(nas.mounts, programs, strict=True):
            _, said = program.communicate(timeout=2 * WAIT_S)
            nas.p.require(program.returncode != 0, f"{version}: a program that was {way} succeeded")
            told = way == "killed" or b"Input/output error" in said
            nas.p.require(told, f"{version}: a program whose wait was ended says {said!r}")
        took = time.monotonic() - began
        nas.p.figure(f"waiting programs of clients, {way}, end within", took, "s", at_most=patience)


def _beside(nas: Nas, resident: list[str], idle: dict[str, list[float]]) -> None:
    """Resident files are read as quickly as they were when nobody waited, or nearly so."""
    for version, busy in _quietest(nas, resident, idle).items():
        quiet = statistics.median(idle[version])
        nas.p.figure(f"{version}: resident read, idle (median)", 1000 * quiet, "ms")
        bound = _bound(nas, idle[version])
        found = statistics.median(busy)
        nas.p.figure("  with 200 waiting", 1000 * found, "ms", at_most=1000 * bound)
        tick = "within one tick of this kernel's clock" if found <= TICK_S else "beyond"
        shown = "within twice idle" if found <= 2 * quiet else tick
        nas.p.say(f"  {found / quiet:.1f} times idle: {shown}")
        means = statistics.mean(idle[version]), statistics.mean(busy)
        nas.p.say("  means {:.2f} and {:.2f} ms".format(*(1000 * mean for mean in means)))


def _sequential(path: Path, count: int, size: int) -> bytes:
    """The first bytes by reads of a size, as `file` or dcmdump do."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return b"".join(os.read(fd, size) for _ in range(count // size))
    finally:
        os.close(fd)


def _direct(path: Path) -> float:
    """Seconds to open and read a resident file past the client's cache."""
    with mmap.mmap(-1, PROBE_BYTES) as buffer:
        began = time.monotonic()
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            got = os.preadv(fd, [buffer], 0)
        finally:
            os.close(fd)
        took = time.monotonic() - began
    if got != PROBE_BYTES:
        raise OSError(f"{path}: {got} bytes")
    return took


def _bound(nas: Nas, idle: list[float]) -> float:
    return HELD_S if nas.shared else max(2 * statistics.median(idle), TICK_S)


def _quietest(nas: Nas, names: list[str], idle: dict[str, list[float]]) -> dict[str, list[float]]:
    """As `_latencies`; where it does not hold the best of ten, as what else the machine has to do
    comes and goes, and a thread of nfsd that is held does not.
    """
    best = _latencies(nas, names)
    for _ in range(9):
        if all(statistics.median(best[version]) <= _bound(nas, idle[version]) for version in best):
            break
        again = _latencies(nas, names)
        best = {v: min(best[v], again[v], key=statistics.median) for v in best}
    return best


def _latencies(nas: Nas, names: list[str]) -> dict[str, list[float]]:
    """Times of reads, while all clients that wait ask once more."""
    for mount, name in itertools.product(nas.mounts.values(), names):
        _direct(mount / name)  # whatever is slower the first time
    found: dict[str, list[float]] = {version: [] for version in nas.mounts}
    ends = time.monotonic() + PERIOD_S
    for name in itertools.cycle(names):
        for version, mount in nas.mounts.items():
            found[version].append(_direct(mount / name))
        if time.monotonic() > ends:
            return found
        time.sleep(TICK_S)
    raise AssertionError("there are names")


SECTIONS = {
    "NFS: heads of files on discs": Section(head, {"heads": (4, SIZE)}),
    "NFS: files on discs": Section(recall, {f"whole-{v}": (3, SIZE) for v in nfs.VERSIONS}),
    "NFS: 200 readers wait": Section(
        crowd, {"crowd": (CLIENTS, CROWD_BYTES), "given-up": (len(nfs.VERSIONS), CROWD_BYTES)}
    ),
}
