"""What root tries on a record at a mount, local or of NFS; each raises OSError if it is refused."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAY = 86_400 * 10**9
READ_ONLY_OFF = struct.pack("<BxHHxxIIQ", 0, 5, 5, 1, 0x20, 0)
libc = ctypes.CDLL(None, use_errno=True)


def errno_of(act: Callable[[], object]) -> bool:
    """Whether the act was refused."""
    with contextlib.suppress(OSError):
        act()
        return False
    return True


def renameat2(one: Path, two: Path, flags: int) -> None:
    if libc.renameat2(-100, bytes(one), -100, bytes(two), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def by_handle(path: Path) -> None:
    """Open for writing by a file handle, as an NFS server does."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, bytes(path), handle, ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fd = libc.open_by_handle_at(folder, handle, os.O_WRONLY)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        os.close(fd)
    finally:
        os.close(folder)


def through_link(p: Path) -> None:
    link = p.parent.parent / f"link{p.name}"
    link.symlink_to(p)
    try:
        os.truncate(link, 0)
    finally:
        link.unlink()


def mapped(p: Path) -> None:
    fd = os.open(p, os.O_RDONLY)
    try:
        mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_WRITE)
    finally:
        os.close(fd)


def with_another(act: Callable[[Path, Path], None]) -> Callable[[Path], None]:
    """Put another file in its place by a rename of some kind."""

    def tried(p: Path) -> None:
        other = p.with_name("other")
        other.write_bytes(b"other")
        try:
            act(other, p)
        finally:
            other.unlink(missing_ok=True)

    return tried


def bind(p: Path) -> None:
    """Write through another mount of the same tree."""
    place = Path(f"/tmp/hsmfs-bind-{os.getpid()}")
    place.mkdir()
    subprocess.run(["mount", "--bind", p.parent, place], check=True)
    try:
        os.truncate(place / p.name, 0)
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def fallocate(p: Path, mode: int) -> None:
    fd = os.open(p, os.O_RDONLY)
    try:
        if libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(4096)):
            raise OSError(ctypes.get_errno(), "fallocate")
    finally:
        os.close(fd)


def acl() -> bytes:
    rows = ((1, 6, 2**32 - 1), (2, 6, 1000), (4, 6, 2**32 - 1), (16, 6, 2**32 - 1),
            (32, 6, 2**32 - 1))  # fmt: skip
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)


MOUNT: dict[str, Callable[[Path], object]] = {
    "open to write": lambda p: os.open(p, os.O_WRONLY),
    "open to append": lambda p: os.open(p, os.O_WRONLY | os.O_APPEND),
    "open and cut": lambda p: os.open(p, os.O_RDONLY | os.O_TRUNC),
    "create over it": lambda p: os.open(p, os.O_RDWR | os.O_CREAT),
    "truncate": lambda p: os.truncate(p, 0),
    "grow": lambda p: os.truncate(p, 10**6),
    "unlink": os.unlink,
    "rename": lambda p: os.rename(p, f"{p}2"),
    "move out of the folder": lambda p: os.rename(p, p.parents[1] / "out"),
    "rename another over it": with_another(os.rename),
    "exchange it with another": with_another(lambda one, two: renameat2(one, two, 2)),
    "hard link, to write through it": lambda p: os.link(p, f"{p}2"),
    "symbolic link, to write through it": through_link,
    "map it for writing": mapped,
    "write through a bind mount": bind,
    "open by its handle": by_handle,
    "give write permission": lambda p: os.chmod(p, 0o644),
    "give write permission by an ACL": lambda p: os.setxattr(
        p, "system.posix_acl_access", acl()
    ),
    "another owner": lambda p: os.chown(p, 1000, 1000),
    "mtime": lambda p: os.utime(p, ns=(p.stat().st_atime_ns, 1)),
    "shorten by atime": lambda p: os.utime(p, ns=(time.time_ns() + DAY, p.stat().st_mtime_ns)),
    "atime of the past": lambda p: os.utime(p, ns=(1, p.stat().st_mtime_ns)),
    "set an xattr": lambda p: os.setxattr(p, "user.b", b"2"),
    "remove an xattr": lambda p: os.removexattr(p, "user.a"),
    "take the read-only mark of Samba off": lambda p: os.setxattr(
        p, "user.DOSATTRIB", READ_ONLY_OFF
    ),
    "punch a hole": lambda p: fallocate(p, 3),
    "collapse a range": lambda p: fallocate(p, 8),
    "write its retention": lambda p: os.setxattr(p, "user.hsm.retention", b"none"),
    "rename the folder": lambda p: os.rename(p.parent, f"{p.parent}2"),
    "remove the folder": lambda p: os.rmdir(p.parent),
}
