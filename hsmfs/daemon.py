"""hsmfsd: config, catalog, pools, library, engine, filesystem and API, opened in this order.

`run` reads top to bottom; whatever was opened is closed in the opposite order, however it ends.
Errors at start are one clear line with the next step, and the exit code of their class.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from . import __version__, clock, config, logs, places, sdnotify
from .api.server import serving
from .catalog.catalog import Catalog
from .config import Config
from .engine import reload
from .engine.service import Engine
from .engine.setup import open_pools
from .errors import HsmError
from .fs.kernel import tune_process
from .fs.mount import Mount, mounted
from .library import configured
from .shares import nfsd, smb
from .tasks import dump_tasks
from .watchdog import LoopClock, LoopWatch, log_stall

log = logs.get(__name__)
STOP_EXTENSION_S = 60.0
"""Time asked of the service manager again and again while a burn is being finished."""
SWITCH_INTERVAL_S = 0.0002
COLLECT_S = 600.0
"""Between full collections of Python's garbage."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `hsmfsd`; returns its exit code."""
    options = _parser().parse_args(argv)
    try:
        settings = config.load(options.config)
        logs.setup(settings.daemon.log_level, settings.daemon.log_format, aside=True)
        _tune()
        time = LoopClock()
        watch = LoopWatch(on_stall=log_stall, sample=options.sample_stalls, clock=time)
        trio.run(
            run, settings, watch, options.config,
            clock=time, restrict_keyboard_interrupt_to_checkpoints=True,
        )  # fmt: skip
    except BaseException as fault:
        return _explain(fault)
    return 0


def _tune() -> None:
    """Keep Python itself from holding up the event loop."""
    # The loop's thread gives Python's lock away in every call of SQLite, and a thread that computes
    # keeps it for this long before the loop gets it back: the default of 5 ms adds up to stalls.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tune_process()
    # What was imported lives as long as the daemon: no collection need look at it again.
    gc.collect()
    gc.freeze()
    # A full collection holds Python's lock for 25 to 90 ms in a daemon at work. Younger garbage is
    # collected as ever, what is left of it now and then (`_collect`).
    gc.set_threshold(700, 10, 1_000_000)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hsmfsd",
        description="The daemon of hsmfs: mounts the namespace and serves hsmctl. It stays in the "
        "foreground; 'hsmctl mount' starts it in the background, systemd as hsmfs.service.",
        epilog="Signals: TERM and INT stop cleanly (a disc that is being burned is finished first; "
        "a second one drops it safely), HUP reads the configuration again, USR1 writes all tasks "
        "and threads to the log.",
    )
    parser.add_argument(
        "--config", type=Path, default=places.CONFIG, help="default: %(default)s"
    )
    parser.add_argument(
        "--foreground", action="store_true", help="stay in the foreground (always so)"
    )
    parser.add_argument(
        "--sample-stalls", action="store_true",
        help="find out where the event loop is when it stalls; for developers",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"hsmfsd {__version__}")
    return parser


async def run(settings: Config, watch: LoopWatch, file: Path) -> None:
    """Serve until a signal, an order by the API, or an unmount. Raises HsmError."""
    faulthandler.enable()
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sdnotify.keep_alive)
            nursery.start_soon(_collect)
            async with AsyncExitStack() as stack:
                stack.enter_context(watch)
                catalog = await clock.blocking(lambda: Catalog.open(settings.daemon.state))
                stack.callback(catalog.close)
                pools = await open_pools(settings.pool, catalog)
                library = await clock.blocking(lambda: configured.open_library(settings.library))
                stack.push_async_callback(library.close)
                engine = Engine(settings, catalog, pools, library, watch)
                engine.config_file = file
                await stack.enter_async_context(engine.running())
                mount = await stack.enter_async_context(
                    mounted(
                        settings, engine.files, engine.events, engine.trust, engine.control
                    )
                )
                await stack.enter_async_context(serving(engine))
                _tell_ready(settings)
                nursery.start_soon(_renew_shares, settings, mount)
                await _until_stopped(engine, mount.ended, signals)
                nursery.start_soon(_while_stopping, signals)
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def _collect() -> None:
    """In a thread: if the loop waits for requests meanwhile, none of its steps is longer."""
    while True:
        await trio.sleep(COLLECT_S)
        await clock.blocking(gc.collect)


def _tell_ready(settings: Config) -> None:
    mountpoint = settings.daemon.mountpoint
    log.info("ready", mountpoint=mountpoint, version=__version__)
    sdnotify.ready(f"mounted on {mountpoint}")


async def _renew_shares(settings: Config, mount: Mount) -> None:
    """Servers that held the mount before are told of the new one, then the old one is ended."""
    mountpoint, state = settings.daemon.mountpoint, settings.daemon.state
    try:
        threads = await clock.blocking(lambda: nfsd.renew(mountpoint, state))
    except Exception as fault:  # the mount serves all others all the same
        log.warning("the NFS server could not be told of the mount", error=fault)
    else:
        if threads:
            log.info("the NFS server was started anew", threads=threads)
    try:
        await clock.blocking(lambda: smb.reconnect(mountpoint))
    except Exception as fault:
        log.warning("Samba could not be told of the mount", error=fault)
    await mount.bury()


async def _until_stopped(
    engine: Engine, unmounted: trio.Event, signals: AsyncIterator[int]
) -> None:
    """Return at the first reason to stop."""

    async def first(reason: str, event: trio.Event) -> None:
        await event.wait()
        log.info("stopping", reason=reason)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first, "asked by hsmctl", engine.stop_asked)
        nursery.start_soon(first, "unmounted", unmounted)
        async for number in signals:
            if number == signal.SIGUSR1:
                dump_tasks(sys.stderr)
                continue
            if number == signal.SIGHUP:
                await _reload(engine)
                continue
            log.info("stopping", reason=signal.Signals(number).name)
            nursery.cancel_scope.cancel()


async def _reload(engine: Engine) -> None:
    try:
        await reload.reload(engine, "hsmfsd")
    except HsmError as fault:
        log.error("the configuration stays as it was", error=fault)


async def _while_stopping(signals: AsyncIterator[int]) -> None:
    """Ask the service manager for patience; a second TERM or INT ends at once, as a crash would."""

    async def ask() -> None:
        while True:
            sdnotify.extend(STOP_EXTENSION_S)
            await trio.sleep(STOP_EXTENSION_S / 2)

    sdnotify.stopping("stopping: readers are let go, a disc being burned is finished")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        async for number in signals:
            if number == signal.SIGUSR1:
                dump_tasks(sys.stderr)
            if number not in (signal.SIGTERM, signal.SIGINT):
                continue
            log.warning("stopped at once; a disc being burned is lost, no file is")
            logs.flush()
            os._exit(HsmError.exit_code)


def _explain(fault: BaseException) -> int:
    """Say on standard error what ended the daemon; the exit code that belongs to it."""
    if isinstance(fault, KeyboardInterrupt):
        return 0
    known = _first_known(fault)
    if known is None:
        log.exception("hsmfsd failed", fault)
        return HsmError.exit_code
    print(f"hsmfsd: {known.message}\nhsmfsd: next: {known.next_step}", file=sys.stderr)
    return known.exit_code


def _first_known(fault: BaseException) -> HsmError | None:
    """The error of ours that a fault is or, in a group, holds and nothing else does."""
    if isinstance(fault, HsmError):
        return fault
    if isinstance(fault, BaseExceptionGroup):
        found = [_first_known(inner) for inner in fault.exceptions]
        return found[0] if found and None not in found else None
    return None


if __name__ == "__main__":
    sys.exit(main())
