-- The authoritative description of every table and column. Times are UTC nanoseconds, sizes bytes,
-- sectors 2048 bytes; names, targets and values are the kernel's own bytes.

-- Small facts about the catalog itself.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,                    -- name of the fact
    value ANY NOT NULL                         -- its value
) STRICT, WITHOUT ROWID;

-- One row an inode. A number is never used again, so that NFS handles stay true: they are given out
-- below meta.ino_ceiling, which is raised first (AUTOINCREMENT would write one more page a create).
CREATE TABLE inodes (
    ino          INTEGER PRIMARY KEY,          -- the inode number; 1 is the root
    mode         INTEGER NOT NULL,             -- type and permissions, as st_mode
    uid          INTEGER NOT NULL,             -- owner
    gid          INTEGER NOT NULL,             -- group
    nlink        INTEGER NOT NULL,             -- names; 0: in the trash, kept, or an orphan
    rdev         INTEGER NOT NULL DEFAULT 0,   -- device number of special files
    size         INTEGER NOT NULL DEFAULT 0,   -- bytes; for a dirty inode the pool file's is truer
    blocks       INTEGER NOT NULL DEFAULT 0,   -- 512-byte units on disk
    atime_ns     INTEGER NOT NULL,             -- last access
    mtime_ns     INTEGER NOT NULL,             -- last change of data
    ctime_ns     INTEGER NOT NULL,             -- last change of data or inode
    btime_ns     INTEGER NOT NULL,             -- creation
    state        INTEGER,                      -- states.FileState; NULL if not a regular file
    pool         INTEGER,                      -- pool of the resident bytes; NULL before the first byte
    version      INTEGER NOT NULL DEFAULT 1,   -- data version; grows when archived bytes change
    base_version INTEGER NOT NULL DEFAULT 1,   -- version whose copies hold the absent ranges
    dirty        INTEGER NOT NULL DEFAULT 0,   -- 1: size and times are to be taken from the pool file
    pinned       INTEGER NOT NULL DEFAULT 0,   -- 1: never released
    locked       INTEGER NOT NULL DEFAULT 0,   -- states.Lock: why its bytes must not change; 0: free
    change_seq   INTEGER NOT NULL              -- place in the order of all changes; a folder's does
                                               -- not move when names in it do: the named inode's does
) STRICT;
CREATE INDEX inodes_by_change ON inodes (change_seq);
-- With size and nlink, so that how many files and bytes a policy selects is read off the index.
CREATE INDEX inodes_by_state ON inodes (dirty, state, mtime_ns, size, nlink)
    WHERE state IS NOT NULL;
CREATE INDEX inodes_locked ON inodes (ino) WHERE locked != 0;
CREATE INDEX inodes_unlinked ON inodes (ino) WHERE nlink = 0;
-- Whatever deletes an inode must have asked whether it may, and taken the lock away.
CREATE TRIGGER locked_inodes_stay BEFORE DELETE ON inodes WHEN old.locked != 0
BEGIN SELECT raise(ABORT, 'the inode is retained or held'); END;

