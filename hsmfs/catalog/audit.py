"""The audit log: append-only records, each bound to the one before by its hash.

A record's hash is the SHA-256 of the canonical JSON of [prev, seq, at_ns, worm_ns, kind, actor,
object, outcome, detail], where prev is the hash before in hexadecimal (64 zeros before the first).
docs/audit.md has it for strangers, and `tools/hsm-disc audit` computes it without this module.
Appending happens in the transaction of the act that is recorded.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import clock
from .connection import Database

GENESIS = bytes(32)
"""The hash before the first record."""
_INSERT = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_HEAD = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
_FIELDS = "seq, at_ns, worm_ns, kind, actor, object, outcome, detail, hash"
_canonical = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
_quoted = json.encoder.encode_basestring_ascii
_NUMBERS = {int}


class Head(NamedTuple):
    """Where the chain ends: the number of the last record (0: none) and its hash."""

    seq: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Of the form on discs. Raises ValueError."""
        seq, _, digest = text.partition(":")
        head = cls(int(seq), bytes.fromhex(digest))
        if len(head.hash) != len(GENESIS):
            raise ValueError(f"{text!r} is no head of a chain")
        return head


class Record(NamedTuple):
    """One record; times UTC ns, detail JSON as text."""

    seq: int
    at_ns: int
    worm_ns: int
    kind: str
    actor: str
    object: str
    outcome: str
    detail: str
    hash: bytes

    def computed(self, prev: bytes) -> bytes:
        """The hash that it must have behind prev."""
        return digest(prev, self[:-1])

    def line(self, prev: bytes) -> bytes:
        """As a line of AUDIT.jsonl and of exports, newline included."""
        fields = dict(zip(("prev", *self._fields), (prev.hex(), *self), strict=True))
        fields["hash"] = self.hash.hex()
        return _canonical(fields).encode() + b"\n"

    @classmethod
    def of_line(cls, fields: dict[str, Any]) -> tuple[bytes, Record]:
        """The hash before, and the record, of a decoded line. Raises KeyError, ValueError."""
        row = [fields[name] for name in cls._fields[:-1]]
        made = cls._make((*row, bytes.fromhex(fields["hash"])))
        return bytes.fromhex(fields["prev"]), made


def digest(prev: bytes, fields: tuple[Any, ...]) -> bytes:
    """The hash of a record's fields behind prev."""
    seq, at_ns, worm_ns, *texts = fields
    said = ",".join(map(_quoted, texts))
    record = f'["{prev.hex()}",{seq},{at_ns},{worm_ns},{said}]'
    return hashlib.sha256(record.encode()).digest()


def _told(detail: dict[str, Any]) -> str:
    """A record's detail as canonical JSON."""
    values = tuple(detail.values())
    if _NUMBERS.issuperset(map(type, values)):
        return _form(tuple(detail)) % values
    return _canonical(detail)


