"""How far a rule's path patterns are met on the way down to a folder. Pure.

With that a whole tree that no file of can match is passed over, and of a folder only names are
looked at. A pattern is taken apart at its slashes; one that can't be (`a**b`, a slash in brackets)
keeps every way open, and its whole expression decides.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from .globs import compiled

Step: TypeAlias = "re.Pattern[bytes] | None"
"""Of one name, or None: any number of folders, `**`."""
Position: TypeAlias = frozenset[tuple[int, int]]
"""(pattern, step) of each that may come next."""
_SLASH_IN_CLASS = re.compile(r"\[[^\]]*/")


class Way:
    """The patterns of one rule. Without patterns all paths match."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        whole = [p + "**" if p.endswith("/") else p for p in patterns or ("/**",)]
        plain = [p for p in whole if _plain(p)]
        self.odd = len(plain) < len(whole)
        self._steps = [_steps(pattern) for pattern in plain]
        self.start = self._closed({(n, 0) for n in range(len(plain))})

    @property
    def narrow(self) -> bool:
        """True if the first folder's name is given by every pattern."""
        return not self.odd and all(len(s) > 1 and s[0] is not None for s in self._steps)

    def enter(self, at: Position, name: bytes) -> Position:
        """The position in a folder of that name."""
        following = set()
        for n, step in at:
            wanted = self._steps[n][step]
            if wanted is None:
                following.add((n, step))
            elif step + 1 < len(self._steps[n]) and wanted.fullmatch(name):
                following.add((n, step + 1))
        return self._closed(following)

    def ends(self, at: Position) -> bool:
        """True if nothing below can match."""
        return not at and not self.odd

    def all_match(self, at: Position) -> bool:
        """True if every file in this folder matches, whatever its name."""
        return any(self._last(n, step) and self._steps[n][step] is None for n, step in at)

    def may_match(self, at: Position, name: bytes) -> bool:
        """Whether a file of that name in this folder matches, or only its whole path can tell."""
        if self.odd:
            return True
        for n, step in at:
            if self._last(n, step):
                wanted = self._steps[n][step]
                if wanted is None or wanted.fullmatch(name):
                    return True
        return False

    def _last(self, n: int, step: int) -> bool:
        return step == len(self._steps[n]) - 1

    def _closed(self, at: set[tuple[int, int]]) -> Position:
        """With what comes next if `**` stands for no folder at all."""
        found = set(at)
        for n, step in at:
            while self._steps[n][step] is None and not self._last(n, step):
                step += 1
                found.add((n, step))
        return frozenset(found)


def _plain(pattern: str) -> bool:
    mixed = any("**" in name and name != "**" for name in pattern.split("/"))
    return not mixed and not _SLASH_IN_CLASS.search(pattern)


def _steps(pattern: str) -> tuple[Step, ...]:
    return tuple(None if name == "**" else compiled([name]) for name in pattern.split("/")[1:])
