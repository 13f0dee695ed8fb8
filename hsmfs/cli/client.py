"""The API's client: httpx over the daemon's Unix socket, errors as the exceptions they were.

An answer that is not 2xx becomes an HsmError with the daemon's own cause, next step and exit code.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ..errors import DaemonUnreachable, HsmError

TIMEOUT_S = 60.0
"""For one answer; streams may be silent for as long as they like."""


class ApiError(HsmError):
    """What the daemon answered instead of doing it."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("cause")), next_step=str(body.get("next_step") or ""))
        self.kind = str(body.get("error", "Error"))
        self.exit_code = int(body.get("exit_code", 1))  # type: ignore[misc]


class Client:
    """Requests to one daemon. Raises DaemonUnreachable at once if none listens."""

    def __init__(self, path: Path, timeout: float = TIMEOUT_S) -> None:
        self._path = path
        _reach(path)
        transport = httpx.HTTPTransport(uds=str(path))
        self._http = httpx.Client(
            transport=transport,
            base_url="http://hsmfs/v1",
            timeout=httpx.Timeout(timeout, connect=5),
            headers={"X-Hsmfs-Who": f"hsmctl {_user()}"},
        )

    def get(self, path: str, **query: Any) -> Any:
        """The decoded answer. Raises HsmError."""
        with self._faults():
            return self._decoded(self._http.get(path, params=_present(query)))

    def post(self, path: str, body: object = None, timeout: float | None = TIMEOUT_S) -> Any:
        """Give an order with a JSON body; None as timeout waits as long as it takes."""
        with self._faults():
            return self._decoded(self._http.post(path, json=body, timeout=timeout))

    def lines(self, method: str, path: str, body: object = None, **query: Any) -> Iterator[Any]:
        """The objects of a stream of JSON lines, as they come."""
        with (
            self._faults(),
            self._http.stream(
                method, path, json=body, params=_present(query),
                timeout=httpx.Timeout(None, connect=5),
            ) as answer,
        ):  # fmt: skip
            if not answer.is_success:
                answer.read()
                self._decoded(answer)
            for line in answer.iter_lines():
                if line:
                    item = json.loads(line)
                    if isinstance(item, dict) and "exit_code" in item and "cause" in item:
                        raise ApiError(item)
                    yield item

    def _decoded(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json()
        try:
            body = answer.json()
        except ValueError:
            body = {"cause": f"HTTP {answer.status_code}: {answer.text[:200]}"}
        raise ApiError(body)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as fault:
            raise DaemonUnreachable(f"no hsmfsd answers on {self._path}: {fault}") from fault
        except httpx.TimeoutException as fault:
            raise DaemonUnreachable(
                f"hsmfsd did not answer in time on {self._path}",
                next_step="see its log; 'kill -USR1' writes what it does to it",
            ) from fault
        except httpx.TransportError as fault:
            raise DaemonUnreachable(f"hsmfsd went away: {fault}") from fault


def _reach(path: Path) -> None:
    """Try the socket: a failure here has a plain cause, and httpx leaks a socket on one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except OSError as fault:
            step = "ask for membership in [daemon] socket_group" if isinstance(
                fault, PermissionError
            ) else None
            raise DaemonUnreachable(
                f"no hsmfsd answers on {path}: {fault.strerror or fault}", next_step=step
            ) from fault


def _present(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _user() -> str:
    try:
        return f"{getpass.getuser()}({os.getuid()})"
    except (KeyError, OSError):
        return str(os.getuid())
