"""Tokens of the API: made, shown once, verified, revoked.

A token is `hsm_ID_SECRET`. Only scrypt(SECRET) with a salt is kept, so neither the catalog nor a
backup of it gives a token away. Verifying takes tens of milliseconds in a thread; what was verified
once is remembered in memory by its SHA-256, so that the next request costs nothing.

A token ends when the wall clock or the compliance clock says so, whichever is first: nobody can
turn the other back, so turning the one back revives no token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from dataclasses import replace

import trio

from ... import clock
from ...catalog.access import Token, Tokens
from ...catalog.catalog import Catalog
from ...errors import Conflict, NotFound, TooMany, Unauthorized
from ...limits import HASHES_WAITING, TOKENS, TOKENS_REMEMBERED
from ..trust.audit import Audit
from .people import Role

_FORM = re.compile(r"hsm_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_N, _R, _P = 2**14, 8, 1
"""scrypt's cost: 16 MiB and some 50 ms (RFC 7914 section 2)."""
_ONE_BY_ONE = trio.CapacityLimiter(1)


def _mark(given: str) -> bytes:
    return hashlib.sha256(given.encode()).digest()


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=32)


class TokenBook:
    """The tokens of one catalog. `load` it before the first question."""

    def __init__(self, catalog: Catalog, audit: Audit) -> None:
        self._catalog, self._audit = catalog, audit
        self._tables = Tokens(catalog.db)
        self._known: dict[str, Token] = {}
        self._verified: OrderedDict[bytes, str] = OrderedDict()

    def load(self) -> None:
        """Read them from the catalog."""
        self._known = {token.id: token for token in self._tables.all()}

    def all(self) -> list[Token]:
        """Every token, revoked ones too, the oldest first."""
        return list(self._known.values())

    async def create(self, name: str, role: Role, who: str, lasts_s: float | None) -> str:
        """A new token, which nobody can be told again. Raises Conflict if the name is taken."""
        now = clock.now_ns()
        if any(token.name == name and self._valid(token) for token in self._known.values()):
            raise Conflict(
                f"there is a valid token called {name}",
                next_step="take another name, or revoke that one first",
            )
        if len(self._known) >= TOKENS:
            raise Conflict(f"there are {TOKENS} tokens", next_step="use client certificates")
        number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        salt = secrets.token_bytes(16)
        ends, void = None, None
        if lasts_s is not None:
            ends, void = now + int(lasts_s * 1e9), self._audit.clock.now_ns() + int(lasts_s * 1e9)
        made = Token(
            number, name, role.value, salt,
            await clock.blocking(lambda: _hash(secret, salt), _ONE_BY_ONE),
            who, now, ends, void, None, None, None,
        )  # fmt: skip
        async with self._catalog.write():
            self._tables.add(made)
            self._audit.note(
                "access.token_created", who, name,
                id=number, role=role.value, expires_ns=made.expires_ns,
            )  # fmt: skip
        self._known[number] = made
        await self._catalog.sync()
        return f"hsm_{number}_{secret}"

    async def revoke(self, name: str, who: str) -> int:
        """Valid tokens of that name or id open nothing from now on; how many. Raises NotFound."""
        now = clock.now_ns()
        found = [
            token for token in self._known.values()
            if name in (token.name, token.id) and self._valid(token)
        ]  # fmt: skip
        if not found:
            raise NotFound(f"no valid token {name}", next_step="see 'hsmctl token ls'")
        async with self._catalog.write():
            for token in found:
                self._tables.revoke(token.id, who, now)
                self._audit.note("access.token_revoked", who, token.name, id=token.id)
        for token in found:
            self._known[token.id] = replace(token, revoked_by=who, revoked_ns=now)
        await self._catalog.sync()
        return len(found)

    def remembered(self, given: str) -> bool:
        """True if these words were verified since the daemon started."""
        return _mark(given) in self._verified

    async def verify(self, given: str) -> Token:
        """The token that these words are. Raises Unauthorized, TooMany."""
        form = _FORM.fullmatch(given)
        token = self._known.get(form[1]) if form else None
        if form is None or token is None:
            raise Unauthorized("no such token")
        mark = _mark(given)
        if mark not in self._verified:
            if _ONE_BY_ONE.statistics().tasks_waiting >= HASHES_WAITING:
                raise TooMany("too many logins at once")
            secret, salt = form[2], token.salt
            made = await clock.blocking(lambda: _hash(secret, salt), _ONE_BY_ONE)
            if not hmac.compare_digest(made, token.hash):
                raise Unauthorized(f"wrong secret for token {token.name}")
            self._verified[mark] = token.id
            while len(self._verified) > TOKENS_REMEMBERED:
                self._verified.popitem(last=False)
        # Only now: whether a token was revoked is for the one who holds it.
        token = self._known[token.id]
        if not self._valid(token):
            state = "expired" if token.revoked_ns is None else "was revoked"
            raise Unauthorized(f"token {token.name} {state}")
        return token

    def used(self, token: Token, now_ns: int) -> None:
        """Somebody came with it; inside a write transaction."""
        self._tables.used(token.id, now_ns)
        self._known[token.id] = replace(self._known[token.id], used_ns=now_ns)

    def _valid(self, token: Token) -> bool:
        if token.revoked_ns is not None or token.expires_ns is None or token.void_ns is None:
            return token.revoked_ns is None
        return clock.now_ns() < token.expires_ns and self._audit.clock.now_ns() < token.void_ns
