"""What discs say that do not agree: who wins (docs/rebuild.md, "When discs differ")."""

from __future__ import annotations

import hashlib

import pytest

from hsmfs.catalog.draft import Disc, Draft
from hsmfs.catalog.draft_end import Ending
from hsmfs.catalog.history import History
from hsmfs.catalog.places import write_places
from hsmfs.disc.lines import Line
from hsmfs.states import VolumeState

DATA = b"x" * 100
SUM = hashlib.sha256(DATA).digest()


def folder(ino, path, ctime=10):
    return Line(
        ino, 1, 0o040755, 0, 0, 0, 0, ctime, ctime, ctime, 1, None, b"", 0, 1, 0, 0, b"", 0, False,
        b"", 1, [path], [], b"",
    )  # fmt: skip


def file(ino, *paths, version=1, ctime=10, part=0, parts=1, size=100, xattrs=()):
    return Line(
        ino, version, 0o100644, 5, 6, 0, size, ctime, ctime, ctime, 1, SUM, b"", part, parts,
        part * 50, 50 if parts > 1 else size, b"files/%d-%d-%d" % (ino, version, part),
        50 if parts > 1 else size, False, b"", len(paths), list(paths), list(xattrs), b"",
    )  # fmt: skip


class Shelf:
    """Discs laid on one draft, one after the other."""

    def __init__(self, path):
        self.path = path
        self.draft = Draft.begin(path / "draft.db", None, 1000, (0, 0))
        self.count = 0

    def disc(self, *lines, copy_no=1):
        self.count += 1
        n = self.count
        disc = Disc(
            f"uuid-{n}", f"D{n}", f"D{n}", 1000 * n, "hash", 10**6, 10**6, copy_no, None, "",
            1, 1, 0,
        )
        places = self.path / f"places-{n}"
        write_places(places, [(x.stored_path, 40 + i, x.stored) for i, x in enumerate(lines)])
        folders = {x.names[0]: x.ino for x in lines if x.sha256 is None}
        list(self.draft.apply(disc, folders, lines, places))

    def end(self):
        self.ending = Ending(self.draft)
        self.ending.settle()
        self.ending.drop_lost()
        rows = self.draft.db.execute(
            "SELECT d.parent, d.name, d.ino FROM dentries d ORDER BY d.parent, d.name"
        )
        return {(parent, name): ino for parent, name, ino in rows}

    def one(self, sql, *values):
        return self.draft.db.execute(sql, values).get

    def lost(self):
        return [(kind, ino) for kind, ino, _, _ in self.ending.lost()]


@pytest.fixture
def shelf(tmp_path):
    found = Shelf(tmp_path)
    yield found
    found.draft.close()


def test_the_higher_version_wins_whatever_the_order(shelf):
    shelf.disc(file(5, b"a", version=2, ctime=30))
    shelf.disc(file(5, b"old", version=1, ctime=20))
    assert shelf.end() == {(1, b"a"): 5}
    assert shelf.one("SELECT version FROM inodes WHERE ino = 5") == 2
    assert shelf.one("SELECT count(*) FROM copies WHERE ino = 5 AND state = 1") == 2


def test_the_later_ctime_wins_in_one_version(shelf):
    shelf.disc(file(5, b"a", ctime=20, xattrs=[(b"user.x", b"1")]))
    shelf.disc(file(5, b"b", ctime=30), copy_no=2)
    assert shelf.end() == {(1, b"b"): 5}
    assert shelf.one("SELECT count(*) FROM xattrs") == 0
    assert shelf.one("SELECT count(DISTINCT copy_no) FROM copies") == 2


def test_a_path_taken_by_a_later_file_sends_the_earlier_to_the_trash(shelf):
    shelf.disc(file(5, b"a"))
    shelf.disc(file(6, b"a", ctime=20))
    assert shelf.end() == {(1, b"a"): 6}
    assert shelf.one("SELECT name FROM trash WHERE ino = 5") == b"a"
    assert shelf.one("SELECT nlink FROM inodes WHERE ino = 5") == 0
    assert shelf.lost() == [("replaced", 5)]


