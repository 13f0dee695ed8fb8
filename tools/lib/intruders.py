"""Who comes to the API over the network in each role, and who turns the daemon's wall clock.

For tools/prove attacks. The clock is turned for the daemon alone, by a launcher that adds to
`time.time_ns` what a file says: the machine's own stays as it is, for others work on it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trustme

from hsmfs.engine.access import Role

from .tempfs import Tables, TempFs

_LAUNCHER = """
import sys, time
real, file = time.time_ns, {file!r}
def turned():
    try:
        with open(file) as source:
            return real() + int(source.read() or 0)
    except FileNotFoundError:
        return real()
time.time_ns = turned
import hsmfs.engine.trust.trust as trust
trust.SAVE = 0.2  # it looks at the clock each minute, and at once if the kernel tells
sys.argv[0] = "hsmfsd"
from hsmfs.daemon import main
sys.exit(main())
"""


class Guarded(TempFs):
    """An hsmfs that listens on TLS, and whose wall clock can be turned."""

    def __init__(self, tables: Tables, folder: Path) -> None:
        self.ca = trustme.CA()
        made = self.ca.issue_cert("127.0.0.1")
        self.keys = folder / "keys"
        self.keys.mkdir()
        key, certificate = self.keys / "server.key", self.keys / "server.pem"
        key.touch(0o600)
        made.private_key_pem.write_to_path(str(key))
        certificate.write_bytes(b"".join(c.bytes() for c in made.cert_chain_pems))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        access = {
            "listen": f"127.0.0.1:{self.port}", "certificate": certificate, "key": key,
        }  # fmt: skip
        super().__init__({**tables, "access": access}, folder=folder)
        self._turn = folder / "clock"

    def daemon_command(self) -> list[str]:
        words = super().daemon_command()
        words[words.index("-c") + 1] = _LAUNCHER.format(file=str(self._turn))
        return words

    def turn_clock(self, by_ns: int) -> None:
        """Make the daemon's wall clock differ from the machine's."""
        new = self._turn.with_suffix(".new")
        new.write_text(str(by_ns))
        new.rename(self._turn)

    def jumps(self) -> list[dict[str, Any]]:
        """What is on record of the clock."""
        said = self.control("audit", "search", "--kind", "clock.*", "--json").splitlines()
        return [json.loads(line) for line in said]

    def turned_clock(self, by_ns: int, *, running: bool) -> bool:
        """Turn it, while the daemon runs or while it is down; whether that is on record then."""
        known = len(self.jumps())
        if running:
            self.turn_clock(by_ns)
            return self.told_of_turn(known)
        self.stop()
        self.turn_clock(by_ns)
        self.start()
        return self.told_of_turn(known)

    def told_of_turn(self, since: int) -> bool:
        """True once a jump of the clock after the first `since` records is on record."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(self.jumps()) > since:
                return True
            time.sleep(0.1)
        return False


class Callers:
    """Requests over TLS with a token of each role, with none, a made-up and a revoked one."""

    def __init__(self, fs: Guarded) -> None:
        self._fs = fs
        self._context = ssl.create_default_context(cadata=fs.ca.cert_pem.bytes().decode())
        self.tokens: dict[str, str | None] = {"nobody": None, "made up": "hsm_aaaaaaaa_" + "b" * 43}
        for role in Role:
            made = fs.ask("token", "create", f"t-{role.value}", "--role", role.value)
            self.tokens[role.value] = made["token"]
        self.tokens["revoked"] = fs.ask("token", "create", "gone", "--role", "admin")["token"]
        fs.control("token", "revoke", "gone")

    def post(self, who: str, path: str, body: object) -> int:
        """The status of an order; 409 for a stream whose end says that it failed."""
        headers = {"Content-Type": "application/json"}
        if token := self.tokens[who]:
            headers["Authorization"] = f"Bearer {token}"
        with contextlib.closing(
            http.client.HTTPSConnection(
                "127.0.0.1", self._fs.port, timeout=60, context=self._context
            )
        ) as connection:
            connection.request("POST", f"/v1{path}", json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            return 409 if answer.status == 200 and '"exit_code"' in text else answer.status


Order = tuple[str, object]
"""Path and body of an order."""
_ADMINS: Mapping[str, Order] = {
    "release the hold": ("/holds/case/release", {"reason": "x"}),
    "empty the trash": ("/trash/purge", None),
    "another token": ("/tokens", {"name": "x", "role": "admin", "lasts_s": 60.0}),
    "stop the daemon": ("/stop", None),
}
"""What an admin may do, and nobody else."""


def by_each_role(
    callers: Callers, orders: Mapping[str, Order]
) -> dict[str, Callable[[], bool]]:
    """Attempts by each caller: an admin's are refused by retention, others' by their role already,
    and who is not known is not even asked what they want."""
    found: dict[str, Callable[[], bool]] = {}
    roles = {role.value for role in Role}
    for who in sorted(callers.tokens, key=lambda who: who not in roles):
        tried = dict(orders) if who == Role.ADMIN else {**orders, **_ADMINS}
        allowed = (403, 409) if who in roles else (401, 429)
        for what, (path, body) in tried.items():
            found[f"TLS, {who}: {what}"] = (
                lambda who=who, path=path, body=body, allowed=allowed:  # type: ignore[misc]
                callers.post(who, path, body) in allowed
            )  # fmt: skip
    return found
