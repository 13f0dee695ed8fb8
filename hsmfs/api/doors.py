"""The doors of the API: the Unix socket and TLS over TCP. Each tells who came in by it.

Blocking to make; connections are entered on the loop, and only certificates that changed are read
again, in a thread.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import ssl
import stat
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import trio

from .. import clock, logs
from ..config import AccessConfig, DaemonConfig
from ..engine.access import Peer
from ..engine.access.rates import origin
from ..errors import ConfigError
from ..limits import API_CONNECTIONS, API_CONNECTIONS_EACH

log = logs.get(__name__)
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Entered = AbstractAsyncContextManager[tuple[Stream, Peer] | None]
Failed = Callable[[str, str], Awaitable[None]]
"""(address, why) of somebody who could not log in."""
BACKLOG = 128
HANDSHAKE_S = 10.0
_ASIDE = trio.CapacityLimiter(4)
"""Threads of the API's own: nobody waits behind the disks to come in."""
_UCRED = struct.Struct("3i")
"""struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)."""


class Door(Protocol):
    """Where connections come in."""

    address: str
    listener: trio.SocketListener

    def entered(self, stream: trio.SocketStream) -> Entered:
        """The stream to speak on, and who is there; None: they were turned away."""

    def close(self) -> None:
        """Nobody comes in any more."""


class UnixDoor:
    """The daemon's socket; the kernel says which user connected. Raises ConfigError."""

    def __init__(self, daemon: DaemonConfig) -> None:
        self._path = daemon.socket
        self.address = str(daemon.socket)
        self.listener = trio.SocketListener(trio.socket.from_stdlib_socket(_listen(daemon)))
        self._names: dict[int, str] = {}

    @asynccontextmanager
    async def entered(self, stream: trio.SocketStream) -> AsyncIterator[tuple[Stream, Peer] | None]:
        raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(raw)
        if uid not in self._names:
            # A directory service may have to be asked.
            self._names[uid] = await clock.blocking(lambda: _user(uid), _ASIDE)
        yield stream, Peer(uid=uid, user=self._names[uid])

    def close(self) -> None:
        self.listener.socket.close()
        self._path.unlink(missing_ok=True)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "uid"


class TlsDoor:
    """TCP with TLS 1.2 or newer. Raises ConfigError.

    failed: told of handshakes that failed; a client certificate that nobody vouches for is one.
    """

    def __init__(self, config: AccessConfig, failed: Failed) -> None:
        assert config.listen is not None
        self._config, self._failed = config, failed
        self._context = _context(config)
        self._read = self._stamp()
        self._from: Counter[str] = Counter()
        host, _, port = config.listen.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            made = socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as fault:
            raise ConfigError(
                f"[access] listen: {config.listen}: {fault}", next_step="correct the address"
            ) from fault
        made.setblocking(False)
        self.address = f"https://{config.listen.rpartition(':')[0]}:{made.getsockname()[1]}"
        self.listener = trio.SocketListener(trio.socket.from_stdlib_socket(made))

    def close(self) -> None:
        self.listener.socket.close()

    @asynccontextmanager
    async def entered(self, stream: trio.SocketStream) -> AsyncIterator[tuple[Stream, Peer] | None]:
        try:
            address = stream.socket.getpeername()[0]
        except OSError:  # gone again
            await trio.aclose_forcefully(stream)
            yield None
            return
        place = origin(address)
        full = self._from.total() >= API_CONNECTIONS
        if full or self._from[place] >= API_CONNECTIONS_EACH:
            await trio.aclose_forcefully(stream)
            yield None
            return
        self._from[place] += 1
        try:
            yield await self._shaken(stream, address)
        finally:
            self._from[place] -= 1
            if not self._from[place]:
                del self._from[place]

    async def _shaken(self, stream: trio.SocketStream, address: str) -> tuple[Stream, Peer] | None:
        await self._renew()
        secure = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_S):
                await secure.do_handshake()
        except trio.TooSlowError:
            why = "the TLS handshake took too long"
        except trio.BrokenResourceError as fault:
            why = f"TLS: {fault.__cause__ or fault}"
        else:
            return secure, Peer(address=address, certificate=_common_name(secure.getpeercert()))
        await trio.aclose_forcefully(stream)
        await self._failed(address, why)
        return None

    async def _renew(self) -> None:
        """Certificates are renewed while the daemon runs; a pair that is wrong is not taken."""
        stamp = await clock.blocking(self._stamp, _ASIDE)
        if stamp == self._read:
            return
        self._read = stamp
        try:
            self._context = await clock.blocking(lambda: _context(self._config), _ASIDE)
        except ConfigError as fault:
            log.error("the old TLS certificate stays in use", error=fault)
        else:
            log.info("the TLS certificate was read again")

    def _stamp(self) -> list[int]:
        config = self._config
        files = (config.certificate, config.key, config.client_ca)
        found = []
        for path in filter(None, files):
            with contextlib.suppress(OSError):
                found.append(path.stat().st_mtime_ns)
        return found


def _context(config: AccessConfig) -> ssl.SSLContext:
    """What TLS is to be, from the files as they are now. Raises ConfigError."""
    assert config.certificate and config.key
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        _private(config.key)
        context.load_cert_chain(config.certificate, config.key, password=_no_password)
        if config.client_ca is not None:
            context.load_verify_locations(config.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ValueError) as fault:  # SSLError is an OSError
        files = ", ".join(str(p) for p in (config.certificate, config.key, config.client_ca) if p)
        raise ConfigError(
            f"[access] certificate, key, client_ca ({files}): {fault}",
            next_step="give PEM files: certificate and key of one pair, the key without a password",
        ) from fault
    return context


def _private(key: Path) -> None:
    if key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(
            f"[access] key: {key} is open to everybody", next_step=f"run 'chmod 600 {key}'"
        )


def _no_password() -> str:
    raise ValueError("the key has a password")


def _common_name(certificate: object) -> str:
    """Of the certificate that the client showed and TLS verified; '' if it showed none."""
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[-1] if names else ""


def _listen(daemon: DaemonConfig) -> socket.socket:
    """A listening socket at its path."""
    path = daemon.socket
    group = _group(daemon)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o777)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        if group is not None:
            os.chown(path, -1, group)
        path.chmod(0o660)
        listener.listen(BACKLOG)
    except OSError as fault:
        raise ConfigError(
            f"socket {path}: {fault.strerror or fault}", next_step="correct [daemon] socket"
        ) from fault
    return listener


def _remove_stale(path: Path) -> None:
    """A socket that a killed daemon left; the catalog's lock says that there is no other one."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_socket():
            path.unlink()


def _group(daemon: DaemonConfig) -> int | None:
    if daemon.socket_group is None:
        return None
    try:
        return grp.getgrnam(daemon.socket_group).gr_gid
    except KeyError:
        raise ConfigError(f"[daemon] socket_group: no group {daemon.socket_group!r}") from None
