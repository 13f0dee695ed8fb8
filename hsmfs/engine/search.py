"""`find`: files by state, age, size, owner, volume and name, or lost ones, without a scan of the
namespace.

Pages are read in threads, each on a snapshot of its own, and come out as blocks of JSON lines: a
million files found cost the event loop nothing but the passing on of the blocks.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

from ..catalog.reports import Place, Query, Reports
from ..types import Attr
from .lost import Reach, out_of, reach
from .overview import state_of
from .views import b64, entry, plain

if TYPE_CHECKING:
    from .service import Engine

PAGE = 2000


async def find(
    engine: Engine,
    query: Query,
    name: str | None,
    limit: int | None,
    *,
    paths: bool = False,
    lost: bool = False,
) -> AsyncIterator[bytes]:
    """Blocks of JSON lines, each an Entry (or its `path_b64` alone); at most limit lines.

    lost: only files of which nothing brings bytes back (lost.py).
    """
    line = _path_line if paths else _entry_line
    pattern = re.compile(fnmatch.translate(name).encode()) if name else None
    await engine.write_sizes_down()
    discs = await engine.catalog.read(reach) if lost else None
    place: Place | None = Place()
    left = limit
    while place is not None and (left is None or left > 0):
        block, found, place = await engine.catalog.read(
            partial(
                _page, query=query, pattern=pattern, place=place, left=left, line=line, discs=discs
            )
        )
        if block:
            yield block
        left = None if left is None else left - found


def _page(
    reports: Reports,
    query: Query,
    pattern: re.Pattern[bytes] | None,
    place: Place,
    left: int | None,
    line: Callable[[bytes, Attr], str],
    discs: Reach | None,
) -> tuple[bytes, int, Place | None]:
    """Lines of one page, how many, and the place to go on from; None at the end."""
    out: list[str] = []
    attrs, following = reports.page(query, place, PAGE)
    if discs is not None:
        gone = out_of(reports, attrs, discs)
        attrs = [attr for attr in attrs if attr.ino in gone]
    paths = reports.path_cache().paths([attr.ino for attr in attrs])
    for attr in attrs:
        path = paths.get(attr.ino)
        if path is None or (pattern and not pattern.match(path.rpartition(b"/")[2])):
            continue
        out.append(line(b"/" + path, attr))
        if left is not None and len(out) >= left:
            break
    return "".join(out).encode(), len(out), following


def _entry_line(path: bytes, attr: Attr) -> str:
    return json.dumps(plain(entry(path, attr, state_of(attr)))) + "\n"


def _path_line(path: bytes, attr: Attr) -> str:
    return f'{{"path_b64": "{b64(path)}", "ino": {attr.ino}}}\n'
