"""What the mount does for the kernel's NFS server: who its threads are, and a keeper beside it.

See docs/nfs.md. The keeper (keeper.py) is started when nfsd is first seen to run, as long as the
mount lives; nobody else needs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import trio
from pyfuse3 import RequestContext

from .. import clock, logs
from ..shares import nfsd
from .requester import is_nfsd

POLL_SECONDS = 5.0
"""How often nfsd is looked for, and how long it is known which pids are its threads."""
_KNOWN = 4096

log = logs.get(__name__)


class Nfs:
    """nfsd on this host.

    Attributes:
        threads: how many serve; 0 if it does not run.
    """

    def __init__(self) -> None:
        self.threads = 0
        self._known: dict[int, bool] = {}
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def asks(self, ctx: RequestContext) -> bool:
        """Whether a request comes from a thread of nfsd; quick, and on the loop."""
        if not self.threads or ctx.pid <= 0:
            return False
        found = self._known.get(ctx.pid)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[ctx.pid] = is_nfsd(ctx.pid)
        return found

    async def watch(self, fuse: int, mountpoint: Path) -> None:
        """Look for nfsd, for ever; fuse is the descriptor of the mount's connection."""
        while True:
            self.threads = await clock.blocking(nfsd.threads, abandon=True)
            self._known.clear()
            if self.threads and self._keeper is None:
                try:
                    await clock.blocking(lambda: self._start_keeper(fuse, mountpoint))
                except OSError as fault:
                    log.warning("no keeper: NFS clients get errors if the daemon dies", error=fault)
                    return
            await trio.sleep(POLL_SECONDS)

    def _start_keeper(self, fuse: int, mountpoint: Path) -> None:
        words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py"))]
        if "INVOCATION_ID" in os.environ and shutil.which("systemd-run"):
            # systemd ends every process of a service whose main process died.
            words = ["systemd-run", "--scope", "--quiet", "--collect", *words]
        end, self._pipe = os.pipe()
        try:
            self._keeper = subprocess.Popen(
                [*words, str(fuse), str(end), str(mountpoint)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                cwd="/", pass_fds=(fuse, end), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(end)
