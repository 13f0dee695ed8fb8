"""The engine's state as the API shows it: questions that change nothing.

Quick ones read on the loop's connection, whatever looks at many rows goes through `Catalog.read`
in a thread. Relies on the engine's parts and on views.py for the answers' form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import clock
from ..catalog.copies import Copy
from ..catalog.paths import PathCache
from ..catalog.queues import Burn, Migration, Recall
from ..catalog.reports import Reports
from ..catalog.volumes import Volume
from ..errors import HsmError, NotFound
from ..library.activity import activity_of
from ..library.robot import Robot
from ..limits import BATCH_ROWS, QUEUE_ROWS_SHOWN
from ..pool.store import Pool
from ..states import FileState
from ..types import Attr, Barcode, InodeNo, VolumeId
from ..units import format_duration
from ..watchdog import BOUNDS
from . import views
from .integrity.ingest import refusal
from .paths import path_of
from .views import b64, text, word

if TYPE_CHECKING:
    from .service import Engine


def state_of(attr: Attr) -> str | None:
    """The name of a file's state, None for what is not a regular file."""
    return None if attr.state is None else word(FileState(attr.state))


def place_of(robot: Robot, volume: Volume) -> str:
    """Where a disc is, in an admin's words."""
    element = robot.where(Barcode(volume.barcode))
    if element is not None:
        return element.place
    return "not in the library" if volume.location == "library" else volume.location


async def pools(engine: Engine) -> list[views.PoolView]:
    """Each pool and how full it is."""

    def look(pool: Pool) -> views.PoolView:
        usage = pool.usage()
        return views.PoolView(
            pool.name, pool.tier, str(pool.path), usage.capacity, usage.used, pool.high, pool.low,
            engine.keeping.used.get(pool.id, 0),
        )

    return await clock.blocking(lambda: [look(pool) for pool in engine.pools])


def drives(engine: Engine) -> list[views.DriveView]:
    """The drives of the library, with what the catalog remembers of each."""
    records = {record.serial: record for record in engine.catalog.volumes.drives()}
    found = []
    for drive in engine.library.drives:
        record = records.get(drive.serial)
        activity = activity_of(drive)
        found.append(
            views.DriveView(
                drive.name,
                drive.serial,
                word(record.state) if record else "up",
                record.reason if record else "",
                engine.robot.in_drive(drive),
                record.loads if record else 0,
                record.read_errors if record else 0,
                record.write_errors if record else 0,
                activity.work.value,
                activity.done,
                activity.total,
            )
        )
    return found


def move(engine: Engine) -> views.MoveView | None:
    """The disc that the robot carries just now."""
    moving = engine.robot.moving
    return views.MoveView(moving.cargo, moving.src, moving.dst) if moving else None


def burns(engine: Engine) -> list[views.BurnView]:
    """Discs that are being made."""
    return [_burn(burn, engine.catalog.volumes.get(burn.volume)) for burn in
            engine.catalog.queues.burns()]  # fmt: skip


def _burn(burn: Burn, volume: Volume | None) -> views.BurnView:
    name = volume.barcode if volume else str(burn.volume)
    return views.BurnView(name, burn.copy_no, word(burn.state), burn.created_ns, burn.error)


async def status(engine: Engine) -> views.Status:
    """The daemon at a glance; answers in milliseconds however many files there are."""
    waiting, size, oldest = await engine.catalog.read(lambda r: r.queues.migrations_waiting())
    recalls = await engine.catalog.read(lambda r: r.queues.recalls_waiting())
    in_pools = await pools(engine)
    await engine.catalog.settled()
    return views.Status(
        version=engine.version,
        pid=engine.pid,
        mountpoint=str(engine.config.daemon.mountpoint),
        started_ns=engine.started_ns,
        stopping=engine.stopping,
        pools=in_pools,
        drives=drives(engine),
        move=move(engine),
        workers=engine.workers(),
        burns=burns(engine),
        recalls_waiting=recalls,
        readers_waiting=len(engine.recaller.waiting),
        requests=len(engine.catalog.vault.wanted()),
        leaving=len(engine.catalog.vault.leaving()),
        for_vault=len(engine.catalog.vault.offers()),
        migrations_waiting=waiting,
        migration_bytes=size,
        oldest_migration_ns=oldest,
        loop_worst_s=engine.watch.worst if engine.watch else 0.0,
        loop_stalls=engine.watch.stall_count if engine.watch else 0,
    )


def loop(engine: Engine) -> views.LoopView:
    """The event loop's steps since the start. Raises NotFound if nobody watches it."""
    watch = engine.watch
    if watch is None:
        raise NotFound("the event loop is not watched")
    return views.LoopView(
        watch.threshold, watch.steps, watch.total, watch.worst, watch.worst_wall,
        watch.stall_count, watch.preempted, list(BOUNDS), list(watch.counts),
        [views.StallView(s.task, s.seconds, s.queued, s.stack) for s in watch.stalls],
    )  # fmt: skip


