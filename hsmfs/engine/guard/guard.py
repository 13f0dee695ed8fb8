"""The guard at work: asks the rules, keeps the report, and takes changes live and over restarts.

It decides when a read needs a disc, and before that when a program opens such a file only to read
it: a backup that is to be kept off is told at once, and does not save half a file. A decision
costs microseconds and never pauses; what the guard remembers is bounded (limits.py).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from ... import clock, crash, logs
from ...catalog.catalog import Catalog
from ...catalog.guard import GuardBook, Met
from ...errors import GuardRules, PosixError
from ...limits import GUARD_REPORT_ROWS
from ...types import InodeNo, Requester
from ..events import Events
from ..paths import path_of
from . import rules
from .rules import GuardFile, Mode, Outcome, Rule
from .windows import Window, Windows, key_of

log = logs.get(__name__)
SAVE_SECONDS = 10.0
"""So often the report is written down."""
_FILES = 100
"""Files remembered of a requester beside those that its rates count: it may be reading them."""
ERRNOS = {
    Outcome.HEAD: errno.EACCES,
    Outcome.EACCES: errno.EACCES,
    Outcome.EAGAIN: errno.EAGAIN,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a recall.

    Attributes:
        outcome: what is done now; in learning mode always ALLOW.
        rule: the one that decided, or None.
        began: the requester reached the rate of the rule just now.
    """

    outcome: Outcome
    rule: Rule | None = None
    began: bool = False

    @property
    def slow(self) -> bool:
        """The recall goes to the slow lane."""
        return self.outcome is Outcome.SLOW

    def check(self) -> None:
        """Raise PosixError if the read is refused."""
        number = ERRNOS.get(self.outcome)
        if number is not None:
            assert self.rule is not None
            raise PosixError(number, f"the guard's rule {self.rule.name!r} keeps the disc away")


_ALLOWED = Verdict(Outcome.ALLOW)


