"""Tells systemd how the daemon is (sd_notify(3)): ready, alive, what it does, stopping.

Twenty lines of datagram socket rather than a library: the one on PyPI is no longer kept, and
python-systemd needs a C library's headers. Without NOTIFY_SOCKET everything here does nothing.
"""

from __future__ import annotations

import os
import socket

import trio


def notify(*lines: str) -> bool:
    """Send lines such as "READY=1"; returns whether a service manager was there to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        s.setblocking(False)
        try:
            s.sendto("\n".join(lines).encode(), address)
        except BlockingIOError:  # its queue is full: the next one will do
            return False
    return True


def ready(status: str = "") -> None:
    """The mount answers; units that wait for us may start."""
    notify("READY=1", f"STATUS={status or 'mounted'}")


def status(text: str) -> None:
    """One line for `systemctl status`."""
    notify(f"STATUS={text}")


def stopping(text: str = "stopping") -> None:
    """A clean stop has begun."""
    notify("STOPPING=1", f"STATUS={text}")


def extend(seconds: float) -> None:
    """Ask for more time to start or stop, for instance while a burn is being finished."""
    notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")


def watchdog_interval() -> float | None:
    """Seconds after which systemd takes us for hung (WatchdogSec=), or None if it never does."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isdecimal() and int(usec) else None


async def keep_alive() -> None:
    """Say WATCHDOG=1 from the event loop until cancelled; a loop that hangs is silent."""
    interval = watchdog_interval()
    while interval is not None:
        notify("WATCHDOG=1")
        await trio.sleep(interval / 3)
