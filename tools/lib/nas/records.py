"""Records over the network: clients commit by taking permissions away, and change nothing after."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from .. import forbidden
from . import nfs
from .world import Nas, Section

SIZE = 90_000
LOCAL = ("open by its handle", "write through a bind mount")
"""Of what is tried on the mount, what tries nothing else there: a client has no other way in."""
CIFS = (
    "open to write", "open to append", "open and cut", "create over it", "truncate", "grow",
    "unlink", "rename", "move out of the folder", "rename another over it", "mtime",
    "hard link, to write through it", "symbolic link, to write through it", "map it for writing",
    "set an xattr",
)  # fmt: skip
"""What of it the kernel's client of SMB has requests for."""


def by_nfs(world: Nas) -> None:
    """root of a client, not squashed, on a record that it committed itself."""
    for version, mount in world.mounts.items():
        folder = _folder(world, f"records-{version}")
        _attempts(world, version, mount / folder, folder, forbidden.MOUNT, LOCAL)
        _mapped_at_the_commit(world, version, mount / folder, folder)


def by_smb(world: Nas, client: Path, folder: str) -> None:
    """A user of a share that is `folder` on the mount, through the kernel's client."""
    inner = _folder(world, f"{folder}/records")
    acts = {what: forbidden.MOUNT[what] for what in CIFS}
    _attempts(world, "SMB", client / "records", inner, acts, ())


def _folder(world: Nas, name: str) -> str:
    """A retention folder, by its path below the mount."""
    path = world.fs.mountpoint / name
    path.mkdir()
    path.chmod(0o777)
    world.fs.control("retention", "set", path, "--mode", "compliance", "--default", "10 y")
    return name


def _attempts(
    world: Nas, way: str, there: Path, folder: str, acts: dict[str, Callable[[Path], object]],
    without: tuple[str, ...],
) -> None:  # fmt: skip
    """Each act on a record, which must be refused or change nothing that counts."""
    record = there / "record"
    record.write_bytes(os.urandom(SIZE))
    record.chmod(0o444)
    nfs.until(lambda: _seen(world, f"{folder}/record")[0] == "retained", f"{way}: it is a record")
    before, tried, told = _seen(world, f"{folder}/record"), 0, 0
    for what, act in acts.items():
        if what in without:
            continue
        tried += 1
        told += forbidden.errno_of(lambda act=act: act(record))
        after = _seen(world, f"{folder}/record")
        world.p.require(after == before, f"{way}: {what}: {before} became {after}")
        nfs.drop_caches()
        same = hashlib.sha256(record.read_bytes()).hexdigest() == before[2]
        world.p.require(same, f"{way}: {what}: the client reads other bytes")
    world.p.figure(f"{way}: attempts on a record", tried, at_least=len(acts) - len(without))
    world.p.figure(f"{way}: of these refused to the client", told, at_least=len(acts) // 2)


def _mapped_at_the_commit(world: Nas, version: str, there: Path, folder: str) -> None:
    """What was mapped for writing when it was committed does not change the record after it."""
    path, name = there / "mapped", f"{folder}/mapped"
    path.write_bytes(b"before".ljust(SIZE, b"."))
    fd = os.open(path, os.O_RDWR)
    try:
        with mmap.mmap(fd, SIZE) as mapped:
            path.chmod(0o444)
            nfs.until(lambda: _seen(world, name)[0] in ("closing", "retained"), "the commit")
            mapped[:6] = b"after "
            try:
                mapped.flush()
            except OSError as fault:
                world.p.say(f"{version}: msync after the commit: {errno.errorcode[fault.errno]}")
    finally:
        try:
            os.close(fd)
        except OSError as fault:
            world.p.say(f"{version}: close after the commit: {errno.errorcode[fault.errno]}")
    nfs.until(lambda: _seen(world, name)[0] == "retained", f"{version}: it is a record")
    before = _seen(world, name)
    tried = forbidden.errno_of(lambda: overwrite(path))
    world.p.require(tried, f"{version}: what was written after the commit was acknowledged")
    nfs.drop_caches()
    world.p.require(_seen(world, name) == before, f"{version}: a mapping changed a record")


def overwrite(path: Path) -> None:
    """NFS 3 knows no opening: there the write is refused, at the latest when it is to last."""
    with path.open("r+b", buffering=0) as file:
        file.write(b"after ")
        os.fsync(file.fileno())


def _seen(world: Nas, name: str) -> tuple[str, int | None, str, int, int]:
    """What must stay: state, until when, bytes, mode and owner, as the mount has them."""
    path = world.fs.mountpoint / name
    kept = json.loads(os.getxattr(path, "user.hsm.retention"))
    attr = path.stat()
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return kept["state"], kept["until_ns"], content, attr.st_mode, attr.st_uid


SECTIONS = {"NFS: records": Section(by_nfs)}
