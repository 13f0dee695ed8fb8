"""Tells who asks and whether they may, and puts on record who came and who was turned away.

On the Unix socket the kernel says who it is: root and the daemon's own user are admins, all others
got past the socket's permissions by their group and have its role. Over TCP it is a token, or a
client certificate whose common name has a role in the configuration.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import trio

from ... import clock
from ...catalog.catalog import Catalog
from ...config import Config
from ...errors import Denied, TooMany, Unauthorized
from ...limits import RATES_REMEMBERED
from ..trust.audit import Audit
from .people import Identity, Peer, Role
from .rates import Rates, origin
from .second import SecondPerson
from .tokens import TokenBook

LOGIN_S = 3600.0
"""Who comes again from the same place within this time is not put on record anew."""
BURST_S = 10.0
"""Requests of so many seconds may come at once."""
BEARER = "bearer "


class Access:
    """All of it, for one catalog.

    Attributes:
        tokens, second: the parts.
    """

    def __init__(self, config: Config, catalog: Catalog, audit: Audit) -> None:
        access = config.access
        self._catalog, self._audit = catalog, audit
        self._socket_role = Role(config.daemon.socket_role)
        self._certificates = {name: Role(role) for name, role in access.certificates.items()}
        self._rates = Rates(access.rate, access.rate * BURST_S)
        self._failures = Rates(access.failures / 60, access.failures)
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.tokens = TokenBook(catalog, audit)
        self.second = SecondPerson(
            catalog, audit, on=access.two_person, lasts_s=access.approval_time
        )

    async def identify(self, peer: Peer, authorization: str) -> Identity:
        """Who that is. Raises Unauthorized, TooMany."""
        if peer.local:
            admin = peer.uid in (0, os.geteuid())
            return Identity(f"{peer.user}({peer.uid})", Role.ADMIN if admin else self._socket_role)
        known = peer.certificate or self.tokens.remembered(_token(authorization))
        if not known and self._failures.empty(origin(peer.address)):
            raise TooMany(f"{peer.address}: too many failed logins")
        try:
            who = await self._known(peer, authorization)
        except Unauthorized as fault:
            await self.failed(peer.address, fault.message)
            raise
        self._rates.take(who.name)
        return who

    async def _known(self, peer: Peer, authorization: str) -> Identity:
        if authorization:
            token = await self.tokens.verify(_token(authorization))
            who = Identity(f"token {token.name}", Role(token.role), peer.address)
            if self._new(who):
                async with self._catalog.write():
                    self.tokens.used(token, clock.now_ns())
                    self._audit.note("access.login", who.name, peer.address, role=who.role.value)
            return who
        if not peer.certificate:
            raise Unauthorized("neither a token nor a client certificate was shown")
        role = self._certificates.get(peer.certificate)
        if role is None:
            raise Unauthorized(
                f"certificate {peer.certificate!r} has no role",
                next_step="name it in [access] certificates",
            )
        who = Identity(f"certificate {peer.certificate}", role, peer.address)
        if self._new(who):
            await self._audit.write("access.login", who.name, peer.address, role=role.value)
        return who

    def _new(self, who: Identity) -> bool:
        """True if they did not come from there lately."""
        key, now = (who.name, who.address), trio.current_time()
        last = self._seen.get(key)
        if last is not None and now < last + LOGIN_S:
            return False
        self._seen[key] = now
        self._seen.move_to_end(key)
        while len(self._seen) > RATES_REMEMBERED:
            self._seen.popitem(last=False)
        return True

    async def failed(self, address: str, why: str) -> None:
        """Somebody could not log in; on record, or counted, when this returns."""
        place = origin(address)
        if not self._failures.empty(place):
            self._failures.take(place)
        await self._audit.counted("access.failed", (place,), "unknown", address, reason=why)

    async def permit(self, who: Identity, wanted: Role | None, act: str) -> None:
        """Return if they may. Raises Denied, which is on record then. wanted None: nobody may."""
        if wanted is not None and who.role.covers(wanted):
            return
        role = "no role" if wanted is None else f"role {wanted.value}"
        await self._audit.counted(
            "access.denied", (who.name, act), str(who), act, role=who.role.value, wanted=role
        )
        raise Denied(f"{who} is {who.role.value}; {act} wants {role}")


def _token(authorization: str) -> str:
    """The token in the header (RFC 6750 section 2.1); '' if it holds something else."""
    bearer = authorization.lower().startswith(BEARER)
    return authorization[len(BEARER) :].strip() if bearer else ""
