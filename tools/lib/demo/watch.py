"""Follows a daemon by its API and draws what the robot, the drives and the files do.

Two threads: one asks for the status ten times a second, the other reads the stream of events.
Neither changes anything. Both end with the daemon or with `Watch`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo.picture import Picture, size
from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink
from hsmfs.errors import HsmError

_POLL_S = 0.1


class Watch:
    """Keeps the picture true while its block runs.

    Attributes:
        names: what inodes are called, for the notes.
        recalled: inodes that were brought in from discs, as the daemon told.
        moves: discs that the robot was seen to carry.
    """

    def __init__(self, socket: Path, picture: Picture) -> None:
        self._socket = socket
        self._picture = picture
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._quietly, args=(loop,), daemon=True)
            for loop in (self._poll, self._follow)
        ]
        self._verifying: set[str] = set()
        self.names: dict[int, str] = {}
        self.recalled: set[int] = set()
        self.moves = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._over.set()
        self._threads[0].join(5)

    def _quietly(self, loop: Any) -> None:
        try:
            loop()
        except HsmError as fault:
            if not self._over.is_set():
                self._picture.note(f"the picture stands still: {fault.message}", "red")

    def _poll(self) -> None:
        client = Client(SocketLink(self._socket))
        last = None
        while not self._over.wait(_POLL_S):
            status = client.get("/status")
            move = status["move"]
            if move and move != last:
                self.moves += 1
            last = move
            self._picture.robot(
                f"carries {move['disc']} from {move['source']} to {move['target']}"
                if move else "at rest"
            )  # fmt: skip
            self._verifying |= {b["volume"] for b in status["burns"] if b["state"] == "verifying"}
            for drive in status["drives"]:
                self._draw(drive)

    def _draw(self, drive: dict[str, Any]) -> None:
        disc, what = drive["disc"] or "", drive["work"]
        done, total = drive["work_done"], drive["work_total"]
        if drive["state"] == "down":
            self._picture.drive(drive["name"], "down", disc=disc, detail=drive["reason"])
            return
        if not disc:
            what = "empty"
        elif what != "reading":
            self._verifying.discard(disc)
        elif disc in self._verifying:
            what = "verifying"
        detail = size(done) + (f" of {size(total)}" if total else "") if done else ""
        self._picture.drive(
            drive["name"], what, disc=disc, detail=detail, done=done / total if total else None
        )

    def _follow(self) -> None:
        for event in Client(SocketLink(self._socket)).lines("GET", "/events", follow=True):
            if self._over.is_set():
                return
            self._tell(event["kind"], event["fields"])

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        kind = kind.replace("-", "_")
        name = self.names.get(fields.get("ino", 0), "")
        match kind:
            case "recalled":
                self.recalled.add(fields["ino"])
                self._picture.note(
                    f"recalled {name} from {fields.get('volume', 'disc')}", file=True
                )
            case "archived" | "released":
                self._picture.note(f"{kind} {name}", file=True)
            case _:
                words = "  ".join(f"{key} {value}" for key, value in fields.items() if value != "")
                self._picture.note(f"{kind.replace('_', ' ')}: {words}")
