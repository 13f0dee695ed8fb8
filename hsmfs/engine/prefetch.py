"""Files brought in before anybody reads them: by patient, study or list, and beside what is read.

Bounded by a share of each pool and by its high watermark, so that it never makes the releaser work;
what was brought in and not read makes room for what is ordered later, and goes first when the
releaser needs room. Which files are of which study is the catalog's knowledge (catalog/studies.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from .. import clock, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import RecallClass
from ..catalog.reports import Reports
from ..catalog.studies import Prefetched, Study
from ..config import Config
from ..errors import HsmError
from ..limits import BATCH_ROWS
from ..pool.pools import Pools
from ..pool.store import Pool
from ..states import STUBS
from ..types import Attr, InodeNo, PoolId, VolumeId
from . import group
from .events import Events
from .paths import files_below, resolve
from .recall import Recaller
from .release import Releaser
from .worklist import Watched, Wishes, load

log = logs.get(__name__)
LOOK = 10.0
"""Seconds between looks at the folder of lists."""
SIBLINGS = 1000
"""Files brought in beside one, at most."""


@dataclass(slots=True)
class Outcome:
    """What an order came to.

    Attributes:
        files, bytes: ordered to be brought in. on_disk: that are there already.
        refused: for which there is no room; why says which bound that is.
        unknown: patients, studies and paths of which nothing is known.
    """

    files: int = 0
    bytes: int = 0
    on_disk: int = 0
    refused: int = 0
    why: str = ""
    unknown: tuple[str, ...] = ()


class Prefetcher:
    """Orders recalls within its bounds."""

    def __init__(
        self,
        catalog: Catalog,
        pools: Pools,
        recaller: Recaller,
        releaser: Releaser,
        events: Events,
        config: Config,
    ) -> None:
        self._catalog, self._pools, self._events = catalog, pools, events
        self._recaller, self._releaser = recaller, releaser
        self.config, self._mountpoint = config.prefetch, config.daemon.mountpoint
        self._one = trio.Lock()
        self._watched: Watched | None = None
        self._changed = trio.Event()
        self._held: Counter[PoolId] = Counter(catalog.studies.held())
        """Bytes that are marked, by pool."""

    def configure(self, config: Config) -> None:
        """Other bounds count from now on; what was brought in stays."""
        self.config = config.prefetch
        self._changed.set()
        self._changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up lists that are put into the folder, for ever."""
        task_status.started()
        while True:
            changed, folder = self._changed, self.config.worklist
            if folder is None:
                await changed.wait()
                continue
            if self._watched is None or self._watched.folder != folder:
                self._watched = Watched(folder)
            await self._look(self._watched)
            with trio.move_on_after(LOOK):
                await changed.wait()

    async def _look(self, watched: Watched) -> None:
        try:
            found = await clock.blocking(watched.new)
        except OSError as fault:
            log.warning("the folder of worklists cannot be read", folder=watched.folder,
                        error=fault)  # fmt: skip
            return
        for path in found:
            try:
                wishes = await clock.blocking(partial(load, path))
                outcome = await self.fetch(wishes, f"worklist {path.name}")
            except HsmError as fault:
                log.warning("worklist not taken", file=path, error=fault.message)
                self._events.emit("worklist_refused", file=str(path), error=fault.message)
                continue
            log.info("worklist taken", file=path, files=outcome.files, bytes=outcome.bytes,
                     refused=outcome.refused)  # fmt: skip
            self._events.emit(
                "worklist_taken", file=str(path), files=outcome.files, bytes=outcome.bytes,
                on_disk=outcome.on_disk, refused=outcome.refused, unknown=len(outcome.unknown),
            )  # fmt: skip

    # Orders

    async def fetch(self, wishes: Wishes, who: str) -> Outcome:
        """Bring in what is wished for, patients' newest studies first, as far as there is room."""
        outcome = Outcome()
        inos, unknown = await self._catalog.read(partial(_of_studies, wishes=wishes))
        for start in range(0, len(inos), BATCH_ROWS):
            some = inos[start : start + BATCH_ROWS]
            attrs = await self._catalog.read(partial(_attrs, inos=some))
            await self._order(attrs, who, outcome)
        for path in wishes.paths:
            try:
                root = resolve(self._catalog, path.encode("utf-8", "surrogateescape"),
                               self._mountpoint)  # fmt: skip
            except HsmError:
                unknown.append(path)
                continue
            async for batch in files_below(self._catalog, root):
                await self._order(batch, who, outcome)
        outcome.unknown = tuple(unknown)
        return outcome

    async def _order(self, attrs: Sequence[Attr], who: str, outcome: Outcome) -> None:
        for row in await self._admit(attrs, outcome):
            if await self._recaller.request(row.ino, RecallClass.BULK, who):
                outcome.files, outcome.bytes = outcome.files + 1, outcome.bytes + row.bytes

    async def _admit(self, attrs: Sequence[Attr], outcome: Outcome) -> list[Prefetched]:
        """Those of the files for which there is room, marked."""
        away = [
            attr
            for attr in attrs
            if attr.state in STUBS and attr.nlink
        ]
        outcome.on_disk += len(attrs) - len(away)
        now, rows = clock.now_ns(), list[Prefetched]()
        async with self._one:
            for pool in self._pools:
                mine = [attr for attr in away if self._pool_of(attr) is pool
                        and self._recaller.job(attr.ino) is None]  # fmt: skip
                bound, need = await self._bound(pool), sum(map(_absent, mine))
                if not bound.fits(need):
                    await self._tidy()
                    bound = await self._bound(pool)
                    await self._make_room(pool, bound, need)
                for attr in mine:
                    size = _absent(attr)
                    if bound.take(size):
                        rows.append(Prefetched(attr.ino, pool.id, size, now))
                    else:
                        outcome.refused, outcome.why = outcome.refused + 1, bound.why(size)
            async with self._catalog.write():
                self._catalog.studies.mark(rows)
            for row in rows:
                self._held[row.pool] += row.bytes
        return rows

    def _pool_of(self, attr: Attr) -> Pool:
        return self._pools.for_new(attr.ino) if attr.pool is None else self._pools[attr.pool]

    async def _bound(self, pool: Pool) -> _Bound:
        usage = await clock.blocking(pool.usage)
        coming = sum(size for size, _ in self._recaller.left().values())
        share = usage.capacity * self.config.share // 100
        room = usage.capacity * pool.high // 100 - usage.used - coming
        return _Bound(pool.name, share, share - self._held[pool.id], room)

    async def _make_room(self, pool: Pool, bound: _Bound, need: int) -> None:
        """What was brought in earlier and not read goes, oldest first, no more than helps."""
        need = min(need, bound.whole)
        if need - bound.room > self._held[pool.id]:
            return
        while not bound.fits(need):
            unread = await self._catalog.read(
                lambda reports: reports.studies.unread(pool.id, BATCH_ROWS)
            )
            gone = False
            for ino in unread:
                if bound.fits(need):
                    break
                try:
                    freed = await self._releaser.release(ino, "prefetch")
                except HsmError as fault:
                    log.debug("prefetched file stays", ino=ino, reason=fault.message)
                else:
                    gone = True
                    bound.room += freed
                    bound.share += await self._unmark([ino])
            if not gone:
                return

    async def _unmark(self, inos: Sequence[InodeNo]) -> int:
        """Bytes of the marks that went."""
        async with self._catalog.write():
            rows = self._catalog.studies.unmark(inos)
        for row in rows:
            self._held[row.pool] -= row.bytes
        return sum(row.bytes for row in rows)

    async def _tidy(self) -> None:
        """Forget marks of what was read, or did not come."""
        found = await self._catalog.read(lambda reports: reports.studies.settled())
        over = [ino for ino in found if self._recaller.job(ino) is None]
        for start in range(0, len(over), BATCH_ROWS):
            await self._unmark(over[start : start + BATCH_ROWS])

    # Beside what is read

    async def beside(self, ino: InodeNo, volume: VolumeId) -> list[InodeNo]:
        """The files to bring in while the disc is read for one of them; marked."""
        how = self.config.siblings
        if how == "off" or not self.config.share:
            return []

        def find(reports: Reports) -> list[Attr]:
            studies = reports.studies
            found = studies.beside(ino, volume, SIBLINGS) if how == "study" else (
                studies.in_folder(ino, volume, SIBLINGS)
            )  # fmt: skip
            return _attrs(reports, found)

        attrs, size = [], 0
        for attr in await self._catalog.read(find):
            size += attr.size
            if size > self.config.siblings_size:
                break
            attrs.append(attr)
        if not attrs:
            return []
        return [row.ino for row in await self._admit(attrs, Outcome())]

    # What is known

    async def index(self, roots: Sequence[Attr]) -> tuple[int, int]:
        """Read what lies on disk of the files' headers; DICOM files found, and files looked at."""
        known = looked = 0
        for root in roots:
            async for batch in files_below(self._catalog, root):
                found = await self._catalog.read(partial(self._headers, attrs=batch))
                async with self._catalog.write():
                    for ino, study in found:
                        self._catalog.studies.put(ino, study)
                known, looked = known + len(found), looked + len(batch)
        return known, looked

    def _headers(self, reports: Reports, attrs: Sequence[Attr]) -> list[tuple[InodeNo, Study]]:
        absent = reports.inodes.absent_of([attr.ino for attr in attrs])
        found = []
        for attr in attrs:
            if attr.pool is None or not attr.size:
                continue
            there = absent[attr.ino][0].start if attr.ino in absent else attr.size
            source = Path(self._pools[attr.pool].path_of(attr.ino))
            study = group.study(source, min(there, group.HEADER))
            if study is not None:
                found.append((attr.ino, study))
        return found

    async def status(self) -> dict[str, object]:
        """Bounds and what is held, as plain values."""
        await self._tidy()
        files, unread, (studies, known) = await self._catalog.read(
            lambda r: (r.studies.marked(), r.studies.unread_count(), r.studies.counts())
        )
        return {
            "share": self.config.share,
            "siblings": self.config.siblings,
            "worklist": None if self.config.worklist is None else str(self.config.worklist),
            "files": files,
            "bytes": sum(self._held.values()),
            "unread": unread,
            "studies_known": studies,
            "files_known": known,
        }


