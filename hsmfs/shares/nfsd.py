"""The kernel's NFS server itself, see nfsd(7): how many threads it has, and starting it anew."""

from __future__ import annotations

from pathlib import Path

NFSD = Path("/proc/fs/nfsd")


def threads() -> int:
    """How many threads serve NFS; 0 if the server does not run. Blocks while it starts or stops."""
    try:
        return int((NFSD / "threads").read_text())
    except (OSError, ValueError):
        return 0