-- Names. The id is the readdir cookie: it grows, so a listing in its order is linear and stable.
CREATE TABLE dentries (
    parent INTEGER NOT NULL,                   -- inode of the directory
    id     INTEGER NOT NULL,                   -- cookie
    name   BLOB NOT NULL,                      -- 1 to 255 bytes without '/' and NUL
    ino    INTEGER NOT NULL,                   -- what it names
    PRIMARY KEY (parent, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX dentries_by_name ON dentries (parent, name);
CREATE INDEX dentries_by_ino ON dentries (ino);

-- Targets of symbolic links.
CREATE TABLE symlinks (
    ino    INTEGER PRIMARY KEY,                -- the link
    target BLOB NOT NULL                       -- where it points
) STRICT;

-- Extended attributes, POSIX ACLs among them.
CREATE TABLE xattrs (
    ino   INTEGER NOT NULL,                    -- owner
    name  BLOB NOT NULL,                       -- full name, with its namespace
    value BLOB NOT NULL,                       -- any bytes
    PRIMARY KEY (ino, name)
) STRICT, WITHOUT ROWID;

-- Byte ranges that are not on disk. No row: everything is.
CREATE TABLE absent (
    ino     INTEGER NOT NULL,                  -- a partial or migrated file
    start   INTEGER NOT NULL,                  -- first absent byte
    "end"   INTEGER NOT NULL,                  -- first byte after
    PRIMARY KEY (ino, start)
) STRICT, WITHOUT ROWID;

-- Directories that hold resident bytes.
CREATE TABLE pools (
    id       INTEGER PRIMARY KEY,              -- PoolId
    name     TEXT NOT NULL UNIQUE,             -- as in the configuration
    tier     TEXT NOT NULL,                    -- fast or disk
    uuid     TEXT NOT NULL                     -- also in the pool's own marker file
) STRICT;

-- Checksums of a data version, kept as long as a copy of it.
CREATE TABLE digests (
    ino     INTEGER NOT NULL,                  -- the inode
    version INTEGER NOT NULL,                  -- the data version
    size    INTEGER NOT NULL,                  -- bytes of the version
    sha256  BLOB NOT NULL,                     -- of the whole
    chunks  BLOB NOT NULL,                     -- 32 bytes a chunk; empty if the whole is one chunk
    PRIMARY KEY (ino, version)
) STRICT, WITHOUT ROWID;

-- Files whose bytes are not what a client's checksum says; not put on discs unless accepted.
CREATE TABLE mismatches (
    ino         INTEGER PRIMARY KEY,           -- the file
    version     INTEGER NOT NULL,              -- its data version
    sha256      BLOB NOT NULL,                 -- of the bytes that are there
    expected    BLOB NOT NULL,                 -- what the client's checksum says
    source      TEXT NOT NULL,                 -- where that stands: an attribute, or a sums file
    found_ns    INTEGER NOT NULL,              -- when it was seen
    accepted_by TEXT                           -- who said that the bytes are right; NULL: nobody
) STRICT;

-- A magazine's discs as one set.
CREATE TABLE volume_sets (
    id         INTEGER PRIMARY KEY,            -- SetId
    name       TEXT NOT NULL UNIQUE,           -- as on the magazine
    uuid       TEXT NOT NULL,                  -- in VOLUME.json of each of its discs
    k          INTEGER NOT NULL,               -- data discs, at most
    m          INTEGER NOT NULL,               -- parity discs
    copy_no    INTEGER NOT NULL DEFAULT 1,     -- which copy of their files its discs hold
    vault      TEXT NOT NULL DEFAULT '',       -- where it is to be kept once it is closed; '': here
    state      INTEGER NOT NULL DEFAULT 0,     -- states.SetState
    magazine   INTEGER,                        -- where its discs came from, if the robot knows
    created_ns INTEGER NOT NULL,               -- when the row was made
    closed_ns  INTEGER,                        -- when its last parity disc was verified
    root_hash  TEXT                            -- hex root hash of its last disc, once it is closed
) STRICT;
CREATE INDEX sets_open ON volume_sets (state) WHERE state < 2;

-- Parity of a set that is not closed yet, in the spool.
CREATE TABLE set_parity (
    set_id  INTEGER NOT NULL,                  -- the set
    row     INTEGER NOT NULL,                  -- 0 is P, 1 is Q
    file    TEXT NOT NULL,                     -- name in the spool; '' while nothing is in it
    size    INTEGER NOT NULL,                  -- bytes of it
    sha256  TEXT NOT NULL,                     -- hex SHA-256 of it
    folded  INTEGER NOT NULL,                  -- bit i: the disc of index i is in it
    PRIMARY KEY (set_id, row)
) STRICT, WITHOUT ROWID;

-- Discs of closed sets that are being made anew from the others.
CREATE TABLE rebuilds (
    volume     INTEGER PRIMARY KEY,            -- the disc that is replaced
    blank      INTEGER,                        -- the disc that it is burned on, once that is chosen
    image      TEXT NOT NULL DEFAULT '',       -- name in the spool, once the image is complete
    started_ns INTEGER NOT NULL,               -- when it was asked for
    error      TEXT NOT NULL DEFAULT ''        -- the last fault
) STRICT;

-- Discs.
CREATE TABLE volumes (
    id           INTEGER PRIMARY KEY,          -- VolumeId
    barcode      TEXT NOT NULL UNIQUE,         -- label that the robot reads
    uuid         TEXT,                         -- in VOLUME.json on the disc; NULL while blank
    set_id       INTEGER,                      -- its set, if any
    set_index    INTEGER,                      -- place in the set, from 0
    state        INTEGER NOT NULL,             -- states.VolumeState
    reason       TEXT NOT NULL DEFAULT '',     -- why it is suspect, damaged, lost
    location     TEXT NOT NULL DEFAULT 'library', -- or where the operator put it
    capacity     INTEGER NOT NULL,             -- bytes
    used         INTEGER NOT NULL DEFAULT 0,   -- bytes of the closed image
    created_ns   INTEGER NOT NULL,             -- first seen
    burned_ns    INTEGER,                      -- when the burn ended
    verified_ns  INTEGER,                      -- last time it was read back without a fault
    written_by   TEXT,                         -- serial number of the drive
    loads        INTEGER NOT NULL DEFAULT 0,   -- times it was loaded
    read_errors  INTEGER NOT NULL DEFAULT 0,   -- blamed on the disc
    write_errors INTEGER NOT NULL DEFAULT 0,   -- blamed on the drive
    root_hash    TEXT,                         -- hex SHA-256 that covers the disc's manifest and sums
    element      INTEGER,                      -- where the robot had it last; NULL: outside
    former       INTEGER,                      -- its state before it was lost or exported
    image_sha256 TEXT,                         -- hex SHA-256 of the whole image as read back
    parity_sector INTEGER,                     -- where the parity begins on a parity disc
    inside       TEXT,                         -- barcode in its VOLUME.json; NULL: its own. A disc that
                                               -- was made anew from parity keeps the old one there
    vault        TEXT NOT NULL DEFAULT '',     -- where it is to be kept, as its set's; '': here
    audit_head   TEXT,                         -- head of the audit chain in its VOLUME.json
    quarantine   TEXT NOT NULL DEFAULT ''      -- why an admin wants it spared; '': he does not
) STRICT;
CREATE INDEX volumes_by_state ON volumes (state);
CREATE INDEX volumes_by_set ON volumes (set_id, set_index) WHERE set_id IS NOT NULL;
CREATE INDEX volumes_for_vault ON volumes (vault) WHERE vault != '';

-- Drives, by serial number: names change over reboots.
CREATE TABLE drives (
    serial       TEXT PRIMARY KEY,             -- the drive's own number
    name         TEXT NOT NULL,                -- last known name
    state        INTEGER NOT NULL DEFAULT 0,   -- states.DriveState
    reason       TEXT NOT NULL DEFAULT '',     -- why it is down
    loads        INTEGER NOT NULL DEFAULT 0,   -- times it was loaded
    read_errors  INTEGER NOT NULL DEFAULT 0,   -- blamed on the drive
    write_errors INTEGER NOT NULL DEFAULT 0    -- blamed on the drive
) STRICT, WITHOUT ROWID;

-- Which bytes of which data version lie where on which disc. A copy is all parts with one copy_no.
CREATE TABLE copies (
    id         INTEGER PRIMARY KEY,            -- CopyId
    ino        INTEGER NOT NULL,               -- the inode
    version    INTEGER NOT NULL,               -- the data version
    copy_no    INTEGER NOT NULL,               -- 1 is the first copy
    volume     INTEGER NOT NULL,               -- the disc
    state      INTEGER NOT NULL,               -- states.CopyState
    part       INTEGER NOT NULL,               -- from 0
    parts      INTEGER NOT NULL,               -- how many parts the copy has
    offset     INTEGER NOT NULL,               -- first byte of the version in this part
    length     INTEGER NOT NULL,               -- bytes of the version in this part
    sector     INTEGER NOT NULL DEFAULT 0,     -- first sector on the disc
    stored     INTEGER NOT NULL DEFAULT 0,     -- bytes on the disc
    compressed INTEGER NOT NULL DEFAULT 0,     -- 1: zstd frames, one a chunk
    frame_ends BLOB NOT NULL DEFAULT x''       -- 8 bytes little-endian a frame: its end within the part
) STRICT;
CREATE INDEX copies_by_ino ON copies (ino, version);
CREATE INDEX copies_by_volume ON copies (volume, sector);

-- Readers' and admins' requests to bring bytes in; one row an inode, requests join.
CREATE TABLE recalls (
    ino        INTEGER PRIMARY KEY,            -- the inode
    class      INTEGER NOT NULL,               -- 0 interactive, 1 standard, 2 bulk
    requester  TEXT NOT NULL,                  -- who asked first
    created_ns INTEGER NOT NULL,               -- when the row was made
    start      INTEGER NOT NULL,               -- first byte wanted
    "end"      INTEGER NOT NULL,               -- first byte after
    attempts   INTEGER NOT NULL DEFAULT 0,     -- copies tried in vain
    error      TEXT NOT NULL DEFAULT ''        -- the last fault
) STRICT;

-- DICOM studies of files that were archived by study, as their headers said.
CREATE TABLE studies (
    id      INTEGER PRIMARY KEY,               -- number of the study here
    uid     TEXT NOT NULL UNIQUE,              -- StudyInstanceUID (0020,000D)
    patient TEXT NOT NULL,                     -- PatientID (0010,0020); '': none
    date    TEXT NOT NULL                      -- StudyDate (0008,0020), YYYYMMDD; '': none
) STRICT;
CREATE INDEX studies_by_patient ON studies (patient, date);
CREATE TABLE study_files (
    ino   INTEGER PRIMARY KEY,                 -- the file
    study INTEGER NOT NULL                     -- studies.id
) STRICT;
CREATE INDEX study_files_by_study ON study_files (study, ino);

-- Files that were brought in before anybody asked for them, until they are read or let go.
CREATE TABLE prefetched (
    ino        INTEGER PRIMARY KEY,            -- the file
    pool       INTEGER NOT NULL,               -- where its bytes come to
    bytes      INTEGER NOT NULL,               -- that were not on disk
    ordered_ns INTEGER NOT NULL                -- when it was ordered
) STRICT;
CREATE INDEX prefetched_by_pool ON prefetched (pool, ordered_ns);

-- Files that a policy or an admin wants on discs.
CREATE TABLE migrations (
    ino        INTEGER PRIMARY KEY,            -- the inode
    version    INTEGER NOT NULL,               -- the version to write; another one is not premigrated
    copies     INTEGER NOT NULL,               -- how many
    policy     TEXT NOT NULL,                  -- which rule, or who
    group_key  TEXT NOT NULL,                  -- files with the same key go to the same volume
    queued_ns  INTEGER NOT NULL,               -- when it was asked for
    release    INTEGER NOT NULL DEFAULT 0,     -- 1: release as soon as premigrated
    vault      TEXT NOT NULL DEFAULT ''        -- where one of the copies is to be kept; '': all here
) STRICT;
CREATE INDEX migrations_by_group ON migrations (group_key, ino);

-- Burns under way; their files are the pending copies of the volume.
CREATE TABLE burns (
    volume     INTEGER PRIMARY KEY,            -- the disc
    copy_no    INTEGER NOT NULL,               -- which copy of its files it makes; 0: it is
                                               -- a parity disc, or made anew from parity
    state      INTEGER NOT NULL,               -- states.BurnState
    image      TEXT NOT NULL,                  -- name in the spool
    created_ns INTEGER NOT NULL,               -- when the row was made
    error      TEXT NOT NULL DEFAULT '',       -- the last fault
    size       INTEGER NOT NULL DEFAULT 0,     -- bytes of the image, once it is staged
    root_hash  TEXT NOT NULL DEFAULT ''        -- as in volumes, once it is staged
) STRICT;

-- Moves of the robot, written before they start.
CREATE TABLE moves (
    id          INTEGER PRIMARY KEY,           -- number of the move
    barcode     TEXT NOT NULL,                 -- the disc
    src         INTEGER NOT NULL,              -- element address
    dst         INTEGER NOT NULL,              -- element address it went to
    started_ns  INTEGER NOT NULL,              -- when it began
    finished_ns INTEGER,                       -- NULL: under way or cut off
    ok          INTEGER                        -- 0: failed, 1: done
) STRICT;
CREATE INDEX moves_open ON moves (id) WHERE finished_ns IS NULL;

-- What was unlinked and can still be brought back.
CREATE TABLE trash (
    ino        INTEGER PRIMARY KEY,            -- the inode
    parent     INTEGER NOT NULL,               -- where its last name was
    name       BLOB NOT NULL,                  -- its name
    deleted_ns INTEGER NOT NULL,               -- when
    purge_ns   INTEGER NOT NULL                -- not kept longer than this
) STRICT;
CREATE INDEX trash_by_purge ON trash (purge_ns);
CREATE INDEX trash_by_parent ON trash (parent, ino);

-- Names that became others, so that a tree can be taken back to a time. Kept as long as the trash.
CREATE TABLE name_moves (
    id         INTEGER PRIMARY KEY,            -- in order
    ino        INTEGER NOT NULL,               -- what was moved
    parent     INTEGER NOT NULL,               -- folder before; 0: it is one more name
    name       BLOB NOT NULL,                  -- name before
    new_parent INTEGER NOT NULL,               -- folder after; 0: one of several names went away
    new_name   BLOB NOT NULL,                  -- name after
    moved_ns   INTEGER NOT NULL                -- when
) STRICT;
CREATE INDEX moves_by_parent ON name_moves (parent);
CREATE INDEX moves_by_new_parent ON name_moves (new_parent);
CREATE INDEX moves_by_ino ON name_moves (ino);

-- Data versions that ended: whose bytes were on discs, or had lain still, when they were changed on
-- disk; one may end first by a truncation that changed its times alone.
CREATE TABLE versions (
    ino      INTEGER NOT NULL,                 -- the file
    version  INTEGER NOT NULL,                 -- the data version
    size     INTEGER NOT NULL,                 -- bytes of it
    mtime_ns INTEGER NOT NULL,                 -- its last change until then
    ended_ns INTEGER NOT NULL,                 -- when that was over
    PRIMARY KEY (ino, ended_ns)
) STRICT, WITHOUT ROWID;
CREATE INDEX versions_by_end ON versions (ended_ns);
-- Those of them that no disc has, as long as the trash keeps: each is the first bytes of an inode as
-- long as that has a certain version; of an inode without a name, or of the file itself if it only
-- grew.
CREATE TABLE kept (
    ino        INTEGER NOT NULL,               -- the file
    version    INTEGER NOT NULL,               -- its data version
    size       INTEGER NOT NULL,               -- bytes of it
    since_ns   INTEGER NOT NULL,               -- nobody had changed them since then
    holder     INTEGER NOT NULL,               -- the inode that has them; 0: nobody, there was no room
    holder_version INTEGER NOT NULL,           -- as long as this is its data version
    purge_ns   INTEGER NOT NULL,               -- forgotten then
    PRIMARY KEY (ino, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_by_holder ON kept (holder, holder_version);
CREATE INDEX kept_by_purge ON kept (purge_ns);

-- A tree being adopted: each file is moved into a pool one by one, resumable.
CREATE TABLE adoptions (
    id         INTEGER PRIMARY KEY,            -- number of the adoption
    source     BLOB NOT NULL UNIQUE,           -- absolute path of the tree as it was
    target     BLOB NOT NULL,                  -- path in the namespace
    pool       INTEGER NOT NULL,               -- where its files go
    link       INTEGER NOT NULL,               -- 1: by hard link, the tree stays as well
    state      INTEGER NOT NULL,               -- adoptions.AdoptionState
    started_ns INTEGER NOT NULL                -- when it was begun
) STRICT;
CREATE TABLE adopted (
    adoption INTEGER NOT NULL,                 -- adoptions.id
    path     BLOB NOT NULL,                    -- below the source
    ino      INTEGER NOT NULL,                 -- what it became; has no row yet while state is 0
    src_ino  INTEGER NOT NULL,                 -- its inode number on the pool's filesystem
    state    INTEGER NOT NULL,                 -- adoptions.Step
    PRIMARY KEY (adoption, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX adopted_by_source ON adopted (adoption, src_ino);
CREATE INDEX adopted_open ON adopted (ino) WHERE state = 0;

-- Discs that were ordered out of the library and lie in it still, on their way to a mail slot.
CREATE TABLE exports (
    volume      INTEGER PRIMARY KEY,           -- the disc; its state is EXPORTED already
    destination TEXT NOT NULL,                 -- where the operator is to put it
    asked_ns    INTEGER NOT NULL               -- when it was ordered
) STRICT;

-- What an operator is asked for: discs that readers want and that are not in the library.
CREATE TABLE requests (
    volume   INTEGER PRIMARY KEY,              -- the disc; where it lies is volumes.location
    who      TEXT NOT NULL,                    -- who wanted it first
    asked_ns INTEGER NOT NULL                  -- since when
) STRICT;

-- Files taken over from discs that another catalog wrote; keeps such an adoption resumable.
CREATE TABLE foreign_files (
    folder  INTEGER NOT NULL,                  -- the folder that they were put below
    ino     INTEGER NOT NULL,                  -- the inode number on the discs
    version INTEGER NOT NULL,                  -- the data version on the discs
    own     INTEGER NOT NULL,                  -- the inode here; its version is 1
    PRIMARY KEY (folder, ino)
) STRICT, WITHOUT ROWID;

-- What each disc and each drive did together: the health ledger of both.
CREATE TABLE pairs (
    volume     INTEGER NOT NULL,               -- the disc
    serial     TEXT NOT NULL,                  -- the drive
    loads      INTEGER NOT NULL DEFAULT 0,     -- times the disc was loaded in it
    errors     INTEGER NOT NULL DEFAULT 0,     -- reads, loads and burns that failed
    read_bytes INTEGER NOT NULL DEFAULT 0,     -- bytes read, for the speed
    read_ns    INTEGER NOT NULL DEFAULT 0,     -- time the drive took for them
    apart      INTEGER NOT NULL DEFAULT 0,     -- health.Apart: why they are not tried together
    PRIMARY KEY (volume, serial)
) STRICT, WITHOUT ROWID;
CREATE INDEX pairs_by_drive ON pairs (serial);

-- Faults and tests of discs, the newest of each disc.
CREATE TABLE health (
    id     INTEGER PRIMARY KEY,                -- grows
    at_ns  INTEGER NOT NULL,                   -- when
    volume INTEGER NOT NULL,                   -- the disc
    serial TEXT NOT NULL,                      -- the drive it was in
    kind   TEXT NOT NULL,                      -- health.Kind
    sector INTEGER,                            -- first sector concerned, if one is known
    blamed TEXT NOT NULL DEFAULT '',           -- drive, medium or undecided; '' for a test
    note   TEXT NOT NULL DEFAULT ''            -- in words
) STRICT;
CREATE INDEX health_by_volume ON health (volume, id);
CREATE INDEX health_by_drive ON health (serial, id);

-- Discs that are being read through, or wait for it.
CREATE TABLE scrubs (
    volume     INTEGER PRIMARY KEY,            -- the disc
    asked_ns   INTEGER NOT NULL,               -- when it became due or was asked for
    requester  TEXT NOT NULL,                  -- who asked, or schedule
    share      INTEGER NOT NULL,               -- percent of it to read
    position   INTEGER NOT NULL DEFAULT 0,     -- bytes behind which it goes on
    checked    INTEGER NOT NULL DEFAULT 0,     -- bytes read so far
    started_ns INTEGER,                        -- first byte read
    bad        TEXT NOT NULL DEFAULT '[]',     -- JSON: [first byte, end, serial] of what did not read
    error      TEXT NOT NULL DEFAULT '',       -- why it waits
    paused     INTEGER NOT NULL DEFAULT 0      -- 1: an admin wants it to wait
) STRICT;

-- Discs whose live files are put on others, so that they can be retired. Discs of one set with
-- parity have the same order and are retired together.
CREATE TABLE refreshes (
    volume     INTEGER PRIMARY KEY,            -- the disc
    id         INTEGER NOT NULL,               -- the order
    kind       TEXT NOT NULL,                  -- refresh or repack
    requester  TEXT NOT NULL,                  -- who asked, or why by itself
    state      INTEGER NOT NULL DEFAULT 0,     -- refreshes.RefreshState
    asked_ns   INTEGER NOT NULL,               -- when
    listed     INTEGER NOT NULL DEFAULT 0,     -- copies.id up to which its files are listed
    retired_ns INTEGER,                        -- when the disc stopped counting
    certificate TEXT NOT NULL DEFAULT '',      -- name of the certificate, once it is written
    error      TEXT NOT NULL DEFAULT ''        -- what it waits for
) STRICT;
CREATE INDEX refreshes_by_order ON refreshes (id);

-- Files on those discs, and how many whole copies each had when the order began.
CREATE TABLE refresh_files (
    volume INTEGER NOT NULL,                   -- the disc
    ino    INTEGER NOT NULL,                   -- the file
    need   INTEGER NOT NULL,                   -- whole copies elsewhere before the disc may go
    PRIMARY KEY (volume, ino)
) STRICT, WITHOUT ROWID;

-- Folders in which files can be committed: removing the write permission makes them records.
CREATE TABLE retention_folders (
    ino           INTEGER PRIMARY KEY,         -- the folder; all folders below belong to it
    mode          INTEGER NOT NULL,            -- states.RetentionMode
    min_ns        INTEGER NOT NULL,            -- shortest retention
    default_ns    INTEGER NOT NULL,            -- retention if nobody asks for another
    max_ns        INTEGER NOT NULL,            -- longest retention; 2^63-1: no bound
    autocommit_ns INTEGER                      -- a file is committed after so long without a change
) STRICT;

-- Records: files whose bytes and names are kept until a time, by the compliance clock.
CREATE TABLE retained (
    ino          INTEGER PRIMARY KEY,          -- the file
    folder       INTEGER NOT NULL,             -- the retention folder that it was committed in
    mode         INTEGER NOT NULL,             -- states.RetentionMode at that time
    until_ns     INTEGER NOT NULL,             -- kept until then; 2^63-1: for ever
    committed_ns INTEGER NOT NULL              -- since when
) STRICT;

-- Until when files that are no records yet are to be kept, as somebody asked by setting atime.
CREATE TABLE retention_wishes (
    ino      INTEGER PRIMARY KEY,              -- the file
    until_ns INTEGER NOT NULL                  -- the atime that was set
) STRICT;

-- Files in folders with autocommit to look at; times of the compliance clock. Some are gone, or
-- committed by now. Complete up to the change meta.autocommit_seq.
CREATE TABLE uncommitted (
    due_ns   INTEGER NOT NULL,                 -- when to look
    ino      INTEGER NOT NULL,                 -- the file
    since_ns INTEGER NOT NULL,                 -- its last change, as far as it was looked at
    PRIMARY KEY (due_ns, ino)
) STRICT, WITHOUT ROWID;

-- Legal holds.
CREATE TABLE holds (
    id             INTEGER PRIMARY KEY,        -- HoldId
    name           TEXT NOT NULL UNIQUE,       -- what people call it; never used again
    reason         TEXT NOT NULL,              -- why it was placed
    scope          TEXT NOT NULL,              -- JSON: trees and searches that it is applied to
    placed_by      TEXT NOT NULL,              -- who
    placed_ns      INTEGER NOT NULL,           -- when, UTC
    released_by    TEXT,                       -- who; NULL: it stands
    released_ns    INTEGER,                    -- when, UTC
    release_reason TEXT                        -- why
) STRICT;
CREATE TABLE held (
    hold INTEGER NOT NULL,                     -- holds.id
    ino  INTEGER NOT NULL,                     -- the file
    PRIMARY KEY (hold, ino)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_by_ino ON held (ino);

-- The compliance clock: it only moves forward, by the time that the machine runs. One row.
CREATE TABLE compliance_clock (
    id          INTEGER PRIMARY KEY CHECK (id = 1), -- 1
    worm_ns     INTEGER NOT NULL,              -- its time when the row was written
    boot_id     TEXT NOT NULL,                 -- of the kernel that ran then
    boottime_ns INTEGER NOT NULL,              -- CLOCK_BOOTTIME then
    wall_ns     INTEGER NOT NULL               -- the wall clock then
) STRICT;

-- The audit log: each record's hash covers the one before, so nothing can be changed, left out or
-- moved without breaking the chain (docs/audit.md).
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,               -- from 1, without a gap
    at_ns   INTEGER NOT NULL,                  -- when, by the wall clock, UTC
    worm_ns INTEGER NOT NULL,                  -- when, by the compliance clock
    kind    TEXT NOT NULL,                     -- what, such as file.deleted
    actor   TEXT NOT NULL,                     -- who
    object  TEXT NOT NULL,                     -- to what: a path, a disc, the name of a hold
    outcome TEXT NOT NULL,                     -- done, refused or failed
    detail  TEXT NOT NULL,                     -- JSON: the rest
    hash    BLOB NOT NULL                      -- SHA-256 of the record and of the hash before
) STRICT;
CREATE INDEX audit_of_clock ON audit (seq) WHERE kind IN ('clock.jumped', 'clock.off');
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
-- Whom the storm guard stopped, or would have: one row a requester and rule.
CREATE TABLE guard_report (
    uid      INTEGER NOT NULL,                 -- user
    process  TEXT NOT NULL,                    -- name of the program
    via      TEXT NOT NULL,                    -- local, nfs or smb
    client   TEXT NOT NULL,                    -- address of an SMB client, or ''
    rule     TEXT NOT NULL,                    -- name of the rule that decided
    outcome  TEXT NOT NULL,                    -- engine.guard.rules.Outcome
    learning INTEGER NOT NULL,                 -- 1: nothing was stopped
    files    INTEGER NOT NULL,                 -- how many
    first_ns INTEGER NOT NULL,                 -- the first of them
    last_ns  INTEGER NOT NULL,                 -- the last
    path     BLOB NOT NULL,                    -- one of them, from the root
    PRIMARY KEY (uid, process, via, client, rule, outcome, learning)
) STRICT, WITHOUT ROWID;

-- Tokens of the API. The secret itself is nowhere.
CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,               -- the public part, which names the row
    name       TEXT NOT NULL,                  -- whose it is; of the valid ones each has its own
    role       TEXT NOT NULL,                  -- engine.access.Role
    salt       BLOB NOT NULL,                  -- of the hash
    hash       BLOB NOT NULL,                  -- scrypt of the secret part
    created_by TEXT NOT NULL,                  -- who
    created_ns INTEGER NOT NULL,               -- when, UTC, as all times here
    expires_ns INTEGER,                        -- no longer valid then; NULL: never
    void_ns    INTEGER,                        -- nor then by the compliance clock
    used_ns    INTEGER,                        -- about when it was used last
    revoked_by TEXT,                           -- who; NULL: nobody did
    revoked_ns INTEGER                         -- when
) STRICT;

-- Destructive orders that a second person must approve before they are carried out.
CREATE TABLE approvals (
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- what people call it
    act        TEXT NOT NULL,                  -- method, path and query
    body       TEXT NOT NULL,                  -- the order's beginning, for people
    digest     BLOB NOT NULL,                  -- SHA-256 of all of it: only this order is approved
    asked_by   TEXT NOT NULL,                  -- who gave the order
    asked_ns   INTEGER NOT NULL,               -- when, UTC, as all times here
    until_ns   INTEGER NOT NULL,               -- void then
    void_ns    INTEGER NOT NULL,               -- or then by the compliance clock
    decided_by TEXT,                           -- the second person
    decided_ns INTEGER,                        -- when; NULL: it waits
    approved   INTEGER NOT NULL DEFAULT 0,     -- 1: it may be carried out
    used_ns    INTEGER                         -- when it was, once
) STRICT;

-- A verification of trees that was begun and has not ended: where it stands. At most one.
CREATE TABLE verification (
    id       INTEGER PRIMARY KEY CHECK (id = 1), -- 1
    asked    TEXT NOT NULL,                    -- JSON: the inodes of the trees, and whether it is deep
    after    INTEGER NOT NULL,                 -- files up to this inode number are compared on disk
    noted_ns INTEGER NOT NULL,                 -- when this was written down, UTC
    found    TEXT NOT NULL                     -- JSON: what was found up to there
) STRICT;
