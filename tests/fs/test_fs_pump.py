"""Requests are fetched our way, and other tasks have their turn all the same."""

from __future__ import annotations

import os
import sys
import threading

import pyfuse3
import pytest
import trio
import trio.testing

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


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


class Waits(trio.abc.Instrument):
    """How often the loop waited."""

    count = 0

    def before_io_wait(self, timeout):
        self.count += 1


@pytest.fixture
async def resting(pipe, monkeypatch):
    """One that joined the loop and rests for as long as it takes for a request."""
    monkeypatch.setattr(pump, "REST_SECONDS", 60)
    monkeypatch.setattr(pump, "SPIN_SECONDS", 0)
    low = pump.LowLevel(pipe[0], pump.Turn())
    os.write(pipe[1], b"x")
    low._busy = False
    await low._sleep(pipe[0])
    os.read(pipe[0], 1)
    return low


async def test_a_request_ends_a_rest_without_a_turn_of_the_loop(resting, pipe):
    waits = Waits()
    trio.lowlevel.add_instrument(waits)
    writer = threading.Timer(0.01, os.write, (pipe[1], b"x"))
    writer.start()
    await resting.wait_readable(pipe[0])
    trio.lowlevel.remove_instrument(waits)
    assert not waits.count
    writer.join()


async def test_what_others_wait_for_ends_a_rest(resting, pipe):
    async def other():
        await trio.to_thread.run_sync(threading.Event().wait, 0.01)
        os.write(pipe[1], b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(30):  # it would rest for 60 s
            await resting.wait_readable(pipe[0])


async def test_no_rest_while_others_can_run(resting, pipe):
    async def other():
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        os.write(pipe[1], b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with trio.fail_after(30):
            await resting.wait_readable(pipe[0])


async def test_the_loop_has_its_turn_under_a_storm(pipe):
    """A descriptor that is always readable must not keep other tasks out."""
    readable, writable = pipe
    low = pump.LowLevel(readable, pump.Turn())
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


def test_pyfuse3_takes_its_trio_from_the_module():
    """Both calls go through the global that `install` replaces."""
    before = sys.modules["pyfuse3"].trio
    try:
        pump.install(3)
        assert isinstance(pyfuse3.trio, pump.Trio)
        assert pyfuse3.trio.open_nursery is trio.open_nursery
    finally:
        pyfuse3.trio = before
