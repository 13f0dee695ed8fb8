"""Compares files with what their clients say of them, before the first disc gets them.

What does not agree goes on record and is kept off the discs, until bytes and checksum agree, the
checksum is gone, or somebody accepts the bytes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from ... import clock, logs
from ...catalog.catalog import Catalog
from ...catalog.mismatches import Mismatch, Mismatches
from ...catalog.reports import Reports
from ...errors import NotIntact
from ...pool.pools import Pools
from ...types import Attr, DataVersion, InodeNo
from ..events import Events
from ..trust.audit import Note, unheard
from ..trust.words import path_of
from .claims import Above, Claim, Claims

log = logs.get(__name__)
SELF = "hsmfsd"


class Ingest:
    """Wired by the engine.

    Attributes:
        claims: what clients say.
        note: puts what does not agree on record.
    """

    def __init__(self, catalog: Catalog, pools: Pools, events: Events) -> None:
        self._catalog, self._events = catalog, events
        self._table = Mismatches(catalog.db)
        self.claims = Claims(pools)
        self.note: Note = unheard

    def judge(
        self, reports: Reports, found: Sequence[tuple[Attr, DataVersion, bytes]]
    ) -> tuple[dict[InodeNo, Mismatch], set[InodeNo]]:
        """Files (with version and SHA-256 of their bytes) that are not what their client says, and
        those that agree again; on a snapshot, in a thread. What was accepted is in neither."""
        wrong, right, above = dict[InodeNo, Mismatch](), set[InodeNo](), Above()
        for attr, version, sha256 in found:
            claim, before = self.said(reports, attr, above)
            one = compare(attr.ino, version, sha256, claim, before)
            if one is None and before is not None:
                right.add(attr.ino)
            elif one is not None and not one.accepted_by:
                wrong[attr.ino] = one
        return wrong, right

    def said(
        self, reports: Reports, attr: Attr, above: Above
    ) -> tuple[Claim | None, Mismatch | None]:
        """What a client says of a file, and what was found against it before; above: as `Above`."""
        return self.claims.of(reports, attr, above), Mismatches(reports.db).get(attr.ino)

    def settle(self, ino: InodeNo, wrong: Mismatch | None) -> None:
        """Note what `judge` found of a file; in a transaction. Tells of it once."""
        if wrong is None:
            self._table.drop(ino)
            return
        if wrong.same(self._table.get(ino)):
            return
        self._table.put(wrong)
        path = path_of(self._catalog, ino)
        sums = {"expected": wrong.expected.hex(), "found": wrong.sha256.hex()}
        log.error("not what its client's checksum says", ino=ino, source=wrong.source, **sums)
        self._events.emit("client_mismatch", ino=ino, path=path, source=wrong.source, **sums)
        self.note(
            "integrity.client_mismatch", SELF, path, outcome="failed", ino=ino,
            version=wrong.version, source=wrong.source, **sums,
        )  # fmt: skip

    def look_again(self, ino: InodeNo) -> None:
        """Somebody asks for the file to be archived: what was found before is open again. In a
        transaction."""
        self._table.look_again(ino)

    def accept(self, ino: InodeNo, who: str) -> bool:
        """The bytes are right as they are; False if nothing is known against them. In a
        transaction."""
        known = self._table.get(ino)
        if known is None or known.accepted_by:
            return False
        self._table.accept(ino, who)
        self.note(
            "integrity.accepted", who, path_of(self._catalog, ino), ino=ino,
            source=known.source, expected=known.expected.hex(), found=known.sha256.hex(),
        )  # fmt: skip
        return True


def compare(
    ino: InodeNo, version: DataVersion, sha256: bytes, claim: Claim | None, before: Mismatch | None
) -> Mismatch | None:
    """How the bytes differ from what a client says, None if they do not; with who accepted just
    that before, if somebody did."""
    if claim is None or claim.sha256 == sha256:
        return None
    one = Mismatch(ino, version, sha256, claim.sha256, claim.source, clock.now_ns())
    return before if before is not None and one.same(before) else one


def refusal(rows: Reports | Catalog, ino: InodeNo) -> NotIntact | None:
    """Why a file is kept off the discs, or None."""
    known = Mismatches(rows.db).get(ino)
    if known is None or known.accepted_by:
        return None
    return NotIntact(
        f"is not what {known.source} says: its SHA-256 is {known.sha256.hex()},"
        f" not {known.expected.hex()}",
        next_step="bring the right bytes or correct the checksum; to archive it as it is:"
        " 'hsmctl archive --accept'",
    )