@dataclass(slots=True)
class _Bound:
    """What may still come into a pool: of the whole share, and below the high watermark; bytes."""

    pool: str
    whole: int
    share: int
    room: int

    def fits(self, need: int) -> bool:
        return need <= self.share and need <= self.room

    def take(self, need: int) -> bool:
        """False if there is no room for it."""
        if not self.fits(need):
            return False
        self.share -= need
        self.room -= need
        return True

    def why(self, need: int) -> str:
        if need > self.room:
            return f"pool {self.pool} would come above its high watermark"
        return f"[prefetch] share of pool {self.pool} is full"


def _absent(attr: Attr) -> int:
    """Bytes that are not on disk, about."""
    return max(0, attr.size - attr.blocks * 512)


def _attrs(reports: Reports, inos: Sequence[InodeNo]) -> list[Attr]:
    found = (reports.inodes.get_raw(ino) for ino in inos)
    return [attr for attr in found if attr is not None and attr.is_file]


def _of_studies(reports: Reports, wishes: Wishes) -> tuple[list[InodeNo], list[str]]:
    """Files of the patients' and other studies that are wished for, and what is not known."""
    inos: dict[InodeNo, None] = {}
    unknown: list[str] = []
    of_patient = reports.studies.of_patient
    wanted = [("study", uid, [uid]) for uid in wishes.studies]
    wanted += [("patient", id, [s.uid for s in of_patient(id)]) for id in wishes.patients]
    for kind, name, studies in wanted:
        found = [ino for uid in studies for ino in reports.studies.files(uid)]
        if not found:
            unknown.append(f"{kind} {name}")
        inos.update(dict.fromkeys(found))
    return list(inos), unknown
