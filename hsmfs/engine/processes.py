"""Whether the process behind a blocked read still waits for it. Linux's /proc; blocking.

FUSE does not tell that a reader was killed, and the kernel keeps it until it is answered. So a
process that waits for us cannot vanish: one that is killed shows a pending SIGKILL
(proc_pid_status(5)). One that has vanished handed its open file to another, as a shell or a
daemon that forks does; then those who have the file open are asked (proc_pid_fdinfo(5)).
"""

from __future__ import annotations

import os
import signal

from ..types import InodeNo, Requester

_KILL = 1 << signal.SIGKILL - 1


def left(who: Requester, ino: InodeNo) -> bool:
    """Whether nobody waits any more for what `who` asked of the inode.

    A process of another pid namespace (pid 0) is never seen to leave, nor is nfsd.
    """
    if not who.pid or who.nfs:
        return False
    found = killed(who.pid)
    if found is not None:
        return found
    return all(killed(pid) in (True, None) for pid in holders(ino))


def killed(pid: int) -> bool | None:
    """Whether any thread of the process has a SIGKILL pending; None if there is no such process."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    alive = False
    for thread in threads:
        state, pending = _status(f"/proc/{pid}/task/{thread}/status")
        if pending & _KILL:
            return True
        alive = alive or state not in ("", "Z", "X")
    return False if alive else None


def _status(path: str) -> tuple[str, int]:
    """State letter, '' if the thread is gone, and the pending signals of a thread."""
    state, pending = "", 0
    try:
        with open(path, encoding="ascii", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key == "State":
                    state = value.strip()[:1]
                elif key in ("SigPnd", "ShdPnd"):
                    pending |= int(value, 16)
    except OSError:
        return "", 0
    return state, pending


def holders(ino: InodeNo) -> list[int]:
    """Processes that have an inode of this number open, on whatever filesystem."""
    wanted = f"ino:\t{ino}\n"
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _holds(pid, wanted)]


def _holds(pid: str, wanted: str) -> bool:
    try:
        for fd in os.listdir(f"/proc/{pid}/fdinfo"):
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
                if wanted in lines.read():
                    return True
    except OSError:
        pass  # it ended meanwhile
    return False
