"""What happens in the engine, for `hsmctl events --follow` and the log: one stream, numbered."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import trio

from .. import clock
from ..limits import EVENTS_KEPT


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; fields are plain JSON values."""

    seq: int
    time_ns: int
    kind: str
    fields: dict[str, Any]


class Events:
    """The newest EVENTS_KEPT events in memory; a slow follower misses the oldest."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._more = trio.Event()
        self._seq = 0

    def emit(self, kind: str, **fields: Any) -> None:
        """Something happened: kind is a word such as 'recalled', fields say to what."""
        self._seq += 1
        self._kept.append(Event(self._seq, clock.now_ns(), kind, fields))
        self._more.set()
        self._more = trio.Event()

    def since(self, seq: int) -> list[Event]:
        """Events kept whose number is greater than seq."""
        new = min(self._seq - seq, len(self._kept))
        return list(islice(reversed(self._kept), max(new, 0)))[::-1]

    async def follow(self, seq: int | None = None) -> AsyncIterator[Event]:
        """Events after seq, or from now on; for ever."""
        last = self._seq if seq is None else seq
        while True:
            more = self._more
            for event in self.since(last):
                last = event.seq
                yield event
            if last >= self._seq:
                await more.wait()
