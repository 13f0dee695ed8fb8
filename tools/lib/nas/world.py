"""One hsmfs on a slow library, on the network; what the sections of `tools/prove nas` share."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proofs"))

from _verdict import Proof

from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink

from ..lab import READY_S
from ..tempfs import TempFs, Value
from . import nfs

TABLES: dict[str, dict[str, Value]] = {
    "fs": {"head": "256 KiB"},
    "library": {"drives": 2, "disc": "64 MiB", "exchange": "3 s", "load": "1 s", "seek": "50 ms"},
}


@dataclass(frozen=True)
class Section:
    """A part of the proof.

    Attributes:
        offline: what it finds on discs: by folder, how many files of how many bytes.
    """

    run: Callable[[Nas], None]
    offline: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class Nas:
    """What a section works with.

    Attributes:
        p: where figures and requirements go.
        fs: the mount, on this host.
        api: the daemon, asked without the start of a program, which takes seconds in this kernel.
        mounts: by a name such as "v3", the same folder as a client has it.
        offline: by folder, what its files on discs hold, by their paths below the mount.
        archived_s: when the last of them was on a disc, in seconds since 1970.
        shared: other work runs on the machine, so times of single reads say little.
    """

    def __init__(self, p: Proof, fs: TempFs, *, shared: bool) -> None:
        self.p, self.fs, self.shared = p, fs, shared
        self.api = Client(SocketLink(fs.socket))
        self.mounts: dict[str, Path] = {}
        self.offline: dict[str, dict[str, bytes]] = {}
        self.archived_s = 0.0

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

    def archive(self, sections: Iterable[Section]) -> None:
        """Put what they find on discs there: all at once, as the robot needs seconds each time."""
        folders = {name: what for section in sections for name, what in section.offline.items()}
        for folder, (count, size) in folders.items():
            (self.fs.mountpoint / folder).mkdir(mode=0o755)
            meant = {f"{folder}/{n:04}": random.Random(n).randbytes(size) for n in range(count)}
            for name, data in meant.items():
                (self.fs.mountpoint / name).write_bytes(data)
            self.offline[folder] = meant
        if not folders:
            return
        paths = [self.fs.mountpoint / folder for folder in folders]
        self.fs.control("archive", "--now", "--wait", "--release", *paths)
        self.archived_s = time.time()
        states = {self.state(name) for meant in self.offline.values() for name in meant}
        if states != {"migrated"}:
            raise RuntimeError(f"{', '.join(folders)} were released, and are {states}")

    @contextmanager
    def drives_down(self) -> Iterator[None]:
        """Meanwhile nothing is read from a disc."""
        paths = [f"/drives/{drive['name']}" for drive in self.api.get("/drives")]
        for path in paths:
            self.api.post(path, {"state": "down", "reason": "the proof holds recalls up"})
        try:
            yield
        finally:
            for path in paths:
                self.api.post(path, {"state": "up"})

    def state(self, name: str) -> str:
        """Where the bytes of a file are."""
        return os.getxattr(self.fs.mountpoint / name, "user.hsm.state").decode()


@contextmanager
def nas(p: Proof, sections: Iterable[Section], *, shared: bool) -> Iterator[Nas]:
    """Servers, the mount, and its clients, for these sections; once in the life of the kernel."""
    began = time.monotonic()
    nfs.serve()
    with TempFs(TABLES, folder=Path("/run/hsmfs"), ready_s=READY_S) as fs:
        world = Nas(p, fs, shared=shared)
        fs.control(
            "export", "nfs", fs.mountpoint, "--to", nfs.CLIENTS, "--options", "no_root_squash"
        )
        for version in nfs.VERSIONS:
            world.mounts[version] = nfs.mount(fs.mountpoint, version)
        world.archive(sections)
        p.say(f"{'servers, mounts, files on discs':<48} {time.monotonic() - began:>14.1f} s")
        yield world
