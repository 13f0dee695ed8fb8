"""Writes audit records: in the transaction of the act, or before its refusal is answered.

A record counts when its transaction does; `Catalog.sync` makes both durable together, so that an
act that outlives a power cut has its record. Refusals that repeat are counted, so that a program
which tries again and again cannot fill the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from ...catalog.audit import Head
from ...catalog.catalog import Catalog
from ...types import Requester
from .compliance import ComplianceClock
from .kinds import KINDS

REPEAT = 10.0
"""Seconds in which the same refusal is written once; then its repetitions, counted."""
REPEATS = 10_000
"""Different refusals that are counted at once; more are written down one by one."""


Note = Callable[..., object]
"""As `Audit.note`: what parts of the engine are given to put their acts on record."""


def unheard(*_: object, **__: object) -> None:
    """The note of a part that nobody gave an audit log."""


@dataclass(slots=True)
class _Repeated:
    until: float
    kind: str
    actor: str
    object: str
    fields: dict[str, Any]
    count: int = 0


class Audit:
    """The log of one catalog.

    Attributes:
        log: its rows.
        clock: the compliance clock, whose times they bear.
        appended: called after a record was added, in its transaction.
    """

    def __init__(self, catalog: Catalog, clock: ComplianceClock) -> None:
        self._catalog, self.clock = catalog, clock
        self.log = catalog.audit
        self.appended: Callable[[], None] = lambda: None
        self._repeated: dict[tuple[str, ...], _Repeated] = {}

    def note(
        self, kind: str, actor: str, object_: str = "", *, outcome: str = "done", **detail: Any
    ) -> Head:
        """Add a record; inside a write transaction, that of the act."""
        assert kind in KINDS, kind
        head = self.log.append(self.clock.now_ns(), kind, actor, object_, outcome, detail)
        self.appended()
        return head

    async def write(
        self, kind: str, actor: str, object_: str = "", *, outcome: str = "done", **detail: Any
    ) -> Head:
        """As `note`, in a transaction of its own."""
        async with self._catalog.write():
            return self.note(kind, actor, object_, outcome=outcome, **detail)

    async def refused(self, act: str, who: Requester, object_: str, reason: str) -> None:
        """Somebody was told EPERM; returns when that is on record, or counted."""
        key = (act, str(who.uid), who.process, object_)
        await self.counted("retention.refused", key, str(who), object_, act=act, reason=reason)

    async def counted(
        self, kind: str, key: tuple[str, ...], actor: str, object_: str, **fields: Any
    ) -> None:
        """Write a refusal, or count it if the same key had one of that kind just now."""
        key = (kind, *key)
        now = trio.current_time()
        known = self._repeated.get(key)
        if known is not None and now < known.until:
            known.count += 1
            return
        if known is not None:
            await self._tell(self._repeated.pop(key))
        if len(self._repeated) < REPEATS:
            self._repeated[key] = _Repeated(now + REPEAT, kind, actor, object_, fields)
        await self.write(kind, actor, object_, outcome="refused", **fields)

    async def tell_repeated(self, *, all_: bool = False) -> None:
        """Write down repetitions whose time is over (all_: every one); called every few seconds."""
        now = trio.current_time()
        over = [key for key, one in self._repeated.items() if all_ or now >= one.until]
        for key in over:
            await self._tell(self._repeated.pop(key))

    async def _tell(self, one: _Repeated) -> None:
        if one.count:
            await self.write(
                one.kind, one.actor, one.object, outcome="refused",
                repeated=one.count, **one.fields,
            )  # fmt: skip
