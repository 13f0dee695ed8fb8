"""Runs the policies: looks which rule is due, finds its files and hands them to who acts.

Loading a file that is wrong keeps the rules before it in force. A dry run counts what a run would
do, by rule, and changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import trio

from .. import clock, logs
from ..catalog.catalog import Catalog
from ..catalog.reports import Place, Query
from ..config import Config
from ..errors import HsmError, NotFound
from ..pool.pools import DISK, FAST, Pools
from ..types import Attr, InodeNo
from .demote import Demoter
from .events import Events
from .migrate import Migrator
from .policy import rules as policy_file
from .policy.match import Matcher, Ruleset, Verdict
from .policy.room import check_room
from .policy.rules import Action
from .policy.select import Selection, page, queries, selections, weigh
from .policy.walk import Walk
from .policy.when import Situation, due
from .release import Releaser
from .trust.audit import Note, unheard

log = logs.get(__name__)
LOOK = 30.0
"""Seconds between looks at the triggers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule did, or would do."""

    rule: str
    action: Action
    files: int
    bytes: int
    discs: int
    """Discs that the bytes fill, all copies counted; 0 unless the action is archive."""
    refused: int = 0


class Policies:
    """The rules in force and their runs.

    Attributes:
        rules: what is in force.
        file: where they come from, or None.
    """

    def __init__(
        self,
        catalog: Catalog,
        pools: Pools,
        migrator: Migrator,
        releaser: Releaser,
        demoter: Demoter,
        events: Events,
        config: Config,
    ) -> None:
        self._catalog, self._pools, self._events = catalog, pools, events
        self._migrator, self._releaser, self._demoter = migrator, releaser, demoter
        self._config = config
        self.file: Path | None = config.engine.policies
        self._started_ns = clock.now_ns()
        self._last = catalog.queues.policy_runs()
        self._one = trio.Lock()
        self.note: Note = unheard
        self.rules = self._ruleset(policy_file.PolicyFile())
        self._in_force()

    def _ruleset(self, found: policy_file.PolicyFile) -> Ruleset:
        return Ruleset(
            found.policy, copies=self._config.engine.copies, head=self._config.fs.head
        )

    def _in_force(self) -> None:
        self._releaser.rules = self._migrator.rules = self.rules
        self._migrator.sets.expect(self.rules.sets)

    async def load(self, path: Path | None = None) -> int:
        """Read the policy file (again) and put it in force; how many rules.

        Raises PolicyError with every fault and its line, or if the spool is too small for the sets
        that they fill; the rules before then stay in force.
        """
        source = path or self.file
        if source is None:
            return 0
        found, digest = await clock.blocking(lambda: _load(source))
        rules = self._ruleset(found)
        check_room(self._config, rules, source)
        async with self._catalog.write():
            self.note(
                "policy.loaded", "hsmfsd", str(source), rules=len(found.policy), sha256=digest
            )
        self.rules = rules
        self._in_force()
        log.info("policies loaded", file=source, rules=len(found.policy))
        self._events.emit("policies_loaded", file=str(source), rules=len(found.policy))
        return len(found.policy)

    def explain(self, attr: Attr, path: bytes) -> list[Verdict]:
        """For each rule whether it holds for a file, and why not; path begins with a slash."""
        return self.rules.explain(attr, path, clock.now_ns())

    async def dry_run(self, name: str | None = None) -> list[Outcome]:
        """What runs of all rules, or of one, would do now. Raises NotFound."""

        outcomes = []
        for matcher in self._named(name):
            for action, chosen in self._selections(matcher):
                files, size = await self._weigh(chosen)
                discs = self._discs(matcher, action, size)
                outcomes.append(Outcome(matcher.rule.name, action, files, size, discs))
        return outcomes

    async def _weigh(self, chosen: Selection) -> tuple[int, int]:
        """Files and bytes of a selection; as little of them is fetched as can be."""
        now = clock.now_ns()
        if chosen.by_query:
            return await self._catalog.read(lambda reports: weigh(reports, chosen, now))
        files = size = 0
        for query in queries(chosen, now):
            walk = await self._walk(chosen, query, now)
            while walk is not None and walk.todo:
                more, bytes_ = await self._catalog.read(walk.weigh)
                files, size = files + more, size + bytes_
            if walk is None:
                async with aclosing(self._by_index(chosen, query, now)) as pages:
                    async for some in pages:
                        files += len(some)
                        size += sum(attr.size for attr in some)
        return files, size

    async def run_now(self, name: str | None = None) -> list[Outcome]:
        """Run all rules, or one, whatever their triggers say. Raises NotFound."""
        async with self._one:
            return [o for matcher in self._named(name) for o in await self._run(matcher)]

    def _named(self, name: str | None) -> list[Matcher]:
        found = [m for m in self.rules.matchers if name in (None, m.rule.name)]
        if name is not None and not found:
            raise NotFound(f"no policy is called {name!r}", next_step="see 'hsmctl policy check'")
        return found

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run each rule when it is due, for ever."""
        if self.file is not None and not self.rules.matchers:
            await self.load()
        task_status.started()
        while True:
            above = await self._releaser.above_watermark()
            for matcher in list(self.rules.matchers):
                rule, now = matcher.rule, clock.now_ns()
                last = self._last.get(rule.name)
                if rule.action == "never":
                    continue
                if due(rule, Situation(now, last, self._started_ns, above)):
                    async with self._one:
                        await self._run_if_worth(matcher, above)
            await trio.sleep(LOOK)

    async def _run_if_worth(self, matcher: Matcher, above: bool) -> None:
        """A rule with `waiting` runs once enough bytes wait, unless another trigger started it."""
        rule = matcher.rule
        only_waiting = rule.waiting is not None and rule.every is None and not rule.at
        if only_waiting and not (rule.watermark and above):
            assert rule.waiting is not None
            waiting = sum(outcome.bytes for outcome in await self.dry_run(rule.name))
            if waiting < rule.waiting:
                await self._note_run(rule.name)
                return
        await self._run(matcher)

    async def _note_run(self, name: str) -> None:
        self._last[name] = now = clock.now_ns()
        async with self._catalog.write():
            self._catalog.queues.policy_ran(name, now)

    async def _run(self, matcher: Matcher) -> list[Outcome]:
        await self._note_run(matcher.rule.name)
        async with aclosing(self._each(matcher)) as each:
            outcomes = [outcome async for outcome in each]
        for outcome in outcomes:
            if outcome.files:
                log.info(
                    "policy ran", policy=outcome.rule, action=outcome.action, files=outcome.files,
                    bytes=outcome.bytes, refused=outcome.refused,
                )  # fmt: skip
                self._events.emit(
                    "policy_ran", policy=outcome.rule, action=outcome.action,
                    files=outcome.files, bytes=outcome.bytes,
                )  # fmt: skip
        return outcomes

    def _selections(self, matcher: Matcher) -> Iterator[tuple[Action, Selection]]:
        fast = tuple(pool.id for pool in self._pools.tier(FAST)) if self._pools.tier(DISK) else ()
        return selections(matcher.rule, matcher, self.rules.before(matcher), fast)

    async def _each(self, matcher: Matcher) -> AsyncGenerator[Outcome]:
        """Find the files of each of a rule's actions, act on them by the page, and count."""
        for action, chosen in self._selections(matcher):
            files = size = refused = 0
            async with aclosing(self._pages(chosen)) as pages:
                async for some in pages:
                    refused += await self._act(matcher, action, some)
                    files += len(some)
                    size += sum(attr.size for attr in some)
            discs = self._discs(matcher, action, size)
            yield Outcome(matcher.rule.name, action, files, size, discs, refused)

    async def _pages(self, chosen: Selection) -> AsyncGenerator[list[Attr]]:
        """The files of a selection."""
        now = clock.now_ns()
        for query in queries(chosen, now):
            walk = await self._walk(chosen, query, now)
            while walk is not None and walk.todo:
                if some := await self._catalog.read(walk.page):
                    yield some
            if walk is None:
                async with aclosing(self._by_index(chosen, query, now)) as pages:
                    async for some in pages:
                        yield some

    async def _walk(self, chosen: Selection, query: Query, now_ns: int) -> Walk | None:
        """The way down the folders, if names decide and that is cheaper than the index."""
        if not chosen.needs_path:
            return None
        walk = Walk(chosen, query, now_ns)
        return walk if await self._catalog.read(walk.worth_it) else None

    async def _by_index(
        self, chosen: Selection, query: Query, now_ns: int
    ) -> AsyncGenerator[list[Attr]]:
        place: Place | None = Place()
        while place is not None:
            some, place = await self._catalog.read(
                lambda reports, place=place: page(reports, chosen, query, now_ns, place)  # type: ignore[misc]
            )
            if some:
                yield some

    def _discs(self, matcher: Matcher, action: Action, size: int) -> int:
        if action != "archive":
            return 0
        copies = matcher.rule.copies or self._config.engine.copies
        return copies * -(-size // self._config.library.disc)

    # Acts: each returns how many were refused

    async def _act(self, matcher: Matcher, action: Action, some: list[Attr]) -> int:
        rule = matcher.rule
        if action == "archive":
            inos = [attr.ino for attr in some]
            vault = None if rule.copies is None else rule.vault or ""
            await self._migrator.archive(
                inos, rule.copies, f"policy {rule.name}", rule.release, rule.group, vault
            )
            return 0
        one = self._demoter.demote if action == "demote" else self._releaser.release
        return await self._one_by_one(one, some, f"policy {rule.name}")

    async def _one_by_one(
        self, one: Callable[[InodeNo, str], Awaitable[object]], some: list[Attr], who: str
    ) -> int:
        refused = 0
        for attr in some:
            try:
                await one(attr.ino, who)
            except HsmError as fault:
                refused += 1
                log.debug("policy refused", ino=attr.ino, reason=fault.message)
        return refused


def _load(source: Path) -> tuple[policy_file.PolicyFile, str]:
    """The rules of a file, and its SHA-256. Raises PolicyError; blocking."""
    found = policy_file.load(source)
    return found, hashlib.sha256(source.read_bytes()).hexdigest()
