"""The kernel's NFS server itself, see nfsd(7): how many threads it has, and starting it anew."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import nfs
from .share import ShareError, replace, run

NFSD = Path("/proc/fs/nfsd")
MONITORED = Path("/var/lib/nfs/sm")
"""rpc.statd(8) has a file here for each client of NFS 3 that has locks: whom sm-notify(8) tells."""
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
    clients = _monitored()
    run(("rpc.nfsd", "0"), package=nfs.PACKAGE)
    try:
        nfs.reload()
    finally:
        run(("rpc.nfsd", str(count)), package=nfs.PACKAGE)
        replace(mark, None)
    run(("sm-notify", "-f"), package="nfs-common")
    # It takes them off the list, and statd, which still knows them, puts none on it again: at the
    # next start they would not be told, and lose their locks.
    _monitor(clients)
    return count


def _monitored() -> dict[Path, bytes]:
    """What statd keeps of each client of NFS 3 that has locks."""
    found = {}
    with contextlib.suppress(OSError):
        for file in MONITORED.iterdir():
            with contextlib.suppress(OSError):  # its last lock was just given up
                found[file] = file.read_bytes()
    return found


def _monitor(clients: dict[Path, bytes]) -> None:
    """Put back what was taken off; its owner is statd's user. Raises ShareError."""
    try:
        owner = MONITORED.stat()
        for file, content in clients.items():
            with contextlib.suppress(FileExistsError), file.open("xb") as kept:
                os.fchmod(kept.fileno(), 0o600)
                os.fchown(kept.fileno(), owner.st_uid, owner.st_gid)
                kept.write(content)
    except FileNotFoundError:
        return  # there is no statd, and no client
    except OSError as fault:
        raise ShareError(f"{fault.filename or MONITORED}: {fault.strerror}") from fault
