"""Drives at work one disc after the other: nothing that takes long elsewhere holds them up."""

from __future__ import annotations

import threading

import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine import burn
from hsmfs.engine.recall import Recaller
from hsmfs.engine.spool import burns_at_once
from hsmfs.states import FileState, VolumeState

MIB = 1 << 20
FULL = 13 * MIB
"""Bytes of a file that no second one shares a disc of 16 MiB with."""


async def test_a_reader_waits_for_no_image(make_site, monkeypatch):
    site = await make_site(drives=3)
    going, begun = threading.Event(), []
    build = burn.build_image

    def slow(*args, **kwargs):
        begun.append(args)
        going.wait(30)
        return build(*args, **kwargs)

    async with site.running(), trio.open_nursery() as nursery:
        ino = await site.file(b"f", MIB)
        await site.archive(ino, release=True)
        recaller = Recaller(
            site.catalog, site.files, site.mounts, site.events, site.config,
            left=lambda who, ino: False,
        )  # fmt: skip
        await nursery.start(recaller.run)
        monkeypatch.setattr(burn, "build_image", slow)
        more = [await site.file(b"%d" % n, FULL) for n in range(5)]
        await site.migrator.archive(more)
        await site.until(lambda: len(begun) == 4)
        try:
            await recaller.request(ino, RecallClass.INTERACTIVE, "test")
            await site.until(lambda: site.state(ino) == FileState.PREMIGRATED, 10)
        finally:
            going.set()
        await site.archive(*more)
        nursery.cancel_scope.cancel()
    site.sound()


async def test_a_drive_goes_on_while_its_last_disc_is_committed(make_site, monkeypatch):
    site = await make_site(drives=1)
    going, waiting = threading.Event(), threading.Event()
    sync = site.pool.sync

    def slow():
        waiting.set()
        going.wait(30)
        sync()

    monkeypatch.setattr(site.pool, "sync", slow)
    inos = [await site.file(b"%d" % n, FULL) for n in range(2)]
    async with site.running():
        await site.migrator.archive(inos)
        await site.migrator.flush()
        try:
            await site.until(waiting.is_set)
            await site.until(lambda: len(site.volumes(VolumeState.BURNING)) == 2)
        finally:
            going.set()
        await site.archive(*inos)
    assert len(site.volumes(VolumeState.FULL)) == 2
    site.sound()


async def test_only_what_is_being_staged_has_room_for_compressed_files(make_site, monkeypatch):
    site = await make_site(spool="50 MiB", engine="compression = 3")
    pressed = []
    monkeypatch.setattr(site.migrator.spool, "pressed", lambda: pressed.append(1))
    inos = [await site.file(b"%d" % n, FULL) for n in range(2)]
    async with site.running():
        await site.archive(*inos)
    assert not pressed
    site.sound()


def test_images_are_made_ahead_in_half_of_the_spool():
    assert burns_at_once(6, 100) == 10
    assert burns_at_once(18, 100) == 28
    assert burns_at_once(6, 18) == 9
    assert [burns_at_once(n, 1) for n in (1, 2, 6)] == [3, 4, 8]