def test_a_folder_made_anew_keeps_the_old_ones_files_in_lost_found(shelf):
    shelf.disc(folder(5, b"d"), file(6, b"d/f"))
    shelf.disc(folder(7, b"d", 20), file(8, b"d/g", ctime=20))
    names = shelf.end()
    found = names[1, b"lost+found"]
    assert names[1, b"d"] == 7
    assert names[found, b"#5"] == 5
    assert names[5, b"f"] == 6


def test_a_renamed_folder_takes_its_files_along(shelf):
    shelf.disc(folder(5, b"d"), file(6, b"d/f"))
    shelf.disc(folder(5, b"e", 20), file(7, b"e/g", ctime=20))
    assert shelf.end() == {(1, b"e"): 5, (5, b"f"): 6, (5, b"g"): 7}
    assert shelf.lost() == []


def test_a_folder_without_a_line_is_made_by_its_path(shelf):
    shelf.disc(file(6, b"x/y/f"))
    names = shelf.end()
    x = names[1, b"x"]
    assert x > 6
    assert names[names[x, b"y"], b"f"] == 6
    assert shelf.one("SELECT nlink FROM inodes WHERE ino = ?", x) == 3
    assert len(shelf.lost()) == 2


def test_parts_on_two_discs_are_one_copy(shelf):
    shelf.disc(file(5, b"a", part=0, parts=2))
    shelf.disc(file(5, b"a", part=1, parts=2))
    shelf.end()
    assert shelf.one("SELECT count(*) FROM copies WHERE copy_no = 1") == 2
    assert shelf.lost() == []


def test_a_missing_part_is_told(shelf):
    shelf.disc(file(5, b"a", part=1, parts=2))
    shelf.end()
    assert shelf.lost() == [("incomplete", 5)]


def test_a_burn_that_was_repeated_is_two_copies(shelf):
    shelf.disc(file(5, b"a"))
    shelf.disc(file(5, b"a"))
    shelf.end()
    assert shelf.one("SELECT group_concat(copy_no) FROM copies") == "1,2"


def test_hard_links_come_back(shelf):
    shelf.disc(folder(5, b"d"), file(6, b"a", b"d/b", b"c"))
    assert shelf.end() == {(1, b"a"): 6, (5, b"b"): 6, (1, b"c"): 6, (1, b"d"): 5}
    assert shelf.one("SELECT nlink FROM inodes WHERE ino = 6") == 3
    assert shelf.one("SELECT nlink FROM inodes WHERE ino = 1") == 3


def test_numbers_are_never_given_again(shelf):
    shelf.disc(file(5000, b"a"))
    shelf.end()
    assert shelf.one("SELECT value FROM meta WHERE key = 'ino_ceiling'") > 5000 + (1 << 20)


def test_moves_and_deletions_before_a_rebuild_are_not_claimed_to_be_known(shelf):
    shelf.disc(file(5, b"a"))
    shelf.end()
    assert History(shelf.draft.db).begins > 0


def test_a_disc_that_does_not_read_now_is_neither_blank_nor_sound(tmp_path):
    draft = Draft.begin(tmp_path / "draft.db", None, 1, (0, 0))
    for barcode, state in (("A", VolumeState.FULL), ("B", VolumeState.BLANK)):
        volume = draft.volumes.add(barcode, 100, 1)
        draft.db.execute("UPDATE volumes SET state = ? WHERE id = ?", (int(state), volume))
    draft.volumes.add("GONE", 100, 1)
    for barcode in ("A", "B", "NEW"):
        draft.add_unread(barcode, 100, "it does not read", 1)
    draft.see({"A": 1, "B": 2, "NEW": 3})
    states = {v.barcode: v.state for v in draft.volumes.all()}
    assert states == {
        "A": VolumeState.SUSPECT, "B": VolumeState.DAMAGED, "NEW": VolumeState.DAMAGED,
        "GONE": VolumeState.LOST,
    }  # fmt: skip
    draft.close()
