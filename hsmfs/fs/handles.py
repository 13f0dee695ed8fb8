"""Open files and folders by the number the kernel knows them by.

pyfuse3 gives reads, writes and releases nothing but that number, so what `open` was told (flags,
who) is kept here.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from functools import cached_property

from pyfuse3 import RequestContext

from ..engine.live import Live
from ..types import InodeNo, Requester
from .requester import requester


class Handle:
    """An open file.

    Attributes:
        live: the inode's bytes.
        write: opened for writing.
        noatime: reads leave the time of access alone (O_NOATIME), or it was set already.
        direct: the kernel neither caches nor reads ahead on this handle.
        past: the number of the past that is read; 0: the file itself.
        size: of the past, bytes that there were then.
        gen: of the past, `live.gen` when the bytes were those of then.
    """

    __slots__ = ("__dict__", "ctx", "direct", "gen", "live", "noatime", "past", "size",
                 "write")  # fmt: skip

    def __init__(
        self, live: Live, flags: int, ctx: RequestContext, *, direct: bool = False, past: int = 0,
        size: int = 0,
    ) -> None:
        self.live = live
        self.write = writes(flags)
        self.noatime = bool(flags & os.O_NOATIME or past)
        self.past, self.size = past, size
        self.gen = live.gen
        self.direct = direct
        self.ctx = ctx

    @cached_property
    def who(self) -> Requester:
        """Who opened it; looked up only if somebody has to wait."""
        return requester(self.ctx)


@dataclass(slots=True)
class Folder:
    """An open folder; page is how many entries the last answer held."""

    ino: InodeNo
    page: int = field(default=32)


class Handles:
    """Numbers for handles; none is used twice."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.files: dict[int, Handle] = {}
        self.folders: dict[int, Folder] = {}

    def add(self, handle: Handle) -> int:
        """The number of a newly opened file."""
        number = next(self._numbers)
        self.files[number] = handle
        return number

    def add_folder(self, ino: InodeNo) -> int:
        """The number of a newly opened folder."""
        number = next(self._numbers)
        self.folders[number] = Folder(ino)
        return number


def writes(flags: int) -> bool:
    """Whether open(2) flags allow writing."""
    return flags & os.O_ACCMODE != os.O_RDONLY


def write_only(flags: int) -> bool:
    """Whether open(2) flags allow nothing but writing."""
    return flags & os.O_ACCMODE == os.O_WRONLY
