"""The robot's troubles: noticed, told, and tried again until it works.

While there is trouble no claim that needs a move is served; discs that lie in drives are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .. import logs
from ..errors import HsmError
from .events import Events
from .inventory import Inventory

log = logs.get(__name__)


class RobotCare:
    """Moves with a watch, one an arm of the robot, and the recovery after a failure.

    Attributes:
        trouble: what is wrong, '' if the robot works.
        move_limit: seconds after which a move counts as stuck.
    """

    def __init__(
        self,
        inventory: Inventory,
        events: Events,
        *,
        retry_wait: float,
        move_limit: float,
        poke: Callable[[], None],
        arms: int = 1,
    ) -> None:
        self._inventory, self._events = inventory, events
        self.retry_wait = retry_wait
        self._poke = poke
        self._recovering = False
        self._arm = trio.Semaphore(arms)
        self.move_limit = move_limit
        self.trouble = "the library was not looked at yet"
        self.nursery: trio.Nursery | None = None

    @property
    def failing(self) -> bool:
        """A move failed, the robot's or a unit's, and no inventory was had since."""
        return self._recovering

    async def begin(self, nursery: trio.Nursery) -> None:
        """Look at the library; in trouble go on without, and look again later."""
        self.nursery, self._recovering = nursery, False
        try:
            await self._inventory.sync()
            self.trouble = ""
        except HsmError as error:
            self.failed(error)

    async def move(self, f: Callable[[], Awaitable[Any]]) -> None:
        """Run a move to its end. If it takes too long the others are told meanwhile."""
        async with self._inventory.quiet.passing(), self._arm:
            await self._watched(f)
            self.trouble = ""

    async def move_in_unit(self, f: Callable[[], Awaitable[Any]]) -> None:
        """As `move`, but a unit of drives does it, beside the robot and other units."""
        async with self._inventory.quiet.passing():
            await self._watched(f)
            if not self._recovering:
                self.trouble = ""

    async def _watched(self, f: Callable[[], Awaitable[Any]]) -> None:
        assert self.nursery is not None
        watch = trio.CancelScope()
        self.nursery.start_soon(self._watch, watch)
        try:
            await f()
        finally:
            watch.cancel()

    async def _watch(self, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(self.move_limit)
            self.trouble = f"a move has not ended for {self.move_limit:.0f} s"
            log.error("robot stuck", reason=self.trouble)
            self._events.emit("robot_stuck", reason=self.trouble)

    def failed(self, error: HsmError) -> None:
        """A move or an inventory failed: try until the robot answers again."""
        if self.trouble != error.message:
            log.warning("robot in trouble", error=error.message)
            self._events.emit("robot_trouble", error=error.message)
        self.trouble = error.message
        if not self._recovering and self.nursery is not None:
            self._recovering = True
            self.nursery.start_soon(self._recover)

    async def _recover(self) -> None:
        """Ask the robot until it answers, and empty its gripper."""
        while True:
            await trio.sleep(self.retry_wait)
            try:
                await self._inventory.sync()
                break
            except HsmError as error:
                self.trouble = error.message
        self._recovering = False
        self.trouble = ""
        log.info("robot works again")
        self._events.emit("robot_ready")
        self._poke()
