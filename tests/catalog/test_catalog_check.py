"""Each invariant: break it by SQL, exactly its check sees it, the repair mends it."""

from __future__ import annotations

import stat

import apsw
import pytest

from hsmfs.catalog import check
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.check import CHECKS, Severity
from hsmfs.states import CopyState, FileState
from hsmfs.types import ROOT, Digest, Range, StoredPart

FILE, DIR, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
SUM = b"s" * 32


async def fill(catalog):
    """A small world without a fault: a=2 (dir), a/b=3 (dir), r=4, p=5, m=6, l=7, t=8 (trash);
    volumes 1 (full), 2 (full), 3 (blank)."""
    names, inodes, copies, volumes = (
        catalog.names, catalog.inodes, catalog.copies, catalog.volumes,
    )  # fmt: skip
    async with catalog.write():
        names.create(ROOT, b"a", DIR, 0, 0, 1)
        names.create(2, b"b", DIR, 0, 0, 1)
        for name in (b"r", b"p", b"m"):
            names.create(3, name, FILE, 0, 0, 1)
        names.create(2, b"l", LINK, 0, 0, 1, target=b"b/r")
        names.create(2, b"t", FILE, 0, 0, 1)
        names.unlink(2, b"t", 2)
        catalog.trash.put(8, 2, b"t", 2, 1000)
        for code in ("D01", "D02", "D03"):
            volumes.add(code, 10**9, 1)
        for volume in (1, 2):
            volumes.start(volume, f"uuid{volume}")
            volumes.close(volume, 10**6, "serial", "hash", 2)
        for ino in (5, 6):
            inodes.put(inodes.get_raw(ino)._replace(size=100, dirty=False))
            copies.set_digest(ino, 1, Digest(SUM, (SUM,), 100))
            for number in (1, 2):
                part = StoredPart(number, 0, 1, 0, 100, 50 * ino, 100)
                copies.add(ino, 1, number, part, CopyState.VALID)
            inodes.set_state(ino, FileState.PREMIGRATED)
        inodes.set_absent(6, [Range(0, 100)])
        inodes.set_state(6, FileState.MIGRATED)
        inodes.put(inodes.get_raw(4)._replace(size=100, dirty=False))


@pytest.fixture
async def catalog(tmp_path):
    catalog = Catalog.create(tmp_path)
    await fill(catalog)
    yield catalog
    catalog.close()


SET = (
    "INSERT INTO volume_sets (id, name, uuid, k, m, state, created_ns)"
    " VALUES (1, 'S', 'u', 2, 1, 2, 1); UPDATE volumes SET set_id = 1, set_index = id - 1"
    " WHERE id < 3; "
)
"""Volumes 1 and 2 are the data discs of a closed set."""

