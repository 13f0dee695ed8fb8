"""Audit records at a syslog server: well-formed, all of them, also after it was away."""

from __future__ import annotations

import re

import pytest
import trio

from hsmfs.catalog.audit import AuditLog, Record
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.retention import Retentions
from hsmfs.engine.trust import syslog
from hsmfs.engine.trust.audit import Audit
from hsmfs.engine.trust.compliance import ComplianceClock

RFC5424 = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) ([!-~]{1,48})"
    rb" ([!-~]{1,128}) ([!-~]{1,32}) \[([^ ]+)((?: [!-~]+=\"(?:[^\"\\\]]|\\.)*\")*)\] (.*)",
    re.DOTALL,
)


@pytest.fixture
async def audit(tmp_path):
    catalog = Catalog.create(tmp_path / "state")
    made = Audit(catalog, ComplianceClock(Retentions(catalog.db), AuditLog(catalog.db)))
    made.catalog = catalog
    yield made
    catalog.close()


def test_a_message_is_as_the_rfc_says():
    record = Record(7, 10**18 + 5000, 1, "file.deleted", 'rm[1] uid 0 "x]\\', "/ä", "refused",
                    '{"a":1}', b"\1" * 32)  # fmt: skip
    found = RFC5424.fullmatch(syslog.message(record, "host", 5))
    assert found
    assert found[1] == b"108" and found[2] == b"2001-09-09T01:46:40.000005Z"
    assert found[6] == b"file.deleted" and found[7] == b"audit@32473"
    assert b'actor="rm[1\\] uid 0 \\"x\\]\\\\"' in found[8]
    assert found[9] == b'{"a":1}'


async def received(stream, count: int) -> list[bytes]:
    """That many frames of octet counting."""
    data, frames = b"", []
    while len(frames) < count:
        size, space, rest = data.partition(b" ")
        if space and len(rest) >= int(size):
            frames.append(rest[: int(size)])
            data = rest[int(size) :]
            continue
        block = await stream.receive_some()
        assert block, "the connection ended"
        data += block
    return frames


def numbers(frames: list[bytes]) -> list[int]:
    return [int(re.search(rb'seq="(\d+)"', frame)[1]) for frame in frames]


async def test_over_tcp_and_again_after_a_break(audit, monkeypatch):
    monkeypatch.setattr(syslog, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(syslog, "REPEAT", 1)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    for name in ("a", "b", "c"):
        await audit.write("file.deleted", "me", name)
    forwarder = syslog.Forwarder(audit.catalog, audit, f"tcp://127.0.0.1:{port}")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(forwarder.run)
            stream = await listener.accept()
            frames = await received(stream, 3)
            assert all(RFC5424.fullmatch(frame) for frame in frames)
            assert numbers(frames) == [1, 2, 3]
            await audit.write("file.deleted", "me", "d")
            assert numbers(await received(stream, 1)) == [4]
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            await audit.write("file.deleted", "me", "e")
            await nursery.start(forwarder.run)
            again = await listener.accept()
            assert numbers(await received(again, 2)) == [4, 5]
            nursery.cancel_scope.cancel()
    await listener.aclose()
    await stream.aclose()
    await again.aclose()


@pytest.mark.parametrize("detail", ["", "x" * 70_000])
async def test_over_udp(audit, detail):
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))
        await audit.write("file.deleted", "me", "a", why=detail)
        where = f"udp://127.0.0.1:{server.getsockname()[1]}"
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(syslog.Forwarder(audit.catalog, audit, where).run)
                text, _ = await server.recvfrom(65536)
                nursery.cancel_scope.cancel()
    assert RFC5424.fullmatch(text)


@pytest.mark.expect_log("audit records are not forwarded")
async def test_a_server_that_is_away_is_told(audit):
    async with trio.open_nursery() as nursery:
        forwarder = syslog.Forwarder(audit.catalog, audit, "tcp://127.0.0.1:1")
        await nursery.start(forwarder.run)
        with trio.fail_after(10):
            while not forwarder.error:  # noqa: ASYNC110 - the worker has no event for it
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.expect_log("audit records are not forwarded")
async def test_a_server_that_hung_up_while_nothing_happened_misses_nothing(audit, monkeypatch):
    monkeypatch.setattr(syslog, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(syslog, "REPEAT", 0)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    forwarder = syslog.Forwarder(audit.catalog, audit, f"tcp://127.0.0.1:{port}")
    await audit.write("file.deleted", "me", "a")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(forwarder.run)
            stream = await listener.accept()
            assert numbers(await received(stream, 1)) == [1]
            await stream.aclose()
            await audit.write("file.deleted", "me", "b")
            async with await listener.accept() as again:
                assert numbers(await received(again, 1)) == [2]
            nursery.cancel_scope.cancel()
    await listener.aclose()
