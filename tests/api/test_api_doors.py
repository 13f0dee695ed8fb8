"""The API on its real sockets: TLS with tokens and certificates, the Unix socket's credentials."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme

from hsmfs import logs
from hsmfs.api.server import serving
from hsmfs.catalog.catalog import Catalog
from hsmfs.cli.main import main
from hsmfs.config import loads
from hsmfs.engine.access import Role
from hsmfs.engine.service import Engine
from hsmfs.engine.setup import init, open_pools
from hsmfs.errors import ConfigError
from hsmfs.library import configured

ACCESS = """
[access]
listen = "127.0.0.1:0"
certificate = "{0}/server.pem"
key = "{0}/server.key"
client_ca = "{0}/ca.pem"
certificates = {{ "revision" = "auditor" }}
"""


class Place:
    """A configuration with certificates, and ways to ask the daemon that runs on it."""

    def __init__(self, root: Path, text: str) -> None:
        self.root = root
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(root / "ca.pem"))
        self.server_certificate()
        self.config = loads(text + ACCESS.format(root))

    def server_certificate(self) -> None:
        made = self.ca.issue_cert("127.0.0.1")
        key = self.root / "server.key"
        key.touch(0o600)
        made.private_key_pem.write_to_path(str(key))
        (self.root / "server.pem").write_bytes(b"".join(c.bytes() for c in made.cert_chain_pems))

    def client_certificate(self, name: str, ca: trustme.CA | None = None) -> Path:
        made = (ca or self.ca).issue_cert("host.example", common_name=name)
        path = self.root / f"{name}-{id(ca)}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    @asynccontextmanager
    async def running(self):
        config = self.config
        catalog = Catalog.open(config.daemon.state)
        pools = await open_pools(config.pool, catalog)
        library = configured.open_library(config.library)
        engine = Engine(config, catalog, pools, library)
        async with engine.running(), serving(engine) as addresses:
            self.url = addresses[1]
            yield engine
        await library.close()
        catalog.close()

    async def ctl(self, *words: object, ca: str = "ca.pem", **given: object) -> int:
        """hsmctl over TLS, in a thread."""
        options = []
        for name, value in given.items():
            options += [f"--{name.replace('_', '-')}", value]
        line = ["--server", self.url, "--ca", self.root / ca, *options, *words]
        return await trio.to_thread.run_sync(lambda: main([str(word) for word in line]))


@pytest.fixture
async def place(tmp_path, config_file):
    place = Place(tmp_path, config_file.read_text())
    await init(place.config)
    return place


def keep(place: Place, text: str) -> Path:
    path = place.root / "token"
    path.touch(0o600)
    path.write_text(text + "\n")
    return path


async def test_hsmctl_from_another_machine(place, capfd):
    async with place.running() as engine:
        config = place.root / "hsmfs.toml"

        def here(*words: str) -> tuple[int, str]:
            return main(["--config", str(config), *words]), capfd.readouterr().out

        async def local(*words: str) -> str:
            code, out = await trio.to_thread.run_sync(here, *words)
            assert code == 0
            return out

        token = keep(place, (await local("token", "create", "ops", "--role", "operator")).strip())
        assert await place.ctl("whoami", token_file=token) == 0
        assert capfd.readouterr().out == "token ops, role operator\n"
        async with engine.catalog.write():
            engine.catalog.names.create(1, b"f", 0o100644, 0, 0, 1, pool=1)
        assert await place.ctl("ls", "/", token_file=token) == 0
        assert await place.ctl("pin", "f", token_file=token) == 0
        capfd.readouterr()
        assert await place.ctl("info", "f", "--json", token_file=token) == 0
        assert json.loads(capfd.readouterr().out)["entry"]["pinned"] is True
        assert await place.ctl("audit", "verify", token_file=token) == 22
        assert await place.ctl("umount", token_file=token) == 3
        assert "works on the machine of hsmfsd only" in capfd.readouterr().err
        assert "ops" in await local("token", "ls")
        await local("token", "revoke", "ops")
        assert await place.ctl("whoami", token_file=token) == 21


async def test_client_certificates(place, capfd, expect_log):
    async with place.running():
        revision = place.client_certificate("revision")
        assert await place.ctl("whoami", cert=revision) == 0
        assert capfd.readouterr().out == "certificate revision, role auditor\n"
        assert await place.ctl("audit", "verify", cert=revision) == 0
        assert await place.ctl("trash", "purge", "--all", cert=revision) == 22
        assert await place.ctl("whoami", cert=place.client_certificate("stranger")) == 21
        assert await place.ctl("whoami") == 21
        foreign = place.client_certificate("revision", trustme.CA())
        capfd.readouterr()
        assert await place.ctl("whoami", cert=foreign) == 18
        assert "[access] client_ca" in capfd.readouterr().err
        assert await place.ctl("audit", "search", "--kind", "access.failed", cert=revision) == 0
        out = capfd.readouterr().out
        assert "stranger" in out


async def test_the_server_must_prove_itself(place, capfd):
    other = trustme.CA()
    other.cert_pem.write_to_path(str(place.root / "other.pem"))
    async with place.running():
        assert await place.ctl("whoami", ca="other.pem") == 18
        assert "not to be trusted" in capfd.readouterr().err


async def test_renewed_certificates_are_taken_and_wrong_ones_not(place, expect_log):
    revision = place.client_certificate("revision")
    async with place.running():

        def serial() -> int:
            return ssl.get_server_certificate(place.address)

        place.address = ("127.0.0.1", int(place.url.rpartition(":")[2]))
        before = await trio.to_thread.run_sync(serial)
        place.server_certificate()
        after = await trio.to_thread.run_sync(serial)
        assert before != after
        expect_log("the old TLS certificate stays in use")
        (place.root / "server.pem").write_text("nothing")
        assert await trio.to_thread.run_sync(serial) == after
        assert await place.ctl("whoami", cert=revision) == 0


async def test_only_tls_is_spoken(place):
    async with place.running():
        port = int(place.url.rpartition(":")[2])
        got = b""
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            with trio.fail_after(10), suppress(trio.BrokenResourceError):
                while block := await stream.receive_some():
                    got += block
        assert b"HTTP" not in got


async def test_connections_of_one_address_are_bounded(place, monkeypatch):
    monkeypatch.setattr("hsmfs.api.doors.API_CONNECTIONS_EACH", 2)
    async with place.running():
        port = int(place.url.rpartition(":")[2])
        held = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        async with await trio.open_tcp_stream("127.0.0.1", port) as third:
            with trio.fail_after(10), suppress(trio.BrokenResourceError):
                assert await third.receive_some() == b""
        for stream in held:
            await stream.aclose()


async def test_a_client_that_is_gone_has_no_connection(place, monkeypatch):
    monkeypatch.setattr("hsmfs.api.doors.API_CONNECTIONS_EACH", 2)
    async with place.running():
        assert [await place.ctl("whoami") for _ in range(5)] == [21] * 5


async def test_an_order_that_is_too_large_is_refused(place, capfd, monkeypatch):
    monkeypatch.setattr("hsmfs.api.gate.API_BODY_BYTES", 100_000)
    async with place.running() as engine:
        token = keep(place, await engine.access.tokens.create("t", Role.OPERATOR, "me", None))
        assert await place.ctl("pin", "f" * 50_000, token_file=token) == 4
        assert await place.ctl("pin", "f" * 200_000, token_file=token) == 2
        assert "at most 100000 bytes" in capfd.readouterr().err


async def test_secrets_are_nowhere(place, capfd, monkeypatch):
    """Neither in logs of any level, nor in the audit log, nor in a byte of the state folder."""
    monkeypatch.setattr("sys.stderr", (place.root / "log").open("w"))
    logs.setup("debug", "json")
    async with place.running() as engine:
        good = await engine.access.tokens.create("t", Role.VIEWER, "me", None)
        wrong = "hsm_0123456789ab_" + "S" * 43
        bad = good[:-6] + "zzzzzz"
        for text in (good, wrong, bad, "hsm_nonsense-Secret"):
            await place.ctl("whoami", token_file=keep(place, text))
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", int(place.url.rpartition(":")[2]), https_compatible=True,
            ssl_context=ssl.create_default_context(cafile=str(place.root / "ca.pem")),
        )
        await stream.send_all(
            b"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Basic U2VjcmV0U2VjcmV0\r\n\r\n"
        )
        assert b" 401 " in await stream.receive_some()
        await stream.aclose()
        records = b"".join(r.line(b"") for r in engine.trust.audit.log.after(0))
        await engine.catalog.sync()
    logs.flush()
    out, err = capfd.readouterr()
    (place.root / "token").unlink()
    found = records + (out + err).encode() + (place.root / "log").read_bytes()
    for path in (place.root / "state").rglob("*"):
        if path.is_file():
            found += path.read_bytes()
    assert b"access.failed" in found
    for secret in (good.split("_", 2)[2], bad.split("_", 2)[2], "S" * 43, "nonsense-Secret",
                   "U2VjcmV0U2VjcmV0"):  # fmt: skip
        assert secret.encode() not in found


async def test_a_key_that_everybody_reads_is_refused(place):
    (place.root / "server.key").chmod(0o644)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with place.running():
            raise AssertionError("served")
    assert caught.group_contains(ConfigError, match="open to everybody", depth=None)


ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b"GET /v1/whoami HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
while block := s.recv(9999): print(block.decode())
"""


