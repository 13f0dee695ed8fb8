"""The API's client: HTTP over a link to the daemon, errors as the exceptions they were.

An answer that is not 2xx becomes an HsmError with the daemon's own cause, next step and exit code.
Only the standard library: a command of hsmctl is to be there before one notices.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode

from ..errors import DaemonUnreachable, HsmError
from .links import Link

TIMEOUT_S = 60.0
"""For one answer; streams may be silent for as long as they like."""
BLOCK = 1 << 16


class ApiError(HsmError):
    """What the daemon answered instead of doing it."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("cause")), next_step=str(body.get("next_step") or ""))
        self.kind = str(body.get("error", "Error"))
        self.exit_code = int(body.get("exit_code", 1))  # type: ignore[misc]


class Client:
    """Requests to one daemon, a connection each. Raises DaemonUnreachable if none listens."""

    def __init__(self, link: Link, timeout: float = TIMEOUT_S) -> None:
        self._link = link
        self._timeout = timeout
        link.connection(timeout).close()

    def get(self, path: str, **query: Any) -> Any:
        """The decoded answer. Raises HsmError."""
        with self._answer("GET", path, None, query, self._timeout) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: object = None, timeout: float | None = TIMEOUT_S) -> Any:
        """Give an order with a JSON body; None as timeout waits as long as it takes."""
        with self._answer("POST", path, body, {}, timeout) as answer:
            return json.loads(answer.read())

    def lines(self, method: str, path: str, body: object = None, **query: Any) -> Iterator[Any]:
        """The objects of a stream of JSON lines, as they come."""
        for block in self.blocks(method, path, body, **query):
            yield from block

    def blocks(
        self, method: str, path: str, body: object = None, **query: Any
    ) -> Iterator[list[Any]]:
        """As `lines`; those that came together."""
        with self._answer(method, path, body, query, None) as answer:
            for lines in _split(answer):
                block = list[Any]()
                for line in filter(None, lines):
                    item = json.loads(line)
                    if isinstance(item, dict) and "exit_code" in item and "cause" in item:
                        yield block
                        raise ApiError(item)
                    block.append(item)
                yield block

    @contextmanager
    def _answer(
        self, method: str, path: str, body: object, query: dict[str, Any], timeout: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request if it is one of success. Raises ApiError."""
        headers = {**self._link.headers, "Content-Type": "application/json"}
        content = b"" if body is None else json.dumps(body).encode()
        text = urlencode(_present(query), doseq=True)
        with self._faults(), closing(self._link.connection(timeout)) as connection:
            connection.request(
                method, f"/v1{path}?{text}" if text else f"/v1{path}", content, headers
            )
            answer = connection.getresponse()
            if answer.status // 100 != 2:
                raise ApiError(_error(answer))
            yield answer

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as fault:
            raise DaemonUnreachable(
                f"hsmfsd did not answer in time on {self._link}",
                next_step="see its log; 'kill -USR1' writes what it does to it",
            ) from fault
        except (http.client.HTTPException, ConnectionError, ssl.SSLError) as fault:
            raise DaemonUnreachable(
                f"hsmfsd went away: {fault}", next_step=self._link.if_closed
            ) from fault


def _split(answer: http.client.HTTPResponse) -> Iterator[list[bytes]]:
    """Lines as they come; http.client's own readline looks at each byte several times."""
    rest = b""
    while block := answer.read1(BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        yield lines
    if rest:
        raise http.client.IncompleteRead(rest)


def _error(answer: http.client.HTTPResponse) -> dict[str, Any]:
    content = answer.read()
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    return {"cause": f"HTTP {answer.status}: {content[:200].decode(errors='replace')}"}


def _present(query: dict[str, Any]) -> dict[str, Any]:
    """What is asked for; truth as JSON writes it."""
    return {
        name: json.dumps(value) if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
