"""Replaces discs: their live files are archived once more on others, then the disc is retired.

Used for suspect discs (refresh), for discs of mostly dead files (repack) and for a move to larger
discs. The migrator does the copying, as for any file; a disc counts until every live file has as
many whole copies without it as before, burned, read back, and in sets that have their parity. All
steps are rows of the catalog.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.refreshes import Refresh, RefreshState, Wanting
from ..catalog.reports import Reports
from ..catalog.volumes import Volume
from ..config import Config
from ..errors import Conflict, HsmError, NotFound
from ..states import VOLUME_TRANSITIONS, SetState, VolumeState
from ..types import InodeNo, VolumeId
from . import certificate
from .events import Events
from .trust.audit import Note, unheard

log = logs.get(__name__)
LOOK = 60.0
"""Seconds between looks at orders that wait, if nothing is heard of what they wait for."""
AWAITED = ("volume_archived", "set_closed", "trash_purged", "disc_rebuilt", "inventory_differs")
"""Events after which an order may go on."""
REPACK_LOOK = 86_400.0
"""Seconds between looks for discs of mostly dead files."""
PAGE = 500
"""Files listed or looked at in one step."""
AT_ONCE = 20_000
"""Files of one disc that are queued at a time."""
PARITY = "files are copied, to sets that have no parity yet: 'hsmctl volume close' burns it now"
QUEUED = (
    "files are queued for other discs, which are burned once full or after [engine] burn_wait:"
    " 'hsmctl archive --now' does so at once"
)
TRASH = "files in the trash have bytes on it; they can be had back until they are purged"
OLD = "older versions have no other copy, and are kept as [versions] in the configuration says"
REFRESH, REPACK = "refresh", "repack"
REBUILD = "rebuild"
"""Of a disc that was made anew by parity: only its certificate is to be written."""

Archive = Callable[[Sequence[InodeNo], int, str, bool, str], Awaitable[object]]
"""Queue files for so many copies for someone; True: release them then; where one is to be kept."""


class Refresher:
    """Works the orders.

    Attributes:
        archive: the migrator's; set by who wires the engine.
        may_retire: raises Conflict for a disc that must stay, as it has copies of held files.
        note: puts it on record when a disc stops counting.
        complete: asks for the absent bytes of a file that was overwritten in part.
    """

    def __init__(self, catalog: Catalog, events: Events, config: Config) -> None:
        self._catalog, self._events = catalog, events
        self._folder = Path(config.daemon.state) / "certificates"
        self._below = config.scrub.repack_below
        keep = config.versions.keep_for
        self._keep_ns = int((config.trash.keep if keep is None else keep) * 1e9)
        self._keep_last = config.versions.keep_last
        self.archive: Archive | None = None
        self.complete: Callable[[InodeNo, str], Awaitable[object]] | None = None
        self.may_retire: Callable[[Volume], None] = lambda volume: None
        self.note: Note = unheard
        self._repack_at = 0.0
        self._wake = trio.Event()

    @property
    def certificates(self) -> Path:
        """The folder of the certificates."""
        return self._folder

    # Orders

    async def ask(self, volumes: Sequence[Volume], kind: str, who: str) -> list[Volume]:
        """Have the discs replaced, each with those of its set that stand or fall with it.

        Returns the discs of the order. Raises Conflict for a disc that holds nothing, that is
        outside, or whose set is not closed.
        """
        together: dict[VolumeId, Volume] = {}
        for volume in volumes:
            self._admit(volume, kind)
            for member in self._with_its_set(volume):
                self._admit(member, kind)
                together[member.id] = member
        new = [v for v in together.values() if self._catalog.refreshes.get(v.id) is None]
        if new:
            async with self._catalog.write():
                self._catalog.refreshes.add([v.id for v in new], kind, who, clock.now_ns())
            await self._catalog.sync()
            crash.point("repack.asked")
            names = " ".join(v.barcode for v in new)
            log.info("discs are replaced", discs=names, kind=kind, requester=who)
        self._wake.set()
        return list(together.values())

    def _with_its_set(self, volume: Volume) -> list[Volume]:
        """Parity needs all its discs, so a set with parity goes as a whole."""
        group = self._catalog.sets.of(volume.id)
        if group is None or not group.m:
            return [volume]
        if group.state is not SetState.CLOSED:
            raise Conflict(
                f"set {group.name} of disc {volume.barcode} is not closed yet",
                next_step=f"run 'hsmctl volume close {group.name}' and wait for its parity",
            )
        return [v for v in self._catalog.sets.discs(group.id) if v.state is not _RETIRED]

    def _admit(self, volume: Volume, kind: str) -> None:
        if kind != REFRESH:  # what is on a bad disc is copied in any case; then the disc stays
            self.may_retire(volume)
        if _RETIRED not in VOLUME_TRANSITIONS[volume.state] or volume.uuid is None:
            raise Conflict(
                f"disc {volume.barcode} is {volume.state.name.lower()} and cannot be replaced",
                next_step="see 'hsmctl volume info'",
            )
        if self._catalog.sets.rebuild(volume.id) is not None:
            raise Conflict(f"disc {volume.barcode} is being rebuilt", next_step="wait for it")

    async def cancel(self, volume: Volume) -> None:
        """Forget the order of a disc that was not retired yet. Raises NotFound, Conflict."""
        row = self._catalog.refreshes.get(volume.id)
        if row is None:
            raise NotFound(f"disc {volume.barcode} is not being replaced")
        if row.state not in (RefreshState.LISTING, RefreshState.COPYING):
            raise Conflict(f"disc {volume.barcode} is retired already")
        async with self._catalog.write():
            self._catalog.refreshes.cancel(row.id)

    # The loop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work orders for ever, those of the last run first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            task_status.started()
            await self._work_orders()

    async def _listen(self) -> None:
        async for event in self._events.follow():
            if event.kind in AWAITED:
                self._wake.set()

    async def _work_orders(self) -> None:
        self._repack_at = trio.current_time() + REPACK_LOOK
        while True:
            self._wake = trio.Event()
            if self._below and trio.current_time() >= self._repack_at:
                self._repack_at = trio.current_time() + REPACK_LOOK
                await self._find_dead()
            rows = sorted(self._catalog.refreshes.open(), key=lambda row: row.id)
            for _, order in groupby(rows, key=lambda row: row.id):
                await self._order(list(order))
            with trio.move_on_after(LOOK if rows else REPACK_LOOK):
                await self._wake.wait()

    async def _order(self, rows: list[Refresh]) -> None:
        try:
            await self._work(rows)
        except HsmError as fault:
            if fault.message != rows[0].error:
                log.warning("replacing discs put off", order=rows[0].id, error=fault.message)
            async with self._catalog.write():
                for row in rows:
                    self._catalog.refreshes.set_error(row.volume, fault.message)

    async def _work(self, rows: list[Refresh]) -> None:
        for row in rows:
            if row.state is RefreshState.LISTING:
                await self._list(row.volume)
        if any(row.state in (RefreshState.LISTING, RefreshState.COPYING) for row in rows):
            before = self._catalog.volumes.proven()
            waits = [await self._copy(row) for row in rows]
            if any(waits):
                return
            if not await self._retire([row.volume for row in rows], before):
                self._wake.set()
                return
        for row in rows:
            await self._bury(row.volume)

    async def _list(self, volume: VolumeId) -> None:
        """Which files are on the disc, and how many copies each has now."""
        while True:
            async with self._catalog.write():
                more = self._catalog.refreshes.list_files(volume, PAGE)
                if not more:
                    self._catalog.refreshes.set_state(volume, RefreshState.COPYING)
            crash.point("repack.listed")
            if not more:
                return
            await trio.lowlevel.checkpoint()

    async def _copy(self, row: Refresh) -> bool:
        """Queue what lacks copies; True if something does."""
        after: int | None = 0
        lacking = trashed = copied = 0
        while after is not None and lacking < AT_ONCE:
            found, after = await self._catalog.read(
                partial(_wanting, volume=row.volume, after=after)
            )
            trashed += sum(file.trashed and file.lacks > 0 for file in found)
            copied += sum(not file.lacks for file in found)
            lacking += len(found)
            await self._queue([file for file in found if file.lacks and not file.trashed], row)
        reason = ""
        if lacking:
            reason = f"{lacking} {QUEUED}"
            if trashed == lacking:
                reason = f"{trashed} {TRASH}"
            elif copied == lacking:
                reason = f"{copied} {PARITY}"
        else:
            since = self._catalog.trash.reach(clock.now_ns(), self._keep_ns)
            lacking = await self._catalog.read(
                lambda r: r.refreshes.kept_versions(row.volume, since, self._keep_last)
            )
            reason = f"{lacking} {OLD}" if lacking else ""
        if reason != row.error:
            async with self._catalog.write():
                self._catalog.refreshes.set_error(row.volume, reason)
        return bool(lacking)

    async def _queue(self, files: Iterable[Wanting], row: Refresh) -> None:
        """Ask the migrator for what is not asked for already, and for bytes of old versions."""
        assert self.archive is not None and self.complete is not None
        volume = self._catalog.volumes.get(row.volume)
        assert volume is not None
        who = _asker(row, volume)
        wanted: dict[tuple[int, bool], list[InodeNo]] = {}
        for file in files:
            if file.old:
                await self.complete(file.ino, who)
                continue
            copies = file.proven + file.lacks
            queued = self._catalog.queues.migration(file.ino)
            if queued is None or queued.version != file.version or queued.copies < copies:
                wanted.setdefault((copies, file.stub), []).append(file.ino)
        for (copies, stub), inos in wanted.items():
            await self.archive(inos, copies, who, stub, volume.vault)
            crash.point("repack.queued")

    async def _retire(
        self, volumes: list[VolumeId], before: set[VolumeId]
    ) -> bool:
        """The discs stop counting, all in one transaction. False: a disc changed since the look."""
        now = clock.now_ns()
        async with self._catalog.write():
            if before - self._catalog.volumes.proven() - set(volumes):
                return False
            for volume in volumes:
                found = self._catalog.volumes.get(volume)
                row = self._catalog.refreshes.get(volume)
                if found is None or row is None or found.state is _RETIRED:
                    continue
                if _RETIRED not in VOLUME_TRANSITIONS[found.state]:
                    raise Conflict(f"disc {found.barcode} is {found.state.name.lower()}")
                self.may_retire(found)
                self.note("disc.retired", row.requester, found.barcode, order=row.kind)
                self._catalog.volumes.set_state(
                    volume, _RETIRED, f"{row.kind}: its files are on other discs"
                )
                self._catalog.refreshes.retire(volume, now)
                # Before the migrator sees that copies are missing; the others follow at once.
                self._catalog.refreshes.wishes_met(volume, _asker(row, found), 0, PAGE)
        await self._catalog.sync()
        crash.point("repack.retired")
        return True

    async def _bury(self, volume: VolumeId) -> None:
        """Write the certificate, then call the copies on the disc dead."""
        row, found = self._catalog.refreshes.get(volume), self._catalog.volumes.get(volume)
        assert row is not None and found is not None
        after: int | None = 0
        while after is not None:
            async with self._catalog.write():
                after = self._catalog.refreshes.wishes_met(
                    volume, _asker(row, found), after, PAGE
                )
            await trio.lowlevel.checkpoint()
        paper = await self._catalog.read(lambda reports: certificate.make(reports, found, row))
        await clock.blocking(lambda: certificate.write(paper, self._folder), clock.DISK)
        crash.point("repack.certified")
        while True:
            async with self._catalog.write():
                more = self._catalog.refreshes.bury(volume, PAGE)
                if not more:
                    self._catalog.refreshes.certified(volume, paper.name)
            if not more:
                break
            await trio.lowlevel.checkpoint()
        await self._catalog.sync()
        crash.point("repack.done")
        log.info("disc retired", volume=found.barcode, certificate=paper.name)
        self._events.emit(
            "volume_retired", volume=found.barcode, kind_of_order=row.kind, certificate=paper.name
        )

    # By itself

    async def _find_dead(self) -> None:
        """Order a repack of discs, and whole sets, of which too little is alive."""
        below = self._below

        def look(reports: Reports) -> list[Volume]:
            found = []
            for unit in units(reports):
                alive = total = 0
                for volume in unit:
                    some, all_ = reports.refreshes.alive(volume.id)
                    alive, total = alive + some, total + all_
                if total and alive * 100 < below * total:
                    found.append(unit[0])
            return found

        for volume in await self._catalog.read(look):
            if self._catalog.refreshes.get(volume.id) is None:
                try:
                    await self.ask([volume], REPACK, f"less than {below} % of it is alive")
                except Conflict as fault:
                    log.info("not repacked", volume=volume.barcode, reason=fault.message)


def _asker(row: Refresh, volume: Volume) -> str:
    """In whose name files of the disc are queued."""
    return f"{row.kind} of {volume.barcode}"


_RETIRED = VolumeState.RETIRED


def _wanting(
    reports: Reports, volume: VolumeId, after: int
) -> tuple[list[Wanting], int | None]:
    return reports.refreshes.wanting(volume, after, PAGE)


def units(reports: Reports) -> list[list[Volume]]:
    """Full and suspect discs that are replaced together: a closed set with parity, or one disc."""
    found: dict[str, list[Volume]] = {}
    sets = {group.id: group for group in reports.sets.all()}
    for volume in reports.volumes.all():
        if volume.state not in (VolumeState.FULL, VolumeState.SUSPECT):
            continue
        group = sets.get(volume.set_id) if volume.set_id is not None else None
        if group is None or not group.m:
            found[volume.barcode] = [volume]
        elif group.state is SetState.CLOSED:
            found.setdefault(group.name, []).append(volume)
    return list(found.values())
