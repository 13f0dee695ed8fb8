"""Care for the whole as the API offers it: fsck, adopting trees, the trash, waiting readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import trio

from .. import clock
from ..catalog.adoptions import Adoption
from ..errors import Conflict, HsmError, NotFound
from ..library.ports import Element
from ..types import Attr, InodeNo
from .adopting import AdoptReport
from .fsck import fsck as check
from .jobs import Job
from .overview import state_of
from .paths import path_of
from .trash import Entry
from .views import TrashView, b64, text, word
from .waiters import Waiter

if TYPE_CHECKING:
    from .service import Engine

_TRASH_PAGE = 50
"""Deleted files looked up in one step of the event loop."""


@dataclass(frozen=True, slots=True)
class Whose:
    """Which waits: those that match all that is given."""

    ino: int | None = None
    volume: str | None = None
    pid: int | None = None
    uid: int | None = None
    process: str | None = None
    client: str | None = None


def fsck(engine: Engine, *, repair: bool, deep: bool) -> Job:
    """Compare catalog, pools, library and spool while all goes on; with repair mend what can be."""

    async def work(job: Job) -> dict[str, Any]:
        def begun(name: str) -> None:
            job.progress = {"check": name}

        elements: list[Element] | None = None
        try:
            elements = await engine.robot.inventory()
        except HsmError as fault:
            job.progress = {"check": f"without the library: {fault.message}"}
        report = await check(
            engine.catalog,
            engine.pools,
            elements,
            repair=repair,
            deep=deep,
            files=engine.files,
            spool=engine.config.engine.spool,
            kept=engine.migrator.spool.keeps,
            begun=begun,
        )
        return report.as_dict()

    return engine.jobs.start("fsck", work)


def verify(
    engine: Engine, roots: Sequence[Attr], who: str, *, deep: bool, anew: bool
) -> Job:
    """Compare files with the checksums of their ingest, with deep on every disc too."""

    async def work(job: Job) -> dict[str, Any]:
        found = await engine.verifier.run(job, roots, who, deep=deep, anew=anew)
        return await clock.blocking(found.view)  # there may be thousands of discs

    return engine.jobs.start("verify", work)


def adopt(
    engine: Engine, source: bytes, target: bytes, *, link: bool, pool: str | None
) -> Job:
    """Take a tree of this machine into the namespace without copying it."""

    async def work(job: Job) -> dict[str, Any]:
        report = await engine.adopter.adopt(
            source, target, link=link, pool=pool, progress=_into(job)
        )
        return report_view(report)

    return engine.jobs.start("adopt", work)


def unadopt(engine: Engine, source: bytes) -> Job:
    """Give an adopted tree back to its old paths."""

    async def work(job: Job) -> dict[str, Any]:
        return report_view(await engine.adopter.undo(source, progress=_into(job)))

    return engine.jobs.start("adopt", work)


def _into(job: Job) -> Callable[[AdoptReport], None]:
    def note(report: AdoptReport) -> None:
        job.progress = report_view(report)

    return note


def report_view(report: AdoptReport) -> dict[str, Any]:
    """An adoption's report as JSON; names of any bytes are given twice."""
    return {
        "source": text(report.source),
        "target": text(report.target),
        "total": report.total,
        "entries": report.entries,
        "files": report.files,
        "folders": report.folders,
        "others": report.others,
        "hard_links": report.hard_links,
        "bytes": report.size,
        "linked_outside": report.linked_outside,
        "failed": [
            {"path": text(path), "path_b64": b64(path), "error": why}
            for path, why in report.failed
        ],
        "kept": [{"path": text(path), "path_b64": b64(path)} for path in report.kept],
    }


def adoption_view(engine: Engine, adoption: Adoption) -> dict[str, Any]:
    """An adoption as JSON."""
    return {
        "source": text(adoption.source),
        "source_b64": b64(adoption.source),
        "target": text(adoption.target),
        "target_b64": b64(adoption.target),
        "pool": engine.pools[adoption.pool].name,
        "link": bool(adoption.link),
        "state": word(adoption.state),
        "started_ns": adoption.started_ns,
    }


async def trash(engine: Engine, after: int, limit: int) -> list[TrashView]:
    """What was deleted and can be had back, by inode number greater than after."""
    found: list[TrashView] = []
    while len(found) < limit:
        page = await engine.trash.entries(after, min(limit - len(found), _TRASH_PAGE))
        found += map(_trash_view, page)
        if not page:
            break
        after = page[-1].attr.ino
        await trio.lowlevel.checkpoint()
    return found


def _trash_view(entry: Entry) -> TrashView:
    return TrashView(
        None if entry.path is None else text(b"/" + entry.path),
        b64(b"" if entry.path is None else b"/" + entry.path),
        entry.attr.ino,
        entry.attr.size,
        state_of(entry.attr),
        entry.deleted_ns,
        entry.purge_ns,
    )


async def undelete(
    engine: Engine, paths: Sequence[bytes], since_ns: int, *, dry_run: bool
) -> dict[str, Any]:
    """Bring back what was deleted at or below paths since a time; what could not is named."""
    restored, failed = list[dict[str, Any]](), list[dict[str, Any]]()
    for path in paths:
        for entry in await engine.trash.below(path.strip(b"/"), since_ns):
            at = b"/" + (entry.path or b"")
            shown: dict[str, Any] = {"ino": entry.attr.ino, "path": text(at), "path_b64": b64(at)}
            try:
                if not dry_run:
                    await engine.trash.restore(entry.attr.ino)
            except NotFound:
                pass  # it came back as a folder above another one
            except Conflict as fault:
                failed.append(shown | {"error": fault.message})
                continue
            restored.append(shown)
    return {"restored": restored, "failed": failed}


def rollback(engine: Engine, tree: Attr, to_ns: int, who: str, *, dry_run: bool) -> Job:
    """Take a tree back to a time."""

    async def work(job: Job) -> dict[str, Any]:
        await engine.write_sizes_down()
        return await engine.rollback.run(job, tree, to_ns, who, dry_run=dry_run)

    return engine.jobs.start("rollback", work)


def waiters(engine: Engine) -> list[dict[str, Any]]:
    """Readers that wait for a disc, the oldest first."""
    found = []
    for waiter in engine.waiters():
        path = path_of(engine.catalog, waiter.ino)
        found.append({**asdict(waiter), "path": text(path), "path_b64": b64(path)})
    return found


def fail_waiters(engine: Engine, order: Whose, number: int) -> int:
    """End the waits that match all that is given, with the errno; how many there were."""
    of_volume: set[InodeNo] = set()
    if order.volume is not None:
        of_volume = {view.ino for view in engine.waiters() if view.volume == order.volume}

    def which(waiter: Waiter) -> bool:
        return (
            order.ino in (None, waiter.ino)
            and order.pid in (None, waiter.who.pid)
            and order.uid in (None, waiter.who.uid)
            and order.process in (None, waiter.who.process)
            and order.client in (None, waiter.who.client)
            and (order.volume is None or waiter.ino in of_volume)
        )

    return engine.recaller.fail_waiters(which, number)