async def space(engine: Engine) -> views.Space:
    """Bytes by pool, by state of files and by state of discs."""
    await engine.write_sizes_down()
    by_state = await engine.catalog.read(lambda reports: reports.by_state())
    discs: dict[str, tuple[int, int, int]] = {}
    for volume in await engine.catalog.read(lambda reports: reports.volumes.all()):
        number, capacity, used = discs.get(word(volume.state), (0, 0, 0))
        discs[word(volume.state)] = number + 1, capacity + volume.capacity, used + volume.used
    return views.Space(
        await pools(engine),
        [
            views.StateCount(word(state), *by_state.get(state, (0, 0)))
            for state in FileState
        ],
        [views.DiscCount(state, *sums) for state, sums in sorted(discs.items())],
    )


async def listing(engine: Engine, attr: Attr, after: int, limit: int) -> views.Listing:
    """A page of a folder in the order of cookies greater than after; a file lists itself."""
    if not attr.is_dir:
        name = path_of(engine.catalog, attr.ino).rpartition(b"/")[2]
        attr = engine.files.overlay(attr)
        return views.Listing([views.entry(name, attr, state_of(attr))], None)
    limit = max(1, min(limit, BATCH_ROWS))
    rows = await engine.catalog.read(lambda r: r.names.entries(attr.ino, after, limit))
    shown = [(name, engine.files.overlay(found)) for _, name, found in rows]
    return views.Listing(
        [views.entry(name, found, state_of(found)) for name, found in shown],
        rows[-1][0] if len(rows) == limit else None,
    )


def info(engine: Engine, attr: Attr) -> views.Info:
    """Everything known of one inode."""
    catalog, ino = engine.catalog, attr.ino
    attr = engine.files.attr(ino) or attr
    live = engine.files.live(ino)
    paths = [b"/" + path for path in catalog.names.paths(ino)]
    first = paths[0] if paths else b""
    digest = catalog.copies.digest(ino, attr.version) if attr.is_file else None
    recall, migration = catalog.queues.recall(ino), catalog.queues.migration(ino)
    absent = live.absent if live is not None else catalog.inodes.absent(ino)
    target, disputed = catalog.inodes.target(ino), refusal(catalog, ino)
    return views.Info(
        entry=views.entry(first, attr, state_of(attr)),
        paths=[text(path) for path in paths],
        paths_b64=[b64(path) for path in paths],
        version=attr.version,
        pool=engine.pools[attr.pool].name if attr.pool is not None else None,
        dirty=bool(attr.dirty),
        open_handles=live.opens if live else 0,
        absent=[(r.start, r.end) for r in absent],
        sha256=digest.sha256.hex() if digest else None,
        proven_copies=catalog.copies.proven(ino, attr.version),
        copies=[copy_view(engine, copy, attr) for copy in catalog.copies.all_of(ino)],
        target=text(target) if target is not None else None,
        recall=recall_view(recall, first) if recall else None,
        migration=migration_view(migration, first, attr.size) if migration else None,
        disputed=disputed.message if disputed else None,
    )


def copy_view(engine: Engine, copy: Copy, attr: Attr) -> views.CopyView:
    """A part of a copy with the disc it is on."""
    where = copy.where
    volume = engine.catalog.volumes.get(where.volume)
    wanted = attr.base_version if attr.state != FileState.RESIDENT else attr.version
    return views.CopyView(
        copy.copy_no,
        where.part,
        where.parts,
        copy.version,
        copy.version in (attr.version, wanted),
        word(copy.state),
        volume.barcode if volume else str(where.volume),
        shown_state(volume) if volume else "unknown",
        place_of(engine.robot, volume) if volume else "unknown",
        where.sector,
        where.stored,
        where.offset,
        where.length,
        where.compressed,
    )


def recall_view(recall: Recall, path: bytes) -> views.RecallView:
    """A recall with the path of its file."""
    return views.RecallView(
        text(path), b64(path), recall.ino, word(recall.urgency), recall.requester,
        recall.created_ns, recall.start, recall.end, recall.attempts, recall.error,
    )  # fmt: skip


def migration_view(m: Migration, path: bytes, size: int) -> views.MigrationView:
    """A file that waits to be burned."""
    return views.MigrationView(
        text(path), b64(path), m.ino, size, m.copies, m.policy, m.group_key, m.queued_ns, m.release
    )


def why(engine: Engine, ino: InodeNo) -> dict[str, Any]:
    """What a reader of the inode waits for, as plain values; `answer` says it in a sentence."""
    attr = engine.files.attr(ino)
    if attr is None:
        raise NotFound(f"inode {ino} is gone")
    path = path_of(engine.catalog, ino)
    migration = engine.catalog.queues.migration(ino)
    recall = engine.recaller.why(ino) if attr.is_file else None
    return {
        "path": text(path),
        "path_b64": b64(path),
        "inode": ino,
        "state": state_of(attr),
        "answer": _answer(attr, recall),
        "recall": recall,
        "migration": asdict(migration_view(migration, path, attr.size)) if migration else None,
        "copies": [
            {
                "copy": view.copy_no,
                "volume": view.volume,
                "volume_state": view.volume_state,
                "place": view.place,
                "sector": view.sector,
                "state": view.state,
            }
            for view in (
                copy_view(engine, copy, attr) for copy in engine.catalog.copies.all_of(ino)
            )
            if view.current
        ],
    }


