"""Discs leave for a vault and come back, and who waits for them is told."""

from __future__ import annotations

import json

import pytest
import trio

from hsmfs.config import loads
from hsmfs.disc.digest import digest_file
from hsmfs.disc.image import build_image
from hsmfs.disc.layout import Kind, StagedFile, VolumeLabel
from hsmfs.errors import OnShelf
from hsmfs.library.ports import ElementKind
from hsmfs.library.simulated.hands import put_in, take_out
from hsmfs.states import FileState, VolumeState
from hsmfs.types import ROOT, Requester

DATA = bytes(range(256)) * 2000
pytestmark = [
    pytest.mark.expect_log("operator must bring a disc"),
    pytest.mark.expect_log("recall failed.*(vault A|FOREIGN1)"),
]
WHO = Requester(pid=0, uid=5, process="reader")


@pytest.fixture
def config(config_file):
    return loads(config_file.read_text() + '\n[recall]\nshelf_wait = "300 ms"\n')


def foreign_disc(tmp_path, paths):
    """An image made by another catalog: a file with two names, an empty one, a link."""
    files = []
    for number, (path, data) in enumerate(paths.items(), 100):
        source = tmp_path / f"source{number}"
        source.write_bytes(data)
        digest = digest_file(source)
        names = (path, b"dir/hard") if data else (path,)
        files.append(
            StagedFile(
                ino=number, version=4, paths=names, kind=Kind.FILE, mode=0o640, uid=7, gid=8,
                mtime_ns=123, atime_ns=124, ctime_ns=125, btime_ns=126, xattrs={b"user.x": b"y"},
                digest=digest, source=source, stored=len(data), length=len(data),
                stored_sha256=digest.sha256,
            )
        )  # fmt: skip
    files.append(
        StagedFile(
            ino=200, version=1, paths=(b"dir/soft",), kind=Kind.SYMLINK, mode=0o777, uid=7, gid=8,
            mtime_ns=1, atime_ns=1, ctime_ns=1, btime_ns=1, target=b"a",
        )
    )  # fmt: skip
    label = VolumeLabel("u-1", "FOREIGN1", "FOREIGN1", "u-1", 1, 1, 0, 5)
    folder = tmp_path / "images"
    folder.mkdir()
    build_image(files, label, folder / "one.iso", staging=tmp_path / "staging")
    return folder / "one.iso"


async def archived(world):
    """A file of which only a stub is left; returns it and its disc."""
    ino = await world.file(b"one", DATA)
    order = {"paths": [{"path": "/one"}], "now": True, "wait": True, "release": True}
    steps = [json.loads(x) for x in (await world.post("/archive", order)).text.splitlines()]
    assert steps[-1]["failed"] == 0
    (volume,) = world.engine.catalog.volumes.all(VolumeState.FULL)
    return ino, volume.barcode


async def until(true):
    with trio.fail_after(20):
        while not true():  # noqa: ASYNC110  # what is waited for has no event
            await trio.sleep(0.02)


async def read(world, ino):
    live = world.engine.files.open(ino, write=False)
    try:
        return await world.engine.files.read(live, 0, len(DATA), WHO)
    finally:
        world.engine.files.close(live, write=False)


def state(world, barcode):
    return world.engine.catalog.volumes.by_barcode(barcode).state


async def exported(world):
    ino, barcode = await archived(world)
    answer = await world.post("/export", {"names": [barcode], "destination": "vault A"})
    assert answer.status_code == 200, answer.text
    await until(lambda: [d for d in world.engine.vault.leaving() if d["ready"]])
    return ino, barcode, answer.json()


async def test_a_disc_is_carried_to_the_mail_slot(world):
    _, barcode, picked = await exported(world)
    assert picked["only_there"] == 1
    assert [d["barcode"] for d in picked["discs"]] == [barcode]
    (leaving,) = (await world.get("/export")).json()
    assert leaving["place"].startswith("mail slot")
    assert state(world, barcode) is VolumeState.EXPORTED
    assert (await world.get("/status")).json()["leaving"] == 1


