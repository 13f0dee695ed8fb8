"""Archiving with real images and a simulated library: what is on discs, and what is not said to be."""

from __future__ import annotations

import os

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.disc.reader import read_chunk
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.states import FileState, VolumeState

MIB = 1 << 20


async def read_back(site, ino):
    """The file's bytes from its first readable copy, checked."""
    data = b""
    attr = site.files.attr(ino)
    digest = site.catalog.copies.digest(ino, attr.version)
    first = site.copies(ino)[0].copy_no
    from hsmfs.engine.schedule import Purpose

    for copy in site.copies(ino):
        if copy.copy_no != first:
            continue
        async with site.mounts.use(copy.where.volume, Purpose.READ) as session:
            sectors = await session.read(copy.where.sector, max(1, -(-copy.where.stored // 2048)))

            def read_at(sector, count, base=copy.where.sector, sectors=sectors):
                return sectors[(sector - base) * 2048 : (sector - base + count) * 2048]

            chunks = -(-copy.where.length // (4 * MIB))
            for index in range(chunks):
                data += read_chunk(
                    copy.where, index + copy.where.offset // (4 * MIB), digest, read_at
                )
    return data


async def test_archived_verified_released(site):
    data = os.urandom(3 * MIB)
    ino = await site.file(b"a.dcm", data)
    small = await site.file(b"b.dcm", b"small")
    empty = await site.file(b"empty", b"")
    async with site.running():
        await site.archive(ino, small, empty)
        assert [await site.state(i) for i in (ino, small, empty)] == [FileState.PREMIGRATED] * 3
        assert await site.releaser.release(ino, "test") > 2 * MIB
        assert await site.state(ino) == FileState.MIGRATED
        assert await read_back(site, ino) == data
        assert await read_back(site, small) == b"small"
    assert site.catalog.queues.migrations_waiting()[0] == 0
    assert not site.catalog.queues.burns()
    assert list((site.root / "spool").iterdir()) == []


async def test_two_copies_on_different_volumes(site):
    ino = await site.file(b"f", 100_000)
    async with site.running():
        await site.archive(ino, copies=2, release=True)
    assert len({copy.where.volume for copy in site.copies(ino)}) == 2
    assert await site.state(ino) == FileState.MIGRATED
