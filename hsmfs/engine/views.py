"""What the engine tells the API: frozen values that are JSON as they stand.

Names of any bytes are given twice: `path` as text if it is valid UTF-8, and `path_b64` always.
States are the lower-case names of states.py, sizes bytes, times UTC nanoseconds.
"""

from __future__ import annotations

import base64
import stat
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..types import Attr

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def text(name: bytes) -> str | None:
    """The name as text, or None if it is not valid UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def b64(name: bytes) -> str:
    """The name's bytes as base64."""
    return base64.b64encode(name).decode("ascii")


def word(state: Enum) -> str:
    """A state as people and programs write it."""
    return state.name.lower()


def plain(view: Any) -> dict[str, Any]:
    """A flat view as a dict; dataclasses.asdict copies deeply and is ten times slower."""
    return {name: getattr(view, name) for name in view.__slots__}


def kind_of(attr: Attr) -> str:
    """What an inode is, in a word."""
    return _KINDS.get(stat.S_IFMT(attr.mode), "unknown")


@dataclass(frozen=True, slots=True)
class StateCount:
    """Files in one state."""

    state: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PoolView:
    """A disk pool and how full it is; high and low are percent. old_versions: bytes of it that were
    set aside before files were changed, as of half a minute ago.
    """

    name: str
    tier: str
    path: str
    capacity: int
    used: int
    high: int
    low: int
    old_versions: int


@dataclass(frozen=True, slots=True)
class DiscCount:
    """Discs in one state."""

    state: str
    discs: int
    capacity: int
    used: int


@dataclass(frozen=True, slots=True)
class DriveView:
    """A drive, its ledger, and the disc in it."""

    name: str
    serial: str
    state: str
    reason: str
    disc: str | None
    loads: int
    read_errors: int
    write_errors: int
    work: str
    """What it does: a value of library.activity.Work."""
    work_done: int
    """Bytes done of that work."""
    work_total: int
    """And of how many; 0 if that is not known."""


@dataclass(frozen=True, slots=True)
class MoveView:
    """A disc, or a magazine, on its way through the robot; all in words."""

    disc: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A task of the engine: whether it runs, and how often it had to be started again."""

    name: str
    running: bool
    restarts: int
    error: str


@dataclass(frozen=True, slots=True)
class BurnView:
    """A disc that is being made."""

    volume: str
    copy_no: int
    state: str
    since_ns: int
    error: str


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon at a glance."""

    version: str
    pid: int
    mountpoint: str
    started_ns: int
    stopping: bool
    pools: list[PoolView]
    drives: list[DriveView]
    move: MoveView | None
    workers: list[WorkerView]
    burns: list[BurnView]
    recalls_waiting: int
    readers_waiting: int
    requests: int
    """Discs that operators are asked to bring."""
    leaving: int
    """Discs that operators are to take out."""
    for_vault: int
    """Finished sets and single discs that policies want outside."""
    migrations_waiting: int
    migration_bytes: int
    oldest_migration_ns: int | None
    loop_worst_s: float
    loop_stalls: int


@dataclass(frozen=True, slots=True)
class StallView:
    """A step of the event loop that took too long."""

    task: str
    seconds: float
    queued_s: float
    stack: str


@dataclass(frozen=True, slots=True)
class LoopView:
    """How long the event loop's steps take; see hsmfs/watchdog.py for what counts."""

    threshold_s: float
    steps: int
    seconds: float
    worst_s: float
    worst_wall_s: float
    stalls: int
    preempted: int
    bounds_s: list[float]
    counts: list[int]
    last: list[StallView]


@dataclass(frozen=True, slots=True)
class Space:
    """Where the bytes are: `df`."""

    pools: list[PoolView]
    files: list[StateCount]
    discs: list[DiscCount]


@dataclass(frozen=True, slots=True)
class Entry:
    """One inode under one name."""

    path: str | None
    path_b64: str
    ino: int
    kind: str
    state: str | None
    size: int
    disk_bytes: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime_ns: int
    atime_ns: int
    pinned: bool


def entry(path: bytes, attr: Attr, state: str | None) -> Entry:
    """The view of an inode; path is a name, or a path from the root with its slash."""
    return Entry(
        text(path), b64(path), attr.ino, kind_of(attr), state, attr.size, attr.blocks * 512,
        attr.mode, attr.uid, attr.gid, attr.nlink, attr.mtime_ns, attr.atime_ns, bool(attr.pinned),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a folder; `next` is the cookie to go on after, None at the end."""

    entries: list[Entry]
    next: int | None


@dataclass(frozen=True, slots=True)
class CopyView:
    """A part of a copy: which bytes of which version lie where on which disc."""

    copy_no: int
    part: int
    parts: int
    version: int
    current: bool
    """Whether it is of the file's present version."""
    state: str
    volume: str
    volume_state: str
    place: str
    sector: int
    stored: int
    offset: int
    length: int
    compressed: bool


@dataclass(frozen=True, slots=True)
class RecallView:
    """A request to bring a file in."""

    path: str | None
    path_b64: str
    ino: int
    urgency: str
    requester: str
    since_ns: int
    start: int
    end: int
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class MigrationView:
    """A file that waits to be put on discs."""

    path: str | None
    path_b64: str
    ino: int
    size: int
    copies: int
    policy: str
    group: str
    since_ns: int
    release: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits: each list is cut at limits.QUEUE_ROWS_SHOWN."""

    recalls: list[RecallView]
    migrations: list[MigrationView]
    burns: list[BurnView]


@dataclass(frozen=True, slots=True)
class Info:
    """Everything known of one inode."""

    entry: Entry
    paths: list[str | None]
    paths_b64: list[str]
    version: int
    pool: str | None
    dirty: bool
    open_handles: int
    absent: list[tuple[int, int]]
    sha256: str | None
    proven_copies: int
    copies: list[CopyView]
    target: str | None = None
    recall: RecallView | None = None
    migration: MigrationView | None = None
    disputed: str | None = None
    """Why it is kept off the discs: it is not what its client's checksum says."""


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A disc."""

    barcode: str
    state: str
    reason: str
    place: str
    capacity: int
    used: int
    uuid: str | None
    created_ns: int
    burned_ns: int | None
    verified_ns: int | None
    written_by: str | None
    loads: int
    read_errors: int
    write_errors: int
    root_hash: str | None
    vault: str
    """Where a policy wants it kept; '': in the library."""
    quarantine: str
    """Why an admin wants it spared; '': he does not."""


@dataclass(frozen=True, slots=True)
class ElementView:
    """A place in the library."""

    address: int
    kind: str
    place: str
    full: bool
    barcode: str | None
    accessible: bool
    volume_state: str | None
    unit: int | None
    """Where magazines move whole: a drive's unit, or the one that a slot's magazine is in."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that an act was refused for, and why."""

    path: str | None
    path_b64: str
    error: str
    next_step: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an act on many files came to; failures are cut at limits.QUEUE_ROWS_SHOWN."""

    files: int
    bytes: int
    failed: int
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far long work has come; one line of a stream, the last one has kind `end`."""

    kind: str
    files: int
    files_done: int
    bytes: int
    bytes_done: int
    failed: int = 0
    note: str = ""
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrashView:
    """A deleted file that can be had back."""

    path: str | None
    path_b64: str
    ino: int
    size: int
    state: str | None
    deleted_ns: int
    purge_ns: int


@dataclass(frozen=True, slots=True)
class Acted:
    """A small act was done; detail says how it ended."""

    ok: bool = True
    detail: dict[str, Any] = field(default_factory=dict)
