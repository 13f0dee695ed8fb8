"""What the rules see and what they answer: plain values.

A *carrier* is what the robot carries: a disc, or a magazine where magazines move whole. A *unit* is
what takes a carrier: one drive, or the drives that share a magazine. With single discs each drive
is a unit and each disc its own carrier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ...catalog.queues import RecallClass
from ...types import VolumeId


class Purpose(Enum):
    """What a disc is wanted for."""

    READ = "read"
    BURN = "burn"


@dataclass(frozen=True, slots=True)
class ClaimView:
    """Someone waits for a disc.

    Attributes:
        since: when the oldest request of its class began to wait.
        bytes, count: wanted of that disc, and by how many requests.
        last: when the latest of them came; -inf if nothing more is expected.
        not_before: not to be tried again before.
        carrier: what the disc is carried in; None: it is carried alone.
    """

    id: int
    volume: VolumeId
    purpose: Purpose
    urgency: RecallClass
    since: float
    bytes: int = 0
    count: int = 1
    last: float = -math.inf
    not_before: float = 0.0
    carrier: int | None = None

    @property
    def cargo(self) -> int:
        """The carrier to be fetched for it."""
        return self.volume if self.carrier is None else self.carrier


@dataclass(frozen=True, slots=True)
class DriveView:
    """A drive as the rules see it.

    Attributes:
        volume: the disc in it, known or not to be sound.
        busy: someone uses it, or something is on its way into or out of its unit.
        purpose, urgency, started: of the one who uses it, if someone does.
        yielding: that one was asked to end.
        idle_since: when it was last used.
        unit: drives that share a carrier; "" if it has one of its own.
        carrier: what its unit holds; None: nothing, or nobody knows what.
        holds: its unit holds something, be it a disc without a number.
    """

    serial: str
    up: bool = True
    volume: VolumeId | None = None
    busy: bool = False
    purpose: Purpose | None = None
    urgency: RecallClass | None = None
    started: float = 0.0
    yielding: bool = False
    idle_since: float = 0.0
    unit: str = ""
    carrier: int | None = None
    holds: bool = False

    @property
    def group(self) -> str:
        """The name of its unit."""
        return self.unit or self.serial


@dataclass(frozen=True, slots=True)
class Assign:
    """Give the drive to the claim, and bring its disc if it is not in it."""

    claim: int
    drive: str


@dataclass(frozen=True, slots=True)
class PutAway:
    """Take the carrier out of the drive's unit."""

    drive: str


@dataclass(frozen=True, slots=True)
class PutBack:
    """Put the disc back from the drive into the magazine that is in the unit."""

    drive: str


@dataclass(frozen=True, slots=True)
class Yield:
    """Whoever uses the drive should end at the next good moment: others need it more."""

    drive: str


Action = Assign | PutAway | PutBack | Yield


@dataclass(frozen=True, slots=True)
class Decision:
    """What to start now, and when to decide again even if nothing has happened by then."""

    actions: list[Action]
    again_at: float = math.inf
