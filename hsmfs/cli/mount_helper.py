"""mount.hsmfs: lets mount(8) and /etc/fstab mount an hsmfs.

    /etc/hsmfs/hsmfs.toml  /srv/archive  hsmfs  defaults,_netdev  0 0

mount(8) calls `mount.hsmfs CONFIG MOUNTPOINT [-sfnv] [-o OPTIONS]` (mount(8), "External helpers").
The configuration says how to mount; options only choose what fstab chooses for any filesystem.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import config
from ..errors import ConfigError, HsmError
from . import launch

FAILED = 32
"""mount failure, as mount(8) lists its exit codes; 1 is wrong usage."""
PATIENCE_S = 900.0
IGNORED = frozenset(
    (
        "defaults", "rw", "auto", "noauto", "user", "nouser", "owner", "group", "_netdev",
        "nofail", "suid", "dev", "exec", "async", "atime", "noatime", "diratime", "nodiratime",
        "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
    )
)  # fmt: skip
"""Options that fstab carries for mount(8) itself, or that hsmfs does anyway."""
PREFIXES = ("x-", "X-", "comment=", "timeout=")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `mount.hsmfs`; returns mount(8)'s exit codes."""
    given = _parser().parse_args(argv)
    try:
        options = check_options([o for text in given.options for o in text.split(",") if o])
        path = Path(given.config).absolute()
        settings = config.load(path)
        _same_mountpoint(settings.daemon.mountpoint, Path(given.mountpoint))
        if given.fake:
            return 0
        launch.start(path, settings.daemon.state, options)
    except HsmError as fault:
        print(f"mount.hsmfs: {fault.message}\n  next: {fault.next_step}", file=sys.stderr)
        return 1 if isinstance(fault, ConfigError) else FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mount.hsmfs",
        description="Mounts an hsmfs; called by mount(8), usually for a line in /etc/fstab: "
        "'/etc/hsmfs/hsmfs.toml /srv/archive hsmfs defaults,_netdev 0 0'. It starts hsmfsd and "
        "returns when the files can be used; 'umount' stops it.",
    )
    parser.add_argument("config", help="the configuration, in the place of a device")
    parser.add_argument("mountpoint", help="must be the one in the configuration")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("-f", dest="fake", action="store_true", help="check, mount nothing")
    for flag, meaning in (("-s", "sloppy"), ("-n", "no mtab"), ("-v", "verbose")):
        parser.add_argument(flag, action="store_true", help=f"{meaning}: accepted, no effect")
    return parser


def check_options(options: Sequence[str]) -> float:
    """Seconds to wait until the daemon is ready. Raises ConfigError for what cannot be done."""
    patience = PATIENCE_S
    for option in options:
        if option.startswith("io_uring"):
            raise ConfigError(
                f"option {option}: its threads would enter the daemon outside of its event loop",
                next_step="leave it out; hsmfs reads without it",
            )
        if option in ("ro", "remount"):
            raise ConfigError(
                f"option {option}: hsmfs cannot do that",
                next_step="mount it read-write; export it read-only where you share it",
            )
        if option.startswith("timeout="):
            try:
                patience = float(option.removeprefix("timeout="))
            except ValueError:
                raise ConfigError(f"option {option}: not a number of seconds") from None
        elif option not in IGNORED and not option.startswith(PREFIXES):
            raise ConfigError(
                f"option {option}: not known",
                next_step="set it in the configuration, or leave it out",
            )
    if os.environ.get("FUSE_URING_ENABLE"):
        raise ConfigError(
            "FUSE_URING_ENABLE is set: its threads would enter the daemon beside its event loop",
            next_step="unset it",
        )
    return patience


def _same_mountpoint(configured: Path, given: Path) -> None:
    if os.path.realpath(configured) != os.path.realpath(given):
        raise ConfigError(
            f"mountpoint {given}: the configuration says {configured}",
            next_step="make the two the same",
        )


if __name__ == "__main__":
    sys.exit(main())
