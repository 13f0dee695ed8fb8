"""What must hold after each step of time, and at the end; each raises `Failure`.

What the discs hold in truth, and so what redundancy promises, is the business of truth.py.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from hsmfs.catalog.check import CHECKS, Finding, Severity, structure
from hsmfs.engine.fsck import fsck
from hsmfs.engine.trust.verify import verify
from hsmfs.errors import HsmError, PosixError, RecallTimeout
from hsmfs.states import FileState, Lock
from hsmfs.types import InodeNo, Requester

from . import truth
from .files import Content, UserFile
from .world import DAY, Failure

if TYPE_CHECKING:
    from .life import Life

TRIES = 8
"""Times that a reader comes back after an error, each time after twice as long."""
LONGEST = 4 * DAY
"""A reader who waits longer although the library works was starved."""
SAMPLE = 3
SLOW = (structure.indexes_hold_their_tables, structure.schema_is_expected)
"""Checks of the file's form, dearer than all others together: after a start and at the end."""


# Reading


async def expect_bytes(life: Life, file: UserFile, who: Requester) -> None:
    """Read a file until it comes; wrong bytes are never right, and no answer only if lost."""
    world, began = life.world, trio.current_time()
    pause = 0.5 * DAY
    for _ in range(TRIES):
        try:
            data = await _read(life, file, who)
        except PosixError:
            return  # deleted meanwhile
        except HsmError as fault:
            world.counts[f"read error {type(fault).__name__}"] += 1
            world.note(f"read of {file.name!r}: {fault.message}")
            if file.gone or file.trashed_at is not None:
                return
            if not truth.promised(life, file.ino):
                world.counts["reads beyond the promise"] += 1
                return
            if isinstance(fault, RecallTimeout) and not life.operator.wanted:
                raise Failure(f"a reader of {file.name!r} was starved: {fault.message}") from fault
            await life.pause(pause)
            pause *= 2
            began = trio.current_time()
            continue
        waited = trio.current_time() - began
        world.waits.append(waited)
        world.counts["files read"] += 1
        if not file.may_hold(data) and not file.gone:
            wrong = describe(file, data)
            raise Failure(f"{file.name!r} (inode {file.ino}) has wrong bytes: {wrong}")
        if file.torn:
            # Not durable by having been read: a power cut may bring back what was before.
            file.others = [file.content, *file.others]
            file.content, file.torn = Content(0, 0, raw=data), False
        if waited > LONGEST:
            raise Failure(f"a reader of {file.name!r} waited for {waited / DAY:.1f} days")
        return
    raise Failure(f"{file.name!r} (inode {file.ino}) is lost although a sound copy exists")


async def _read(life: Life, file: UserFile, who: Requester) -> bytes:
    live = life.engine.files.open(InodeNo(file.ino), write=False)
    try:
        return await life.engine.files.read(live, 0, 1 << 30, who)
    finally:
        life.engine.files.close(live, write=False)


def describe(file: UserFile, data: bytes) -> str:
    wanted = file.content.data()
    at = next((i for i, (a, b) in enumerate(zip(data, wanted, strict=False)) if a != b), -1)
    return f"{len(data)} bytes, {len(wanted)} wanted, the first difference at {at}"


# After each step


async def quick(life: Life) -> None:
    """Nothing hangs, fsck, robot and truth agree, names stand, some files hold what they should."""
    moves = [*life.catalog.volumes.open_moves(), *life.catalog.volumes.open_carries()]
    if moves:
        raise Failure(f"a move has no end: {moves[0]}")
    if life.catalog.queues.recalls(0, 1):
        raise Failure(f"a recall is stuck: {life.catalog.queues.recalls(0, 1)[0]}")
    await catalog_is_sound(life)
    truth.robot_is_right(life)
    if not life.engine.robot._stale:
        truth.places_agree(life)
    truth.tests_are_true(life)
    rng = random.Random(life.world.at_step)
    files = [f for f in life.world.files.values() if not f.gone and f.trashed_at is None and f.ino]
    for file in files:
        if file.sure:
            exists(life, file)
    for file in rng.sample(files, min(SAMPLE, len(files))):
        exists(life, file)
        attr = life.engine.files.attr(InodeNo(file.ino))
        if attr is not None and attr.state in (FileState.RESIDENT, FileState.PREMIGRATED):
            await expect_bytes(life, file, Requester(1, 0, "check"))


def exists(life: Life, file: UserFile) -> None:
    """The name is there and means the inode; a record is locked."""
    attr = life.catalog.names.lookup(InodeNo(file.parent), file.name)
    if attr is None or attr.ino != file.ino:
        if file.sure:
            raise Failure(f"{file.name!r} (inode {file.ino}) has lost its name: {attr}")
        file.gone = True
        return
    if file.retained_until is not None and not attr.locked & Lock.RECORD:
        raise Failure(f"record {file.name!r} is not locked")


