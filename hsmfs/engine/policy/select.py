"""Finds the files of a rule: an indexed query of the catalog, then what SQL cannot say.

Runs in a thread on a snapshot, a page at a time, so that checkpoints come between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ...catalog.reports import Place, Query, Reports
from ...states import FileState
from ...types import Attr, PoolId
from .match import Matcher
from .rules import Action, Rule

PAGE = 10_000
"""Inodes looked at in one read."""
_STATES: dict[Action, tuple[FileState, ...]] = {
    "archive": (FileState.RESIDENT,),
    "release": (FileState.PREMIGRATED,),
    "demote": (FileState.RESIDENT, FileState.PREMIGRATED, FileState.PARTIAL),
    "never": tuple(FileState),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What a rule is run on.

    Attributes:
        earlier: rules that decide instead if they match.
        idle_s: besides the rule's own keys, unused for so long (seconds).
        pools: only files in these pools; empty: in any.
    """

    matcher: Matcher
    earlier: Collection[Matcher]
    states: tuple[FileState, ...]
    idle_s: float | None = None
    pools: tuple[PoolId, ...] = ()

    @property
    def by_query(self) -> bool:
        """True if the catalog's query says all: no names, no earlier rules to ask."""
        return not self.earlier and not self.matcher.needs_path

    @property
    def needs_path(self) -> bool:
        """True if a file's name decides, by this rule or an earlier one."""
        return any(matcher.needs_path for matcher in (self.matcher, *self.earlier))


def selection(
    matcher: Matcher, earlier: Collection[Matcher], pools: tuple[PoolId, ...] = ()
) -> Selection:
    """The files that the rule's own action is for."""
    states = _STATES[matcher.rule.action]
    if matcher.states:
        states = tuple(state for state in FileState if state in matcher.states)
    return Selection(matcher, earlier, states, pools=pools)


def after_archive(matcher: Matcher, earlier: Collection[Matcher]) -> Selection:
    """The files that an archive rule with `after` releases."""
    return Selection(matcher, earlier, (FileState.PREMIGRATED,), idle_s=matcher.rule.after)


def queries(s: Selection, now_ns: int) -> list[Query]:
    """The part of a selection that the catalog answers, one query a pool."""
    rule, matcher = s.matcher.rule, s.matcher
    accessed = max((x for x in (rule.accessed, s.idle_s) if x is not None), default=None)
    modified = max((x for x in (rule.modified, accessed) if x is not None), default=None)
    pools: tuple[PoolId | None, ...] = s.pools or (None,)
    archives = rule.action == "archive" and s.idle_s is None
    return [
        Query(
            states=s.states,
            modified_before_ns=_before(now_ns, modified),
            accessed_before_ns=_before(now_ns, accessed),
            min_size=rule.min_size,
            max_size=rule.max_size,
            uids=tuple(sorted(matcher.uids)),
            gids=tuple(sorted(matcher.gids)),
            pool=pool,
            pinned=None if archives else False,
            unqueued=archives,
        )
        for pool in pools
    ]


def page(
    reports: Reports, s: Selection, query: Query, now_ns: int, place: Place
) -> tuple[list[Attr], Place | None]:
    """Matching files among the next PAGE after a place, and where to go on; None at the end."""
    attrs, following = reports.page(query, place, PAGE)
    if s.by_query:
        return attrs, following
    paths = reports.path_cache() if s.needs_path else None
    found: list[Attr] = []
    for attr in attrs:
        path = b"/" + ((paths.path(attr.ino) if paths else None) or b"")
        if fits(s, attr, path, now_ns):
            found.append(attr)
    return found, following


def weigh(reports: Reports, s: Selection, now_ns: int) -> tuple[int, int]:
    """How many files, and bytes, a selection is that the catalog's query says all of."""
    found = [reports.weigh(query) for query in queries(s, now_ns)]
    return sum(files for files, _ in found), sum(size for _, size in found)


def fits(s: Selection, attr: Attr, path: bytes, now_ns: int) -> bool:
    """Whether the selection takes a file, path beginning with a slash."""
    if any(matcher.matches(attr, path, now_ns) for matcher in s.earlier):
        return False
    if s.idle_s is None:
        return s.matcher.matches(attr, path, now_ns)
    # The file was archived by this rule; its state and age were for that.
    return s.matcher.matches_always(attr, path)


def _before(now_ns: int, age_s: float | None) -> int | None:
    return None if age_s is None else now_ns - int(age_s * 1e9)


def selections(
    rule: Rule, matcher: Matcher, earlier: Collection[Matcher], fast: tuple[PoolId, ...]
) -> Iterator[tuple[Action, Selection]]:
    """What one run of a rule does, to which files."""
    if rule.action == "demote":
        if fast:
            yield "demote", selection(matcher, earlier, fast)
    elif rule.action != "never":
        yield rule.action, selection(matcher, earlier)
        if rule.after is not None:
            yield "release", after_archive(matcher, earlier)
