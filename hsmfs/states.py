"""States of files, volumes, sets, drives and burns, each with its one table of allowed transitions.

The code asks `check`, fsck asks `allowed`, and the docs print the tables (`tools/docs states`).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TypeVar


class FileState(IntEnum):
    """Where the bytes of the current data version are (DESIGN: States)."""

    RESIDENT = 0
    """On disk; too few verified copies on discs to release."""
    PREMIGRATED = 1
    """On disk and on as many verified copies as the policy asked for."""
    PARTIAL = 2
    """Some ranges on disk, the rest on discs: a recall streams in, or a stub was rewritten."""
    MIGRATED = 3
    """A stub: at most the head is on disk."""


STUBS = (FileState.PARTIAL, FileState.MIGRATED)
"""Of a file with bytes that are on discs alone."""


class VolumeState(IntEnum):
    """What a disc is good for."""

    BLANK = 0
    BURNING = 1
    """A burn was started; until it is verified nothing counts as being there."""
    FULL = 2
    """Closed, read back and checksummed after the burn."""
    SUSPECT = 3
    DAMAGED = 4
    EXPORTED = 5
    LOST = 6
    RETIRED = 7


class DriveState(IntEnum):
    """Whether a drive may be used."""

    UP = 0
    DOWN = 1
    """Taken out by an operator or after errors, with a reason."""


class CopyState(IntEnum):
    """Whether a copy of a data version may be read."""

    PENDING = 0
    """Being burned; valid only when its volume was verified."""
    VALID = 1
    DEAD = 2
    """Its file or version is gone; the bytes stay on the write-once disc."""
    DAMAGED = 3


class BurnState(IntEnum):
    """Steps of putting one volume's files on a disc."""

    PLANNED = 0
    STAGED = 1
    """The image lies in the spool, complete."""
    BURNING = 2
    VERIFYING = 3
    VERIFIED = 4
    """The commit point: the volume is full and its copies count."""
    DONE = 5
    """Files were marked premigrated and the spool was emptied."""
    FAILED = 6


class SetState(IntEnum):
    """How far a set of discs with parity is."""

    OPEN = 0
    """Data discs are added."""
    CLOSING = 1
    """No more data; parity is completed and burned."""
    CLOSED = 2
    """All its discs are verified, parity too."""


class Lock(IntFlag):
    """Why the bytes and names of a file must not change; none of them for most files."""

    RECORD = 1
    """It was committed: its bytes never change again, and it stays until its retention ends."""
    APPEND = 2
    """A record that takes more bytes at its end."""
    CLOSING = 4
    """To be committed when the last who has it open for writing closes it."""
    HELD = 8
    """A legal hold names it."""


class RetentionMode(IntEnum):
    """Who may end a retention early."""

    ENTERPRISE = 1
    """An administrator, by a privileged delete that is audited."""
    COMPLIANCE = 2
    """Nobody."""


S = TypeVar("S", bound=IntEnum)

FILE_TRANSITIONS: dict[FileState, frozenset[FileState]] = {
    FileState.RESIDENT: frozenset({FileState.PREMIGRATED}),
    FileState.PREMIGRATED: frozenset({FileState.MIGRATED, FileState.RESIDENT}),
    FileState.PARTIAL: frozenset({FileState.PREMIGRATED, FileState.MIGRATED, FileState.RESIDENT}),
    FileState.MIGRATED: frozenset({FileState.PARTIAL, FileState.PREMIGRATED, FileState.RESIDENT}),
}

_V = VolumeState
VOLUME_TRANSITIONS: dict[VolumeState, frozenset[VolumeState]] = {
    _V.BLANK: frozenset({_V.BURNING, _V.LOST, _V.DAMAGED, _V.EXPORTED}),
    _V.BURNING: frozenset({_V.FULL, _V.DAMAGED, _V.BLANK}),
    _V.FULL: frozenset({_V.SUSPECT, _V.DAMAGED, _V.EXPORTED, _V.LOST, _V.RETIRED}),
    _V.SUSPECT: frozenset({_V.FULL, _V.DAMAGED, _V.EXPORTED, _V.LOST, _V.RETIRED}),
    _V.DAMAGED: frozenset({_V.SUSPECT, _V.RETIRED, _V.LOST}),
    _V.EXPORTED: frozenset({_V.FULL, _V.BLANK, _V.SUSPECT, _V.LOST}),
    _V.LOST: frozenset(
        {_V.FULL, _V.SUSPECT, _V.DAMAGED, _V.BLANK, _V.EXPORTED, _V.RETIRED}
    ),
    _V.RETIRED: frozenset(),
}

BURN_TRANSITIONS: dict[BurnState, frozenset[BurnState]] = {
    BurnState.PLANNED: frozenset({BurnState.STAGED, BurnState.FAILED}),
    BurnState.STAGED: frozenset({BurnState.BURNING, BurnState.FAILED}),
    BurnState.BURNING: frozenset({BurnState.VERIFYING, BurnState.FAILED}),
    BurnState.VERIFYING: frozenset({BurnState.VERIFIED, BurnState.FAILED}),
    BurnState.VERIFIED: frozenset({BurnState.DONE}),
    BurnState.DONE: frozenset(),
    BurnState.FAILED: frozenset(),
}


SET_TRANSITIONS: dict[SetState, frozenset[SetState]] = {
    SetState.OPEN: frozenset({SetState.CLOSING}),
    SetState.CLOSING: frozenset({SetState.CLOSED}),
    SetState.CLOSED: frozenset(),
}


def check(table: dict[S, frozenset[S]], old: S, new: S) -> S:
    """Return new if the table allows it after old, or they are the same; else raise ValueError."""
    if new is not old and new not in table[old]:
        raise ValueError(f"{type(old).__name__}: {old.name} may not become {new.name}")
    return new
