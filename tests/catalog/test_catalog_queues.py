"""Whose order is still under way: one query for many files."""

from __future__ import annotations

import stat
from dataclasses import replace

from hsmfs.catalog.queues import Migration, RecallClass
from hsmfs.states import FileState
from hsmfs.types import ROOT, Attr

FILE = stat.S_IFREG | 0o644


def files(catalog, count: int) -> list[Attr]:
    return [catalog.names.create(ROOT, b"%d" % n, FILE, 0, 0, n) for n in range(count)]


async def test_what_waits_for_a_disc_and_stays(catalog):
    async with catalog.write():
        waits, leaves, gone, other = files(catalog, 4)
        order = Migration(waits.ino, 1, 1, "p", "g", 1, False)
        catalog.queues.put_migration(order)
        catalog.queues.put_migration(replace(order, ino=leaves.ino, release=True))
        catalog.queues.put_migration(replace(order, ino=gone.ino))
        catalog.names.unlink(ROOT, b"2", 9)
    inos = [attr.ino for attr in (waits, leaves, gone, other)]
    assert catalog.queues.going(inos) == {waits.ino}
    assert catalog.queues.going(inos[1:]) == set()


async def test_what_comes_from_a_disc(catalog):
    async with catalog.write():
        comes, part, came, gone, other = files(catalog, 5)
        for attr in (comes, part, came, gone):
            catalog.queues.join_recall(attr.ino, RecallClass.BULK, "p", 1, 0, 9)
        for attr in (comes, gone, other):
            catalog.inodes.set_state(attr.ino, FileState.MIGRATED)
        catalog.inodes.set_state(part.ino, FileState.PARTIAL)
        catalog.names.unlink(ROOT, b"3", 9)
    inos = [attr.ino for attr in (comes, part, came, gone, other)]
    assert catalog.queues.coming(inos) == {comes.ino, part.ino}
