"""Lines of SHA256SUMS, as sha256sum of GNU coreutils writes and reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import BadSeal

_LINE = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_PLAIN = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
_ESCAPED = {plain: escaped for escaped, plain in _PLAIN.items()}


def line(sha256: str, path: bytes) -> bytes:
    """One line; a path with a line feed or a backslash is escaped, and the line says so."""
    escaped = re.sub(rb"[\\\n\r]", lambda found: _ESCAPED[found[0]], path)
    mark = b"\\" if escaped != path else b""
    return mark + sha256.encode() + b"  " + escaped + b"\n"


def parse(data: bytes) -> Iterator[tuple[bytes, str]]:
    """(path, hexadecimal SHA-256) of each line; comments are skipped. Raises BadSeal."""
    for number, text in enumerate(data.split(b"\n"), 1):
        if not text.strip() or text.startswith(b"#"):
            continue
        found = _entry(text)
        if found is None:
            raise BadSeal(f"line {number} of the sums is not 'SHA256  NAME'")
        yield found


def known(data: bytes) -> dict[bytes, str]:
    """As `parse`, of a file whose lines need not all be sums; the last line of a path counts."""
    return dict(found for text in data.split(b"\n") if (found := _entry(text)) is not None)


def _entry(text: bytes) -> tuple[bytes, str] | None:
    found = _LINE.fullmatch(text.rstrip(b"\r"))
    if found is None:
        return None
    path = found[3]
    if found[1]:
        path = re.sub(rb"\\[\\nr]", lambda one: _PLAIN[one[0]], path)
    return path, found[2].decode()
