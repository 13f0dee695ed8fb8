"""The first thing that a request meets: who is it, and is the order of a bearable size?

Nothing of a request but its head is read before it is known who sent it. Whoever gets past is
`request.state.who`; what they may do is decided by the route (deps.permitted).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from ..engine.access import Access, Peer
from ..errors import HsmError
from ..limits import API_BODY_BYTES
from .errors import body_of

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


def gate(app: ASGI, access: Access) -> ASGI:
    """The application behind the gate. A connection's `Peer` is in its state as `peer`."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "WebSockets end in hypercorn, and there is no lifespan"
        peer = scope["state"]["peer"]
        assert isinstance(peer, Peer)
        try:
            who = await access.identify(peer, _header(scope, b"authorization"))
        except HsmError as fault:
            answer = JSONResponse(body_of(fault), fault.status, _advice(fault.status))
            await answer(scope, receive, send)
            return
        scope["state"]["who"] = who
        await app(scope, _bounded(receive), send)

    return run


def _header(scope: Scope, name: bytes) -> str:
    found = [value for key, value in scope["headers"] if key.lower() == name]
    return bytes(found[0]).decode("latin-1") if len(found) == 1 else ""


def _advice(status: int) -> dict[str, str]:
    """What HTTP wants beside such an answer (RFC 9110 section 11.6.1, RFC 6585 section 4)."""
    return {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}}.get(status, {})


def _bounded(receive: Receive) -> Receive:
    """Refuses a body that is too large while it comes."""
    left = API_BODY_BYTES

    async def run() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, f"an order has at most {API_BODY_BYTES} bytes")
        return message

    return run
