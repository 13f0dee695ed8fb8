"""Backups: only what changed is written, every byte is checked, an old one survives a cut-off."""

from __future__ import annotations

import hashlib

import pytest
import trio

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


async def copied(catalog, tmp_path, now):
    plain = tmp_path / "scratch"
    await catalog.read(lambda reports: snapshot.copy(reports, plain, next_ino=9, now_ns=now))
    return plain


async def make(catalog, tmp_path, day, keep=9):
    plain = await copied(catalog, tmp_path, day * DAY)
    return backup.store(plain, tmp_path / "dest", keep=keep, now_ns=day * DAY)


async def make_file(catalog, tmp_path, day, name="one.zst", **options):
    plain = await copied(catalog, tmp_path, day * DAY)
    return backup.store_file(plain, tmp_path / name, now_ns=day * DAY, **options)


def restored(tmp_path, name=None, source="dest"):
    dest = tmp_path / source
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


async def test_a_single_file_is_restored_and_replaced_by_a_newer_one(catalog, tmp_path):
    dest = tmp_path / "one.zst"
    await grow(catalog, b"one")
    first = await make_file(catalog, tmp_path, 1)
    assert first.new_bytes == dest.stat().st_size < first.size
    await grow(catalog, b"two", 10)
    made = await make_file(catalog, tmp_path, 2)
    found = backup.find(dest, None)
    assert (found.name, found.created_ns) == (made.name, 2 * DAY)
    assert backup.backups(dest) == ([found], [])
    assert backup.verify(dest, found) == []
    with pytest.raises(NotFound):
        backup.find(dest, first.name)
    again = restored(tmp_path, source="one.zst")
    try:
        assert len(again.names.entries(ROOT, 0, 10**6)) == 3010
    finally:
        again.close()
    assert {p.name for p in tmp_path.iterdir()} == {"state", "new", "one.zst"}


async def test_any_unpacker_of_zstd_gives_the_database(catalog, tmp_path):
    await grow(catalog, b"one", 10)
    await make_file(catalog, tmp_path, 1)
    plain, sha = tmp_path / "plain", backup.find(tmp_path / "one.zst", None).sha256
    await trio.run_process(["zstd", "-dq", str(tmp_path / "one.zst"), "-o", str(plain)])
    assert hashlib.sha256(plain.read_bytes()).hexdigest() == sha
    assert plain.read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize("at", [10, 0.5, -300])
async def test_a_wrong_byte_in_a_single_file_is_found_and_never_restored(catalog, tmp_path, at):
    dest = tmp_path / "one.zst"
    await grow(catalog, b"one")
    await make_file(catalog, tmp_path, 1)
    data = bytearray(dest.read_bytes())
    data[int(len(data) * at) if isinstance(at, float) else at] ^= 1
    dest.write_bytes(data)
    assert backup.verify(dest, backup.find(dest, None))
    with pytest.raises(CatalogDamaged):
        restored(tmp_path, source="one.zst")
    assert list((tmp_path / "new").glob("*.db*")) == []


async def test_a_single_file_that_was_cut_off_is_known_as_such(catalog, tmp_path):
    dest = tmp_path / "one.zst"
    await make_file(catalog, tmp_path, 1)
    dest.write_bytes(dest.read_bytes()[:-1])
    with pytest.raises(CatalogDamaged, match="not all of one"):
        backup.find(dest, None)
    with pytest.raises(ConfigError, match="left as it is"):
        await make_file(catalog, tmp_path, 2)


async def test_a_single_file_takes_the_place_of_nothing_else(catalog, tmp_path):
    other = tmp_path / "letter.txt"
    other.write_text("of a user")
    for name in ("letter.txt", "state"):
        with pytest.raises(ConfigError):
            await make_file(catalog, tmp_path, 1, name)
    assert other.read_text() == "of a user"

    def full(done, total):
        raise OSError(28, "No space left on device")

    await make_file(catalog, tmp_path, 1)
    with pytest.raises(OSError, match="No space"):
        await make_file(catalog, tmp_path, 2, told=full)
    assert backup.find(tmp_path / "one.zst", None).created_ns == DAY
    assert {p.name for p in tmp_path.iterdir()} == {"state", "letter.txt", "one.zst"}
