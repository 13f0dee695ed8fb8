"""Who sent a request: the process behind a pid, what it is called, and for whom smbd asks.

The pid of a request is that of a thread; rules and people name processes, so it is looked up
(proc_pid_status(5)). nfsd's threads are the kernel's: which client they serve is not known here.
"""

from __future__ import annotations

import errno
import os

from pyfuse3 import RequestContext

from ..types import Requester
from .peer import peer_of

NFSD = "nfsd"
"""The name of the kernel's NFS server threads."""
SMBD = "smbd"
"""Samba serves each client by a process whose name begins so."""


def requester(ctx: RequestContext) -> Requester:
    """The process of a request's context; pid 0 is one of another pid namespace."""
    if not ctx.pid:
        return Requester(0, ctx.uid, ctx.gid, "unknown")
    pid = process_of(ctx.pid)
    name = process_name(pid)
    client = peer_of(pid) if name.startswith(SMBD) else ""
    return Requester(pid, ctx.uid, ctx.gid, name, name == NFSD and is_nfsd(pid), client)


def is_nfsd(pid: int) -> bool:
    """Whether a process is a thread of the kernel's NFS server: the name, and no program."""
    if process_name(pid) != NFSD:
        return False
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError as fault:
        return fault.errno == errno.ENOENT
    return False


def process_of(thread: int) -> int:
    """The process that a thread belongs to; the thread itself if it is gone."""
    _, _, after = _told(thread, "status").partition(b"\nTgid:")
    return int(after.split(None, 1)[0]) if after else thread


def process_name(pid: int) -> str:
    """The name of a process or thread, 'gone' if there is none."""
    name = _told(pid, "comm")
    return name.rstrip(b"\n").decode("utf-8", "backslashreplace") if name else "gone"


def _told(pid: int, file: str) -> bytes:
    """The beginning of a file of /proc, b'' if the process is gone.

    Each deletion asks, so without a file object: that costs a quarter less.
    """
    try:
        fd = os.open(f"/proc/{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)
