"""The statements by which a manifest's lines are laid on a draft, and what they work on.

Each works on a whole batch in the temporary tables l (lines), nm (names), xa (attributes) and tg
(targets of links), so that SQLite does the work and not Python.
"""

from __future__ import annotations

DEFERRED = ("inodes_by_change", "inodes_by_state", "inodes_unlinked", "copies_by_ino")
"""Indexes that a rebuild without a snapshot does without until its end."""

TABLES = """
CREATE TABLE rebuild_discs (barcode TEXT PRIMARY KEY, lines INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rebuild_displaced (
    ino INTEGER NOT NULL, parent INTEGER NOT NULL, name BLOB NOT NULL, at_ns INTEGER NOT NULL
);
CREATE TABLE rebuild_unplaced (ino INTEGER NOT NULL, volume INTEGER NOT NULL);
CREATE TABLE rebuild_pool (
    ino INTEGER PRIMARY KEY, pool INTEGER NOT NULL
);
CREATE TABLE rebuild_lost (kind TEXT NOT NULL, ino INTEGER NOT NULL, path BLOB, note TEXT NOT NULL);
"""

STAGING = """
CREATE TEMP TABLE l (
    n INTEGER PRIMARY KEY, ino INTEGER, version INTEGER, mode INTEGER, uid INTEGER, gid INTEGER,
    rdev INTEGER, size INTEGER, atime_ns INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    btime_ns INTEGER, sha256 BLOB, chunks BLOB, part INTEGER, parts INTEGER, offset INTEGER,
    length INTEGER, path BLOB, stored INTEGER, compressed INTEGER, frame_ends BLOB, links INTEGER,
    known INTEGER DEFAULT 0,                   -- 1: the inode has a row already
    old INTEGER DEFAULT 0,                     -- 1: that row is as new or newer
    gone INTEGER DEFAULT 0,                    -- 1: it was deleted before the snapshot
    regular INTEGER AS (sha256 IS NOT NULL)
);
CREATE TEMP TABLE nm (n INTEGER, parent INTEGER, name BLOB, ino INTEGER);
CREATE TEMP TABLE xa (n INTEGER, ino INTEGER, name BLOB, value BLOB);
CREATE TEMP TABLE tg (n INTEGER, ino INTEGER, target BLOB);
"""

COLUMNS = (
    "ino, version, mode, uid, gid, rdev, size, atime_ns, mtime_ns, ctime_ns, btime_ns, sha256,"
    " chunks, part, parts, offset, length, path, stored, compressed, frame_ends, links"
)
LINE = f"INSERT INTO temp.l ({COLUMNS}) VALUES ({', '.join('?' * len(COLUMNS.split(',')))})"
"""Numbers n are from 1, in the order of the lines."""
_WINS = "NOT l.old AND NOT l.gone"