BREAKS = [
    ("counters_are_ahead", "UPDATE meta SET value = 3 WHERE key = 'ino_ceiling'"),
    ("counters_are_ahead", "UPDATE meta SET value = 3 WHERE key = 'cookie_ceiling'"),
    ("schema_is_expected", "DROP INDEX trash_by_parent"),
    ("names_have_inodes", "INSERT INTO dentries VALUES (2, 900, x'78', 77)"),
    ("names_are_legal", "UPDATE dentries SET name = x'2e2e' WHERE ino = 7"),
    ("inodes_have_names", "DELETE FROM dentries WHERE ino = 4"),
    ("link_counts_are_right", "UPDATE inodes SET nlink = 9 WHERE ino = 4"),
    ("link_counts_are_right", "UPDATE inodes SET nlink = 2 WHERE ino = 1"),
    ("rows_have_inodes", "INSERT INTO xattrs VALUES (77, x'61', x'62')"),
    ("rows_have_inodes", "INSERT INTO absent VALUES (77, 0, 1)"),
    ("rows_have_inodes", "INSERT INTO symlinks VALUES (77, x'61')"),
    ("digests_have_a_use", "INSERT INTO digests SELECT 77, 1, size, sha256, chunks FROM digests"
                           " LIMIT 1"),
    ("links_have_targets", "INSERT INTO symlinks VALUES (4, x'61')"),
    ("links_have_targets", "UPDATE inodes SET size = 9 WHERE ino = 7"),
    ("only_files_have_a_state", "UPDATE inodes SET state = 0 WHERE ino = 2"),
    ("only_files_have_a_state", "UPDATE inodes SET state = NULL WHERE ino = 4"),
    ("ranges_lie_in_the_file", 'UPDATE absent SET "end" = 200'),
    ("ranges_do_not_touch", 'UPDATE absent SET "end" = 50; INSERT INTO absent VALUES (6, 50, 100)'),
    ("states_agree_with_ranges", "DELETE FROM absent"),
    ("states_agree_with_ranges", "UPDATE inodes SET state = 0 WHERE ino = 6"),
    ("base_versions_are_not_ahead", "UPDATE inodes SET base_version = 2 WHERE ino = 4"),
    ("copies_have_volumes", "INSERT INTO copies (ino, version, copy_no, volume, state, part, parts,"
                            " offset, length) VALUES (5, 1, 3, 99, 2, 0, 1, 0, 100)"),
    ("valid_copies_are_on_burned_volumes", "UPDATE copies SET volume = 3 WHERE ino = 5"
                                           " AND copy_no = 1"),
    ("pending_copies_have_a_burn", "UPDATE copies SET state = 0 WHERE ino = 5 AND copy_no = 1"),
    ("copies_are_contiguous", "UPDATE copies SET offset = 1, length = 99 WHERE ino = 5"
                              " AND copy_no = 1"),
    ("copies_end_with_the_version", "UPDATE copies SET length = 99 WHERE ino = 5 AND copy_no = 1"),
    ("copies_are_told_apart", "UPDATE copies SET volume = 1 WHERE ino = 5"),
    ("recalls_have_something_to_bring", "INSERT INTO recalls VALUES (5, 0, 'x', 1, 0, 9, 0, '')"),
    (
        "migrations_are_of_this_version",
        "INSERT INTO migrations VALUES (4, 7, 1, 'x', 'g', 1, 0, '')",
    ),
    ("burns_agree_with_volumes", "INSERT INTO burns (volume, copy_no, state, image, created_ns)"
                                 " VALUES (99, 1, 0, 'i', 1)"),
    ("burns_agree_with_volumes", "INSERT INTO burns (volume, copy_no, state, image, created_ns)"
                                 " VALUES (1, 1, 2, 'i', 1)"),
    ("burning_volumes_have_a_burn", "UPDATE volumes SET state = 1 WHERE id = 3"),
    ("trash_holds_the_unlinked", "INSERT INTO trash VALUES (4, 3, x'72', 1, 2)"),
    ("media_rows_have_volumes", "INSERT INTO requests VALUES (99, 'x', 1)"),
    ("media_rows_have_volumes", "INSERT INTO pairs (volume, serial) VALUES (99, 'x')"),
    ("media_rows_have_volumes", "INSERT INTO scrubs (volume, asked_ns, requester, share)"
                                " VALUES (99, 1, 'x', 100)"),
    ("media_rows_have_volumes", "INSERT INTO refresh_files VALUES (99, 5, 1)"),
    ("exports_and_requests_are_of_exported", "INSERT INTO requests VALUES (1, 'x', 1)"),
    ("exports_and_requests_are_of_exported", "INSERT INTO exports VALUES (1, 'x', 1)"),
    ("members_have_sets", "UPDATE volumes SET set_id = 9, set_index = 0 WHERE id = 1"),
    ("members_have_sets", "INSERT INTO set_parity VALUES (9, 0, '', 1, 'x', 0)"),
    ("members_agree_with_their_set", SET + "UPDATE volume_sets SET vault = 'A'"),
    ("members_agree_with_their_set", SET + "UPDATE volumes SET set_index = 0"),
    ("rebuilds_can_be_made", SET + "UPDATE volume_sets SET m = 0; INSERT INTO rebuilds (volume,"
                             " started_ns) VALUES (1, 1)"),
]  # fmt: skip


def names_of(findings):
    return {finding.check for finding in findings}


async def damage(catalog, sql):
    async with catalog.write():
        for statement in sql.split(";"):
            catalog.db.execute(statement)


async def test_a_sound_catalog_has_no_finding(catalog):
    assert await check.run(catalog) == []


@pytest.mark.parametrize(("name", "sql"), BREAKS)
async def test_seen_and_mended(catalog, name, sql):
    await damage(catalog, sql)
    found = await check.run(catalog)
    assert names_of(found) == {name}
    assert all(finding.repair for finding in found)
    for _ in range(4):
        if not await check.repair(catalog, found):
            break
        found = await check.run(catalog)
    assert found == []


MIXED = [
    ("INSERT INTO dentries VALUES (1, 900, x'78', 3)", {"folders_have_one_name",
                                                        "link_counts_are_right"}),
    ("UPDATE dentries SET parent = 3 WHERE ino = 2", {"folders_are_reachable",
                                                      "link_counts_are_right"}),
    ("DELETE FROM inodes WHERE ino = 3", {"names_have_inodes", "names_lie_in_folders",
                                          "link_counts_are_right"}),
    ("DELETE FROM inodes WHERE ino = 1", {"root_is_a_folder", "names_lie_in_folders"}),
    ("UPDATE inodes SET mode = 33188 WHERE ino = 3", {"names_lie_in_folders",
                                                     "link_counts_are_right",
                                                     "only_files_have_a_state"}),
    ("DELETE FROM dentries WHERE ino = 3", {"folders_are_reachable", "link_counts_are_right"}),
    ("DELETE FROM inodes WHERE ino = 5", {"names_have_inodes", "copies_have_inodes"}),
    ("DELETE FROM digests WHERE ino = 5", {"premigrated_are_on_discs",
                                           "copies_end_with_the_version"}),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "names"), MIXED)
