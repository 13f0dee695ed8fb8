"""A client's open files outlive the catalog: it is lost, and made anew from the discs.

The last section: what was not on a disc is gone after it, and so are the heads of what was.
"""

from __future__ import annotations

import os
import time

from ..tempfs import Value
from . import nfs
from .load import whole
from .world import TABLES, Nas, Section

SIZE = 400_000
QUICK: dict[str, Value] = {"exchange": 0, "load": 0, "seek": 0}
"""While every disc of the library is looked into."""


def rebuilt(nas: Nas) -> None:
    """Handles hold inode numbers, and archived files get the numbers back that they had."""
    meant = nas.offline["rebuilt"]
    held = {}
    for name, (version, mount) in zip(meant, nas.mounts.items(), strict=True):
        held[version] = os.open(mount / name, os.O_RDONLY), meant[name]
        os.pread(held[version][0], 4096, 0)
    state = nas.fs.folder / "state"
    began = time.monotonic()
    nas.fs.stop()
    state.rename(state.with_name("lost"))
    state.mkdir()
    nas.fs.reconfigure({**TABLES, "library": {**TABLES["library"], **QUICK}})
    nas.fs.control("rebuild")
    nas.fs.reconfigure(TABLES)
    nas.fs.start()
    nas.p.figure("the catalog is made anew from the discs", time.monotonic() - began, "s")
    nfs.drop_caches()
    for version, (fd, data) in held.items():
        nas.p.require(whole(fd) == data, f"{version}: the open file differs")
        os.close(fd)
    nas.p.say("files that clients had open are read to their ends after it")


SECTIONS = {
    "NFS: a catalog rebuilt from discs": Section(rebuilt, {"rebuilt": (len(nfs.VERSIONS), SIZE)})
}
