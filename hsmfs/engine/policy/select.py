"""Finds the files of a rule: an indexed query of the catalog, then what SQL cannot say.

Runs in a thread on a snapshot, a page at a time, so that checkpoints come between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ...catalog.reports import Query, Reports
from ...states import FileState
from ...types import Attr, InodeNo, PoolId
from .match import Matcher
from .rules import Action, Rule

PAGE = 50_000
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
    return [
        Query(
            states=s.states,
            modified_before_ns=_before(now_ns, modified),
            accessed_before_ns=_before(now_ns, accessed),
            min_size=rule.min_size,
            max_size=rule.max_size,
            uid=next(iter(matcher.uids)) if len(matcher.uids) == 1 else None,
            gid=next(iter(matcher.gids)) if len(matcher.gids) == 1 else None,
            pool=pool,
            pinned=False if rule.action != "archive" or s.idle_s is not None else None,
        )
        for pool in pools
    ]


def page(
    reports: Reports, s: Selection, query: Query, now_ns: int, after: int
) -> tuple[list[Attr], int | None]:
    """Matching files among the next PAGE inodes, and where to go on; None at the end."""
    found: list[Attr] = []
    paths = reports.path_cache()
    last, seen = after, 0
    for attr in reports.files(query, after=after or -1, limit=PAGE):
        last, seen = attr.ino, seen + 1
        if _queued(reports, s, attr.ino):
            continue
        path = b"/" + (paths.path(attr.ino) or b"")
        if _fits(s, attr, path, now_ns):
            found.append(attr)
    return found, last if seen == PAGE else None


def _fits(s: Selection, attr: Attr, path: bytes, now_ns: int) -> bool:
    if any(matcher.matches(attr, path, now_ns) for matcher in s.earlier):
        return False
    if s.idle_s is None:
        return s.matcher.matches(attr, path, now_ns)
    # The file was archived by this rule; its state and age were for that.
    return s.matcher.matches_always(attr, path)


def _queued(reports: Reports, s: Selection, ino: InodeNo) -> bool:
    is_archive = s.matcher.rule.action == "archive" and s.idle_s is None
    return is_archive and reports.queues.migration(ino) is not None


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