async def catalog_is_sound(life: Life, *, slow: bool = False) -> None:
    """The catalog's fsck at this very moment, by the loop's own connection: nobody takes a step
    meanwhile, and the world goes on as if nobody had looked.

    What is found must be found by an administrator's fsck, too, which looks twice.
    """
    await life.catalog.settled()
    checks = [check for check in CHECKS if slow or check not in SLOW]
    if any(wrong(life, finding) for check in checks for finding in check(life.catalog.db)):
        report = await fsck(life.catalog, life.engine.pools, files=life.engine.files)
        judge(life, report.left)


def wrong(life: Life, finding: Finding) -> bool:
    """Not a note, not about what was never fsynced before a power cut, nor beyond the promise."""
    file = next((f for f in life.world.files.values() if f.ino == finding.ino), None)
    if finding.severity is Severity.NOTE or (file is not None and not file.sure):
        return False
    return not beyond(life, finding)


def beyond(life: Life, finding: Finding) -> bool:
    """Bytes are lost that redundancy does not promise any more."""
    lost = finding.severity is Severity.LOSS and finding.ino is not None
    return lost and not truth.promised(life, finding.ino or 0)


def judge(life: Life, findings: list[Finding]) -> None:
    for finding in findings:
        if wrong(life, finding):
            raise Failure(f"fsck: {finding.check}: {finding.object} {finding.message}")


# After a death


async def after_death(life: Life, died: str) -> None:
    """Whatever was acknowledged is there; what was under way may be there or not."""
    for file in list(life.world.files.values()):
        if file.gone or not file.acked or (died == "cut" and file.others):
            await _find_out(life, file, died)
        elif file.trashed_at is not None:
            if life.catalog.names.lookup(InodeNo(file.parent), file.name) is not None:
                raise Failure(f"{file.name!r} (inode {file.ino}) was deleted, and is there again")
        else:
            if died == "kill":
                file.others = []
            exists(life, file)
            _size_is_right(life, file)


async def _find_out(life: Life, file: UserFile, died: str) -> None:
    attr = life.catalog.names.lookup(InodeNo(file.parent), file.name)
    if attr is None:
        trashed = life.catalog.trash.get(InodeNo(file.ino)) if file.ino else None
        if trashed is not None:
            file.gone, file.trashed_at = False, file.trashed_at or trio.current_time()
        elif file.gone or file.others:
            del life.world.files[file.name]
        else:
            raise Failure(f"{file.name!r} (inode {file.ino}) has lost its name: {died}")
        return
    file.ino, file.gone, file.trashed_at = attr.ino, False, None
    if died == "cut" and file.others:
        file.sure = False
    file.torn, file.acked = not file.acked, True
    if file.torn and file.sure:
        await expect_bytes(life, file, Requester(1, 0, "check"))
        if died == "cut":
            file.others = []


def _size_is_right(life: Life, file: UserFile) -> None:
    attr = life.engine.files.attr(InodeNo(file.ino))
    if attr is None or not file.sure:
        return
    sizes = {len(c.data()) for c in (file.content, *file.others)}
    if attr.size not in sizes:
        raise Failure(f"{file.name!r} (inode {file.ino}) is {attr.size} bytes long, not {sizes}")


# At the end


async def whole(life: Life) -> None:
    """Every file is read, every table is checked, every disc is found."""
    life.busy += 1
    for file in list(life.world.files.values()):
        if not file.gone and file.trashed_at is None and file.ino:
            exists(life, file)
            await expect_bytes(life, file, Requester(1, 0, "auditor"))
    life.busy -= 1
    await life.settle()
    await quick(life)
    await clean(life)
    verdict = await verify(life.catalog)
    if verdict.breaks:
        raise Failure(f"the audit chain is broken: {verdict.breaks[0]}")
    head = life.catalog.audit.head()
    life.world.note(f"audit head {head.seq} {head.hash.hex()}")  # it has the hash of each disc


async def clean(life: Life) -> None:
    """fsck finds nothing that is not beyond the promise; catalog, robot and discs agree."""
    engine = life.engine
    elements = await engine.robot.inventory()
    report = await fsck(
        life.catalog, engine.pools, elements, deep=True, files=engine.files,
        spool=life.config.engine.spool,
    )  # fmt: skip
    judge(life, report.left)
    for finding in report.left:
        if beyond(life, finding):
            life.world.counts["files beyond the promise"] += 1
    await life.settle()  # while fsck ran, the next disc that is due may have been fetched
    truth.places_agree(life)
    truth.rot_was_found(life)
    truth.parity_is_right(life)
    truth.copies_are_few(life)
