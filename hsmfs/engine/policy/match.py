"""Decides which rule holds for a file and says why, for each rule. Pure: knows no catalog.

For each kind of action the first rule of the file that matches decides; `never` counts for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...states import FileState
from ...types import Attr
from ...units import format_duration, format_size
from .globs import compiled
from .rules import Action, Grouping, Rule, gid_of, uid_of


class Matcher:
    """One rule, ready to be asked many times."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.states = frozenset(FileState[name.upper()] for name in rule.state)
        self.uids = frozenset(uid_of(who) for who in rule.owner)
        self.gids = frozenset(gid_of(who) for who in rule.owner_group)
        self._path = compiled(rule.path)
        self._file = compiled(rule.file)

    @property
    def needs_path(self) -> bool:
        """True if the name of a file decides."""
        return self._path is not None or self._file is not None

    def matches_name(self, path: bytes) -> bool:
        """Whether the full path (with its leading slash) fits."""
        if self._path is not None and not self._path.fullmatch(path):
            return False
        return self.matches_own_name(path.rpartition(b"/")[2])

    def matches_own_name(self, name: bytes) -> bool:
        """Whether the last component alone fits."""
        return self._file is None or bool(self._file.fullmatch(name))

    def matches(self, attr: Attr, path: bytes, now_ns: int) -> bool:
        """Whether the rule fits the file now."""
        return self.matches_always(attr, path) and next(self._timely(attr, now_ns), None) is None

    def matches_always(self, attr: Attr, path: bytes) -> bool:
        """Whether the keys fit that neither age nor state changes."""
        return next(self._static(attr), None) is None and self.matches_name(path)

    def why_not(self, attr: Attr, path: bytes, now_ns: int) -> list[str]:
        """Each key that does not fit, in words; empty if the rule matches."""
        shown = path.decode("utf-8", "backslashreplace")
        found = []
        if self._path is not None and not self._path.fullmatch(path):
            found.append(f"path {shown} is not in {', '.join(self.rule.path)}")
        name = path.rpartition(b"/")[2]
        if self._file is not None and not self._file.fullmatch(name):
            found.append(f"its name is not like {', '.join(self.rule.file)}")
        return [*found, *self._static(attr), *self._timely(attr, now_ns)]

    def _static(self, attr: Attr) -> Iterator[str]:
        rule = self.rule
        if rule.min_size is not None and attr.size < rule.min_size:
            yield f"{format_size(attr.size)} is less than min_size {format_size(rule.min_size)}"
        if rule.max_size is not None and attr.size > rule.max_size:
            yield f"{format_size(attr.size)} is more than max_size {format_size(rule.max_size)}"
        if self.uids and attr.uid not in self.uids:
            yield f"its owner {attr.uid} is not {', '.join(map(str, rule.owner))}"
        if self.gids and attr.gid not in self.gids:
            yield f"its group {attr.gid} is not {', '.join(map(str, rule.owner_group))}"

    def _timely(self, attr: Attr, now_ns: int) -> Iterator[str]:
        rule = self.rule
        if self.states and attr.state not in self.states:
            state = "not a file" if attr.state is None else FileState(attr.state).name.lower()
            yield f"it is {state}, not {' or '.join(rule.state)}"
        for key, bound, when in (
            ("modified", rule.modified, attr.mtime_ns),
            ("accessed", rule.accessed, max(attr.atime_ns, attr.mtime_ns)),
        ):
            if bound is not None and now_ns - when < bound * 1e9:
                ago = format_duration(max(0.0, (now_ns - when) // 10**9))
                yield f"it was {key} {ago} ago, {format_duration(bound)} are wanted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one rule for one file; empty reasons: it matches."""

    rule: str
    action: Action
    decides: bool
    """The first match of its kind: this rule is acted on."""
    reasons: tuple[str, ...]
    copies: int | None = None
    """That it asks for; None: [engine] copies, or it is no rule about that."""
    vault: str | None = None
    """Where one of them is to be kept."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the policies want for a file, whenever it is archived."""

    copies: int
    head: int
    group: Grouping
    rule: str | None
    vault: str = ""
    """Where one of the copies is to be kept; '': all in the library."""


class Ruleset:
    """All rules in order. Copies and head of files under no rule are the defaults."""

    def __init__(self, rules: Sequence[Rule], *, copies: int, head: int) -> None:
        self.matchers = [Matcher(rule) for rule in rules]
        self._copies, self._head = copies, head

    @property
    def sets(self) -> int:
        """Volume sets that may be filled at once: one for each copy and place that is asked for."""
        asked = {(self._copies, "")} | {
            (self._copies if m.rule.copies is None else m.rule.copies, m.rule.vault or "")
            for m in self.matchers
            if m.rule.action == "archive"
        }
        return len(
            {
                (number, vault if number == copies and copies > 1 else "")
                for copies, vault in asked
                for number in range(1, copies + 1)
            }
        )

    def before(self, matcher: Matcher) -> list[Matcher]:
        """The rules that would decide instead of this one."""
        kinds = (matcher.rule.action, "never")
        upto = self.matchers.index(matcher)
        return [m for m in self.matchers[:upto] if m.rule.action in kinds]

    def decide(self, action: Action, attr: Attr, path: bytes, now_ns: int) -> Rule | None:
        """The rule of that kind, or `never`, that decides; None if no rule matches."""
        for matcher in self.matchers:
            if matcher.rule.action in (action, "never") and matcher.matches(attr, path, now_ns):
                return matcher.rule
        return None

    def forbidden(self, attr: Attr, path: bytes, now_ns: int) -> str | None:
        """The name of a `never` rule that keeps a file where it is, or None."""
        for matcher in self.matchers:
            if matcher.rule.action == "never" and matcher.matches(attr, path, now_ns):
                return matcher.rule.name
        return None

    def wishes(self, attr: Attr, path: bytes) -> Wishes:
        """Copies, head and grouping by the first archive rule that may ever match."""
        for matcher in self.matchers:
            rule = matcher.rule
            if rule.action == "archive" and matcher.matches_always(attr, path):
                return Wishes(
                    self._copies if rule.copies is None else rule.copies,
                    self._head if rule.head is None else rule.head,
                    rule.group,
                    rule.name,
                    rule.vault or "",
                )
        return Wishes(self._copies, self._head, "directory", None)

    def explain(self, attr: Attr, path: bytes, now_ns: int) -> list[Verdict]:
        """Each rule's verdict for a file, in order."""
        verdicts: list[Verdict] = []
        decided: set[Action] = set()
        for matcher in self.matchers:
            action = matcher.rule.action
            reasons = tuple(matcher.why_not(attr, path, now_ns))
            open_ = action not in decided and "never" not in decided
            rule = matcher.rule
            verdicts.append(
                Verdict(rule.name, action, not reasons and open_, reasons, rule.copies, rule.vault)
            )
            if not reasons:
                decided.add(action)
        return verdicts