async def test_nothing_is_lost_by_a_repair(catalog, sql, names):
    await damage(catalog, sql)
    found = await check.run(catalog)
    assert names_of(found) == names
    for _ in range(6):
        if not await check.repair(catalog, found):
            break
        found = await check.run(catalog)
    assert found == []
    for ino in (4, 6, 7):
        assert catalog.names.paths(ino), ino


async def test_loss_is_said_and_not_covered_up(catalog):
    await damage(catalog, "UPDATE volumes SET state = 6 WHERE state = 2")
    found = {finding.check: finding for finding in await check.run(catalog)}
    loss = found["absent_bytes_are_on_discs"]
    assert loss.severity is Severity.LOSS
    assert loss.repair is None
    assert "D01 (lost), D02 (lost)" in loss.message
    assert found["premigrated_are_on_discs"].repair


async def test_two_parts_cover_a_range(catalog):
    await damage(catalog, "DELETE FROM copies WHERE ino = 6")
    async with catalog.write():
        for part, offset in ((0, 0), (1, 60)):
            length = 60 if part == 0 else 40
            where = StoredPart(1 + part, part, 2, offset, length, 400, length)
            catalog.copies.add(6, 1, 1, where, CopyState.VALID)
    assert await check.run(catalog) == []
    await damage(catalog, "UPDATE copies SET state = 3 WHERE ino = 6 AND part = 1")
    assert names_of(await check.run(catalog)) == {"absent_bytes_are_on_discs"}


async def test_notes_do_not_ask_for_a_repair_of_what_a_start_does(catalog):
    await damage(catalog, "INSERT INTO moves VALUES (1, 'D01', 1, 2, 1, NULL, NULL)")
    (note,) = await check.run(catalog)
    assert (note.check, note.severity) == ("moves_have_ended", Severity.NOTE)


async def test_an_orphan_is_a_note(catalog):
    await damage(catalog, "DELETE FROM trash")
    (note,) = await check.run(catalog)
    assert (note.check, note.ino) == ("unlinked_are_in_the_trash", 8)
    assert note.severity is Severity.NOTE


async def test_many_repairs_in_batches(catalog):
    async with catalog.write():
        for ino in range(100, 2600):
            catalog.db.execute("INSERT INTO xattrs VALUES (?, x'61', x'62')", (ino,))
    found = await check.run(catalog)
    assert await check.repair(catalog, found) == 2500
    assert await check.run(catalog) == []


def test_every_check_is_explained_and_named_once():
    names = [one.__name__ for one in CHECKS]
    assert len(set(names)) == len(names)
    assert all(one.__doc__ for one in CHECKS)


async def test_no_check_reads_inodes_in_the_order_of_their_states(catalog):
    plans = []

    class Spy:
        def execute(self, sql, values=()):
            if sql.lstrip().startswith(("SELECT", "WITH")):
                rows = catalog.db.execute(f"EXPLAIN QUERY PLAN {sql}", values)
                plans.extend((row[3], sql) for row in rows)
            return catalog.db.execute(sql, values)

        def __getattr__(self, name):
            return getattr(catalog.db, name)

    for one in CHECKS:
        list(one(Spy()))
    assert any("inodes" in step for step, _ in plans)
    assert not [
        sql for step, sql in plans if "inodes_by_state" in step and "COVERING" not in step
    ]


@pytest.mark.parametrize(
    ("index", "wrong"),
    [
        ("inodes_by_change", "inodes (change_seq) WHERE ino > 3"),
        ("inodes_by_change", "inodes (size)"),
        ("copies_by_volume", "copies (sector, volume)"),
        ("dentries_by_name", "dentries (parent, id)"),
    ],
)
async def test_an_index_that_is_not_its_tables_is_found_and_built_anew(tmp_path, index, wrong):
    catalog = Catalog.create(tmp_path)
    await fill(catalog)
    catalog.close()
    db = apsw.Connection(str(catalog.path))
    text = db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (index,)).get
    db.execute(f"DROP INDEX {index}; CREATE INDEX {index} ON {wrong}; PRAGMA writable_schema = 1")
    db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (text, index))
    db.close()
    catalog = Catalog.open(tmp_path)
    found = await check.run(catalog)
    assert names_of(found) - {"file_is_sound"} == {"indexes_hold_their_tables"}
    await check.repair(catalog, found)
    assert await check.run(catalog) == []
    catalog.close()
