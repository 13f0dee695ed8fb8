"""Who sent a request: the process behind a pid, what it is called, and for whom smbd asks.

The pid of a request is that of a thread; rules and people name processes, so it is looked up
(proc_pid_status(5)). nfsd's threads are the kernel's: which client they serve is not known here.
"""

from __future__ import annotations

from pathlib import Path

import trio
from pyfuse3 import RequestContext

from ..types import Requester
from .peer import peer_of

NFSD = "nfsd"
"""The name of the kernel's NFS server threads."""
SMBD = "smbd"
"""Samba serves each client by a process whose name begins so."""
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD (Linux include/linux/sched.h)."""
_KNOWN_SECONDS = 0.1
"""How long an answer holds: through a burst of requests, not until a pid can be another's."""
_KNOWN = 1024
_clients: dict[int, tuple[list[bytes], str]] = {}
"""By process: when it began (proc_pid_stat(5), starttime), and its client."""
_known: dict[tuple[int, int, int], tuple[float, Requester, str]] = {}


def requester(ctx: RequestContext) -> Requester:
    """The process of a request's context; pid 0 is one of another pid namespace."""
    return _asks(ctx)[1]


def actor(ctx: RequestContext) -> str:
    """The same as the audit log has it."""
    return _asks(ctx)[2]


def _asks(ctx: RequestContext) -> tuple[float, Requester, str]:
    """Remembered, since each deletion asks, and /proc costs more than the deletion."""
    key, now = (ctx.pid, ctx.uid, ctx.gid), trio.current_time()
    found = _known.get(key)
    if found is None or not now - _KNOWN_SECONDS < found[0] <= now:
        if len(_known) >= _KNOWN:
            _known.clear()
        who = _look_up(ctx)
        found = _known[key] = now, who, str(who)
    return found


def _look_up(ctx: RequestContext) -> Requester:
    if not ctx.pid:
        return Requester(0, ctx.uid, ctx.gid, "unknown")
    pid = process_of(ctx.pid)
    name = process_name(pid)
    client = _client(pid) if name.startswith(SMBD) else ""
    return Requester(pid, ctx.uid, ctx.gid, name, name == NFSD and is_nfsd(pid), client)


def _client(pid: int) -> str:
    """Whom a process of Samba's serves: the same one as long as it lives, so it is remembered.

    Finding out takes a call for each file that it has open, on the event loop.
    """
    began = _told(pid, "stat").rpartition(b")")[2].split(None, 20)[19:20]
    found = _clients.get(pid)
    if found is None or found[0] != began or not found[1]:
        if len(_clients) >= _KNOWN:
            _clients.clear()
        found = _clients[pid] = began, peer_of(pid)
    return found[1]


def is_nfsd(pid: int) -> bool:
    """Whether a process is a thread of the kernel's NFS server: the name, and the kernel's flag.

    Everybody may read stat (proc_pid_stat(5)); exe would ask for CAP_SYS_PTRACE.
    """
    name, _, rest = _told(pid, "stat").partition(b"(")[2].rpartition(b")")
    return name.decode("ascii", "replace") == NFSD and bool(int(rest.split()[6]) & _KERNEL_THREAD)


def process_of(thread: int) -> int:
    """The process that a thread belongs to; the thread itself if it is gone."""
    _, _, after = _told(thread, "status").partition(b"\nTgid:")
    return int(after.split(None, 1)[0]) if after else thread


def process_name(pid: int) -> str:
    """The name of a process or thread, 'gone' if there is none."""
    name = _told(pid, "comm")
    return name.rstrip(b"\n").decode("utf-8", "backslashreplace") if name else "gone"


def _told(pid: int, file: str) -> bytes:
    """The content of a file of /proc, b'' if the process is gone."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""
