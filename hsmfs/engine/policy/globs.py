"""Shell patterns over names of any bytes: `*` and `?` stay within a folder, `**` does not. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ONE = rb"(?:[\xc2-\xf4][\x80-\xbf]+|[^/])"
"""One UTF-8 character, or one byte that is none."""


def translate(pattern: str) -> bytes:
    """The regular expression of a pattern; one that ends in '/' means all below that folder."""
    if pattern.endswith("/"):
        pattern += "**"
    out: list[bytes] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("/**/", at):
            out.append(b"/(?:.*/)?")
            at += 4
            while pattern.startswith("**/", at):  # any folders below any folders
                at += 3
        elif pattern.startswith("**", at):
            out.append(b".*")
            at += 2
        elif pattern[at] == "*":
            out.append(b"[^/]*")
            at += 1
        elif pattern[at] == "?":
            out.append(_ONE)
            at += 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            out.append(_class(pattern[at + 1 : end]))
            at = end + 1
        else:
            out.append(re.escape(pattern[at].encode("utf-8", "surrogateescape")))
            at += 1
    return b"".join(out)


def _class(inside: str) -> bytes:
    """`[a-z]` or `[!a-z]`; characters beyond ASCII as alternatives."""
    negated = inside.startswith("!")
    inside = inside[1:] if negated else inside
    if inside.isascii():
        body = re.sub(rb"([\\\[\]^&~|])", rb"\\\1", inside.encode())
        return (b"[^/" if negated else b"[") + body + b"]"
    if negated or "-" in inside:
        raise re.error("ranges and '!' take ASCII characters only")
    return b"(?:" + b"|".join(re.escape(c.encode()) for c in inside) + b")"


def compiled(patterns: Iterable[str]) -> re.Pattern[bytes] | None:
    """One expression for all patterns, for fullmatch; None if there are none."""
    parts = [b"(?:" + translate(pattern) + b")" for pattern in patterns]
    return re.compile(b"|".join(parts), re.DOTALL) if parts else None
