"""How many files each requester asked for lately. Bounded; times are seconds of the caller's clock.

A requester is a user and a program: all its processes count together, so that one that starts a
new process for each file is seen as well.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice

from ...limits import GUARD_REQUESTERS
from ...types import InodeNo, Requester
from .rules import Rate

Key = tuple[int, str, str]
"""uid, program, client."""


def key_of(who: Requester) -> Key:
    """Who counts as one requester."""
    return who.uid, who.process, who.client


@dataclass(slots=True)
class Asked:
    """A file that a requester asked for; times of the first and the last read that needed a disc.

    Attributes:
        allowed: no rate stopped it then; so it may be read to its end.
    """

    first: float
    last: float
    allowed: bool = False


@dataclass(slots=True)
class Window:
    """One requester.

    Attributes:
        asked: its last files, in the order in which it asked for them first.
        until: rules whose outcome stays until then.
    """

    asked: OrderedDict[InodeNo, Asked] = field(default_factory=OrderedDict)
    until: dict[str, float] = field(default_factory=dict)

    def reached(self, now: float, rate: Rate) -> bool:
        """Whether it asked for so many files in the rate's time."""
        nth = next(islice(reversed(self.asked.values()), rate.files - 1, None), None)
        return nth is not None and nth.first > now - rate.seconds

    def stays(self, now: float, rule: str) -> bool:
        """Whether a rule's rate was reached lately."""
        return self.until.get(rule, 0.0) > now


class Windows:
    """All requesters. `keep` files are remembered of each, for `seconds`."""

    def __init__(self, keep: int, seconds: float) -> None:
        self._keep, self._seconds = keep, seconds
        self._all: OrderedDict[Key, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: Key) -> Window | None:
        """What is known of a requester."""
        return self._all.get(key)

    def ask(self, key: Key, ino: InodeNo, now: float) -> tuple[Window, Asked, bool]:
        """It asks for a file; True if it had not asked for that one lately."""
        window = self._all.get(key)
        if window is None:
            window = self._all[key] = Window()
            if len(self._all) > GUARD_REQUESTERS:
                self._all.popitem(last=False)
        else:
            self._all.move_to_end(key)
        asked = window.asked
        while asked and next(iter(asked.values())).last <= now - self._seconds:
            asked.popitem(last=False)
        if (known := asked.get(ino)) is not None:
            known.last = now
            return window, known, False
        asked[ino] = new = Asked(now, now)
        if len(asked) > self._keep:
            asked.popitem(last=False)
        return window, new, True
