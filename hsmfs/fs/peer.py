"""Whom a server process talks to: the other end of its TCP connection, from /proc (proc(5))."""

from __future__ import annotations

import ipaddress
import os
import sys

PORTS = (445, 139)
"""Where SMB is served."""
_ESTABLISHED = "01"


def peer_of(pid: int, ports: tuple[int, ...] = PORTS) -> str:
    """The address of the client of a process that serves one of the ports; '' if it has none.

    Needs the rights of the process or root's.
    """
    try:
        sockets = {
            link[8:-1]
            for fd in os.listdir(f"/proc/{pid}/fd")
            if (link := os.readlink(f"/proc/{pid}/fd/{fd}")).startswith("socket:[")
        }
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
                for line in lines:
                    local, remote, state, *_, inode = line.split()[1:10]
                    if state == _ESTABLISHED and inode in sockets and _port(local) in ports:
                        return _address(remote)
    except OSError:
        pass  # it ended meanwhile, or is not ours to look at
    return ""


def _port(end: str) -> int:
    return int(end.rpartition(":")[2], 16)


def _address(end: str) -> str:
    """An address of /proc/net/tcp: 32-bit words in the machine's byte order."""
    text = end.rpartition(":")[0]
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    found = ipaddress.ip_address(raw)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