@pytest.mark.root
async def test_the_kernel_says_who_is_on_the_socket(place):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        daemon = place.config.daemon.model_copy(
            update={"socket": Path(folder) / "s", "socket_group": "daemon", "socket_role": "viewer"}
        )
        place.config = place.config.model_copy(update={"daemon": daemon})

        def whoami(user: int, group: str) -> str:
            done = subprocess.run(
                ["/usr/bin/python3", "-c", ASK, f"{folder}/s"], user=user, group=group,
                extra_groups=[], capture_output=True, text=True, check=False,
            )  # fmt: skip
            return done.stdout + done.stderr

        async with place.running():
            assert "PermissionError" in await trio.to_thread.run_sync(whoami, 2, "bin")
            assert '"bin(2)","role":"viewer"' in await trio.to_thread.run_sync(whoami, 2, "daemon")
            assert '"root(0)","role":"admin"' in await trio.to_thread.run_sync(whoami, 0, "root")


def test_token_files_that_others_read_are_refused(tmp_path, capfd):
    path = tmp_path / "token"
    path.write_text("hsm_x")
    path.chmod(0o644)
    words = ["--server", "https://127.0.0.1:1", "--token-file", str(path), "whoami"]
    assert main(words) == 3
    assert "open to others" in capfd.readouterr().err
    path.chmod(0o600)
    assert main(words) == 18
    assert main(["--token-file", str(path), "whoami"]) == 2
    assert main(["--server", "http://nas", "whoami"]) == 3