KNOWN = (
    # What is known of each. A change of content is a new version, any other a later ctime.
    "UPDATE temp.l SET known = 1, old = (i.version, i.ctime_ns) >= (l.version, l.ctime_ns)"
    " FROM main.inodes i WHERE i.ino = l.ino",
    "UPDATE temp.l SET gone = 1 WHERE ino < :next AND NOT known",
)
OLDER = (
    # A reader's access moves nothing but atime.
    "UPDATE main.inodes SET atime_ns = l.atime_ns FROM temp.l"
    " WHERE l.old AND inodes.ino = l.ino AND inodes.version = l.version"
    " AND inodes.ctime_ns = l.ctime_ns AND l.atime_ns > inodes.atime_ns",
    f"DELETE FROM temp.nm WHERE n IN (SELECT n FROM temp.l WHERE NOT ({_WINS}))",
    f"DELETE FROM temp.xa WHERE n IN (SELECT n FROM temp.l WHERE NOT ({_WINS}))",
    f"DELETE FROM temp.tg WHERE n IN (SELECT n FROM temp.l WHERE NOT ({_WINS}))",
    # Older truth goes.
    f"DELETE FROM main.dentries WHERE ino IN"
    f" (SELECT ino FROM temp.l WHERE known AND links < :names AND {_WINS})",
    f"DELETE FROM main.xattrs WHERE ino IN (SELECT ino FROM temp.l WHERE known AND {_WINS})",
    f"DELETE FROM main.symlinks WHERE ino IN (SELECT ino FROM temp.l WHERE known AND {_WINS})",
    f"DELETE FROM main.absent WHERE ino IN (SELECT ino FROM temp.l WHERE known AND {_WINS})",
)
"""Only if some of the lines are known or gone."""
NEWER = (
    # The newer one comes.
    "INSERT INTO main.inodes (ino, mode, uid, gid, nlink, rdev, size, atime_ns, mtime_ns, ctime_ns,"
    " btime_ns, state, version, base_version, change_seq)"
    " SELECT ino, mode, uid, gid, iif(mode & 61440 = 16384, 2, links), rdev,"
    " iif(mode & 61440 = 16384, :folder, size), atime_ns,"
    " mtime_ns, ctime_ns, btime_ns, iif(regular, iif(size, 3, 1), NULL), version, version,"
    f" :seq + n - 1 FROM temp.l WHERE {_WINS} ORDER BY ino"
    " ON CONFLICT (ino) DO UPDATE SET mode = excluded.mode, uid = excluded.uid,"
    " gid = excluded.gid, nlink = excluded.nlink, rdev = excluded.rdev, size = excluded.size,"
    " atime_ns = excluded.atime_ns, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,"
    " btime_ns = excluded.btime_ns, state = excluded.state, version = excluded.version,"
    " base_version = excluded.version, dirty = 0, pool = NULL, blocks = 0,"
    " change_seq = excluded.change_seq",
    "INSERT OR IGNORE INTO main.absent"
    f" SELECT ino, 0, size FROM temp.l WHERE regular AND size AND {_WINS}",
    "INSERT OR REPLACE INTO main.xattrs SELECT ino, name, value FROM temp.xa",
    "INSERT OR REPLACE INTO main.symlinks SELECT ino, target FROM temp.tg",
    # Names that another inode bears: the later disc is right.
    "INSERT INTO main.rebuild_displaced SELECT d.ino, d.parent, d.name, :created FROM temp.nm"
    " JOIN main.dentries d ON d.parent = nm.parent AND d.name = nm.name WHERE d.ino != nm.ino",
    "DELETE FROM main.dentries WHERE (parent, id) IN (SELECT d.parent, d.id FROM temp.nm"
    " JOIN main.dentries d ON d.parent = nm.parent AND d.name = nm.name WHERE d.ino != nm.ino)",
    "INSERT OR IGNORE INTO main.dentries"
    " SELECT parent, :cookie + rowid - 1, name, ino FROM temp.nm ORDER BY parent, rowid",
    # What the bytes must be.
    "INSERT OR IGNORE INTO main.digests"
    " SELECT ino, version, size, sha256, chunks FROM temp.l WHERE regular",
)
PLACED = (
    "INSERT INTO main.copies (ino, version, copy_no, volume, state, part, parts, offset, length,"
    " sector, stored, compressed, frame_ends)"
    " SELECT l.ino, l.version, coalesce(:copy, 1), :volume, iif(l.gone, :dead, :valid), l.part,"
    " l.parts, l.offset, l.length, p.sector, l.stored, l.compressed, l.frame_ends"
    " FROM temp.l JOIN disc.places p ON p.path = l.path AND p.size = l.stored WHERE l.regular"
)
"""Where the bytes lie."""
UNPLACED = (
    "INSERT INTO main.rebuild_unplaced SELECT l.ino, :volume FROM temp.l"
    " LEFT JOIN disc.places p ON p.path = l.path AND p.size = l.stored"
    " WHERE l.regular AND p.path IS NULL"
)
"""Only if not all of them have a place."""
CLEAR = (
    "DELETE FROM temp.l",
    "DELETE FROM temp.nm",
    "DELETE FROM temp.xa",
    "DELETE FROM temp.tg",
)
