"""Bugs planted on purpose, one at a time: what the simulation must find.

Each takes one safeguard out of the real code of this process, as a careless change would. The
proof `thirty-years` lists the seed that found each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hsmfs import clock
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.copies import Copies
from hsmfs.catalog.redo import RedoLog
from hsmfs.catalog.trash import Trash
from hsmfs.disc import parity, reader
from hsmfs.engine import bays, plan, reading, verify
from hsmfs.engine.backlog import Backlog
from hsmfs.engine.files import Files
from hsmfs.engine.inventory import Inventory
from hsmfs.engine.journal import CatalogJournal
from hsmfs.engine.live import Live
from hsmfs.engine.scrub import Scrubber
from hsmfs.engine.trust.retention import Retention


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: what it breaks, how it is planted in this process, and a seed that once found it."""

    breaks: str
    plant: Callable[[], None]
    seed: int = 1


def _put(owner: Any, name: str, what: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, what)


async def _unjournalled(self: CatalogJournal, barcode: Any, src: int, dst: int) -> int:
    return 0


def _more_copies(real: Callable[..., int]) -> Callable[..., int]:
    return lambda self, ino, version: real(self, ino, version) + 1


async def _same_version(self: Files, live: Live) -> None:
    """A write to an archived file goes on in the version that has copies."""
    async with self.catalog.write():
        self.catalog.inodes.set_dirty(live.ino, self.pool_of(live).id)
    live.attr = live.attr._replace(dirty=True)


async def _only_data(self: Files, live: Live) -> None:
    """fsync without the catalog."""


def _unchecked(part: Any, index: int, digest: Any, read_at: Any) -> Any:
    """read_chunk whose checksum always fits."""

    class Any32(bytes):
        __eq__ = lambda self, other: True  # noqa: E731
        __ne__ = lambda self, other: False  # noqa: E731
        __hash__ = bytes.__hash__

    class Loose:
        chunks = [Any32(b"")] * (index + 1)

    return _read_chunk(part, index, Loose, read_at)


_read_chunk = reader.read_chunk
_recover = Catalog._recover


def _forget_redo(self: Catalog) -> None:
    self._redo.records = lambda place: iter(())  # type: ignore[method-assign]
    _recover(self)
    del self._redo.records  # type: ignore[method-assign]


def _keep_drive(self: bays.Bays, claim: Any, error: Any) -> None:
    claim.failures += 1
    if claim.bay is not None:
        claim.bay.calls += 1


def _no_keep(real: Callable[..., None]) -> Callable[..., None]:
    return lambda self, ino, parent, name, now, keep: real(self, ino, parent, name, now, 0)


async def _same_label(session: Any, purpose: Any, catalog: Any, ledger: Any) -> None:
    """Whatever disc lies in the drive is the one that was asked for."""


async def _passed_anyway(self: Scrubber, row: Any, volume: Any, why: str) -> None:
    """A disc that failed its test counts as tested."""
    async with self._catalog.write():
        self._catalog.volumes.verified(volume.id, clock.now_ns())
        self._catalog.health.end_scrub(volume.id)


async def _take_up_nothing(self: Backlog) -> None:
    """What was queued before the restart is not taken up."""


def _zeros(self: parity.Combination, sources: Any, outputs: Any, length: int) -> None:
    """The parity is not computed."""


MUTANTS: dict[str, Mutant] = {
    "release-before-verify": Mutant(
        "what is read back from a burned disc is not compared",
        _put(verify.Checker, "feed", lambda self, data: None), 2),
    "skipped-journal": Mutant(
        "the robot moves without a note", _put(CatalogJournal, "begin", _unjournalled)),
    "lost-wake-up": Mutant(
        "readers are not woken when their bytes came", _put(Live, "wake", lambda self: None)),
    "double-burn": Mutant(
        "files that are being burned are planned again",
        _put(plan.Either, "__contains__", lambda self, ino: False), 26),
    "one-copy-fewer": Mutant(
        "a file is released with one copy fewer than wanted",
        _put(Copies, "proven", _more_copies(Copies.proven))),
    "scrub-never-marks": Mutant(
        "a disc that fails its test stays as it was", _put(Scrubber, "_failed", _passed_anyway)),
    "recall-unchecked": Mutant(
        "bytes from a disc are not compared with their checksum",
        _put(reading, "read_chunk", _unchecked), 6),
    "retention-ignored": Mutant(
        "a record can be deleted before its time",
        _put(Retention, "may_lose_name", lambda self, attr, act: None)),
    "dead-drive-held": Mutant(
        "a drive that failed is never given back",
        _put(bays.Bays, "_drive_failed", _keep_drive), 28),
    "queue-lost": Mutant(
        "recalls that were queued before a restart are forgotten",
        _put(Backlog, "run", _take_up_nothing), 13),
    "no-parity": Mutant(
        "parity discs hold zeros", _put(parity.Combination, "store", _zeros)),
    "wrong-disc": Mutant(
        "the label of a disc in a drive is not compared", _put(bays, "check_medium", _same_label)),
    "stale-version": Mutant(
        "a write to an archived file begins no new version",
        _put(Files, "_begin_version", _same_version)),
    "fsync-lies": Mutant(
        "fsync returns before the catalog is durable", _put(Files, "fsync", _only_data), 6),
    "redo-ignored": Mutant(
        "what the redo log holds is not replayed after kill -9",
        _put(Catalog, "_recover", _forget_redo), 2),
    "log-unsynced": Mutant(
        "a sync writes nothing for a power cut to leave",
        _put(RedoLog, "_write", lambda self, place, data: None), 6),
    "trash-at-once": Mutant(
        "deleted files are purged at once", _put(Trash, "put", _no_keep(Trash.put))),
    "robot-disbelieved": Mutant(
        "discs moved by hand stay where the catalog had them",
        _put(Inventory, "_take_over", lambda *_: None)),
}  # fmt: skip
