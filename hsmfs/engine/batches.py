"""Many small steps on the event loop that leave it room to breathe, with changes of the catalog."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

import trio

from .. import crash
from ..catalog.catalog import Catalog
from ..limits import BATCH_ROWS, BATCH_SECONDS

T = TypeVar("T")
R = TypeVar("R")


async def in_batches(
    catalog: Catalog, items: Iterable[T], change: Callable[[T], None], point: str
) -> None:
    """Call change for each item, in transactions of at most BATCH_ROWS and about BATCH_SECONDS.

    The crash point of that name is passed after each of them. change must not await.
    """
    todo = iter(items)
    done = False
    while not done:
        async with catalog.write():
            until = time.monotonic() + BATCH_SECONDS / 2
            done = True
            for item in islice(todo, BATCH_ROWS):
                change(item)
                if time.monotonic() > until:
                    done = False
                    break
            else:
                following = next(todo, _END)
                if following is not _END:
                    change(following)  # type: ignore[arg-type]
                    done = False
        crash.point(point)
        await trio.lowlevel.checkpoint()


async def at_leisure(catalog: Catalog, items: Iterable[T], f: Callable[[T], R]) -> list[R]:
    """f of each item, which may ask the catalog; others get their turn about every
    BATCH_SECONDS / 2. f must not await.
    """
    found: list[R] = []
    await catalog.settled()
    until = time.monotonic() + BATCH_SECONDS / 2
    for item in items:
        found.append(f(item))
        if time.monotonic() > until:
            await trio.lowlevel.checkpoint()
            await catalog.settled()
            until = time.monotonic() + BATCH_SECONDS / 2
    return found


_END = object()
