"""Sends every audit record to a syslog server: RFC 5424 over UDP, TCP or TLS.

The position is kept, so a server that was away gets what it missed. TCP and TLS frame messages
by octet counting (RFC 6587 section 3.4.1, RFC 5425 section 4.3); syslog has no answers, so after a
broken connection the last REPEAT records are sent again: `seq` and `hash` tell them apart.
"""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit

import trio

from ... import logs
from ...catalog.audit import Record
from ...catalog.catalog import Catalog
from ...catalog.reports import Reports
from .audit import Audit

log = logs.get(__name__)
PAGE = 500
REPEAT = 100
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds until a server that does not take records is tried again; doubled each time."""
GATHER = 0.2
"""Seconds after a new record until it is sent, with those that follow."""
AUDIT = 13
"""The facility "log audit" (RFC 5424 section 6.2.1)."""
SEVERITY = {"done": 6, "refused": 4, "failed": 3}
ENTERPRISE = 32473
"""The enterprise number that RFC 5612 sets aside for examples: hsmfs has none of its own."""
DATAGRAM = 65_507
"""Bytes of the longest UDP datagram over IPv4 (RFC 5426 section 3.2): what is longer is cut off."""
PORTS = {"udp": 514, "tcp": 601, "tls": 6514}

Send = Callable[[bytes], Awaitable[None]]


def message(record: Record, host: str, pid: int) -> bytes:
    """A record as an RFC 5424 message."""
    at = datetime.fromtimestamp(record.at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    priority = 8 * AUDIT + SEVERITY.get(record.outcome, 5)
    fields = (
        ("seq", str(record.seq)), ("actor", record.actor), ("object", record.object),
        ("outcome", record.outcome), ("worm_ns", str(record.worm_ns)), ("hash", record.hash.hex()),
    )  # fmt: skip
    data = " ".join(f'{name}="{_escaped(value)}"' for name, value in fields)
    head = f"<{priority}>1 {at}.{record.at_ns // 1000 % 10**6:06d}Z {host} hsmfs {pid}"
    text = f"{head} {record.kind[:32]} [audit@{ENTERPRISE} {data}] {record.detail}"
    return text.encode()


def _escaped(value: str) -> str:
    """A parameter's value (RFC 5424 section 6.3.3)."""
    return re.sub(r'(["\\\]])', r"\\\1", value)


class Forwarder:
    """The worker; does nothing without a server.

    Attributes:
        error: why the server does not take records, '' if it does.
    """

    def __init__(self, catalog: Catalog, audit: Audit, server: str | None) -> None:
        self._catalog, self._audit, self._server = catalog, audit, server
        self._more = trio.Event()
        self._host = re.sub(r"[^!-~]", "-", socket.gethostname())[:255] or "-"
        self.error = ""
        audit.appended = self._wake

    def _wake(self) -> None:
        self._more.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send records for ever, beginning behind the last that was sent."""
        task_status.started()
        if self._server is None:
            await trio.sleep_forever()
        pause = FIRST_PAUSE
        while True:
            try:
                async with _connected(self._server or "") as send:
                    await self._send_all(send)
            except (OSError, ssl.SSLError, trio.BrokenResourceError) as fault:
                if str(fault) != self.error:
                    log.warning("audit records are not forwarded", server=self._server, error=fault)
                pause = FIRST_PAUSE if not self.error else min(2 * pause, LONGEST_PAUSE)
                self.error = str(fault)
            await trio.sleep(pause)

    async def _send_all(self, send: Send) -> None:
        """Send what there is and what comes; returns never. Raises what sending raises."""
        last = max(0, self._audit.log.forwarded() - REPEAT)
        while True:
            self._more = trio.Event()
            found = await self._catalog.read(partial(_page, after=last))
            for record in found:
                await send(message(record, self._host, os.getpid()))
            if found:
                last = found[-1].seq
                if last > self._audit.log.forwarded():
                    async with self._catalog.write():
                        self._audit.log.set_forwarded(last)
                self.error = ""
            if len(found) < PAGE:
                await self._more.wait()
                await trio.sleep(GATHER)


def _page(reports: Reports, after: int) -> list[Record]:
    return list(reports.audit.after(after, PAGE))


@asynccontextmanager
async def _connected(server: str) -> AsyncIterator[Send]:
    """How to send one message to a server, "udp://HOST:PORT", tcp or tls. Raises OSError."""
    where = urlsplit(server)
    host, port = where.hostname or "", where.port or PORTS[where.scheme]
    if where.scheme == "udp":
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, _, _, address = found[0]
        with trio.socket.socket(family, kind) as datagrams:

            async def datagram(text: bytes) -> None:
                await datagrams.sendto(text[:DATAGRAM], address)

            yield datagram
        return
    stream: trio.SSLStream[trio.SocketStream] | trio.SocketStream
    if where.scheme == "tls":
        stream = await trio.open_ssl_over_tcp_stream(host, port)
        plain = stream.transport_stream
    else:
        stream = plain = await trio.open_tcp_stream(host, port)
    async with stream:

        async def framed(text: bytes) -> None:
            if _hung_up(plain):  # what is sent into a closed connection is lost without an error
                raise OSError(f"{server} closed the connection")
            await stream.send_all(b"%d %s" % (len(text), text))

        yield framed


def _hung_up(stream: trio.SocketStream) -> bool:
    """Whether the other end closed its side, whatever it sent before."""
    poll = select.poll()
    poll.register(stream.socket, select.POLLRDHUP)
    return bool(poll.poll(0))
