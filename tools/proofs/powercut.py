"""A power cut at any moment: what was fsynced is there, nothing is corrupt, nothing is stuck.

    tools/prove powercut [--cuts 24] [--points REGEX] [--seed N]

Everything lies on an ext4 on a loop device. At a point of the daemon's life, drawn by the seed,
the daemon is killed and the filesystem is shut down without its journal being flushed
(EXT4_IOC_SHUTDOWN with NOLOGFLUSH), which drops all that was not written and synced. It is mounted
again, which replays its journal, and the daemon is started.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from crash import after, finish_init, live_until_killed, new_fs, points
from lib.crashlab import Lab

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), fs/ext4/ext4.h
NOLOGFLUSH = 2
DEVICE_BYTES = 2 << 30


class Device:
    """An ext4 that can lose its power."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "device"
        self.place = folder / "disk"
        self.place.mkdir()
        with self.image.open("wb") as image:
            image.truncate(DEVICE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True)

    def unmount(self) -> None:
        """Children of a daemon that was killed may not have ended yet."""
        until = time.monotonic() + 30
        while subprocess.run(["umount", self.place], stderr=subprocess.PIPE).returncode:
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, f"{self.place} stays in use")
            time.sleep(0.05)

    def cut(self) -> None:
        """Lose what is not on the device, and come back."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)
        self.unmount()
        self.mount()


@contextlib.contextmanager
def device(folder: Path) -> Iterator[Device]:
    """A device that is unmounted in the end."""
    folder.mkdir()
    made = Device(folder)
    try:
        yield made
    finally:
        made.unmount()


def cut_at(point: str, folder: Path, seed: int) -> tuple[list[str], int]:
    """One life that loses its power at the point: what is wrong, and how many paths were sure."""
    with device(folder) as disk:
        fs = new_fs(disk.place / "hsmfs", point)
        lab = Lab(fs, seed)
        try:
            os.sync()  # an admin has written the configuration long ago
            if not live_until_killed(fs, lab, point):
                return ["the life ended without passing the point"], 0
            fs.kill()
            disk.cut()
            fs.set_environment(HSMFS_CRASH="")
            finish_init(fs)
            fs.start()
            sure = len(lab.durable)
            faults = [f"durable, but: {fault}" for fault in lab.compare(only_durable=True)]
            lab.take_over()
            return faults + after(fs, lab), sure
        except Exception as fault:
            return [f"{type(fault).__name__}: {fault}", *fs.log_tail().splitlines()[-5:]], 0
        finally:
            fs.kill()


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=24)
    parser.add_argument("--points", default=".", help="draw only from those that match")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hsmfs-power-") as name:
        folder = Path(name)
        found = [x for x in points(folder, given.seed) if re.search(given.points, x)]
        chosen = random.Random(given.seed).sample(found, min(given.cuts, len(found)))
        p.say(f"seed {given.seed}; {len(chosen)} of {len(found)} points drawn")
        bad = checked = 0
        for i, point in enumerate(chosen):
            faults, sure = cut_at(point, folder / f"life-{i}", given.seed)
            bad += bool(faults)
            checked += sure
            p.say(f"{point:<44} {sure:>3} durable  {'ok' if not faults else 'BAD'}")
            for fault in faults:
                p.say(f"    {fault}")
        p.figure("power cuts", len(chosen), at_least=1)
        p.figure("durable paths compared", checked, at_least=len(chosen))
        p.figure("lives that ended badly", bad, at_most=0)


if __name__ == "__main__":
    with proof("a power cut loses nothing that was fsynced") as p:
        main(p)
