"""Records what is asked of the discs as a trace that `hsmctl simulate` replays (docs/scheduler.md).

Lines gather in memory and are written by a thread once a second; nobody waits for them. A trace is
no record of anything that must last: what was not written when the daemon dies is lost, and if the
disk can't keep up, lines are left out and counted. Full files are turned over: FILE.1 is the one
before FILE, and each begins anew, so that it can be replayed by itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.copies import Copy
from ..catalog.queues import RecallClass
from ..config import TraceConfig
from ..errors import Conflict, TraceError
from ..library.robot import Robot
from ..types import Barcode, DataVersion, InodeNo, Range

log = logs.get(__name__)
HEAD = json.dumps({"hsmfs_trace": 1}) + "\n"
WRITE_EVERY = 1.0
LINES = 100_000
"""Lines in memory, at most."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What is being recorded; sizes bytes, times UTC ns."""

    file: str
    since_ns: int
    requests: int
    left_out: int


class Recorder:
    """The one recording, if there is one."""

    def __init__(self, catalog: Catalog, robot: Robot, config: TraceConfig) -> None:
        self._catalog, self._robot, self._config = catalog, robot, config
        self._file: Path | None = None
        self._lines: list[str] = []
        self._one = trio.Lock()
        self._more = trio.Event()
        self._since_ns = self._began_ns = 0
        self._written = self._requests = self._left_out = 0

    @property
    def now(self) -> Recording | None:
        """The recording that goes on, or None."""
        if self._file is None:
            return None
        return Recording(str(self._file), self._since_ns, self._requests, self._left_out)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write down what gathers, for ever; the configuration may ask for it from the start."""
        if self._config.file is not None and self._file is None:
            await self.start(self._config.file)
        task_status.started()
        try:
            while True:
                await self._more.wait()
                await trio.sleep(WRITE_EVERY)
                self._more = trio.Event()
                await self._write()
        finally:
            with trio.CancelScope(shield=True):
                await self._write()

    async def start(self, file: Path) -> Recording:
        """Record to a file from now on; one that is there is kept as FILE.1.

        Raises Conflict if a recording goes on, TraceError.
        """
        async with self._one:
            if self._file is not None:
                raise Conflict(
                    f"a trace is being recorded to {self._file}",
                    next_step="end it with 'hsmctl trace stop'",
                )
            try:
                await clock.blocking(lambda: self._turn_over(file))
            except OSError as fault:
                raise TraceError(f"cannot write {file}: {fault.strerror}") from fault
            self._file, self._lines = file, []
            self._since_ns = self._began_ns = clock.now_ns()
            self._written, self._requests, self._left_out = len(HEAD), 0, 0
        crash.point("trace.started")
        found = self.now
        assert found is not None
        log.info("trace begun", file=file)
        return found

    async def stop(self) -> Recording:
        """End the recording; what it came to. Raises Conflict if there is none."""
        found = self.now
        if found is None:
            raise Conflict("no trace is being recorded", next_step="see 'hsmctl trace start'")
        await self._write()
        self._file = None
        log.info("trace ended", file=found.file, requests=found.requests)
        return found

    # What happens; each of these costs nothing while nothing is recorded

    def recall(
        self, ino: InodeNo, version: DataVersion, urgency: RecallClass, wanted: Range
    ) -> None:
        """A recall begins: of each part that it needs, the copies that would do."""
        if self._file is None:
            return
        parts: dict[int, list[Copy]] = {}
        for copy in self._catalog.copies.readable(ino, version):
            where = copy.where
            if where.offset < wanted.end and wanted.start < where.offset + where.length:
                parts.setdefault(where.offset, []).append(copy)
        for copies in parts.values():
            self._add(urgency, copies[0].where.stored, [self._place(copy) for copy in copies])

    def burn(self, barcode: str, size: int) -> None:
        """A disc is being burned."""
        if self._file is not None:
            self._add(RecallClass.STANDARD, size, [self._disc(barcode)], op="burn")

    def _place(self, copy: Copy) -> dict[str, Any]:
        volume = self._catalog.volumes.get(copy.where.volume)
        assert volume is not None
        return self._disc(volume.barcode) | {"sector": copy.where.sector}

    def _disc(self, barcode: str) -> dict[str, Any]:
        magazine = self._robot.magazine_of(Barcode(barcode))
        return {"disc": barcode} | ({} if magazine is None else {"magazine": magazine})

    def _add(
        self, urgency: RecallClass, size: int, copies: list[dict[str, Any]], **more: str
    ) -> None:
        if size <= 0:
            return
        if len(self._lines) >= LINES:
            self._left_out += 1
            return
        record = {
            "t": round((clock.now_ns() - self._began_ns) / 1e9, 6), "class": urgency.name.lower(),
            "bytes": size, "copies": copies,
        }  # fmt: skip
        self._requests += 1
        self._lines.append(json.dumps(record | more) + "\n")
        self._more.set()

    # The file

    async def _write(self) -> None:
        async with self._one:
            if self._file is None or not self._lines:
                return
            file, (lines, self._lines) = self._file, (self._lines, [])
            text = "".join(lines).encode()
            try:
                await clock.blocking(lambda: _append(file, text))
                self._written += len(text)
                if self._written >= self._config.size:
                    await clock.blocking(lambda: self._turn_over(file))
                    self._written, self._began_ns = len(HEAD), clock.now_ns()
                    # What came meanwhile tells its time from the old beginning.
                    self._left_out += len(self._lines)
                    self._lines = []
            except (OSError, TraceError) as fault:
                log.warning("trace ended: it cannot be written", file=file, error=fault)
                self._file = None

    def _turn_over(self, file: Path) -> None:
        """FILE becomes FILE.1, and so on; the oldest goes. FILE begins anew. Blocking."""
        if file.exists():
            with file.open("rb") as old_file:
                if old_file.read(len(HEAD)) != HEAD.encode():
                    raise TraceError(
                        f"{file} is there and no trace of ours", next_step="name another file"
                    )
            for number in range(self._config.keep - 1, 0, -1):
                old = _numbered(file, number)
                if old.exists():
                    old.rename(_numbered(file, number + 1))
            file.rename(_numbered(file, 1))
        file.write_text(HEAD, encoding="utf-8")


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")


def _append(file: Path, text: bytes) -> None:
    with file.open("ab") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def view(recording: Recording | None) -> dict[str, Any]:
    """As the API shows it."""
    return {"recording": None if recording is None else asdict(recording)}
