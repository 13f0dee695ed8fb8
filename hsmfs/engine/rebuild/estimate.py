"""How long a rebuild of this catalog would take, part by part, on this machine.

What is the catalog's is done for real, on a copy and beside its users: it is packed as a disc's
snapshot is, brought back and put in order; the checks of fsck run on the catalog itself. What robot
and drives take is reckoned from what they took so far.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ... import clock
from ...catalog import check, rehearse, snapshot
from ...catalog.reports import Reports
from ...pool.store import Pool
from ..eta import Speeds

if TYPE_CHECKING:
    from ..service import Engine

ROOM = 3
"""Times the catalog's bytes that the copies may take."""
PROBED = 1000
"""Files of each pool that are looked at."""
PROBED_BYTES = 64 << 20
"""And bytes of them that are read, at most."""


@dataclass(slots=True)
class Parts:
    """Seconds of each part, in the order in which they come."""

    discs: float = 0.0
    """Visits of discs, by all drives at once."""
    snapshot: float = 0.0
    """Reading the newest snapshot off its disc and unpacking it."""
    manifests: float = 0.0
    names: float = 0.0
    pools: float = 0.0
    """Matching files on disk; those that changed since the snapshot are read."""
    fsck: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))

    def rounded(self) -> Parts:
        """For people: to a tenth of a second."""
        return Parts(**{name: round(seconds, 1) for name, seconds in asdict(self).items()})


def visits(written: int, blank: int, drives: int, speeds: Speeds, reading: float) -> float:
    """Seconds to visit discs: one robot carries each there and back, drives work side by side.

    reading: what is needed of a written disc; that another one is blank is seen by its load.
    """
    carrying = 2 * speeds.exchange * (written + blank)
    each = 2 * speeds.exchange + speeds.load
    return max(carrying, (each * (written + blank) + reading * written) / max(1, drives))


async def catalog_parts(
    engine: Engine, folder: Path, since_ns: int, parts: Parts
) -> str | None:
    """Fill in what does not depend on discs; why some of it could not be measured, or None.

    since_ns: the newest snapshot's time, 0 if there is none.
    """
    size = await engine.catalog.read(snapshot.pages_bytes)
    if shutil.disk_usage(folder).free < ROOM * size:  # on the loop: one statvfs(2)
        return f"{folder.parent} has less room than {ROOM} times the catalog's {size:,} bytes"
    plain, packed = folder / "copy.plain", folder / "copy.zst"
    now, next_ino = clock.now_ns(), engine.catalog.inodes.next_ino
    await engine.catalog.read(
        lambda reports: snapshot.copy(reports, plain, next_ino=next_ino, now_ns=now)
    )
    stored = await clock.blocking(lambda: snapshot.pack(plain, packed), clock.IMAGES)
    done = await clock.blocking(
        lambda: rehearse.bring_back(packed, folder / "draft.db", based=since_ns > 0)
    )
    if since_ns:
        rate = engine.mounts.pace.of("").read_rate
        # Unpacked twice: to see which discs it holds, and to begin with.
        parts.snapshot = (stored / rate if rate else 0.0) + 2 * done.unpacking
    parts.names, parts.pools = done.names, done.pools
    pools = list(engine.pools)
    parts.pools += await engine.catalog.read(lambda reports: _matching(reports, pools, since_ns))
    started = time.monotonic()
    await check.run(engine.catalog)
    parts.fsck = time.monotonic() - started
    return None


def _matching(reports: Reports, pools: Iterable[Pool], since_ns: int) -> float:
    """Seconds to look at all files of all pools, and to read those that changed since."""
    files, changed = rehearse.in_pools(reports.db, since_ns)
    seen = size = 0
    looking = reading = 0.0
    for pool in pools:
        started = time.monotonic()
        paths = []
        for ino in islice(pool.inodes(), PROBED):
            reports.inodes.get_raw(ino)
            with suppress(FileNotFoundError):  # users delete files meanwhile
                os.stat(pool.path_of(ino))
                paths.append(pool.path_of(ino))
        looking += time.monotonic() - started
        seen += len(paths)
        started = time.monotonic()
        size += _read(paths)
        reading += time.monotonic() - started
    each = looking / seen if seen else 0.0
    return files * each + (changed * reading / size if size else 0.0)


def _read(paths: Iterable[str]) -> int:
    """Read and sum some files; how many bytes there were."""
    done = 0
    for path in paths:
        with suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
            while done < PROBED_BYTES and (data := file.read(1 << 20)):
                hashlib.sha256(data)
                done += len(data)
    return done
