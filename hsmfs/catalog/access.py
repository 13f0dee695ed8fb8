"""Tokens of the API and destructive orders that wait for a second person.

Both end when the wall clock or the compliance clock says so: a `Moment` is a time of both.

Of a token only a salted hash is here, and no snapshot on a disc has even that (snapshot.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .connection import Database


class Moment(NamedTuple):
    """UTC ns by the wall clock and by the compliance clock."""

    wall_ns: int
    worm_ns: int


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; times UTC ns, void_ns by the compliance clock."""

    id: str
    name: str
    role: str
    salt: bytes
    hash: bytes
    created_by: str
    created_ns: int
    expires_ns: int | None
    void_ns: int | None
    used_ns: int | None
    revoked_by: str | None
    revoked_ns: int | None


@dataclass(frozen=True, slots=True)
class Approval:
    """A destructive order and what the second person said; times UTC ns, void_ns by the compliance
    clock.
    """

    id: int
    act: str
    body: str
    digest: bytes
    asked_by: str
    asked_ns: int
    until_ns: int
    void_ns: int
    decided_by: str | None
    decided_ns: int | None
    approved: int
    """1: the second person said yes."""
    used_ns: int | None

    @property
    def state(self) -> str:
        """In one word; `waits` also if its time is over."""
        if self.used_ns is not None:
            return "done"
        if self.decided_ns is None:
            return "waits"
        return "approved" if self.approved else "refused"

    def over(self, now: Moment) -> bool:
        """Whether its time is over by either clock."""
        return now.wall_ns >= self.until_ns or now.worm_ns >= self.void_ns


class Tokens:
    """Rows of `tokens`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self) -> list[Token]:
        """Every token, the oldest first; revoked ones too."""
        rows = self._db.execute("SELECT * FROM tokens ORDER BY created_ns, id")
        return [Token(*row) for row in rows]

    def add(self, token: Token) -> None:
        """A new one."""
        self._db.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                token.id, token.name, token.role, token.salt, token.hash, token.created_by,
                token.created_ns, token.expires_ns, token.void_ns, token.used_ns,
                token.revoked_by, token.revoked_ns,
            ),
        )  # fmt: skip

    def used(self, token: str, now_ns: int) -> None:
        """Somebody came with it."""
        self._db.execute("UPDATE tokens SET used_ns = ? WHERE id = ?", (now_ns, token))

    def revoke(self, token: str, who: str, now_ns: int) -> None:
        """It opens nothing any more."""
        self._db.execute(
            "UPDATE tokens SET revoked_by = ?, revoked_ns = ? WHERE id = ?", (who, now_ns, token)
        )


class Approvals:
    """Rows of `approvals`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def ask(
        self, act: str, body: str, digest: bytes, who: str, now: Moment, lasts_ns: int
    ) -> Approval:
        """Put an order down for the second person, for so long."""
        self._db.execute(
            "INSERT INTO approvals (act, body, digest, asked_by, asked_ns, until_ns, void_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (act, body, digest, who, now.wall_ns, now.wall_ns + lasts_ns, now.worm_ns + lasts_ns),
        )
        found = self.get(int(self._db.last_insert_rowid()))
        assert found is not None
        return found

    def get(self, number: int) -> Approval | None:
        """The one of that number."""
        return self._one("SELECT * FROM approvals WHERE id = ?", number)

    def open(self, digest: bytes, who: str, now: Moment) -> Approval | None:
        """The newest of that order by that person that was not carried out and is in time."""
        return self._one(
            "SELECT * FROM approvals WHERE digest = ? AND asked_by = ? AND used_ns IS NULL"
            " AND until_ns > ? AND void_ns > ? ORDER BY id DESC LIMIT 1",
            digest, who, *now,
        )  # fmt: skip

    def waiting(self, now: Moment) -> list[Approval]:
        """Those that were not carried out nor refused and are in time, the oldest first."""
        rows = self._db.execute(
            "SELECT * FROM approvals WHERE used_ns IS NULL AND until_ns > ? AND void_ns > ?"
            " AND NOT (decided_ns IS NOT NULL AND approved = 0) ORDER BY id",
            now,
        )
        return [Approval(*row) for row in rows]

    def decide(self, number: int, who: str, now_ns: int, *, approved: bool) -> None:
        """What the second person says."""
        self._db.execute(
            "UPDATE approvals SET decided_by = ?, decided_ns = ?, approved = ? WHERE id = ?",
            (who, now_ns, int(approved), number),
        )

    def use(self, number: int, now_ns: int) -> None:
        """The order is carried out: once."""
        self._db.execute("UPDATE approvals SET used_ns = ? WHERE id = ?", (now_ns, number))

    def _one(self, sql: str, *values: object) -> Approval | None:
        for row in self._db.execute(sql, values):
            return Approval(*row)
        return None