class Guard:
    """Made once; `load` before it is asked.

    Attributes:
        mode: whether rules act.
        text: the rules in force as TOML; `file` is the same, read; `own`: an admin gave them.
        slowed: called with a requester whose recalls, also those that wait, are slow from now on.
    """

    def __init__(self, catalog: Catalog, events: Events, mode: Mode) -> None:
        self._catalog, self._events = catalog, events
        self._configured = mode
        self._book = GuardBook(catalog.db)
        self.mode = mode
        self.slowed: Callable[[Requester, Rule], None] = lambda who, rule: None
        self._met: dict[tuple[object, ...], Met] = {}
        self._unsaved: set[tuple[object, ...]] = set()
        self._dropped: list[Met] = []
        self._use(rules.default())

    def _use(self, text: str) -> None:
        self.text = text
        self.own = text != rules.default()
        self.file: GuardFile = rules.loads(text)
        rates = [rule.rate for rule in self.file.rule if rule.rate is not None]
        # Also without a rate a file is remembered for a while, so that it is counted once.
        self._windows = Windows(
            max((rate.files for rate in rates), default=0) + _FILES,
            max((rate.seconds for rate in rates), default=60.0),
        )

    def load(self) -> None:
        """Take up what was in force before a restart. Rules of before that are wrong now are
        left, with a warning, for those that come with hsmfs.
        """
        mode = self._book.mode()
        self.mode = Mode(mode) if mode is not None else self._configured
        text = self._book.rules()
        if text is not None:
            try:
                self._use(text)
            except GuardRules as fault:
                log.warning("guard rules are wrong, the default ones are in force", error=fault)
        self._met = {met.key: met for met in self._book.report()}

    # Questions

    def ask(self, who: Requester, ino: InodeNo) -> Verdict:
        """A read needs a disc: what becomes of it. Counts the file for the requester's rate."""
        if self.mode is Mode.OFF:
            return _ALLOWED
        now = trio.current_time()
        window, asked, new = self._windows.ask(key_of(who), ino, now)
        for rule in self.file.rule:
            if not rule.about(who):
                continue
            before = window.stays(now, rule.name)
            if rule.rate is not None:
                if window.reached(now, rule.rate):
                    window.until[rule.name] = now + max(rule.stay, rule.rate.seconds)
                elif not before:
                    continue
                if asked.allowed and rule.outcome is not Outcome.SLOW:
                    continue
            if rule.path and not rule.covers(path_of(self._catalog, ino)):
                continue
            return self._decided(rule, who, ino, new=new, began=bool(rule.rate) and not before)
        asked.allowed = True
        return _ALLOWED

    def opens(self, who: Requester, ino: InodeNo) -> Verdict:
        """A program opens a file that is not all on disk, to read it; counts nothing.

        Only rules that end in EAGAIN or EACCES refuse that; all others let it open the file.
        """
        if self.mode is not Mode.ON:
            return _ALLOWED
        now = trio.current_time()
        window = self._windows.get(key_of(who))
        for rule in self.file.rule:
            if not rule.about(who) or not _in_force(window, rule, now):
                continue
            if rule.path and not rule.covers(path_of(self._catalog, ino)):
                continue
            if rule.outcome not in (Outcome.EAGAIN, Outcome.EACCES):
                return _ALLOWED
            return self._decided(rule, who, ino, new=True, began=False)
        return _ALLOWED

    def _decided(
        self, rule: Rule, who: Requester, ino: InodeNo, *, new: bool, began: bool
    ) -> Verdict:
        if rule.outcome is Outcome.ALLOW:
            return Verdict(Outcome.ALLOW, rule)
        if new:
            self._note(rule, who, ino)
        if began:
            self._tell(rule, who)
        if self.mode is Mode.LEARN:
            return Verdict(Outcome.ALLOW, rule)
        if began and rule.outcome is Outcome.SLOW:
            self.slowed(who, rule)
        return Verdict(rule.outcome, rule, began)

    def _tell(self, rule: Rule, who: Requester) -> None:
        fields = {
            "rule": rule.name, "outcome": rule.outcome.value, "requester": str(who),
            "via": who.via, "client": who.client, "learning": self.mode is Mode.LEARN,
        }  # fmt: skip
        log.info("storm", **fields)
        self._events.emit("storm", **fields)

    # The report

    def _note(self, rule: Rule, who: Requester, ino: InodeNo) -> None:
        now = clock.now_ns()
        met = Met(
            who.uid, who.process, who.via, who.client, rule.name, rule.outcome.value,
            self.mode is Mode.LEARN, 1, now, now, b"",
        )  # fmt: skip
        known = self._met.get(met.key)
        if known is not None:
            met = replace(known, files=known.files + 1, last_ns=now)
        else:
            met = replace(met, path=path_of(self._catalog, ino))
            while len(self._met) >= GUARD_REPORT_ROWS:
                old = min(self._met.values(), key=lambda m: m.last_ns)
                del self._met[old.key]
                self._unsaved.discard(old.key)
                self._dropped.append(old)
        self._met[met.key] = met
        self._unsaved.add(met.key)

    def report(self) -> list[Met]:
        """Whom rules stopped, or in learning mode would have stopped; the most files first."""
        return sorted(self._met.values(), key=lambda met: (-met.files, -met.last_ns))

    async def clear(self) -> None:
        """Begin a new report."""
        self._met.clear()
        self._unsaved.clear()
        self._dropped.clear()
        async with self._catalog.write():
            self._book.clear()
        crash.point("guard.report.cleared")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write the report down from time to time, and at the end."""
        task_status.started()
        try:
            while True:
                await trio.sleep(SAVE_SECONDS)
                await self._save()
        finally:
            with trio.CancelScope(shield=True):
                await self._save()

    async def _save(self) -> None:
        if not self._unsaved and not self._dropped:
            return
        rows = [self._met[key] for key in self._unsaved]
        dropped = [met.key for met in self._dropped]
        self._unsaved.clear()
        self._dropped.clear()
        async with self._catalog.write():
            self._book.drop(dropped)
            self._book.put(rows)

    # Changes

    async def set_mode(self, mode: Mode) -> None:
        """From now on, and over restarts."""
        async with self._catalog.write():
            self._book.set_mode(mode.value)
        crash.point("guard.mode.committed")
        await self._catalog.sync()
        self.mode = mode
        self._changed()

    async def set_rules(self, text: str) -> None:
        """Put rules in force, now and over restarts. Raises GuardRules; then nothing changes."""
        rules.loads(text)
        await self._keep(text)
        self._use(text)
        self._changed()

    async def reset(self) -> None:
        """The rules that come with hsmfs are in force again."""
        await self._keep(None)
        self._use(rules.default())
        self._changed()

    async def set_outcome(self, name: str, outcome: Outcome) -> None:
        """Change what one rule does. Raises NotFound, GuardRules."""
        await self.set_rules(rules.with_outcome(self.text, name, outcome))

    async def _keep(self, text: str | None) -> None:
        async with self._catalog.write():
            self._book.set_rules(text)
        crash.point("guard.rules.committed")
        await self._catalog.sync()

    def _changed(self) -> None:
        log.info("guard changed", mode=self.mode.value, rules=len(self.file.rule))
        self._events.emit("guard_changed", mode=self.mode.value, rules=len(self.file.rule))


def _in_force(window: Window | None, rule: Rule, now: float) -> bool:
    return rule.rate is None or (window is not None and window.stays(now, rule.name))
