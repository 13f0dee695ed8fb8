"""Follows the audit chain from its first record and compares it with what the discs bear, and the
catalog's retention and holds with what the log says was committed and held."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ...catalog.audit import GENESIS, Break, Chain, Head
from ...catalog.catalog import Catalog
from ...catalog.reports import Reports
from .agreement import Promises, compare

PAGE = 5000
"""Records read in one step."""
BREAKS = 1000
"""Places that are told; a log that breaks more often is worth no more words."""
TRIES = 5
"""How often what differs is looked for while the log grows."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found.

    Attributes:
        records: how many there are. head: the end of the chain, "SEQ:HASH".
        anchors: discs whose head was compared. breaks: what is wrong, nothing if all is well.
    """

    records: int
    head: str
    anchors: int
    breaks: tuple[Break, ...]


async def verify(catalog: Catalog) -> Verdict:
    """Judge the whole log; a snapshot a step, so it may grow meanwhile."""
    chain, promises = Chain(Head(0, GENESIS)), Promises()
    breaks = await _follow(catalog, chain, promises)
    anchors = await catalog.read(_anchors)
    known = await catalog.read(partial(_hashes, seqs=[head.seq for _, head in anchors]))
    for name, head in anchors:
        here = known[head.seq]
        if here is not None and here != head.hash:
            what = f"disc {name} bears another hash of it: this is not the log that was anchored"
            breaks.append(Break(head.seq, what))
    breaks += chain.end([(f"disc {name}", head) for name, head in anchors])
    if not breaks:  # what is no log of ours says nothing of files
        breaks = await _compared(catalog, chain, promises)
    return Verdict(chain.count, str(chain.head), len(anchors), tuple(breaks))


async def _follow(catalog: Catalog, chain: Chain, promises: Promises) -> list[Break]:
    """Follow the chain to its end; where it breaks."""
    breaks: list[Break] = []
    more = True
    while more and len(breaks) < BREAKS:
        found, more = await catalog.read(partial(_step, chain=chain, promises=promises))
        breaks += found
    return breaks


async def _compared(catalog: Catalog, chain: Chain, promises: Promises) -> list[Break]:
    """Where the catalog says less than the log. What was allowed while they were compared is in
    records that came meanwhile, so what is found then is looked for again."""
    for _ in range(TRIES):
        seen, found = chain.count, await compare(catalog, promises)
        if not found:
            return []
        if breaks := await _follow(catalog, chain, promises):
            return breaks
        if chain.count == seen:
            break
    return found


def _step(reports: Reports, chain: Chain, promises: Promises) -> tuple[list[Break], bool]:
    breaks: list[Break] = []
    count = 0
    for record in reports.audit.after(chain.head.seq, PAGE):
        found = chain.feed(record)
        if not found:
            promises.feed(record)
        breaks += found
        count += 1
    return breaks, count == PAGE


def _anchors(reports: Reports) -> list[tuple[str, Head]]:
    return [(barcode, Head.parse(head)) for barcode, head in reports.volumes.audit_heads()]


def _hashes(reports: Reports, seqs: list[int]) -> dict[int, bytes | None]:
    return {seq: reports.audit.hash_of(seq) for seq in seqs}
