"""Files that are left alone for a while."""

from __future__ import annotations

import trio

from hsmfs.engine.pauses import ROTTEN, Pauses
from hsmfs.engine.stage import LOST_BYTES
from hsmfs.types import ROOT


async def _waited(pauses, ino):
    began = trio.current_time()
    while ino in pauses:
        await trio.sleep_until(pauses.next)
        await pauses.look()
    return (trio.current_time() - began) / ROTTEN


async def test_rotten_bytes_are_read_less_and_less(site, autojump_clock) -> None:
    pauses, waits = Pauses(site.catalog, site.catalog.inodes.get_raw), []
    for _ in range(5):
        pauses.put_off(ROOT, LOST_BYTES)
        waits.append(await _waited(pauses, ROOT))
    assert waits == [1, 2, 4, 7, 7]
    pauses.put_off(ROOT, LOST_BYTES)
    assert pauses.end(ROOT), "somebody asked"
    assert ROOT not in pauses


async def test_a_rotten_file_that_was_written_anew_waits_no_longer_than_a_day(
    site, autojump_clock
) -> None:
    attr = site.catalog.inodes.get_raw(ROOT)
    pauses = Pauses(site.catalog, lambda ino: attr)
    for _ in range(3):
        pauses.put_off(ROOT, LOST_BYTES)
    attr = attr._replace(version=attr.version + 1)
    assert await _waited(pauses, ROOT) == 1
    pauses.put_off(ROOT, LOST_BYTES)
    assert await _waited(pauses, ROOT) == 1, "another version rots for the first time"
