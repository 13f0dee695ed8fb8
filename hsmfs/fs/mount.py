"""The mount's life: mounted, tuned, served, and ended in an order that leaves nobody hanging.

pyfuse3 has one session a process, so there is one Mount a process at a time. The order of the end:
waiting readers are answered, the mountpoint is taken away, running requests are finished, and only
then the connection is closed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pyfuse3
import trio

from .. import clock, logs
from ..config import Config
from ..engine.events import Events
from ..engine.files import Files
from ..engine.trust import Trust
from ..limits import FUSE_BACKGROUND, FUSE_TASKS
from . import kernel, pump
from .notify import Notifier
from .operations import Operations
from .ports import Control

_IDLE_TASKS = 8
"""Tasks kept for the next requests: each owns a buffer of 1 MiB that is dear to allocate anew."""
_WATCH_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0
"""How long requests may take to end after the mountpoint is gone."""

log = logs.get(__name__)


class Mount:
    """The filesystem on its mountpoint.

    Attributes:
        operations: the handlers, with what they know of handles, lookups and waits.
        notifier: to be told what the engine changes; `files.changed` and `files.renamed`
            are wired to it.
        ended: set when the kernel has let go of the mount, also by an unmount from outside.
    """

    def __init__(self, config: Config, files: Files, trust: Trust, control: Control | None) -> None:
        self._config = config
        self._mountpoint = config.daemon.mountpoint
        self.operations = Operations(files, config, trust, control)
        self.notifier = Notifier(self.operations.lookups)
        self.ended = trio.Event()
        self._device = ""
        self._dead: list[kernel.Dead] = []
        files.changed = self.notifier.changed
        files.renamed = self.notifier.renamed

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Mount and serve until it is unmounted or cancelled; started when the root answers.

        Raises MountError or Conflict.
        """
        allow_other = self._config.daemon.allow_other
        fd, self._dead = await clock.blocking(
            lambda: kernel.mount(self._mountpoint, allow_other=allow_other)
        )
        try:
            # libfuse takes over a mount that was made for it, by this name (fuse_lowlevel.h).
            pyfuse3.init(self.operations, f"/dev/fd/{fd}", set())
            pump.install(fd)
        except BaseException:
            os.close(fd)
            await self._unmount()
            raise
        try:
            await self._run(fd, task_status)
        finally:
            with trio.CancelScope(shield=True):
                await self._unmount()
            pyfuse3.close(unmount=False)
            self.ended.set()

    async def _run(self, fd: int, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._main, nursery.cancel_scope)
            nursery.start_soon(self.operations.lookups.run)
            nursery.start_soon(self.notifier.run)
            nursery.start_soon(self.operations.deputies.run)
            nursery.start_soon(self.operations.past.stubs.run)
            await clock.blocking(self._tune, abandon=True)
            nursery.start_soon(self._watch)
            nursery.start_soon(self.operations.nfs.watch, fd, self._mountpoint)
            task_status.started()

    async def _main(self, all_tasks: trio.CancelScope) -> None:
        try:
            await pyfuse3.main(min_tasks=_IDLE_TASKS, max_tasks=FUSE_TASKS)
        finally:
            self.ended.set()
        all_tasks.cancel()

    def _tune(self) -> None:
        """The first answer of the root says that the kernel's INIT was served.

        Another process asks: a thread of ours that waits for an answer of ours would keep a daemon
        that is killed then half alive, and its mount stuck, until somebody aborts the connection.
        """
        subprocess.run(
            ["stat", "--file-system", "--terse", self._mountpoint],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        found = kernel.find(self._mountpoint)
        if found is not None:
            self._device = found.device
            kernel.tune(
                found.device, read_ahead=self._config.fs.read_ahead, background=FUSE_BACKGROUND
            )

    async def _watch(self) -> None:
        """A lazy unmount from outside leaves readers waiting for ever: end them."""
        while self._device and kernel.is_mounted(self._device):  # noqa: ASYNC110 - no event says it
            await trio.sleep(_WATCH_SECONDS)
        self.operations.waits.end()

    async def bury(self) -> None:
        """End what a killed daemon left and a keeper held: its readers would wait for ever."""
        while self._dead:
            await clock.blocking(self._dead.pop().bury)

    async def stop(self) -> None:
        """Answer who waits, unmount, and give running requests a moment to end."""
        self.operations.waits.end()
        await self._unmount()
        with trio.move_on_after(_PATIENCE_SECONDS):
            await self.ended.wait()

    async def _unmount(self) -> None:
        found = await clock.blocking(lambda: kernel.find(self._mountpoint))
        if found is None or found.type != kernel.TYPE or self._device not in ("", found.device):
            return
        try:
            # The kernel may write dirty pages of mappings first, so requests are still served.
            await clock.blocking(lambda: kernel.unmount(self._mountpoint, lazy=self.ended.is_set()))
        except OSError as fault:
            log.info("unmounted while in use", mountpoint=self._mountpoint, reason=fault.strerror)
            await clock.blocking(lambda: kernel.unmount(self._mountpoint, lazy=True))


@asynccontextmanager
async def mounted(
    config: Config,
    files: Files,
    events: Events,
    trust: Trust,
    control: Control | None = None,
) -> AsyncIterator[Mount]:
    """The filesystem is mounted inside the block. Raises MountError or Conflict.

    Without `control` the xattrs that ask or order the engine answer EOPNOTSUPP.
    """
    mount = Mount(config, files, trust, control)
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.serve)
        events.emit("mounted", mountpoint=str(config.daemon.mountpoint))
        try:
            yield mount
        finally:
            with trio.CancelScope(shield=True):
                await mount.stop()
            nursery.cancel_scope.cancel()
    events.emit("unmounted", mountpoint=str(config.daemon.mountpoint))
