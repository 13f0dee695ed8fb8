"""`.snapshots` over NFS: what clients overwrote and deleted is read as it was, and stays so."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import nfs
from .records import overwrite
from .world import Nas, Section

SIZE = 600_000
"""More than the head: what a client reads has to come from a disc."""
VERSIONS = ("v3", "v4.2")
MINUTE_S = 60
FOLDER = ".snapshots/@GMT-%Y.%m.%d-%H.%M.00"
CHANGES: dict[str, Callable[[Path], object]] = {
    "write": overwrite,
    "cut": lambda path: os.truncate(path, 0),
    "change the mode": lambda path: path.chmod(0o600),
    "rename": lambda path: path.rename(path.with_name("new")),
    "delete": Path.unlink,
    "make a file": lambda path: path.with_name("new").touch(),
    "make a folder": lambda path: path.with_name("new").mkdir(),
}


def snapshots(nas: Nas) -> None:
    """A client of each version changes one file and deletes another, and reads what they were."""
    nfs.until(lambda: time.time() // MINUTE_S * MINUTE_S > nas.archived_s, "a minute begins")
    then = time.strftime(FOLDER, time.gmtime())
    for version in VERSIONS:
        mount, (changed, deleted) = nas.mounts[version], nas.offline[f"past-{version}"]
        overwrite(mount / changed)
        (mount / deleted).unlink()
        states = nas.state(changed), nas.state(f"{then}/{deleted}")
        nas.p.require(states == ("partial", "migrated"), f"{version}: the files are {states}")
        refused = _attempts(nas, mount / then / changed)
        nas.p.figure(f"{version}: changes of the past refused", refused, at_least=len(CHANGES))
    nfs.drop_caches()
    _read(nas, then)


def _read(nas: Nas, then: str) -> None:
    """All at once, by the client that changed them."""
    meant = {
        (version, name): data for version in VERSIONS
        for name, data in nas.offline[f"past-{version}"].items()
    }  # fmt: skip
    began = time.monotonic()
    with ThreadPoolExecutor(len(meant)) as readers:
        found = readers.map(lambda key: (nas.mounts[key[0]] / then / key[1]).read_bytes(), meant)
        for (version, name), data in zip(meant, found, strict=True):
            nas.p.require(data == meant[version, name], f"{version}: {then}/{name} differs")
    nas.p.figure("overwritten and deleted files read as they were", len(meant), at_least=4)
    nas.p.figure("from discs within", time.monotonic() - began, "s")


def _attempts(nas: Nas, path: Path) -> int:
    """How many of the changes are refused because nothing is written there (EROFS)."""
    refused = 0
    for what, act in CHANGES.items():
        try:
            act(path)
        except OSError as fault:
            told = errno.errorcode.get(fault.errno or 0, "?")
            nas.p.require(fault.errno == errno.EROFS, f"{path}: {what}: {told}")
            refused += 1
    return refused


SECTIONS = {
    "NFS: snapshots": Section(snapshots, {f"past-{version}": (2, SIZE) for version in VERSIONS})
}
