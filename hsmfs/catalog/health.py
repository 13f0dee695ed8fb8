"""The health ledger of discs and drives, and scrubs: tables `pairs`, `health`, `scrubs`.

What is counted here is what ordinary drives tell: loads, faults with their sector, bytes and time.
Times are UTC ns, sizes bytes, sectors 2048 bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, IntEnum

from ..types import Barcode, VolumeId
from .connection import Database

KEPT = 200
"""Entries kept of one disc."""


class Kind(Enum):
    """What an entry of the ledger tells."""

    FAILED = "drive error"
    UNREADABLE = "unreadable sector"
    WRITE = "write error"
    WRONG = "wrong bytes"
    TEST = "test passed"
    TEST_BAD = "test failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """A fault or a test of a disc in a drive."""

    at_ns: int
    volume: VolumeId
    serial: str
    kind: str
    sector: int | None
    blamed: str
    note: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What a disc and a drive did together; read_ns is the drive's time for read_bytes."""

    volume: VolumeId
    serial: str
    loads: int
    errors: int
    read_bytes: int
    read_ns: int


@dataclass(frozen=True, slots=True)
class Bad:
    """Bytes [start, end) that did not read in the drive; none: there the whole read wrong."""

    start: int
    end: int
    serial: str


@dataclass(frozen=True, slots=True)
class Scrub:
    """A disc that is read through; share is percent, position and checked are bytes."""

    volume: VolumeId
    asked_ns: int
    requester: str
    share: int
    position: int = 0
    checked: int = 0
    started_ns: int | None = None
    bad: tuple[Bad, ...] = ()
    error: str = ""
    paused: bool = False

    @property
    def places(self) -> tuple[Bad, ...]:
        """What did not read."""
        return tuple(bad for bad in self.bad if bad.end)

    @property
    def wrong_in(self) -> tuple[str, ...]:
        """Drives in which the whole is not what was written."""
        return tuple(bad.serial for bad in self.bad if not bad.end)


_PAIR = "volume, serial, loads, errors, read_bytes, read_ns"
_ENTRY = "at_ns, volume, serial, kind, sector, blamed, note"
_SCRUB = "volume, asked_ns, requester, share, position, checked, started_ns, bad, error, paused"


class Apart(IntEnum):
    """Why disc and drive are not tried together, until a try went well or the drive is mended."""

    NO = 0
    READING = 1
    """Their last try failed."""
    WRITING = 2
    """The last burn failed."""
    DISC = 3
    """It failed by the disc's fault: no drive is accused."""


