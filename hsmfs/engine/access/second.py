"""The two-person rule: a destructive order waits until another admin has approved it.

The one who gave the order gives it again then, the same to the byte, and it is carried out once.
It is void when the wall clock or the compliance clock says so: a clock turned back revives none.
"""

from __future__ import annotations

import hashlib

from ... import clock
from ...catalog.access import Approval, Approvals, Moment
from ...catalog.catalog import Catalog
from ...errors import Conflict, Denied, NeedsApproval, NotFound
from ...limits import APPROVALS_WAITING
from ..trust.audit import Audit
from .people import Identity

BODY_SHOWN = 2000
"""Bytes of an order that the second person sees; the digest covers all."""


class SecondPerson:
    """Orders that wait for approval. `on`: the rule is in force."""

    def __init__(self, catalog: Catalog, audit: Audit, *, on: bool, lasts_s: float) -> None:
        self.on = on
        self._catalog, self._audit, self._lasts_ns = catalog, audit, int(lasts_s * 1e9)
        self._tables = Approvals(catalog.db)

    def waiting(self) -> list[Approval]:
        """Orders to approve, and approved ones that were not given again yet."""
        return self._tables.waiting(self._now())

    def _now(self) -> Moment:
        return Moment(clock.now_ns(), self._audit.clock.now_ns())

    async def check(self, who: Identity, act: str, body: bytes) -> None:
        """Return if the order was approved. Raises NeedsApproval, or Denied if it was refused."""
        if not self.on:
            return
        digest = hashlib.sha256(act.encode() + b"\0" + body).digest()
        found = self._tables.open(digest, who.name, self._now())
        if found is None:
            found = await self._ask(who, act, body, digest)
        if found.decided_ns is None:
            raise NeedsApproval(
                f"request {found.id}: a second person must approve this",
                next_step=f"ask another admin for 'hsmctl approve {found.id}', then give the same "
                "order again",
            )
        async with self._catalog.write():
            self._tables.use(found.id, clock.now_ns())
            if found.approved:
                self._audit.note(
                    "access.second_person", str(who), act, request=found.id, by=found.decided_by
                )
        if not found.approved:
            raise Denied(
                f"request {found.id} was refused by {found.decided_by}", next_step="ask them why"
            )

    async def _ask(self, who: Identity, act: str, body: bytes, digest: bytes) -> Approval:
        now = self._now()
        if len(self._tables.waiting(now)) >= APPROVALS_WAITING:
            raise Conflict(
                f"{APPROVALS_WAITING} requests wait for a second person",
                next_step="decide those first: 'hsmctl requests'",
            )
        shown = body[:BODY_SHOWN].decode("utf-8", "backslashreplace")
        async with self._catalog.write():
            made = self._tables.ask(act, shown, digest, who.name, now, self._lasts_ns)
            self._audit.note(
                "access.asked", str(who), act, request=made.id, sha256=digest.hex(), body=shown
            )
        await self._catalog.sync()
        return made

    async def decide(self, number: int, who: Identity, *, approved: bool) -> Approval:
        """The second person's word. Raises NotFound, Conflict, Denied for one's own order."""
        found = self._tables.get(number)
        now = self._now()
        if found is None:
            raise NotFound(f"no request {number}", next_step="see 'hsmctl requests'")
        if found.state != "waits" or found.over(now):
            state = found.state if found.state != "waits" else "void: its time is over"
            raise Conflict(f"request {number} is {state}", next_step="the order can be given again")
        if approved and found.asked_by == who.name:
            raise Denied(
                f"request {number} is your own", next_step="another admin must approve it"
            )
        async with self._catalog.write():
            self._tables.decide(number, who.name, now.wall_ns, approved=approved)
            self._audit.note(
                "access.decided", str(who), found.act,
                request=number, approved=approved, asked_by=found.asked_by,
            )  # fmt: skip
        await self._catalog.sync()
        decided = self._tables.get(number)
        assert decided is not None
        return decided