async def test_a_taken_disc_is_asked_for_and_serves_its_readers(world):
    ino, barcode, _ = await exported(world)
    root = world.engine.config.library.path
    slots = [e for e in world.engine.robot.elements.values()
             if e.kind is ElementKind.IMPORT_EXPORT]  # fmt: skip
    take_out(root, barcode)
    await world.engine.mounts.inventory.sync()
    assert world.engine.vault.leaving() == []
    with pytest.raises(OnShelf, match="vault A"):
        await read(world, ino)
    (request,) = (await world.get("/requests")).json()
    assert request["kind"] == "bring"
    assert (request["name"], request["place"], request["files"]) == (barcode, "vault A", 1)
    assert "operator" in (await world.get("/why", path="/one")).json()["answer"]
    answer = await world.post(f"/requests/{barcode}/done")
    assert answer.json()["error"] == "VolumeMissing"
    put_in(root, barcode, slots[0].address)
    assert (await world.post(f"/requests/{barcode}/done")).json()["imported"] == [barcode]
    await until(lambda: not world.engine.vault.requests())
    assert await read(world, ino) == DATA
    assert state(world, barcode) is VolumeState.FULL


async def test_a_refused_request_ends_its_recalls(world):
    ino, barcode, _ = await exported(world)
    with pytest.raises(OnShelf):
        await read(world, ino)
    answer = await world.post(f"/requests/{barcode}/refuse", {"reason": "it burned down"})
    assert answer.json()["detail"] == {"recalls": 1}
    assert "it burned down" in (await world.get("/why", path="/one")).json()["answer"]
    assert (await world.post(f"/requests/{barcode}/refuse", {})).status_code == 404


async def test_an_export_can_be_taken_back(world):
    ino, barcode, _ = await exported(world)
    answer = await world.post("/export/cancel", {"names": [barcode]})
    assert answer.json()["detail"] == {"discs": 1}
    assert state(world, barcode) is VolumeState.FULL
    assert await read(world, ino) == DATA


async def test_a_dry_run_orders_nothing(world):
    _, barcode = await archived(world)
    order = {"names": [barcode], "destination": "x", "dry_run": True}
    assert (await world.post("/export", order)).json()["ordered"] is False
    assert state(world, barcode) is VolumeState.FULL


async def test_what_is_outside_is_never_written(world):
    _, barcode, _ = await exported(world)
    found = world.engine.catalog.volumes.by_barcode(barcode)
    assert found.id not in world.engine.catalog.volumes.blanks()
    blank = world.engine.catalog.volumes.all(VolumeState.BLANK)[0]
    answer = await world.post("/export", {"names": [blank.barcode], "destination": "x"})
    assert answer.json()["error"] == "Conflict"


async def test_a_disc_of_another_catalog_is_adopted_twice_over(world, tmp_path):
    paths = {b"dir/a": DATA, b"dir/b": b""}
    image = foreign_disc(tmp_path, paths)
    async with world.engine.catalog.write():
        world.engine.catalog.names.create(ROOT, b"in", 0o040755, 0, 0, 1)
    order = {"images": [str(image.parent)], "into": {"path": "/in"}}
    for made in (3, 0):
        answer = await world.post("/volumes/adopt", order)
        steps = [json.loads(x) for x in answer.text.splitlines()]
        assert steps[-1]["kind"] == "end", steps
        assert steps[-1]["made"] == made
    catalog = world.engine.catalog
    one, link = catalog.names.resolve(b"/in/dir/a"), catalog.names.resolve(b"/in/dir/hard")
    assert (one.ino, one.nlink, one.uid, one.mtime_ns) == (link.ino, 2, 7, 123)
    assert one.state == FileState.MIGRATED
    assert catalog.xattrs.get(one.ino, b"user.x") == b"y"
    assert catalog.inodes.target(catalog.names.resolve(b"/in/dir/soft").ino) == b"a"
    assert catalog.volumes.by_barcode("FOREIGN1").state is VolumeState.EXPORTED
    with pytest.raises(OnShelf, match="FOREIGN1"):
        await read(world, one.ino)
