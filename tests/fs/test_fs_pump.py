"""Requests are fetched our way, and other tasks have their turn all the same."""

from __future__ import annotations

import os
import sys

import pyfuse3
import trio

from hsmfs.fs import pump


async def test_turn_is_exclusive_and_handed_on():
    turn, inside, order = pump.Turn(), [0], []

    async def worker(name):
        for _ in range(3):
            async with turn:
                assert inside[0] == 0
                inside[0] += 1
                await trio.lowlevel.checkpoint()
                inside[0] -= 1
            order.append(name)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(worker, name)
    assert len(order) == 12


async def test_a_cancelled_waiter_is_not_handed_the_turn():
    turn = pump.Turn()
    async with trio.open_nursery() as nursery:
        async with turn:
            with trio.CancelScope() as scope:
                scope.cancel()
                async with turn:
                    raise AssertionError
        with trio.fail_after(5):
            async with turn:
                pass
        nursery.cancel_scope.cancel()


async def test_the_loop_has_its_turn_under_a_storm():
    """A descriptor that is always readable must not keep other tasks out."""
    readable, writable = os.pipe()
    low = pump.LowLevel(readable)
    os.write(writable, b"x")
    done = []

    async def other():
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        done.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        fetched = 0
        while not done:
            await low.wait_readable(readable)
            fetched += 1
    assert fetched > 5
    os.close(readable)
    os.close(writable)


def test_pyfuse3_takes_its_trio_from_the_module():
    """Both calls go through the global that `install` replaces."""
    before = sys.modules["pyfuse3"].trio
    try:
        pump.install(3)
        assert isinstance(pyfuse3.trio, pump.Trio)
        assert pyfuse3.trio.open_nursery is trio.open_nursery
    finally:
        pyfuse3.trio = before
