"""What the storm guard remembers: its mode, its rules, and whom it met (table `guard_report`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .connection import Database


@dataclass(frozen=True, slots=True)
class Met:
    """A requester that a rule stopped, or would have: files is how many; times are UTC ns.

    Attributes:
        rule: name of the rule that decided.
        outcome: what became of it.
        learning: nothing was stopped.
        path: one of the files, from the root.
    """

    uid: int
    process: str
    via: str
    client: str
    rule: str
    outcome: str
    learning: bool
    files: int
    first_ns: int
    last_ns: int
    path: bytes

    @property
    def key(self) -> tuple[int, str, str, str, str, str, bool]:
        """What makes it a row of its own."""
        return (
            self.uid, self.process, self.via, self.client, self.rule, self.outcome, self.learning
        )  # fmt: skip


def _met(row: tuple) -> Met:  # type: ignore[type-arg]
    uid, process, via, client, rule, outcome, learning, *rest = row
    return Met(uid, process, via, client, rule, outcome, bool(learning), *rest)


_COLUMNS = "uid, process, via, client, rule, outcome, learning, files, first_ns, last_ns, path"


class GuardBook:
    """Rows of `guard_report`, and the guard's keys of `meta`; writing needs a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def mode(self) -> str | None:
        """The mode an admin chose, or None."""
        return self._fact("guard_mode")

    def rules(self) -> str | None:
        """The rules an admin gave, as TOML, or None."""
        return self._fact("guard_rules")

    def set_mode(self, mode: str) -> None:
        """Keep the mode over restarts."""
        self._set("guard_mode", mode)

    def set_rules(self, text: str | None) -> None:
        """Keep the rules over restarts; None: those that come with hsmfs."""
        self._set("guard_rules", text)

    def _fact(self, key: str) -> str | None:
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall()
        return str(found[0][0]) if found else None

    def _set(self, key: str, value: str | None) -> None:
        self._db.execute("DELETE FROM meta WHERE key = ?", (key,))
        if value is not None:
            self._db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    def report(self) -> list[Met]:
        """All rows, the most files first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM guard_report ORDER BY files DESC, last_ns DESC"
        )
        return [_met(row) for row in rows]

    def put(self, rows: Iterable[Met]) -> None:
        """Write rows down as they are now."""
        for met in rows:
            self._db.execute(
                f"INSERT OR REPLACE INTO guard_report ({_COLUMNS})"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*met.key[:6], int(met.learning), met.files, met.first_ns, met.last_ns, met.path),
            )

    def drop(self, keys: Iterable[tuple[int, str, str, str, str, str, bool]]) -> None:
        """Forget rows."""
        for key in keys:
            self._db.execute(
                "DELETE FROM guard_report WHERE uid = ? AND process = ? AND via = ?"
                " AND client = ? AND rule = ? AND outcome = ? AND learning = ?",
                (*key[:6], int(key[6])),
            )

    def clear(self) -> None:
        """Begin a new report."""
        self._db.execute("DELETE FROM guard_report")
