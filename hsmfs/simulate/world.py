"""One run: events in a heap, and the policy asked whenever something changed."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ..catalog.queues import RecallClass
from ..engine.schedule import (
    Assign,
    ClaimView,
    DiscOrder,
    DriveView,
    Effort,
    Purpose,
    PutAway,
    Yield,
    fewest_exchanges,
)
from ..errors import TraceError
from ..types import CHUNK, SECTOR, VolumeId
from .model import Model, sectors
from .policies import Fifo, Policy
from .trace import UNKNOWN, Request, Trace


@dataclass(eq=False, slots=True)
class Drive:
    """A drive, and what is being done with it.

    disc: in it, -1 for none. key: the claim that it serves. reading: the request, of which bytes
    from `begun` on come in; `ends` counts the reads, so that an old event is known as one.
    """

    serial: str
    unit: Unit
    disc: int = -1
    position: int = 0
    busy: bool = False
    key: int = -1
    purpose: Purpose = Purpose.READ
    urgency: RecallClass | None = None
    started: float = 0.0
    yielding: bool = False
    idle_since: float = 0.0
    reading: int = -1
    begun: float = 0.0
    part: int = 0
    ends: int = 0
    at_work: float = 0.0


@dataclass(eq=False, slots=True)
class Unit:
    """What takes a carrier; carrier: -1 for none; coming: on its way into it."""

    name: str
    carrier: int = -1
    moving: bool = False
    coming: int = -1
    drives: list[Drive] = field(default_factory=list)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        done: when each request ended, seconds; in the trace's order.
        fetches: carriers brought to a unit; moves: of the robot.
        robot_seconds, drive_seconds: of work, of all arms and of all drives.
        decisions: how often the policy was asked.
    """

    done: list[float]
    fetches: int = 0
    moves: int = 0
    robot_seconds: float = 0.0
    drive_seconds: float = 0.0
    decisions: int = 0
    end: float = 0.0


