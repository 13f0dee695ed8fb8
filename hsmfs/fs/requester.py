"""Who sent a request: the process behind a pid, and whether it still waits for the answer.

FUSE does not tell a server that a reader was killed (pyfuse3 swallows FUSE_INTERRUPT), but /proc
shows the kill pending on it, see proc_pid_status(5).
"""

from __future__ import annotations

import errno
import os
import signal

from pyfuse3 import RequestContext

from ..types import Requester

_KILL = 1 << signal.SIGKILL - 1
NFSD = "nfsd"
"""The name of the kernel's NFS server threads."""


def requester(ctx: RequestContext) -> Requester:
    """The process of a request's context; pid 0 is one of another pid namespace."""
    name = process_name(ctx.pid) if ctx.pid else "unknown"
    return Requester(ctx.pid, ctx.uid, ctx.gid, name, name == NFSD and is_nfsd(ctx.pid))


def is_nfsd(pid: int) -> bool:
    """Whether a process is a thread of the kernel's NFS server: the name, and no program."""
    if process_name(pid) != NFSD:
        return False
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError as fault:
        return fault.errno == errno.ENOENT
    return False


def process_name(pid: int) -> str:
    """The name of a process or thread, 'gone' if there is none."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            return comm.read(64).rstrip(b"\n").decode("utf-8", "backslashreplace")
    except OSError:
        return "gone"


def gone(pid: int) -> bool:
    """True if the process does not wait any more: it vanished, is dead, or a SIGKILL is pending.

    A process of another pid namespace (pid 0) is never seen to be gone.
    """
    if not pid:
        return False
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            lines = status.read().split(b"\n")
    except OSError:
        return True
    for line in lines:
        key, _, value = line.partition(b":")
        if key == b"State" and value.strip()[:1] in (b"Z", b"X"):
            return True
        if key in (b"SigPnd", b"ShdPnd") and int(value, 16) & _KILL:
            return True
    return False