class Health:
    """Rows of `pairs`, `health` and `scrubs`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # The ledger

    def count(
        self,
        volume: VolumeId,
        serial: str,
        *,
        loads: int = 0,
        errors: int = 0,
        read_bytes: int = 0,
        read_ns: int = 0,
    ) -> None:
        """Add to what the disc and the drive did together."""
        self._db.execute(
            f"INSERT INTO pairs ({_PAIR}) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (volume, serial) DO UPDATE SET loads = loads + excluded.loads,"
            " errors = errors + excluded.errors, read_bytes = read_bytes + excluded.read_bytes,"
            " read_ns = read_ns + excluded.read_ns",
            (volume, serial, loads, errors, read_bytes, read_ns),
        )

    def set_apart(self, volume: VolumeId, serial: str, why: Apart) -> None:
        """The disc and the drive are not tried together, or may be again."""
        self._db.execute(
            "INSERT INTO pairs (volume, serial, apart) VALUES (?, ?, ?)"
            " ON CONFLICT (volume, serial) DO UPDATE SET apart = excluded.apart",
            (volume, serial, int(why)),
        )

    def clear_drives(self, volume: VolumeId) -> None:
        """It was the disc: no drive in which it failed is accused."""
        self._db.execute(
            "UPDATE pairs SET apart = ? WHERE volume = ? AND apart != ?",
            (int(Apart.DISC), volume, int(Apart.NO)),
        )

    def forgive(self, serial: str) -> None:
        """The drive was mended: it may be tried with every disc."""
        self._db.execute("UPDATE pairs SET apart = 0 WHERE serial = ? AND apart != 0", (serial,))

    def apart(self) -> list[tuple[str, Barcode, Apart]]:
        """(serial, barcode, why) of what is not tried together."""
        rows = self._db.execute(
            "SELECT p.serial, v.barcode, p.apart FROM pairs p JOIN volumes v ON v.id = p.volume"
            " WHERE p.apart != 0 ORDER BY p.volume, p.serial"
        )
        return [(serial, Barcode(barcode), Apart(why)) for serial, barcode, why in rows]

    def note(self, entry: Entry) -> None:
        """Write an entry down; the oldest of a disc go."""
        self._db.execute(
            f"INSERT INTO health ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (entry.at_ns, entry.volume, entry.serial, entry.kind, entry.sector, entry.blamed,
             entry.note),
        )  # fmt: skip
        self._db.execute(
            "DELETE FROM health WHERE volume = ?1 AND id <= (SELECT id FROM health"
            " WHERE volume = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (entry.volume, KEPT),
        )

    def pairs(self, *, volume: VolumeId | None = None, serial: str | None = None) -> list[Pair]:
        """What one disc, one drive, or all of them did."""
        rows = self._db.execute(
            f"SELECT {_PAIR} FROM pairs WHERE (?1 IS NULL OR volume = ?1)"
            " AND (?2 IS NULL OR serial = ?2) ORDER BY volume, serial",
            (volume, serial),
        )
        return [Pair(*row) for row in rows]

    def speeds(self) -> dict[str, tuple[int, float]]:
        """Bytes that each drive read so far, and in how many seconds of its time."""
        rows = self._db.execute(
            "SELECT serial, sum(read_bytes), sum(read_ns) FROM pairs GROUP BY serial"
        )
        return {serial: (size, ns / 1e9) for serial, size, ns in rows}

    def of_volume(self, volume: VolumeId, limit: int = 20) -> list[Entry]:
        """The disc's entries, the newest first."""
        return self._entries("volume = ?", volume, limit)

    def of_drive(self, serial: str, limit: int = 20) -> list[Entry]:
        """The drive's entries, the newest first."""
        return self._entries("serial = ?", serial, limit)

    def _entries(self, where: str, value: int | str, limit: int) -> list[Entry]:
        rows = self._db.execute(
            f"SELECT {_ENTRY} FROM health WHERE {where} ORDER BY id DESC LIMIT ?", (value, limit)
        )
        return [Entry(*row) for row in rows]

    def tested(self, until_ns: int = 2**63 - 1) -> dict[VolumeId, int]:
        """When each disc was tested last up to a time, whole or sampled, with either outcome."""
        rows = self._db.execute(
            "SELECT volume, max(at_ns) FROM health WHERE kind IN (?, ?) AND at_ns <= ?"
            " GROUP BY volume",
            (Kind.TEST.value, Kind.TEST_BAD.value, until_ns),
        )
        return {VolumeId(volume): at_ns for volume, at_ns in rows}

    def accused(self) -> set[VolumeId]:
        """Discs that were blamed, or failed a test, at any time."""
        rows = self._db.execute(
            "SELECT DISTINCT volume FROM health WHERE blamed = 'medium' OR kind = ?",
            (Kind.TEST_BAD.value,),
        )
        return {VolumeId(volume) for (volume,) in rows}

    def in_doubt(self, volume: VolumeId) -> bool:
        """Whether it did not read as it should since its last test, which it passed, if any."""
        doubt = False
        for kind, blamed in self._db.execute(
            "SELECT kind, blamed FROM health WHERE volume = ? ORDER BY id DESC", (volume,)
        ):
            if kind in (Kind.TEST.value, Kind.TEST_BAD.value):
                return doubt and kind == Kind.TEST.value
            doubt |= blamed != "drive"
        return doubt

    # Scrubs

    def scrubs(self) -> list[Scrub]:
        """Discs in hand or waiting: those that admins asked for first, then the oldest."""
        rows = self._db.execute(
            f"SELECT {_SCRUB} FROM scrubs ORDER BY requester = 'schedule', asked_ns, volume"
        )
        return [_scrub(row) for row in rows]

    def scrub(self, volume: VolumeId) -> Scrub | None:
        """The scrub of a disc, or None."""
        for row in self._db.execute(f"SELECT {_SCRUB} FROM scrubs WHERE volume = ?", (volume,)):
            return _scrub(row)
        return None

    def put_scrub(self, scrub: Scrub) -> None:
        """Ask for a scrub, or write down how far it is."""
        bad = json.dumps([[b.start, b.end, b.serial] for b in scrub.bad])
        self._db.execute(
            f"INSERT OR REPLACE INTO scrubs ({_SCRUB}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (scrub.volume, scrub.asked_ns, scrub.requester, scrub.share, scrub.position,
             scrub.checked, scrub.started_ns, bad, scrub.error, int(scrub.paused)),
        )  # fmt: skip

    def end_scrub(self, volume: VolumeId) -> None:
        """It is done, or not wanted any more."""
        self._db.execute("DELETE FROM scrubs WHERE volume = ?", (volume,))

    @property
    def paused(self) -> bool:
        """Whether an admin stopped all scrubbing."""
        return bool(self._db.execute("SELECT 1 FROM meta WHERE key = 'scrub_paused'").fetchall())

    def pause(self, paused: bool) -> None:
        """Stop all scrubbing, or let it go on; also over restarts."""
        if paused:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('scrub_paused', 1)")
        else:
            self._db.execute("DELETE FROM meta WHERE key = 'scrub_paused'")


def _scrub(row: tuple) -> Scrub:  # type: ignore[type-arg]
    bad = tuple(Bad(*item) for item in json.loads(row[7]))
    return Scrub(row[0], row[1], row[2], row[3], row[4], row[5], row[6], bad, row[8], bool(row[9]))
