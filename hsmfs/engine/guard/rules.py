"""The guard's rules: TOML tables `[[rule]]` as frozen models, checked with line numbers on load.

The first rule that matches, and whose rate is reached if it has one, decides; without one the
recall is allowed. `hsmfs/guard.default.toml` explains each key and holds what is in force at first.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from importlib import resources
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ... import limits, tomlfile
from ...config import Name
from ...errors import GuardRules, NotFound
from ...types import Requester
from ...unit_types import Duration
from ...units import format_duration, parse_duration
from ..policy.globs import compiled
from ..policy.rules import gid_of, known_group, known_user, path_pattern, uid_of

DEFAULT = "guard.default.toml"
_RATE = re.compile(r"\s*(\d+)\s+in\s+(.+)")


class Outcome(Enum):
    """What becomes of a recall."""

    ALLOW = "allow"
    SLOW = "slow"
    HEAD = "head"
    EAGAIN = "eagain"
    EACCES = "eacces"


class Mode(Enum):
    """Whether the rules act."""

    ON = "on"
    LEARN = "learn"
    """Nothing is stopped; the report tells what would have been."""
    OFF = "off"


class Rate(NamedTuple):
    """So many files in so many seconds."""

    files: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.files} in {format_duration(self.seconds)}"


def parse_rate(value: object) -> Rate:
    """A rate from "20 in 10 s"; ValueError says what was expected."""
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is not a rate: write for instance "20 in 10 s"')
    rate = Rate(int(match[1]), parse_duration(match[2]))
    if not 1 <= rate.files <= limits.GUARD_RATE_FILES:
        raise ValueError(f"{rate.files} files: a rate counts 1 to {limits.GUARD_RATE_FILES}")
    if not 0 < rate.seconds <= limits.GUARD_RATE_SECONDS:
        raise ValueError(f"a rate counts over at most {limits.GUARD_RATE_SECONDS} seconds, not 0")
    return rate


def _client(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


def _via(text: str) -> str:
    if text not in ("local", "nfs", "smb"):
        raise ValueError(f"{text!r} is no way in: local, nfs or smb")
    return text


class Rule(BaseModel):
    """One `[[rule]]`; a key that is not given matches every request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    outcome: Outcome
    uid: tuple[Annotated[int | str, AfterValidator(known_user)], ...] = ()
    gid: tuple[Annotated[int | str, AfterValidator(known_group)], ...] = ()
    process: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    """Shell patterns over the process's name, of which Linux keeps 15 bytes."""
    via: tuple[Annotated[str, AfterValidator(_via)], ...] = ()
    client: tuple[Annotated[str, AfterValidator(_client)], ...] = ()
    """Addresses or networks; known of SMB clients alone."""
    path: tuple[Annotated[str, AfterValidator(path_pattern)], ...] = ()
    rate: Annotated[Rate, BeforeValidator(parse_rate)] | None = None
    stay: Duration = 0.0
    """Seconds that the outcome stays after the rate was reached last."""

    @cached_property
    def _uids(self) -> frozenset[int]:
        return frozenset(map(uid_of, self.uid))

    @cached_property
    def _gids(self) -> frozenset[int]:
        return frozenset(map(gid_of, self.gid))

    @cached_property
    def _processes(self) -> re.Pattern[str] | None:
        # A pattern longer than what Linux keeps of a name would never match.
        parts = [fnmatch.translate(p if "*" in p else p[:15]) for p in self.process]
        return re.compile("|".join(parts)) if parts else None

    @cached_property
    def _clients(self) -> tuple[Any, ...]:
        return tuple(ipaddress.ip_network(text, strict=False) for text in self.client)

    @cached_property
    def _paths(self) -> re.Pattern[bytes] | None:
        return compiled(self.path)

    def about(self, who: Requester) -> bool:
        """Whether the rule is about this requester, whatever it reads and how fast."""
        return (
            (not self.uid or who.uid in self._uids)
            and (not self.gid or who.gid in self._gids)
            and (not self.via or who.via in self.via)
            and (self._processes is None or bool(self._processes.match(who.process)))
            and (not self.client or self._is_client(who.client))
        )

    def _is_client(self, address: str) -> bool:
        if not address:
            return False
        found = ipaddress.ip_address(address)
        return any(found in network for network in self._clients)

    def covers(self, path: bytes) -> bool:
        """Whether the rule is about the file of this path from the mount's root."""
        return self._paths is None or bool(self._paths.fullmatch(path))


class GuardFile(BaseModel):
    """The whole file, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Annotated[tuple[Rule, ...], Field(max_length=limits.GUARD_RULES)] = ()


def loads(text: str, name: str = "guard rules") -> GuardFile:
    """Rules from TOML; raises GuardRules with line, key and cause of each fault."""
    return tomlfile.loads(text, GuardFile, _faults, name=name, error=GuardRules)


def default() -> str:
    """The rules that are in force at first, with every key explained."""
    return resources.files("hsmfs").joinpath(DEFAULT).read_text(encoding="utf-8")


def with_outcome(text: str, name: str, outcome: Outcome) -> str:
    """The rules with another outcome for the rule of that name; all else stays as it is written.

    Raises NotFound, or GuardRules if the rule is not written as a table of its own.
    """
    index = next((i for i, rule in enumerate(loads(text).rule) if rule.name == name), None)
    if index is None:
        raise NotFound(f"the guard has no rule {name!r}", next_step="see 'hsmctl guard show'")
    at = tomlfile.lines(text).get(("rule", index, "outcome"))
    if at is None:
        raise GuardRules(f"rule {name!r} is not written as a [[rule]]: its outcome has no line")
    lines = text.splitlines(keepends=True)
    lines[at - 1] = f'outcome = "{outcome.value}"\n'
    return "".join(lines)


def _faults(found: GuardFile) -> Iterator[tuple[tomlfile.Loc, str]]:
    """What no single key can know."""
    names: set[str] = set()
    for index, rule in enumerate(found.rule):
        if rule.name in names:
            yield ("rule", index, "name"), f"{rule.name!r} is used twice"
        names.add(rule.name)
        if rule.stay and rule.rate is None:
            yield ("rule", index, "stay"), "means nothing without a rate"
        if rule.client and rule.via and "smb" not in rule.via:
            yield ("rule", index, "client"), 'is known only of via = ["smb"]'
