"""Every bound in one place: what the kernel gives, what SQLite bears, what a person should wait.

A queue without a bound is a leak with a delay. Bounds that belong together are asserted against
each other below, so that nobody raises one alone. Sizes are bytes unless the name says otherwise.
"""

from __future__ import annotations

from hsmfs.types import CHUNK, SECTOR

NAME_BYTES = 255
"""NAME_MAX of Linux: a component of a path."""
PATH_BYTES = 4096
"""PATH_MAX of Linux, the terminating NUL included; only paths shown to people are cut to it."""
SYMLINK_BYTES = 4095
"""The longest target of a symbolic link."""
LINKS = 65_000
"""Hard links to one inode, as ext4 allows."""
FILE_BYTES = 2**63 - 1
"""The largest offset that off_t holds."""

XATTR_NAME_BYTES = 255
"""XATTR_NAME_MAX of Linux."""
XATTR_VALUE_BYTES = 65_536
"""XATTR_SIZE_MAX of Linux."""
XATTR_LIST_BYTES = 65_536
"""XATTR_LIST_MAX of Linux: the names of one inode with their NULs."""

FUSE_TASKS = 4096
"""Requests the mount works on at once; a waiting reader takes one, so there are thousands."""
FUSE_BACKGROUND = 1024
"""The kernel's max_background, set after mounting: its default of 12 lets 12 readers stop all."""
WAITERS = 2048
"""Readers that may wait for discs at once; the next gets EAGAIN."""
RECALL_JOBS = 10_000
"""Recalls in memory; each class above bulk may have as many more. Others wait as rows."""
READ_AHEAD_BYTES = 4 * 1024 * 1024
"""read_ahead_kb of the mount, as bytes: the default of 128 KiB costs half of the speed."""
READDIR_BATCH = 512
"""Directory entries fetched from the catalog in one statement."""

BATCH_ROWS = 1000
"""Rows changed in one transaction of a background worker."""
BATCH_SECONDS = 0.02
"""The longest that such a transaction may hold the event loop."""
LOOP_STALL_SECONDS = 0.05
"""A step of the event loop longer than this is a fault."""
WAL_CHECKPOINT_BYTES = 64 * 1024 * 1024
"""The WAL is checkpointed when it is larger than this."""

COPY_BUFFER_BYTES = 1024 * 1024
"""One read or write when bytes are moved between files."""
IMAGE_EXTENT_BYTES = 4 * 1024 * 1024 * 1024 - SECTOR
"""The largest extent of ISO 9660: its length field has 32 bits (ECMA-119 section 9.1.4)."""
VOLUME_FILES = 1_000_000
"""Files on one disc; more would make its directory tables slow to read."""
MAGAZINE_SLOTS = 256
SET_DISCS = 60
"""Discs of one set: which are in the parity is a bit each in 64 (Linux's P and Q bear 255)."""
LIBRARY_SLOTS = 65_536
"""Elements that an SMC address of 16 bits can name."""
DRIVES = 64
COPIES = 8
"""Copies a policy may ask for."""
POOLS = 64
QUEUE_ROWS_SHOWN = 10_000
"""Rows that one API answer holds."""
FINDINGS_SHOWN = 1000
"""Findings of a verification that its report lists and that go on record one by one."""
SUMS_BYTES = 16 * 1024 * 1024
"""The largest SHA256SUMS of a client that is read: it lists about 150,000 files."""
GUARD_RULES = 256
"""Rules of the storm guard: each may be asked at each recall."""
GUARD_RATE_FILES = 1000
"""The most files that a rate counts; so many are remembered of one requester."""
GUARD_RATE_SECONDS = 86_400
"""And the longest time that it counts over."""
GUARD_REQUESTERS = 1024
"""Requesters whose recalls are remembered; the one that was quiet longest is forgotten."""
GUARD_REPORT_ROWS = 10_000
"""Rows of the guard's report: one a requester and rule."""
API_BODY_BYTES = 64 * 1024 * 1024
"""The largest order to the API: that about 100,000 paths."""
API_CONNECTIONS = 512
"""Connections of the API over TCP at once; more are closed."""
API_CONNECTIONS_EACH = 64
"""Of them, from one address."""
TOKENS = 10_000
"""Tokens of the API, revoked ones too."""
TOKENS_REMEMBERED = 1000
"""Tokens that were verified and need not be hashed again."""
HASHES_WAITING = 32
"""Logins that wait for their hash; the next is told to try again."""
RATES_REMEMBERED = 10_000
"""Clients whose rate is remembered; the one that was quiet longest is forgotten."""
APPROVALS_WAITING = 100
"""Orders that may wait for a second person at once."""
EVENTS_KEPT = 10_000
"""Events held for `hsmctl events` in memory; a slow follower misses the oldest and is told so."""
SHORTEST_WAIT = 0.01
"""Seconds: who waits for a moment waits at least so long. Seconds are floats: a wait that rounding
made too short would end before its moment, be computed again, and never let time go on."""

assert WAITERS < FUSE_TASKS, "waiting readers must leave tasks for the others"
assert BATCH_SECONDS < LOOP_STALL_SECONDS, "a batch alone must not count as a stall"
assert CHUNK % SECTOR == 0 and CHUNK % COPY_BUFFER_BYTES == 0, "chunks are whole sectors"
assert DRIVES <= MAGAZINE_SLOTS <= LIBRARY_SLOTS