class World:
    """The library while a trace is replayed; `run` does it all.

    Raises TraceError if magazines move whole and the trace does not say which discs lie in which.
    """

    def __init__(self, trace: Trace, model: Model, policy: Policy) -> None:
        if model.whole_magazines and UNKNOWN in trace.magazines:
            disc = trace.discs[trace.magazines.index(UNKNOWN)]
            raise TraceError(
                f"the trace does not say in which magazine disc {disc} lies",
                next_step="replay it with discs that move singly",
            )
        self._trace, self._model, self._policy = trace, model, policy
        self._each = isinstance(policy, Fifo)
        self._now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._arms = model.arms
        self._changed = False
        self._again = math.inf
        self._backlog = 0
        self._left = [r.size for r in trace.requests]
        self._from = [0] * len(trace.requests)
        """The sector from which each request has still to be read."""
        self._orders: dict[int, DiscOrder[int]] = {}
        self._units = [Unit(f"u{n:02d}") for n in range(model.units)]
        for unit in self._units:
            unit.drives = [
                Drive(f"{unit.name}d{n:02d}", unit) for n in range(model.drives_per_unit)
            ]
        self._drives = {d.serial: d for unit in self._units for d in unit.drives}
        self._at_work: dict[int, Drive] = {}
        """The drive that serves a disc's queue, or in `fifo` a request."""
        self.outcome = Outcome([math.nan] * len(trace.requests))

    def run(self) -> Outcome:
        """Replay all. Raises TraceError if requests are left that nothing will ever serve."""
        requests, at = self._trace.requests, 0
        while at < len(requests) or self._heap or self._again < math.inf:
            coming = requests[at].at if at < len(requests) else math.inf
            self._now = min(coming, self._heap[0][0] if self._heap else math.inf, self._again)
            if self._again <= self._now:
                self._again, self._changed = math.inf, True
            while at < len(requests) and requests[at].at <= self._now:
                self._arrive(at, requests[at])
                at += 1
            while self._heap and self._heap[0][0] <= self._now:
                heapq.heappop(self._heap)[2]()
            if self._changed:
                self._decide()
        if any(math.isnan(done) for done in self.outcome.done):
            raise TraceError("the policy leaves requests for ever")
        self.outcome.drive_seconds = sum(d.at_work for d in self._drives.values())
        return self.outcome

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self._now + seconds, self._count, what))

    # Requests

    def _cargo(self, disc: int) -> int:
        return self._trace.magazines[disc] if self._model.whole_magazines else disc

    def _arrive(self, number: int, request: Request) -> None:
        if request.burn:
            self._backlog += request.size
            self._put(self._burn_key(number), request.places[0].disc, number)
            return
        disc, sector = request.places[0]
        if len(request.places) > 1:
            (disc,) = fewest_exchanges([(p.disc,) for p in request.places], self._effort)
            sector = next(p.sector for p in request.places if p.disc == disc)
        self._from[number] = sector
        order = self._orders.setdefault(disc, DiscOrder())
        order.add(number, request.urgency, sector, request.size, self._now)
        drive = self._at_work.get(disc)
        if self._each:
            self._put(number, disc, number)
        elif drive is None:
            self._put(disc, disc, number)
        elif drive.urgency is None or request.urgency < drive.urgency:
            drive.urgency = request.urgency
            self._interrupt(drive)

    def _effort(self, disc: int) -> Effort:
        if self._cargo(disc) in [unit.carrier for unit in self._units]:
            return Effort.NONE
        order = self._orders.get(disc)
        return Effort.SHARED if order is not None and len(order) else Effort.EXCHANGE

    @staticmethod
    def _burn_key(number: int) -> int:
        return -2 - number

    def _put(self, key: int, disc: int, latest: int) -> None:
        """Show what is wanted of the disc to the policy."""
        requests = self._trace.requests
        carrier = self._cargo(disc) if self._model.whole_magazines else None
        if self._each or key < 0:
            request = requests[latest]
            view = ClaimView(
                key, VolumeId(disc), Purpose.BURN if request.burn else Purpose.READ,
                request.urgency, request.at, request.size, carrier=carrier,
            )  # fmt: skip
        else:
            order = self._orders[disc]
            urgency = order.urgency
            assert urgency is not None
            since = order.since(urgency)
            view = ClaimView(
                key, VolumeId(disc), Purpose.READ, urgency,
                self._now if since is None else since, order.bytes, len(order),
                requests[latest].at, carrier=carrier,
            )  # fmt: skip
        self._changed = self._policy.put(view, self._now) or self._changed

    # Decisions

    def _view(self, drive: Drive) -> DriveView:
        unit = drive.unit
        known = unit.carrier if unit.coming < 0 or self._model.arms == 1 else unit.coming
        carrier = known if known >= 0 else None
        return DriveView(
            drive.serial,
            volume=VolumeId(drive.disc) if drive.disc >= 0 else None,
            busy=drive.busy or unit.moving,
            purpose=drive.purpose if drive.busy else None,
            urgency=drive.urgency if drive.busy else None,
            started=drive.started,
            yielding=drive.yielding,
            idle_since=drive.idle_since,
            unit=unit.name if self._model.whole_magazines else "",
            carrier=carrier,
            holds=carrier is not None,
        )

    def _decide(self) -> None:
        self._changed = False
        self.outcome.decisions += 1
        decision = self._policy.decide(
            self._now,
            [self._view(drive) for drive in self._drives.values()],
            arms=self._arms,
            pressure=self._model.pressure(self._backlog),
        )
        self._again = min(self._again, decision.again_at)
        for action in decision.actions:
            drive = self._drives[action.drive]
            if isinstance(action, Assign):
                self._assign(drive, action.claim)
            elif isinstance(action, PutAway):
                self._move(drive.unit, -1, self._emptied)
            elif isinstance(action, Yield):
                drive.yielding = True
                self._interrupt(drive)

    def _assign(self, drive: Drive, key: int) -> None:
        self._policy.drop(key)
        request = None
        if key < 0 or self._each:
            request = self._trace.requests[-2 - key if key < 0 else key]
        disc = request.places[0].disc if request is not None else key
        drive.busy, drive.key, drive.yielding = True, key, False
        drive.started = self._now
        burn = request is not None and request.burn
        drive.purpose = Purpose.BURN if burn else Purpose.READ
        drive.urgency = request.urgency if request is not None else self._orders[disc].urgency
        if not burn:
            self._at_work[key] = drive
        if drive.disc == disc:
            self._begin(drive)
        elif drive.unit.carrier == self._cargo(disc):
            self._load(drive, disc)
        else:
            self._move(drive.unit, self._cargo(disc), lambda: self._load(drive, disc))

    # Robot

    def _move(self, unit: Unit, carrier: int, then: Callable[[], None]) -> None:
        seconds = self._model.timing.exchange_s
        self._arms -= 1
        unit.moving, unit.coming = True, carrier
        outcome = self.outcome
        outcome.moves += 1
        outcome.fetches += carrier >= 0
        outcome.robot_seconds += seconds
        for drive in unit.drives:
            drive.disc = -1

        def end() -> None:
            self._arms += 1
            unit.moving, unit.carrier, unit.coming = False, carrier, -1
            self._changed = True
            then()

        self._later(seconds, end)

    def _emptied(self) -> None:
        pass

    def _load(self, drive: Drive, disc: int) -> None:
        def end() -> None:
            drive.disc, drive.position = disc, -1
            drive.started = self._now
            self._begin(drive)

        self._later(self._model.timing.load_s, end)

    # Drives

    def _begin(self, drive: Drive) -> None:
        if drive.purpose is Purpose.BURN:
            self._burn(drive)
        else:
            self._read_next(drive)

    def _burn(self, drive: Drive) -> None:
        number = -2 - drive.key
        size = self._trace.requests[number].size
        timing = self._model.timing
        seconds = timing.writing(size) + timing.reading(0, 0, sectors(size))
        drive.at_work += seconds

        def end() -> None:
            self._backlog -= size
            self._ended(number)
            self._free(drive)

        self._later(seconds, end)

    def _read_next(self, drive: Drive) -> None:
        order = self._orders[drive.disc]
        if drive.key in order and self._each:
            number = drive.key
        elif self._each or not len(order) or (drive.yielding and drive.reading >= 0):
            self._free(drive)
            return
        else:
            number = next(order.from_sector(max(0, drive.position)))
            drive.urgency = order.urgency
        size, sector = self._left[number], self._from[number]
        timing = self._model.timing
        seek = timing.seek_s if sector != drive.position else 0.0
        seconds = timing.reading(drive.position, sector, sectors(size))
        drive.reading, drive.part = number, size
        drive.begun = self._now + seek
        self._expect(drive, seconds)
        if drive.yielding:
            self._interrupt(drive)

    def _expect(self, drive: Drive, seconds: float) -> None:
        drive.ends += 1
        mine, began = drive.ends, self._now

        def end() -> None:
            if drive.ends == mine:
                drive.at_work += self._now - min(began, drive.begun)
                self._came_in(drive)

        self._later(seconds, end)

    def _interrupt(self, drive: Drive) -> None:
        """End the read after the chunk that is coming in."""
        if drive.reading < 0 or drive.purpose is Purpose.BURN:
            return
        rate = self._model.timing.read_bytes_per_s or math.inf
        chunks = max(1, math.ceil((self._now - drive.begun) * rate / CHUNK))
        ends_at = drive.begun + chunks * CHUNK / rate
        if chunks * CHUNK < drive.part and ends_at > self._now:
            drive.part = chunks * CHUNK
            self._expect(drive, ends_at - self._now)

    def _came_in(self, drive: Drive) -> None:
        number, size = drive.reading, drive.part
        order = self._orders[drive.disc]
        drive.position = self._from[number] + sectors(size)
        self._left[number] -= size
        if self._left[number] <= 0:
            order.remove(number)
            self._ended(number)
        else:
            self._from[number] += size // SECTOR
            order.shorten(number, self._from[number], self._left[number])
        self._read_next(drive)

    def _ended(self, number: int) -> None:
        self.outcome.done[number] = self._now
        self.outcome.end = self._now

    def _free(self, drive: Drive) -> None:
        """The session is over; what is left of the queue waits again."""
        key, disc = drive.key, drive.disc
        self._at_work.pop(key, None)
        drive.busy, drive.key, drive.urgency = False, -1, None
        drive.yielding, drive.reading = False, -1
        drive.idle_since = self._now
        self._changed = True
        order = self._orders.get(disc)
        if key >= 0 and not self._each and order is not None and len(order):
            self._put(key, disc, next(iter(order)))
