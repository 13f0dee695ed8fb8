"""Ways to a daemon: its Unix socket on this machine, or TLS to another one.

Only the standard library: a command of hsmctl is to be there before one notices.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import stat
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from ..errors import ConfigError, DaemonUnreachable

CONNECT_S = 5.0


class Link(Protocol):
    """A way to a daemon. `str()` of it names it in messages."""

    headers: dict[str, str]

    @property
    def if_closed(self) -> str | None:
        """What to do if the daemon closes a connection instead of an answer."""

    def connection(self, timeout: float | None) -> http.client.HTTPConnection:
        """A new connection, open; timeout is for each answer. Raises DaemonUnreachable."""


class SocketLink:
    """The daemon's Unix socket; the kernel tells it who we are."""

    if_closed = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.headers = {"Host": "hsmfs"}

    def __str__(self) -> str:
        return str(self._path)

    def connection(self, timeout: float | None) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("hsmfs")
        made.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.sock.settimeout(CONNECT_S)
            made.sock.connect(str(self._path))
            made.sock.settimeout(timeout)
        except OSError as fault:
            made.close()
            step = "ask for membership in [daemon] socket_group" if isinstance(
                fault, PermissionError
            ) else None
            raise DaemonUnreachable(
                f"no hsmfsd answers on {self._path}: {fault.strerror or fault}", next_step=step
            ) from fault
        return made


class ServerLink:
    """TLS to the daemon of another machine, with a token or a client certificate.

    ca: who vouches for the server, a PEM file; None: whom this system trusts. Raises ConfigError.
    """

    if_closed = "see its log, and whether [access] client_ca there vouches for --cert"

    def __init__(
        self,
        url: str,
        *,
        token: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        ca: Path | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
            raise ConfigError(
                f"--server {url}: no address of a daemon", next_step="such as https://nas:8443"
            )
        self._url, self._host, self._port = url, parts.hostname, parts.port
        self._certificate, self._key, self._ca = certificate, key, ca
        self.headers = {"Authorization": f"Bearer {_token(token)}"} if token else {}

    def __str__(self) -> str:
        return self._url

    @cached_property
    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
            if self._certificate is not None:
                context.load_cert_chain(self._certificate, self._key)
        except OSError as fault:
            files = ", ".join(str(p) for p in (self._ca, self._certificate, self._key) if p)
            raise ConfigError(
                f"--ca, --cert, --key ({files}): {fault}", next_step="give PEM files"
            ) from fault
        return context

    def connection(self, timeout: float | None) -> http.client.HTTPConnection:
        made = http.client.HTTPSConnection(
            self._host, self._port, timeout=CONNECT_S, context=self._context
        )
        try:
            made.connect()
            made.sock.settimeout(timeout)
        except ssl.SSLCertVerificationError as fault:
            made.close()
            raise DaemonUnreachable(
                f"{self._url} is not to be trusted: {fault.verify_message}",
                next_step="give its CA with --ca, and the name that its certificate bears",
            ) from fault
        except OSError as fault:
            made.close()
            raise DaemonUnreachable(
                f"no hsmfsd answers on {self._url}: {fault.strerror or fault}",
                next_step="see [access] listen on that machine",
            ) from fault
        return made


def _token(path: Path) -> str:
    """The token in a file. Raises ConfigError if it cannot be read, or anybody can read it."""
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"--token-file {path} is open to others", next_step=f"run 'chmod 600 {path}'"
            )
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(
            f"--token-file {path}: {fault}", next_step="put what 'hsmctl token create' shows in it"
        ) from fault
    if not text or any(ch.isspace() for ch in text):
        raise ConfigError(
            f"--token-file {path} holds no token",
            next_step="put what 'hsmctl token create' shows in it",
        )
    return text
