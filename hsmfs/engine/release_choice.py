"""Which files the releaser gives up first: those of least worth, by idle time and bytes freed.

Heads stay, but in a pool that is full of them: no recall could bring anything in any more.

The catalog orders them; what names, rules and recent recalls say is asked of the first alone. So
memory is bounded however many files could go, and a look costs one pass over those of the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from ..catalog.paths import PathCache
from ..catalog.reports import Reports
from ..pool.store import BLOCK
from ..states import FileState
from ..types import Attr, InodeNo, PoolId
from .policy.match import Ruleset

CANDIDATES = 20_000
"""Files chosen in one look, at most."""
_WIDER = 8
"""If rules keep most of the first, so many times more are looked at next."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file and the bytes that its release frees."""

    attr: Attr
    frees: int
    path: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to choose.

    Attributes:
        need: bytes to be freed. residence_ns: so long a file stays after its last use.
        recalled: when files came from discs (UTC ns), which no time in their inodes says.
        refused: those that kept their bytes a moment ago.
        heads: of files in this state all bytes are to go, the first ones too; None: heads stay.
        since_ns: of those, what was modified before that has no bytes any more.
    """

    pool: PoolId
    need: int
    residence_ns: int
    now_ns: int
    recalled: Mapping[InodeNo, int]
    refused: frozenset[InodeNo] = frozenset()
    heads: FileState | None = None
    since_ns: int = 0


def choose(reports: Reports, rules: Ruleset, wanted: Wanted) -> list[Candidate]:
    """The least valuable files that may go, worst first, as many as are needed; in a thread."""
    found: dict[InodeNo, Candidate] = {}
    freed = 0
    if wanted.heads is not None:
        source = _heads(reports, rules, wanted, wanted.heads)
    else:
        source = chain(_unread(reports, rules, wanted), _in_order(reports, rules, wanted))
    for candidate in source:
        if candidate.attr.ino in found:
            continue
        found[candidate.attr.ino] = candidate
        freed += candidate.frees
        if freed >= wanted.need or len(found) >= CANDIDATES:
            break
    return list(found.values())


def _heads(
    reports: Reports, rules: Ruleset, wanted: Wanted, state: FileState
) -> Iterator[Candidate]:
    paths = reports.path_cache()
    limit = wanted.now_ns - wanted.residence_ns
    for ino in reports.with_head(wanted.pool, state, wanted.since_ns, limit):
        if wanted.recalled.get(ino, 0) > limit or ino in wanted.refused:
            continue
        candidate = _candidate(reports, rules, paths, ino, wanted.now_ns, heads=True)
        if candidate is not None:
            yield candidate


def _unread(reports: Reports, rules: Ruleset, wanted: Wanted) -> Iterator[Candidate]:
    """What was brought in beforehand and nobody has read: nobody misses it, however new it is."""
    paths = reports.path_cache()
    for ino in reports.studies.unread(wanted.pool, CANDIDATES):
        if ino not in wanted.refused:
            candidate = _candidate(reports, rules, paths, ino, wanted.now_ns)
            if candidate is not None:
                yield candidate


def _in_order(reports: Reports, rules: Ruleset, wanted: Wanted) -> Iterator[Candidate]:
    paths = reports.path_cache()
    limit = wanted.now_ns - wanted.residence_ns
    last: tuple[int, int] | None = None
    size = CANDIDATES
    while rows := reports.least_worth(wanted.pool, wanted.now_ns, limit, last, size):
        for _, ino in rows:
            if wanted.recalled.get(ino, 0) > limit or ino in wanted.refused:
                continue
            candidate = _candidate(reports, rules, paths, ino, wanted.now_ns)
            if candidate is not None:
                yield candidate
        last = rows[-1]
        size *= _WIDER


def _candidate(
    reports: Reports, rules: Ruleset, paths: PathCache, ino: InodeNo, now_ns: int,
    *, heads: bool = False,
) -> Candidate | None:
    attr = reports.inodes.get_raw(ino)
    assert attr is not None
    path = b"/" + (paths.path(ino) or b"")
    head = 0 if heads else rules.wishes(attr, path).head
    frees = attr.blocks * 512 - -(-head // BLOCK) * BLOCK
    if frees <= 0 or rules.forbidden(attr, path, now_ns) is not None:
        return None
    return Candidate(attr, frees, path)