def _answer(attr: Attr, recall: dict[str, Any] | None) -> str:
    if recall is None:
        return f"nothing: a {views.kind_of(attr)} is never recalled"
    if attr.state in (FileState.RESIDENT, FileState.PREMIGRATED):
        return "nothing: all bytes are on disk"
    match recall["state"]:
        case "no recall":
            return "nobody reads it; its bytes beyond the head are only on discs"
        case "failed":
            return f"the last recall failed: {recall['error']}; {recall['next_step']}"
        case "reading":
            doing = f"disc {recall['volume']} is being read in drive {recall['drive']}"
        case "on the shelf":
            return (
                f"disc {recall['volume']} lies in {recall['shelf']}: an operator was asked for it,"
                " see 'hsmctl request ls'"
            )
        case "mounting":
            doing = f"disc {recall['volume']} is being brought to a drive"
        case _ if recall["volume"] is None:
            return "its recall waits until others that were asked for before have come"
        case _:
            doing = f"disc {recall['volume']} waits for a drive, {recall['discs_ahead']} before it"
    expected = recall["expected_s"]
    return doing if expected is None else f"{doing}; about {format_duration(expected)} more"


async def queue(engine: Engine, limit: int = QUEUE_ROWS_SHOWN) -> views.Queue:
    """What waits for a disc, in either direction."""
    limit = max(1, min(limit, QUEUE_ROWS_SHOWN))

    def look(reports: Reports) -> views.Queue:
        cache = reports.path_cache()
        volumes: dict[VolumeId, Volume | None] = {}
        for burn in reports.queues.burns():
            volumes[burn.volume] = reports.volumes.get(burn.volume)
        return views.Queue(
            [recall_view(r, _slash(cache, r.ino)) for r in reports.queues.recalls(0, limit)],
            [
                migration_view(m, _slash(cache, m.ino), _size(reports, m.ino))
                for m in reports.queues.migrations(limit=limit)
            ],
            [_burn(burn, volumes[burn.volume]) for burn in reports.queues.burns()],
        )

    return await engine.catalog.read(look)


def _slash(cache: PathCache, ino: InodeNo) -> bytes:
    path = cache.path(ino)
    return b"" if path is None else b"/" + path


def _size(reports: Reports, ino: InodeNo) -> int:
    attr = reports.inodes.get_raw(ino)
    return attr.size if attr else 0


def shown_state(volume: Volume) -> str:
    """A disc's state in words, and whether it is under quarantine."""
    return word(volume.state) + (", under quarantine" if volume.quarantine else "")


def volume_view(engine: Engine, volume: Volume) -> views.VolumeView:
    """A disc and where it is."""
    return views.VolumeView(
        volume.barcode,
        word(volume.state),
        volume.reason,
        place_of(engine.robot, volume),
        volume.capacity,
        volume.used,
        volume.uuid,
        volume.created_ns,
        volume.burned_ns,
        volume.verified_ns,
        volume.written_by,
        volume.loads,
        volume.read_errors,
        volume.write_errors,
        volume.root_hash,
        volume.vault,
        volume.quarantine,
    )


def elements(engine: Engine) -> list[views.ElementView]:
    """Every place in the library and what is in it, as last known."""
    states = {volume.barcode: word(volume.state) for volume in engine.catalog.volumes.all()}
    return [
        views.ElementView(
            element.address,
            word(element.kind),
            element.place,
            element.full,
            element.barcode,
            element.accessible,
            states.get(element.barcode) if element.barcode else None,
            element.unit,
        )
        for element in engine.robot.elements.values()
    ]


def volume_named(engine: Engine, barcode: str) -> Volume:
    """The disc with that barcode. Raises NotFound."""
    volume = engine.catalog.volumes.by_barcode(barcode)
    if volume is None:
        raise NotFound(f"no disc {barcode} in the catalog", next_step="see 'hsmctl volume list'")
    return volume


def drive_named(engine: Engine, name: str) -> str:
    """The serial number of the drive with that name or serial number. Raises NotFound."""
    for drive in engine.library.drives:
        if name in (drive.name, drive.serial):
            return drive.serial
    known = ", ".join(drive.name for drive in engine.library.drives)
    raise NotFound(f"no drive {name}", next_step=f"the library has {known}")


def failures(
    engine: Engine, faults: Mapping[InodeNo, Exception] | Iterable[tuple[InodeNo, Exception]]
) -> list[views.Failure]:
    """Faults of single files as the API shows them."""
    shown = []
    for ino, fault in dict(faults).items():
        path = path_of(engine.catalog, ino)
        if isinstance(fault, HsmError):
            message, step, code = fault.message, fault.next_step, fault.exit_code
        else:
            message, step, code = str(fault), HsmError.default_next, 1
        shown.append(views.Failure(text(path), b64(path), message, step, code))
        if len(shown) == QUEUE_ROWS_SHOWN:
            break
    return shown
