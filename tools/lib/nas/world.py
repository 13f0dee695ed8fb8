"""One hsmfs on a slow library, on the network; what the sections of `tools/prove nas` share."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proofs"))

from _verdict import Proof

from ..lab import READY_S
from ..tempfs import TempFs
from . import nfs

TABLES = {
    "fs": {"head": "256 KiB"},
    "library": {"drives": 2, "disc": "64 MiB", "exchange": "3 s", "load": "1 s", "seek": "50 ms"},
}


class Nas:
    """What a section works with.

    Attributes:
        p: where figures and requirements go.
        fs: the mount, on this host.
        mounts: by a name such as "NFS 3", the same folder as a client has it.
    """

    def __init__(self, p: Proof, fs: TempFs) -> None:
        self.p, self.fs = p, fs
        self.mounts: dict[str, Path] = {}

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        """A part of the proof, with its time; if it fails, the others still run."""
        self.p.say(f"-- {title}")
        began = time.monotonic()
        try:
            yield
        except Exception as fault:
            self.p.require(False, f"{title}: {type(fault).__name__}: {fault}")
            self.p.say(self.fs.log_tail(20))
            if self.fs.daemon is None:
                self.fs.start()
        self.p.say(f"{'':<48} {time.monotonic() - began:>14.1f} s")

    def offline(self, folder: str, count: int, size: int) -> dict[str, bytes]:
        """Files whose bytes are on discs alone, by their paths below the mount."""
        (self.fs.mountpoint / folder).mkdir(mode=0o755)
        meant = {f"{folder}/{n:04}": random.Random(n).randbytes(size) for n in range(count)}
        for name, data in meant.items():
            (self.fs.mountpoint / name).write_bytes(data)
        self.fs.control("archive", "--now", "--wait", self.fs.mountpoint / folder)
        self.fs.control("release", self.fs.mountpoint / folder)
        states = {self.state(name) for name in meant}
        if states != {"migrated"}:
            raise RuntimeError(f"{folder} was released, and is {states}")
        return meant

    def state(self, name: str) -> str:
        """Where the bytes of a file are."""
        return os.getxattr(self.fs.mountpoint / name, "user.hsm.state").decode()


@contextmanager
def nas(p: Proof) -> Iterator[Nas]:
    """Servers, the mount, and its clients; once in the life of the lab's kernel."""
    nfs.serve()
    with TempFs(TABLES, folder=Path("/run/hsmfs"), ready_s=READY_S) as fs:
        world = Nas(p, fs)
        fs.control(
            "export", "nfs", fs.mountpoint, "--to", nfs.CLIENTS, "--options", "no_root_squash"
        )
        for version in nfs.VERSIONS:
            world.mounts[version] = nfs.mount(fs.mountpoint, version)
        yield world
