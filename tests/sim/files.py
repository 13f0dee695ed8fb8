"""What users remember of their files: which bytes may be in them, and what was promised."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes, as the way they came about."""

    key: int
    size: int
    edits: tuple[tuple[str, int, int, int], ...] = ()
    """(what, offset or size, key, length)"""
    raw: bytes | None = None
    """What was read after a write was cut off; key and size count for nothing then."""

    def wrote(self, offset: int, key: int, length: int) -> Content:
        return replace(self, edits=(*self.edits, ("write", offset, key, length)))

    def cut(self, size: int) -> Content:
        return replace(self, edits=(*self.edits, ("cut", size, 0, 0)))

    def data(self) -> bytes:
        return _render(self)


EMPTY = Content(0, 0)


@lru_cache(512)
def _render(content: Content) -> bytes:
    data = bytearray(noise(content.key, content.size) if content.raw is None else content.raw)
    for what, at, key, length in content.edits:
        if what == "cut":
            del data[at:]
            data += bytes(at - len(data))
        else:
            data += bytes(max(0, at - len(data)))
            data[at : at + length] = noise(key, length)
    return bytes(data)


def noise(key: int, size: int) -> bytes:
    """Half of it shrinks."""
    rng = random.Random(key)
    half = rng.randbytes(size // 2)
    return half + rng.randbytes(16) * ((size - len(half)) // 16) + bytes((size - len(half)) % 16)


@dataclass(slots=True)
class UserFile:
    """One file. `content` is what an acknowledged fsync promised; `others` may be there as well."""

    name: bytes
    parent: int
    ino: int
    content: Content
    others: list[Content] = field(default_factory=list)
    sure: bool = True
    """False: nothing was promised, as after a write without fsync and a power cut."""
    acked: bool = True
    """The last change returned: kill -9 may not undo it, only a power cut."""
    torn: bool = False
    """The last change was cut off by a death."""
    archived: bool = False
    gone: bool = False
    """It was deleted, or is being: it may be there or not."""
    trashed_at: float | None = None
    retained_until: float | None = None
    """Not before this it may be deleted, in trio's time."""

    def may_hold(self, data: bytes) -> bool:
        """Whether these bytes may be read; of a torn write each byte may be old or new."""
        allowed = [c.data() for c in (self.content, *self.others)]
        if not self.sure or any(data == one for one in allowed):
            return True
        if not self.torn or not min(map(len, allowed)) <= len(data) <= max(map(len, allowed)):
            return False
        longest = max(map(len, allowed))
        padded = [one + bytes(longest - len(one)) for one in allowed]
        columns = zip(*padded, strict=True)
        return all(byte in some for byte, some in zip(data, columns, strict=False))
