"""The releaser: frees disk space of files whose bytes stand verified on discs.

Least valuable first, by the time since the last use and the bytes it frees; never a file that is
pinned, open, younger than the minimum residence, kept by a `never` rule, or short of copies. The
copies are counted again just before the bytes go. Heads stay; only when a pool is full and nothing
else can go, the oldest are given up, or nothing could be written or recalled any more.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..config import Config
from ..errors import Conflict, HsmError, PosixError
from ..logs import printable
from ..pool.pools import DISK, Pools
from ..pool.store import Pool
from ..states import FileState
from ..types import Attr, InodeNo, PoolId
from .events import Events
from .policy.match import Ruleset
from .release_choice import Candidate, Wanted, choose
from .residency import Residency
from .trust.audit import Note, unheard

log = logs.get(__name__)
LOOK = 10.0
"""Seconds between looks at the watermarks."""
_AT_ONCE = 16
_HEADS = 200
"""Heads are given up that are together one in so many bytes of the pool, so that writers do not
come for each."""
_WIDER = 8
"""If all that were chosen kept their bytes, so many times more are chosen next."""


class Releaser:
    """Releases on demand and above the high watermarks.

    Attributes:
        rules: the policies in force; replaced when they are loaded again.
        pressure: how far the fullest pool stays above its low watermark although all was released
            that may be: 0, or up to 1 at the high watermark and above.
    """

    def __init__(
        self,
        catalog: Catalog,
        pools: Pools,
        files: Residency,
        rules: Ruleset,
        events: Events,
        config: Config,
    ) -> None:
        self._catalog, self._pools, self._files = catalog, pools, files
        self.rules, self._events = rules, events
        self._needs_parity = config.sets is not None and config.sets.release_needs == "parity"
        self.note: Note = unheard
        self._one = trio.Lock()
        self._wake = trio.Event()
        self._useless_until = 0.0
        self._recalled: dict[InodeNo, int] = {}
        self._heads_since: dict[tuple[PoolId, FileState], int] = {}
        self.pressure = 0.0
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Other numbers count from now on."""
        self._residence_ns = int(config.engine.min_residence * 1e9)
        self.wake()

    async def release(self, ino: InodeNo, who: str, *, even_open: bool = False) -> int:
        """Release one file; the bytes freed. Raises Conflict with the reason, or NotFound's ENOENT.

        Somebody asks, so the minimum residence does not count; the rest does. An open file is
        refused unless even_open.
        """
        await self._catalog.settled()
        attr = self._attr(ino)
        path = self._path(ino)
        self._refuse(attr, path)
        if attr.state == FileState.RESIDENT:
            # Its disc was lost when parity brought it in, and is there again.
            async with self._catalog.write():
                self._files.premigrated(ino, attr.version)
        return await self._release(attr, path, who, even_open=even_open)

    async def make_room(self, need: int, *, heads: bool = True) -> bool:
        """Free at least need bytes of the pools if that can be; False if nothing was to be had.

        Called by who met a full pool: calls at the same time share the work. heads: may go too, if
        nothing else can.
        """
        if trio.current_time() < self._useless_until:
            return False
        async with self._one:
            freed = 0
            for pool in self._pools:
                freed += await self._free(pool, max(need, self._excess(pool)), "full pool")
            if not freed and heads:
                freed = await self._free_heads(need)
                if not freed:
                    self._useless_until = trio.current_time() + 1.0
            return freed > 0

    async def _free_heads(self, need: int) -> int:
        freed = 0
        for pool in self._pools:
            usage = pool.usage()
            some = max(need + usage.used - usage.capacity, usage.capacity // _HEADS)
            for state in (FileState.MIGRATED, FileState.PREMIGRATED):
                freed += await self._free(pool, some - freed, "full pool: heads", state)
            if freed:
                log.warning(
                    "the pool is full, and heads of files on discs were given up", pool=pool.name,
                    bytes=freed, next_step="make the pool larger, or fs.head smaller",
                )  # fmt: skip
                return freed
        return freed

    def wake(self) -> None:
        """Look at the watermarks now: something became releasable or was written."""
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep every pool between its watermarks, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._note_recalls)
            task_status.started()
            await self._watch()

    async def _note_recalls(self) -> None:
        """A recalled file was wanted just now, though no time in its inode says so."""
        async for event in self._events.follow():
            if event.kind == "recalled":
                self._recalled[event.fields["ino"]] = event.time_ns

    async def _watch(self) -> None:
        while True:
            limit = clock.now_ns() - self._residence_ns
            self._recalled = {ino: at for ino, at in self._recalled.items() if at > limit}
            self._wake = trio.Event()
            pressure = 0.0
            for pool in self._pools:
                if pool.tier == DISK or not self._pools.tier(DISK):
                    pressure = max(pressure, await self._keep_below(pool))
            self.pressure = pressure
            with trio.move_on_after(LOOK):
                await self._wake.wait()

    async def above_watermark(self) -> bool:
        """Whether a pool is above its high watermark; blocking calls go to a thread."""
        for pool in self._pools:
            usage = await clock.blocking(pool.usage)
            if usage.percent > pool.high:
                return True
        return False

    async def _keep_below(self, pool: Pool) -> float:
        """Release down to the low watermark if it is over the high one; its pressure after that."""
        usage = await clock.blocking(pool.usage)
        if usage.percent <= pool.high:
            return 0.0
        excess = usage.used - usage.capacity * pool.low // 100
        async with self._one:
            freed = await self._free(pool, excess, "watermark")
        if freed < excess:
            log.warning("cannot release enough", pool=pool.name, wanted=excess, freed=freed)
            self._events.emit("cannot_release", pool=pool.name, wanted=excess, freed=freed)
        between = usage.capacity * (pool.high - pool.low) / 100
        return min(1.0, max(0, excess - freed) / between)

    def _excess(self, pool: Pool) -> int:
        """Bytes above the low watermark, so that writers do not come for each megabyte."""
        usage = pool.usage()
        return max(0, usage.used - usage.capacity * pool.low // 100)

    async def _free(
        self, pool: Pool, need: int, who: str, heads: FileState | None = None
    ) -> int:
        """Release the least valuable files of a pool until need bytes are free.

        heads: of files in this state, heads and all.
        """
        freed, wider = 0, 1
        refused = set[InodeNo]()
        since = self._heads_since.pop((pool.id, heads), 0) if heads is not None else 0
        while freed < need:
            wanted = Wanted(
                pool.id, (need - freed) * wider, self._residence_ns, clock.now_ns(),
                self._recalled, frozenset(refused), heads, since,
            )  # fmt: skip
            found = await self._catalog.read(
                lambda reports, wanted=wanted: choose(reports, self.rules, wanted)  # type: ignore[misc]
            )
            if not found:
                if not since:
                    break
                since = 0  # what was recalled since has a head again
                continue
            got = await self._release_some(
                found, need - freed, who, refused, heads=heads is not None
            )
            if heads is not None:
                self._heads_since[pool.id, heads] = since = found[0].attr.mtime_ns
            freed += got
            wider = 1 if got else wider * _WIDER
        if freed:
            self._events.emit("released_space", pool=pool.name, bytes=freed, why=who)
        return freed

    async def _release_some(
        self, found: Iterable[Candidate], need: int, who: str, refused: set[InodeNo],
        *, heads: bool,
    ) -> int:
        """Release files until need bytes are free; those that kept theirs become refused."""
        todo = iter(found)
        freed = expected = 0

        async def work() -> None:
            nonlocal freed, expected
            while freed + expected < need and (candidate := next(todo, None)) is not None:
                expected += candidate.frees
                got, ino = 0, candidate.attr.ino
                try:
                    attr = self._attr(ino)
                    self._refuse(attr, candidate.path, heads=heads)
                    got = await self._release(attr, candidate.path, who, heads=heads)
                except HsmError as fault:
                    log.debug("not released", ino=ino, reason=fault.message)
                except OSError as fault:
                    log.warning("not released", ino=ino, reason=str(fault))
                freed += got
                if not got:
                    refused.add(ino)
                expected -= candidate.frees

        async with trio.open_nursery() as nursery:
            for _ in range(_AT_ONCE):
                nursery.start_soon(work)
        return freed

    # One file

    def _attr(self, ino: InodeNo) -> Attr:
        live = self._files.live(ino)
        attr = live.attr if live is not None else self._catalog.inodes.get_raw(ino)
        if attr is None:
            raise Conflict(f"inode {ino} is gone", next_step="nothing to do")
        return attr

    def _path(self, ino: InodeNo) -> bytes:
        found = self._catalog.names.paths(ino, 1)
        return b"/" + found[0] if found else b""

    def _refuse(self, attr: Attr, path: bytes, *, heads: bool = False) -> None:
        """Raise Conflict with the reason if the file must keep its bytes, or only its head."""
        if not attr.is_file:
            raise Conflict(f"inode {attr.ino} is no regular file", next_step="name a file")
        if attr.state == FileState.MIGRATED and not heads:
            raise Conflict(f"inode {attr.ino} is released already", next_step="nothing to do")
        if (rule := self.rules.forbidden(attr, path, clock.now_ns())) is not None:
            raise Conflict(
                f"policy {rule} keeps inode {attr.ino} on disk", next_step="change the policy"
            )
        proven = self._catalog.copies.proven(attr.ino, attr.version)
        wanted = self.rules.wishes(attr, path).copies
        if proven < wanted:
            raise Conflict(
                f"inode {attr.ino} has {proven} verified copies of its present bytes, {wanted}"
                " are wanted",
                next_step="archive it first",
            )

        if self._needs_parity and self._catalog.copies.protected(attr.ino, attr.version) < wanted:
            raise Conflict(
                f"inode {attr.ino} is on discs whose set has no parity yet",
                next_step="wait until the set is closed, or see 'hsmctl volume close --help'",
            )

    async def _release(
        self, attr: Attr, path: bytes, who: str, *, even_open: bool = False, heads: bool = False
    ) -> int:
        try:
            live = self._files.hold(attr.ino)
        except PosixError as fault:
            raise Conflict(f"inode {attr.ino} is gone", next_step="nothing to do") from fault
        try:
            crash.point("release.before")
            head = 0 if heads else self.rules.wishes(attr, path).head
            freed = await self._files.release(
                live, head, even_open=even_open,
                may_go=lambda: self._refuse(live.attr, path, heads=heads),
                noted=lambda: self.note("file.released", who, printable(path), ino=attr.ino),
            )  # fmt: skip
            crash.point("release.after")
        finally:
            self._files.drop(live)
        if live.attr.pool is not None and freed:
            pool = self._pools[live.attr.pool]
            pool.used = max(0, pool.used - freed)
        log.info("released", ino=attr.ino, path=path, bytes=freed, requester=who)
        self._events.emit("released", ino=attr.ino, bytes=freed, requester=who)
        return freed
