"""The decision: level by level, who is served by which drive, and who has to make room.

0. over the age limit, oldest first; 1. owed a share: burns by the pool's pressure, classes over
their deadline; 2. interactive; 3. standard; then discs nobody wants make room for interactive ones
to come; 4. bulk and burns, whoever has fewer drives; 5. idle. On each level discs in drives go
before discs to be fetched. Reasons are in docs/scheduler.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING

from ...catalog.queues import RecallClass
from ...types import VolumeId
from .picture import ClaimView, Decision, DriveView, Purpose
from .table import Table

if TYPE_CHECKING:
    from .board import Board

LOOK = 256
"""Claims of a level that are looked at when none of them can be served."""
WARM = 1.5
"""Heat of a carrier that was asked for more than once of late: it stays loaded."""


def decide(
    board: Board,
    now: float,
    drives: Sequence[DriveView],
    arms: int,
    in_units: bool,
    pressure: float,
    may_pair: Callable[[str, VolumeId], bool],
) -> Decision:
    """See `Board.decide`."""
    again_at = board.ripen(now)
    table = Table(board, now, drives, arms, in_units, may_pair)
    _Round(board, now, table, pressure).run()
    return Decision(table.actions, min(again_at, table.again_at))


def _in_turn(claim: ClaimView) -> tuple[float, float, int]:
    """Of a magazine the disc of which most is wanted first, so that its drives end together."""
    size = claim.bytes if claim.urgency is RecallClass.BULK else 0
    return (-size, claim.since, claim.id)


class _Round:
    def __init__(self, board: Board, now: float, table: Table, pressure: float) -> None:
        self._board, self._now, self._table = board, now, table
        self._rules = board.rules
        self._owed_burns, self._most_burns = board.rules.burns(
            table.units_up, pressure, readers=board.interactive_comes(now)
        )

    def run(self) -> None:
        board, table = self._board, self._table
        self._serve(board.aged(self._now), aged=True)
        self._owed()
        self._class(RecallClass.INTERACTIVE)
        self._class(RecallClass.STANDARD)
        self._make_spare()
        if len(table.burning) < table.held[RecallClass.BULK]:
            self._serve(board.burns())
            self._class(RecallClass.BULK)
        else:
            self._class(RecallClass.BULK)
            self._serve(board.burns())
        self._class(RecallClass.IDLE)
        table.yield_on_the_spot()

    def _owed(self) -> None:
        """What a class may count on whatever else comes."""
        table = self._table
        owed = (c for c in self._board.burns() if table.may_burn(c, self._owed_burns))
        self._serve(islice(owed, self._owed_burns))
        for urgency in (RecallClass.STANDARD, RecallClass.BULK):
            late = self._board.overdue(urgency, self._now)
            self._serve(takewhile(lambda claim: table.is_owed(claim.urgency), late))

    def _class(self, urgency: RecallClass) -> None:
        """All of a class that wants to read: what is in drives first."""
        here = sorted(self._table.loaded(urgency), key=_in_turn)
        self._serve(chain(here, self._board.in_order(urgency)))

    def _serve(self, claims: Iterable[ClaimView], *, aged: bool = False) -> None:
        """Give each what it needs while there is something to give; who gets nothing may press."""
        table = self._table
        waits: ClaimView | None = None
        looked = 0
        for claim in claims:
            if claim.purpose is Purpose.BURN and not table.may_burn(claim, self._most_burns):
                continue
            if table.serve(claim, aged=aged):
                continue
            looked += 1
            if waits is None and table.must_be_fetched(claim):
                waits = claim
            if looked >= LOOK or (waits is not None and not table.can_fetch(claim, aged=aged)):
                break
        if waits is not None and waits.urgency is not RecallClass.IDLE:
            table.press(waits, aged=aged)

    def _make_spare(self) -> None:
        """Put away the disc that is least likely asked for again, so that a fetch is one move."""
        table, board = self._table, self._board
        if table.arms <= 0 or table.empty_units() >= table.spare:
            return
        best: tuple[float, DriveView] | None = None
        for drive in table.idle_loaded():
            heat = board.heat.of(drive.carrier, self._now)
            if heat >= WARM or (drive.carrier is not None and board.wants(drive.carrier)):
                continue
            ripe_at = drive.idle_since + self._rules.keep
            if ripe_at > self._now:
                table.again_at = min(table.again_at, ripe_at)
            elif best is None or heat < best[0]:
                best = heat, drive
        if best is not None:
            table.put_away(best[1])
