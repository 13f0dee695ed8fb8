"""The robot's journal of moves, kept in the catalog.

A move is written down, durably, before it starts, so that after a crash or a power cut the
half-done one is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import clock, crash
from ..catalog.catalog import Catalog
from ..types import Barcode, ElementAddress
from .trust.audit import Note, unheard


@dataclass(frozen=True, slots=True)
class OpenMove:
    """A move without an end, as library.journal wants it."""

    token: int
    barcode: Barcode
    src: ElementAddress
    dst: ElementAddress


@dataclass(frozen=True, slots=True)
class OpenCarry:
    """A magazine's way without an end."""

    token: int
    magazine: int
    unit: int | None


class CatalogJournal:
    """A library.journal.MoveJournal in the catalog's tables of moves and of magazines' ways.

    Attributes:
        note: puts each move on record, before it begins.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.note: Note = unheard

    async def begin(self, barcode: Barcode, src: ElementAddress, dst: ElementAddress) -> int:
        crash.point("move.begin.before")
        async with self._catalog.write():
            token = self._catalog.volumes.begin_move(barcode, src, dst, clock.now_ns())
            self.note("disc.moved", "hsmfsd", barcode, src=src, dst=dst)
        crash.point("move.begin.committed")
        await self._catalog.sync()
        crash.point("move.begin.durable")
        return token

    async def finish(self, token: int, ok: bool) -> None:
        crash.point("move.finish.before")
        async with self._catalog.write():
            self._catalog.volumes.finish_move(token, ok, clock.now_ns())
        crash.point("move.finish.committed")

    def open_moves(self) -> Sequence[OpenMove]:
        return [
            OpenMove(move.id, move.barcode, move.src, move.dst)
            for move in self._catalog.volumes.open_moves()
        ]

    async def begin_carry(self, magazine: int, unit: int | None) -> int:
        crash.point("carry.begin.before")
        async with self._catalog.write():
            token = self._catalog.volumes.begin_carry(magazine, unit, clock.now_ns())
            self.note("magazine.carried", "hsmfsd", f"magazine {magazine}", unit=unit)
        crash.point("carry.begin.committed")
        await self._catalog.sync()
        crash.point("carry.begin.durable")
        return token

    async def finish_carry(self, token: int, ok: bool) -> None:
        crash.point("carry.finish.before")
        async with self._catalog.write():
            self._catalog.volumes.finish_carry(token, ok, clock.now_ns())
        crash.point("carry.finish.committed")

    def open_carries(self) -> Sequence[OpenCarry]:
        return [OpenCarry(*row) for row in self._catalog.volumes.open_carries()]
