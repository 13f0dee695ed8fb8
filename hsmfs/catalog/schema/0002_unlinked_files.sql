-- Files without a name are found by inodes_unlinked alone: each deletion has one index less to
-- write. With size and nlink, so that how many files and bytes a policy selects is read off it.
DROP INDEX inodes_by_state;
CREATE INDEX inodes_by_state ON inodes (dirty, state, mtime_ns, size, nlink)
    WHERE state IS NOT NULL AND nlink > 0;

-- Where files were that were purged, and of which discs have bytes: for the discs' certificates.
CREATE TABLE gone_paths (
    ino  INTEGER PRIMARY KEY,                  -- the inode that was
    path BLOB NOT NULL                         -- from the root, without a leading slash
) STRICT;
