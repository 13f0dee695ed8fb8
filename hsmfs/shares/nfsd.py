"""The kernel's NFS server itself, see nfsd(7): how many threads it has, and starting it anew."""

from __future__ import annotations

import contextlib
from pathlib import Path

from . import nfs
from .share import replace, run

NFSD = Path("/proc/fs/nfsd")
MARK = "nfsd-threads"
"""In the state folder while nfsd is stopped by us: how many threads it had."""


def threads() -> int:
    """How many threads serve NFS; 0 if the server does not run. Blocks while it starts or stops."""
    try:
        return int((NFSD / "threads").read_text())
    except (OSError, ValueError):
        return 0


def renew(mountpoint: Path, state: Path) -> int:
    """After a mount: start nfsd anew, so that clients find the files they have open again.

    What nfsd holds open belongs to the mount before. After a start of the server clients of NFS 4
    open their files once more by handle, and take their locks again; those of NFS 3 are told by
    sm-notify(8) to do so. Returns the threads that serve now; 0 if nothing is exported or nfsd
    does not run. Raises ShareError.
    """
    mark = state / MARK
    if not nfs.below(mountpoint):
        return 0
    count = threads()
    if count:
        replace(mark, f"{count}\n")
    else:
        with contextlib.suppress(OSError, ValueError):
            count = int(mark.read_text())
    if not count:
        return 0
    run(("rpc.nfsd", "0"), package=nfs.PACKAGE)
    try:
        nfs.reload()
    finally:
        run(("rpc.nfsd", str(count)), package=nfs.PACKAGE)
        replace(mark, None)
    run(("sm-notify", "-f"), package="nfs-common")
    return count
