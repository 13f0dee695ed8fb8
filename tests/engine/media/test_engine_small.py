"""Many small files from one disc: read together, checked alone, durable together."""

from __future__ import annotations

import os
import random

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine import ahead, incoming
from hsmfs.library.simulated.faults import Fault, FaultKind
from hsmfs.states import CopyState, FileState, VolumeState

ONE, TWO = "S0001D01", "S0001D02"
FILES, SIZE = 24, 50_000


@pytest.fixture
async def small(rig):
    """Files that lie one behind the other on two discs, and their bytes."""
    source = random.Random(2)
    found = {await rig.file(data): data for data in (source.randbytes(SIZE) for _ in range(FILES))}
    for number, disc in enumerate((ONE, TWO), start=1):
        await rig.burn(disc, [(ino, 0, SIZE) for ino in found], copy=number)
    for ino in found:
        await rig.release(ino)
    return found


class Counting:
    """Counts what a drive reads, in sectors, one entry a read."""

    def __init__(self, rig, monkeypatch):
        self.reads: list[int] = []
        for drive in rig.library.drives:
            monkeypatch.setattr(drive, "read", self._counted(drive.read))

    def _counted(self, read):
        async def counted(sector, count):
            self.reads.append(count)
            return await read(sector, count)

        return counted


async def recall_all(rig, inos):
    for ino in inos:
        await rig.recaller.request(ino, RecallClass.STANDARD, "admin")
    await rig.until(lambda: not rig.catalog.queues.recalls(0))


async def test_those_that_wait_together_come_in_few_reads_and_few_syncs(
    rig, small, nursery, monkeypatch
):
    syncs = []
    monkeypatch.setattr(incoming.Pool, "sync", lambda pool: syncs.append(pool))
    monkeypatch.setattr(incoming.os, "fdatasync", lambda fd: syncs.append(fd))
    await rig.serve(nursery)
    counting = Counting(rig, monkeypatch)
    await recall_all(rig, reversed(small))
    assert len(counting.reads) < FILES / 3
    assert len(syncs) < FILES / 3
    for ino, data in small.items():
        assert rig.files.attr(ino).state == FileState.PREMIGRATED
        assert rig.catalog.inodes.absent(ino) == []
        assert await rig.read(ino) == data


@pytest.mark.expect_log("unreadable|disc is suspect")
@pytest.mark.parametrize("kind", [FaultKind.UNREADABLE, FaultKind.CORRUPT])
async def test_a_bad_sector_among_them_is_one_files_fault(rig, small, nursery, kind):
    bad = list(small)[FILES // 2]
    sector = rig.sector(bad, ONE) + 1
    rig.library.faults.add(Fault(kind, barcode=ONE, sector=sector, times=None))
    await rig.serve(nursery)
    await recall_all(rig, small)
    for ino, data in small.items():
        assert await rig.read(ino) == data
        states = {c.copy_no: c.state for c in rig.catalog.copies.all_of(ino)}
        assert states[1] is (CopyState.DAMAGED if ino == bad else CopyState.VALID)
    assert rig.volume(ONE).state is VolumeState.SUSPECT and rig.volume(ONE).read_errors == 1


async def test_one_by_one_in_order_the_drive_reads_ahead(rig, small, nursery, monkeypatch):
    await rig.serve(nursery)
    counting = Counting(rig, monkeypatch)
    for ino, data in small.items():
        assert await rig.read(ino) == data
    assert len(counting.reads) < FILES / 2
    assert rig.volume(ONE).loads == 1
    assert max(counting.reads) <= ahead.MOST


async def test_what_does_not_read_ahead_is_nobodys_fault(rig, small, nursery, monkeypatch):
    inos = list(small)
    sector = rig.sector(inos[-1], ONE)
    rig.library.faults.add(Fault(FaultKind.UNREADABLE, barcode=ONE, sector=sector, times=None))
    await rig.serve(nursery)
    for ino in inos[:-1]:
        assert await rig.read(ino) == small[ino]
    assert rig.volume(ONE).state is VolumeState.FULL and rig.volume(ONE).read_errors == 0


@pytest.mark.expect_log("recall failed")
async def test_a_file_whose_bytes_cannot_be_made_durable_stays_a_stub(
    rig, small, nursery, monkeypatch
):
    *_, bad = small

    def refused(pool):
        raise OSError(5, "no")

    fdatasync = os.fdatasync

    def some(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith(f"/{bad:x}"):
            raise OSError(5, "no")
        fdatasync(fd)

    monkeypatch.setattr(incoming.Pool, "sync", refused)
    monkeypatch.setattr(incoming.os, "fdatasync", some)
    await rig.serve(nursery)
    with trio.fail_after(20):
        await recall_all(rig, small)
    for ino in small:
        assert (rig.catalog.inodes.absent(ino) == []) is (ino != bad)
