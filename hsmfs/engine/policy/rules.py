"""The policy file: TOML tables `[[policy]]` as frozen models, checked with line numbers on load.

`policies.example.toml` explains each key; a test keeps it and these models together. Sizes are
bytes, durations seconds.
"""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ... import limits, tomlfile
from ...config import Name
from ...errors import PolicyError
from ...unit_types import Duration, Size
from .globs import translate

EXAMPLE = "policies.example.toml"
_AT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?:-([01]\d|2[0-3]):([0-5]\d))?")
Action = Literal["archive", "release", "demote", "never"]
Grouping = Literal["directory", "dicom-study", "none"]
Place = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
State = Literal["resident", "premigrated", "partial", "migrated"]


def path_pattern(pattern: str) -> str:
    """A pattern of paths from the mount's root. Raises ValueError."""
    if not pattern.startswith("/"):
        raise ValueError(f"{pattern!r} must begin with '/', the root of the mount")
    return _glob(pattern)


def _file(pattern: str) -> str:
    if "/" in pattern:
        raise ValueError(f"{pattern!r} is matched against a name alone: put it under 'path'")
    return _glob(pattern)


def _glob(pattern: str) -> str:
    try:
        re.compile(translate(pattern), re.DOTALL)
    except re.error as e:
        raise ValueError(f"{pattern!r} is not a pattern: {e}") from None
    return pattern


def _at(text: str) -> str:
    if not _AT.fullmatch(text):
        raise ValueError(f'{text!r} is not a time: write "02:00" or "20:00-06:00"')
    return text


def known_user(who: int | str) -> int | str:
    """A user that this machine knows. Raises ValueError."""
    try:
        uid_of(who)
    except KeyError:
        raise ValueError(f"no user is called {who!r} on this machine") from None
    return who


def known_group(who: int | str) -> int | str:
    """A group that this machine knows. Raises ValueError."""
    try:
        gid_of(who)
    except KeyError:
        raise ValueError(f"no group is called {who!r} on this machine") from None
    return who


def uid_of(who: int | str) -> int:
    """The number of a user. Raises KeyError."""
    return who if isinstance(who, int) else pwd.getpwnam(who).pw_uid


def gid_of(who: int | str) -> int:
    """The number of a group. Raises KeyError."""
    return who if isinstance(who, int) else grp.getgrnam(who).gr_gid


class Rule(BaseModel):
    """One `[[policy]]`; a key that is not given matches every file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    action: Action

    # Which files
    path: tuple[Annotated[str, AfterValidator(path_pattern)], ...] = ()
    file: tuple[Annotated[str, AfterValidator(_file)], ...] = ()
    min_size: Size | None = None
    max_size: Size | None = None
    owner: tuple[Annotated[int | str, AfterValidator(known_user)], ...] = ()
    owner_group: tuple[Annotated[int | str, AfterValidator(known_group)], ...] = ()
    modified: Duration | None = None
    """Modified longer ago than this."""
    accessed: Duration | None = None
    """Read or modified longer ago than this."""
    state: tuple[State, ...] = ()

    # What is done with them
    copies: Annotated[int, Field(ge=1, le=limits.COPIES)] | None = None
    vault: Place | None = None
    """Where one of the copies is to be kept, on sets of its own."""
    head: Annotated[Size, Field(le=2**30)] | None = None
    group: Grouping = "directory"
    release: bool = False
    """Released as soon as archived."""
    after: Duration | None = None
    """Archived files are released when nobody used them for so long."""

    # When
    every: Annotated[Duration, Field(ge=1)] | None = None
    at: tuple[Annotated[str, AfterValidator(_at)], ...] = ()
    watermark: bool = False
    waiting: Size | None = None

    @property
    def static(self) -> bool:
        """True if no key looks at what time or a migration alone changes."""
        return self.modified is None and self.accessed is None and not self.state


class PolicyFile(BaseModel):
    """The whole file, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    policy: tuple[Rule, ...] = ()


def load(path: Path) -> PolicyFile:
    """Read a policy file; raises PolicyError with file, line, key and cause of each fault."""
    return tomlfile.load(path, PolicyFile, _faults, error=PolicyError)


def loads(text: str, name: str = "policies") -> PolicyFile:
    """As `load`, for text that is called `name` in messages."""
    return tomlfile.loads(text, PolicyFile, _faults, name=name, error=PolicyError)


def example() -> str:
    """A policy file with every key explained."""
    return resources.files("hsmfs").joinpath(EXAMPLE).read_text(encoding="utf-8")


def _faults(found: PolicyFile) -> Iterator[tuple[tomlfile.Loc, str]]:
    """What no single key can know."""
    names: set[str] = set()
    for index, rule in enumerate(found.policy):
        at: tomlfile.Loc = ("policy", index)
        if rule.name in names:
            yield (*at, "name"), f"{rule.name!r} is used twice"
        names.add(rule.name)
        given = rule.model_fields_set
        for key in sorted(given - _ALLOWED[rule.action]):
            yield (*at, key), f"means nothing with action = {rule.action!r}"
        if rule.max_size is not None and (rule.min_size or 0) > rule.max_size:
            yield (*at, "min_size"), "is larger than max_size: no file can match"
        if rule.release and rule.after is not None:
            yield (*at, "after"), "release = true releases at once: keep one of the two"
        if rule.vault is not None and (rule.copies or 1) < 2:
            yield (*at, "vault"), "one copy must stay in the library: ask for copies = 2 or more"


_MATCH = {
    "name", "action", "path", "file", "min_size", "max_size", "owner", "owner_group", "modified",
    "accessed", "state",
}  # fmt: skip
_WHEN = {"every", "at", "watermark", "waiting"}
_ALLOWED: dict[Action, set[str]] = {
    "archive": _MATCH | _WHEN | {"copies", "vault", "head", "group", "release", "after"},
    "release": _MATCH | _WHEN,
    "demote": _MATCH | _WHEN,
    "never": _MATCH,
}
