"""Discs on their way out of the library, and what operators are asked to bring back in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from ..states import CopyState, SetState, VolumeState
from ..types import VolumeId
from .connection import Database

_INSIDE = (int(VolumeState.FULL), int(VolumeState.SUSPECT))


@dataclass(frozen=True, slots=True)
class Leaving:
    """A disc that was ordered out and lies in the library still; asked_ns is UTC ns."""

    volume: VolumeId
    destination: str
    asked_ns: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A disc outside that somebody wants; asked_ns is UTC ns."""

    volume: VolumeId
    who: str
    asked_ns: int


@dataclass(frozen=True, slots=True)
class Offer:
    """Finished discs that a policy wants outside and that lie in the library; since is UTC ns."""

    name: str
    """Of their set, or the barcode of a disc that is in none."""
    vault: str
    since_ns: int
    discs: tuple[VolumeId, ...]


class Vault:
    """Rows of `exports` and `requests`, and what policies want outside."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def leaving(self) -> list[Leaving]:
        """Discs that are to leave, by order."""
        rows = self._db.execute("SELECT volume, destination, asked_ns FROM exports ORDER BY 3, 1")
        return [Leaving(*row) for row in rows]

    def is_leaving(self, volume: VolumeId) -> bool:
        """The disc was ordered out and nobody has taken it yet."""
        return bool(self._db.execute("SELECT 1 FROM exports WHERE volume = ?", (volume,)).get)

    def leave(self, volume: VolumeId, destination: str, now_ns: int) -> None:
        """Order a disc out; a second order changes where to."""
        self._db.execute(
            "INSERT INTO exports VALUES (?, ?, ?)"
            " ON CONFLICT (volume) DO UPDATE SET destination = excluded.destination",
            (volume, destination, now_ns),
        )

    def left(self, volume: VolumeId) -> None:
        """The disc is out, or it is to stay."""
        self._db.execute("DELETE FROM exports WHERE volume = ?", (volume,))

    def wanted(self) -> list[Wanted]:
        """Discs that operators are asked for, the oldest first."""
        rows = self._db.execute("SELECT volume, who, asked_ns FROM requests ORDER BY 3, 1")
        return [Wanted(*row) for row in rows]

    def ask(self, volume: VolumeId, who: str, now_ns: int) -> None:
        """Ask for a disc; a request that stands is joined."""
        self._db.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (volume, who, now_ns))

    def answer(self, volume: VolumeId) -> None:
        """The disc came, was refused, or nobody wants it any more."""
        self._db.execute("DELETE FROM requests WHERE volume = ?", (volume,))

    def offers(self) -> list[Offer]:
        """What operators are to take out for policies, the oldest first."""
        found: dict[str, list[tuple[str, int, VolumeId]]] = {}
        for name, vault, since, volume in self._db.execute(
            "SELECT coalesce(s.name, v.barcode), v.vault, coalesce(s.closed_ns, v.burned_ns), v.id"
            " FROM volumes v LEFT JOIN volume_sets s ON s.id = v.set_id"
            " WHERE v.vault != '' AND v.state IN (?, ?) AND coalesce(s.state, ?3) = ?3"
            " AND NOT EXISTS (SELECT 1 FROM burns b WHERE b.volume = v.id) ORDER BY 3, v.set_index",
            (*_INSIDE, int(SetState.CLOSED)),
        ):
            found.setdefault(name, []).append((vault, since, volume))
        return [
            Offer(name, rows[0][0], rows[0][1], tuple(volume for _, _, volume in rows))
            for name, rows in found.items()
        ]

    def keep_here(self, offer: Offer) -> None:
        """The discs, and the others of their set, are to be kept in the library after all."""
        self._db.execute("UPDATE volume_sets SET vault = '' WHERE name = ?", (offer.name,))
        self._db.execute(
            "UPDATE volumes SET vault = '' WHERE barcode = ?1"
            " OR set_id = (SELECT id FROM volume_sets WHERE name = ?1)",
            (offer.name,),
        )

    def contents(self, volume: VolumeId) -> tuple[int, int]:
        """Valid parts of files on a disc, and their bytes there."""
        row = self._db.execute(
            "SELECT count(*), coalesce(sum(stored), 0) FROM copies WHERE volume = ? AND state = ?",
            (volume, int(CopyState.VALID)),
        ).get
        return int(row[0]), int(row[1])

    def has_files(self, volume: VolumeId) -> bool:
        """The catalog knows of files on the disc."""
        found = self._db.execute("SELECT 1 FROM copies WHERE volume = ? LIMIT 1", (volume,))
        return bool(found.get)

    def only_there(self, volumes: Iterable[VolumeId]) -> int:
        """Files that would have no copy left in the library without these discs."""
        found = self._db.execute(
            "WITH away AS MATERIALIZED (SELECT value AS id FROM json_each(?1))"
            " SELECT count(DISTINCT c.ino) FROM copies c WHERE c.state = ?2"
            " AND c.volume IN (SELECT id FROM away) AND NOT EXISTS"
            " (SELECT 1 FROM copies o JOIN volumes v ON v.id = o.volume WHERE o.ino = c.ino"
            " AND o.version = c.version AND o.state = ?2 AND o.offset <= c.offset"
            " AND o.offset + o.length >= c.offset + c.length AND v.state IN (?3, ?4)"
            " AND v.id NOT IN (SELECT id FROM away))",
            (json.dumps(list(volumes)), int(CopyState.VALID), *_INSIDE),
        ).get
        return int(found)
