"""Nothing that a client of NFS can send leads out of the mount: '..', links, forged handles."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

from _verdict import Proof

from ..lab import READY_S
from ..tempfs import TempFs
from . import nfs
from .rawnfs import FOLDER, LINK, OK, Found, RawNfs, Refused

FORGED = 400
DEEP = 4
_TAIL = struct.Struct("=III")
"""FUSE's end of a handle: inode number, upper and lower half, and generation (fs/fuse/inode.c)."""
LINKS = {b"out": b"/etc/passwd", b"up": b"../../../../../../etc/passwd"}


def by_nfs(p: Proof, seed: int) -> None:
    """Inside the lab's kernel: a mount of which one folder is exported."""
    nfs.serve()
    with TempFs(folder=Path("/run/hsmfs"), ready_s=READY_S) as fs:
        top = fs.mountpoint / "top"
        deep = top.joinpath(*map(str, range(DEEP)))
        deep.mkdir(parents=True)
        (fs.mountpoint / "beside").write_text("not in the export")
        (deep / "file").write_text("of the mount")
        for name, target in LINKS.items():
            os.symlink(target, os.fsencode(top) + b"/" + name)
        fs.control("export", "nfs", top, "--to", nfs.CLIENTS, "--options", "no_root_squash")
        with RawNfs() as client:
            root = client.root(top)
            p.require(root.ino == top.stat().st_ino, "the export's root is another folder")
            upward(p, client, root)
            links(p, client, root)
            forged(p, client, root, {path.stat().st_ino for path in everything(fs)}, seed)
            p.require(client.look(root.handle) == root, "the export is not as it was")


def everything(fs: TempFs) -> list[Path]:
    """All that is in the mount."""
    below = [Path(at, name) for at, *names in os.walk(fs.mountpoint) for group in names
             for name in group]  # fmt: skip
    return [fs.mountpoint, *(path for path in below if not path.is_symlink())]


def refused(act: Callable[[], object]) -> int:
    """The status of a request; OK if it was served."""
    try:
        act()
    except Refused as fault:
        return fault.status
    return OK


def upward(p: Proof, client: RawNfs, root: Found) -> None:
    """'..' ends at the export's root, and a name is never a path."""
    at = root
    for number in range(DEEP):
        at = client.lookup(at.handle, b"%d" % number)
    for _ in range(3 * DEEP):
        at = client.lookup(at.handle, b"..")
        p.require(at.fsid == root.fsid, "'..' leads to another filesystem")
    p.require(at == root, "'..' leads above the export")
    names = (b"../beside", b"0/../../beside", b"/etc/passwd", b"0/1", b"..\0", b"", b"x" * 300)
    for name in names:
        status = refused(lambda name=name: client.lookup(root.handle, name))
        p.require(status != OK, f"a lookup of {name[:20]!r} was served")
    p.figure("steps up, and names that are paths: none leads out", 3 * DEEP + len(names))


def links(p: Proof, client: RawNfs, root: Found) -> None:
    """The server tells what a link says, and never goes there."""
    for name, target in LINKS.items():
        link = client.lookup(root.handle, name)
        p.require(link.kind == LINK, f"{name!r} was followed")
        p.require(client.readlink(link.handle) == target, f"{name!r} says something else")
        for act in (lambda link=link: client.read(link.handle),
                    lambda link=link: client.lookup(link.handle, b"..")):  # fmt: skip
            p.require(refused(act) != OK, f"{name!r} was followed by its handle")
    p.figure("links told and not followed", len(LINKS))


def forged(p: Proof, client: RawNfs, root: Found, known: set[int], seed: int) -> None:
    """Handles of inodes that the client was never told of: of this mount, or refused."""
    chance = random.Random(seed)
    real = client.lookup(root.handle, b"0")
    p.require(real.kind == FOLDER, "no folder to forge handles of")
    head, generation = real.handle[: -_TAIL.size], _TAIL.unpack(real.handle[-_TAIL.size :])[2]
    reached, outside = set(), []
    numbers = [*range(100), *(chance.getrandbits(chance.choice((16, 32, 64))) for _ in range(100)),
               *known]  # fmt: skip
    for ino in numbers:
        handle = head + _TAIL.pack(ino >> 32, ino & 0xFFFFFFFF, generation)
        try:
            found = client.look(handle)
        except Refused:
            continue
        reached.add(ino)
        if found.fsid != root.fsid or found.ino != ino or ino not in known:
            outside.append(found)
    for _ in range(FORGED):
        handle = bytearray(real.handle)
        for _ in range(chance.randrange(1, 4)):
            handle[chance.randrange(len(handle))] = chance.randrange(256)
        try:
            found = client.look(bytes(handle))
        except Refused:
            continue
        if found.fsid != root.fsid or found.ino not in known:
            outside.append(found)
    p.figure("handles forged", len(numbers) + FORGED)
    p.figure("of these inodes of the mount", len(reached), at_least=1)
    for found in outside[:5]:
        p.say(f"  {found}")
    p.figure("of these anything else", len(outside), at_most=0)
