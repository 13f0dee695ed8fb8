-- Ways of magazines that move whole, written before they start, as moves of discs are.
CREATE TABLE carries (
    id          INTEGER PRIMARY KEY,           -- number of the way
    magazine    INTEGER NOT NULL,              -- the magazine, from 1
    unit        INTEGER,                       -- unit of drives it went to, from 1; NULL: the rack
    started_ns  INTEGER NOT NULL,              -- when it began
    finished_ns INTEGER,                       -- NULL: under way or cut off
    ok          INTEGER                        -- 0: failed, 1: done
) STRICT;
CREATE INDEX carries_open ON carries (id) WHERE finished_ns IS NULL;
