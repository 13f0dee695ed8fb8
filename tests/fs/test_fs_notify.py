"""The kernel is told of changes by a thread, which may hang there."""

from __future__ import annotations

import threading

import pytest
import trio

from hsmfs.fs import notify
from hsmfs.types import ROOT


def test_a_thread_that_hangs_is_left_behind_and_in_nobodys_way(monkeypatch: pytest.MonkeyPatch):
    """Also not of the next mount's in this process, as its trio run never hears of it again."""
    hangs = threading.Event()

    def send(inos: list, names: list) -> None:
        trio.from_thread.run_sync(begun.set)
        hangs.wait()

    async def tell() -> None:
        nonlocal begun
        begun = trio.Event()
        notifier = notify.Notifier({ROOT})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.run)
            notifier.changed(ROOT)
            with trio.fail_after(10):
                await begun.wait()
            nursery.cancel_scope.cancel()

    begun = trio.Event()
    monkeypatch.setattr(notify, "_send", send)
    trio.run(tell)
    trio.run(tell)
    hangs.set()