@functools.lru_cache(maxsize=64)
def _form(names: tuple[str, ...]) -> str:
    """What the detail of whole numbers with these names looks like."""
    return "{" + ",".join([f'"{name}":%d' for name in names]) + "}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search looks for; None or '' means any. kind may end with '*'; text is looked for in
    actor, object and detail."""

    kind: str = ""
    actor: str = ""
    object: str = ""
    outcome: str = ""
    text: str = ""
    since_ns: int | None = None
    until_ns: int | None = None


class AuditLog:
    """Rows of `audit`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._end: Head | None = None

    def rolled_back(self) -> None:
        """A transaction was undone, perhaps one that appended."""
        self._end = None

    def append(
        self,
        worm_ns: int,
        kind: str,
        actor: str,
        object_: str,
        outcome: str,
        detail: dict[str, Any],
    ) -> Head:
        """Add a record; in a write transaction, that of the act if there is one."""
        seq, prev = self._end or self.head()
        said = (kind, actor, object_, outcome, _told(detail))
        fields = (seq + 1, clock.now_ns(), worm_ns, *said)
        made = digest(prev, fields)
        self._db.change(_INSERT, (*fields, made))
        self._end = Head(seq + 1, made)
        return self._end

    def head(self) -> Head:
        """The end of the chain."""
        for seq, made in self._db.execute(_HEAD):
            return Head(seq, bytes(made))
        return Head(0, GENESIS)

    def forwarded(self) -> int:
        """The number of the last record that was sent to the syslog server."""
        found = self._db.execute("SELECT value FROM meta WHERE key = 'audit_forwarded'").get
        return int(found or 0)

    def set_forwarded(self, seq: int) -> None:
        """Records up to this one were sent."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('audit_forwarded', ?)", (seq,))

    def last_worm_ns(self) -> int:
        """What the compliance clock showed in the last record; 0 if there is none."""
        for (worm,) in self._db.execute("SELECT worm_ns FROM audit ORDER BY seq DESC LIMIT 1"):
            return int(worm)
        return 0

    def last_offset_ns(self) -> int | None:
        """How far the wall clock was ahead of the compliance clock in the last record."""
        query = "SELECT at_ns - worm_ns FROM audit ORDER BY seq DESC LIMIT 1"
        for (offset,) in self._db.execute(query):
            return int(offset)
        return None

    def hash_of(self, seq: int) -> bytes | None:
        """The hash of a record, None if there is none of that number; 0 is before the first."""
        if seq == 0:
            return GENESIS
        for (made,) in self._db.execute("SELECT hash FROM audit WHERE seq = ?", (seq,)):
            return bytes(made)
        return None

    def after(self, seq: int, limit: int = -1) -> Iterator[Record]:
        """Records behind one, in order."""
        for row in self._db.execute(
            f"SELECT {_FIELDS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
        ):
            yield Record(*row)

    def clock_jumps(self, limit: int) -> list[Record]:
        """The newest records of the wall clock's jumps, the newest first."""
        rows = self._db.execute(
            f"SELECT {_FIELDS} FROM audit WHERE kind IN ('clock.jumped', 'clock.off')"
            " ORDER BY seq DESC LIMIT ?",
            (limit,),
        )
        return [Record(*row) for row in rows]

    def search(self, wanted: Wanted, after: int, limit: int) -> list[Record]:
        """Records behind one that match, in order."""
        where = ["seq > ?", "at_ns >= ?", "at_ns <= ?"]
        values: list[object] = [after, *_bounds(wanted)]
        for column in ("kind", "actor", "object", "outcome"):
            if value := getattr(wanted, column):
                where.append(f"{column} GLOB ?")
                values.append(value)
        if wanted.text:
            where.append("instr(lower(actor || ' ' || object || ' ' || detail), lower(?)) > 0")
            values.append(wanted.text)
        rows = self._db.execute(
            f"SELECT {_FIELDS} FROM audit WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?",
            (*values, limit),
        )
        return [Record(*row) for row in rows]

    def load(self, records: Iterable[Record]) -> int:
        """Take records over from a disc that are not here yet, in order; how many.

        Stops before one that does not follow. Only for a catalog that is made again from discs.
        """
        seq, prev = self.head()
        count = 0
        for record in records:
            if record.seq <= seq:
                continue
            if record.seq != seq + 1 or record.computed(prev) != record.hash:
                break
            self._db.execute(_INSERT, record)
            seq, prev = record.seq, record.hash
            count += 1
        self._end = None
        return count


def _bounds(wanted: Wanted) -> tuple[int, int]:
    since = -(2**63) if wanted.since_ns is None else wanted.since_ns
    until = 2**63 - 1 if wanted.until_ns is None else wanted.until_ns
    return since, until


@dataclass(frozen=True, slots=True)
class Break:
    """A place where the chain does not hold: the record's number, and what is wrong."""

    seq: int
    what: str


class Chain:
    """Follows the records one by one and tells where they break; `feed` them in order."""

    def __init__(self, after: Head) -> None:
        self.head = after
        self.count = 0

    def feed(self, record: Record) -> list[Break]:
        """What is wrong with the next record."""
        seq, prev = self.head
        found = []
        if record.seq != seq + 1:
            first, last = seq + 1, record.seq - 1
            found.append(Break(first, f"records {first} to {last} are missing"))
            prev = b""
        if not prev:
            pass  # whatever was there before is gone: only its successors can be judged
        elif record.computed(prev) != record.hash:
            found.append(
                Break(record.seq, "the record was changed, or is not the one that followed")
            )
        self.head = Head(record.seq, record.hash)
        self.count += 1
        return found

    def end(self, anchors: Iterable[tuple[str, Head]]) -> list[Break]:
        """Whether the chain reaches as far as every anchor (name, head) says."""
        return [
            Break(self.head.seq + 1, f"the log is cut off: {name} knows record {head.seq}")
            for name, head in anchors
            if head.seq > self.head.seq
        ]
