"""Backups: only what changed is written, every byte is checked, an old one survives a cut-off."""

from __future__ import annotations

import pytest

from hsmfs.catalog import backup, snapshot
from hsmfs.catalog.catalog import Catalog
from hsmfs.errors import CatalogDamaged, CatalogInUse, ConfigError, NotFound
from hsmfs.types import ROOT

DAY = 86_400 * 10**9


@pytest.fixture
def catalog(tmp_path):
    found = Catalog.create(tmp_path / "state")
    yield found
    found.close()


async def grow(catalog, prefix, count=3000):
    async with catalog.write():
        for n in range(count):
            catalog.names.create(ROOT, b"%s %06d" % (prefix, n), 0o100644, 0, 0, 1)


async def make(catalog, tmp_path, day, keep=9):
    plain, now = tmp_path / "scratch", day * DAY
    await catalog.read(lambda reports: snapshot.copy(reports, plain, next_ino=9, now_ns=now))
    return backup.store(plain, tmp_path / "dest", keep=keep, now_ns=now)


def restored(tmp_path, name=None):
    dest = tmp_path / "dest"
    backup.restore(dest, backup.find(dest, name), tmp_path / "new")
    return Catalog.open(tmp_path / "new")


async def test_what_is_restored_is_what_was_backed_up(catalog, tmp_path):
    await grow(catalog, b"one")
    made = await make(catalog, tmp_path, 1)
    await grow(catalog, b"later")
    assert made.new_pieces == made.pieces > 0
    again = restored(tmp_path)
    try:
        assert len(again.names.entries(ROOT, 0, 10**6)) == 3000
        assert again.inodes.next_ino > catalog.inodes.next_ino
        assert again.history.begins > catalog.history.begins == 0
    finally:
        again.close()
    assert not (tmp_path / "scratch").exists()


async def test_only_what_changed_is_written_and_old_ones_go(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "PIECE", 1 << 16)
    await grow(catalog, b"one", 40_000)
    await make(catalog, tmp_path, 1)
    await grow(catalog, b"two", 10)
    second = await make(catalog, tmp_path, 2)
    assert 0 < second.new_pieces < second.pieces / 2
    third = await make(catalog, tmp_path, 3, keep=2)
    assert third.removed == ("19700102T000000.000Z",)
    dest = tmp_path / "dest"
    left, damaged = backup.backups(dest)
    assert not damaged
    assert [b.created_ns // DAY for b in left] == [3, 2]
    used = {piece for b in left for piece in b.pieces}
    assert {p.name.removesuffix(".zst") for p in (dest / "pieces").glob("*/*")} == used
    assert [backup.verify(dest, b) for b in left] == [[], []]


async def test_the_last_one_is_the_newest_though_the_clock_was_ahead(catalog, tmp_path):
    await make(catalog, tmp_path, 365)
    await grow(catalog, b"later", 1)
    made = await make(catalog, tmp_path, 1, keep=1)
    assert [b.name for b in backup.backups(tmp_path / "dest")[0]] == [made.name]
    assert backup.find(tmp_path / "dest", None).name == made.name


@pytest.mark.expect_log("no backup is removed")
async def test_a_damaged_list_stands_in_nobody_elses_way(catalog, tmp_path):
    dest = tmp_path / "dest"
    first, second = await make(catalog, tmp_path, 1), await make(catalog, tmp_path, 2)
    (dest / f"{first.name}.json").write_text("no list")
    assert backup.find(dest, None).name == second.name
    assert [len(some) for some in backup.backups(dest)] == [1, 1]
    third = await make(catalog, tmp_path, 3, keep=1)
    assert third.removed == ()  # pieces of the damaged one may be among the others'
    with pytest.raises(CatalogDamaged, match="no list"):
        backup.find(dest, first.name)


async def test_a_damaged_piece_is_found_and_never_restored(catalog, tmp_path):
    await grow(catalog, b"one")
    await make(catalog, tmp_path, 1)
    piece = max((tmp_path / "dest/pieces").glob("*/*"), key=lambda p: p.stat().st_size)
    data = bytearray(piece.read_bytes())
    data[len(data) // 2] ^= 1
    piece.write_bytes(data)
    dest = tmp_path / "dest"
    assert backup.verify(dest, backup.find(dest, None))
    with pytest.raises(CatalogDamaged):
        restored(tmp_path)
    assert list((tmp_path / "new").glob("*.db*")) == []


async def test_refuses_what_is_not_ours(catalog, tmp_path):
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest/something").touch()
    with pytest.raises(ConfigError):
        await make(catalog, tmp_path, 1)
    with pytest.raises(NotFound):
        backup.backups(tmp_path / "dest")
    (tmp_path / "dest/something").unlink()
    await make(catalog, tmp_path, 1)
    found = backup.find(tmp_path / "dest", None)
    with pytest.raises(CatalogInUse):
        backup.restore(tmp_path / "dest", found, tmp_path / "state")
