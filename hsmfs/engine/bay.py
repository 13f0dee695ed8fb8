"""A drive and what is going on in it, and the claims that wait for drives: plain records."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ..catalog.queues import RecallClass
from ..errors import Conflict, DriveError, HsmError
from ..library.ports import Drive
from ..types import Barcode, VolumeId
from .schedule import Purpose
from .session import Session

T = TypeVar("T")


@dataclass(slots=True)
class Claim:
    """Someone who wants a disc in a drive."""

    id: int
    volume: VolumeId
    barcode: Barcode
    purpose: Purpose
    urgency: RecallClass
    bytes: int
    who: str
    since: float
    count: int = 1
    last: float = -math.inf
    """When the latest request came, if more may come: see schedule.ClaimView."""
    unknown: bool = False
    """Whatever lies there is read."""
    not_before: float = 0.0
    failures: int = 0
    """Drives that failed, and refusals of the robot, while serving it."""
    again: bool = False
    """All drives failed: those that did may be tried once more."""
    bay: Bay | None = None
    session: Session | None = None
    error: HsmError | None = None
    ready: trio.Event = field(default_factory=trio.Event)
    done: trio.Event = field(default_factory=trio.Event)

    @property
    def waiting(self) -> bool:
        return self.bay is None and not self.ready.is_set()

    def fail(self, error: HsmError) -> None:
        """Tell the one who waits that the disc cannot be had."""
        if not self.ready.is_set():
            self.error = error
            self.ready.set()


class Claims:
    """All claims of the moment, found by disc as well, for thousands of discs may be wanted."""

    def __init__(self) -> None:
        self._all: dict[int, Claim] = {}
        self._of: dict[VolumeId, dict[int, Claim]] = {}
        self._labelled: dict[Barcode, dict[int, Claim]] = {}

    def add(self, claim: Claim) -> None:
        self._all[claim.id] = claim
        self._of.setdefault(claim.volume, {})[claim.id] = claim
        self._labelled.setdefault(claim.barcode, {})[claim.id] = claim

    def remove(self, claim: Claim) -> None:
        del self._all[claim.id]
        del self._of[claim.volume][claim.id], self._labelled[claim.barcode][claim.id]
        if not self._of[claim.volume]:
            del self._of[claim.volume]
        if not self._labelled[claim.barcode]:
            del self._labelled[claim.barcode]

    def get(self, number: int) -> Claim | None:
        return self._all.get(number)

    def of(self, volume: VolumeId) -> Collection[Claim]:
        """Those on a disc."""
        return self._of.get(volume, {}).values()

    def labelled(self, barcode: Barcode) -> Collection[Claim]:
        """Those on the disc with that label."""
        return self._labelled.get(barcode, {}).values()

    def __contains__(self, claim: Claim) -> bool:
        return claim.id in self._all

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)


@dataclass(slots=True)
class Bay:
    """One drive. `calls` counts calls into the drive that have not come back."""

    drive: Drive
    up: bool = True
    reason: str = ""
    claim: Claim | None = None
    emptying: bool = False
    moving: bool = False
    """The robot's arm brings something to it, or takes it, or is about to."""
    changing: Claim | None = None
    """For whom the magazine of its unit is being changed."""
    yielding: bool = False
    """Its session was asked to end."""
    step: str = ""
    """What it is at for its claim: fetch, load, or read; empty: it gives its disc up."""
    moves: int = 0
    """Of the robot, in the last fetch."""
    step_at: float = 0.0
    """Since when."""
    used: float = 0.0
    """When its last session ended."""
    calls: int = 0
    checked: VolumeId | None = None
    """The disc whose label was read since it was loaded."""
    holds_fast: VolumeId | None = None
    """A disc that the drive does not give back."""

    def begin(self, step: str) -> float:
        """It begins with a step; when."""
        self.step, self.step_at = step, trio.current_time()
        return self.step_at

    def free(self) -> None:
        """Its session is over."""
        self.claim, self.yielding = None, False
        self.used = trio.current_time()

    @property
    def busy(self) -> bool:
        held = self.emptying or self.changing is not None
        return self.claim is not None or held or self.calls > 0

    async def call(
        self,
        nursery: trio.Nursery,
        limit: float,
        what: str,
        f: Callable[[], Awaitable[T]],
        poke: Callable[[], None],
    ) -> T:
        """f, but a DriveError after limit seconds although f goes on; then the bay stays busy.

        A thread that waits for a device cannot be ended, so it is left alone in a task of its own.
        poke is called when such a late one has ended and the drive may be used again.
        """
        result: list[T] = []
        faults: list[Exception] = []
        over = trio.Event()
        late = False

        async def run() -> None:
            try:
                result.append(await f())
            except Exception as fault:  # handed to the caller below, whatever it is
                faults.append(fault)
            finally:
                self.calls -= 1
                over.set()
                if late:
                    poke()

        self.calls += 1
        nursery.start_soon(run)
        try:
            with trio.move_on_after(limit):
                await over.wait()
        finally:
            late = not over.is_set()
        if faults:
            raise faults[0]
        if over.is_set() and not result:
            raise Conflict("the library is being stopped")
        if not result:
            raise DriveStuck(f"drive {self.drive.name} has not ended {what} for {limit:.0f} s")
        return result[0]


class DriveStuck(DriveError):
    """A drive does not answer any more."""

    default_next = "it was taken down; switch it off and on, then 'hsmctl drive up'"
