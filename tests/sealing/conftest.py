"""Keys, and a time stamping authority made of `openssl ts` behind HTTP."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

CONF = """
[tsa]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.crt
certs = {folder}/ca.crt
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
"""
EXTENSIONS = "[x]\nextendedKeyUsage = critical,timeStamping\nkeyUsage = critical,digitalSignature\n"


def openssl(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["openssl", *map(str, words)], check=check, capture_output=True, text=True
    )


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sealer.key, sealer.crt, receiver.key, receiver.pub, other.key, other.pub."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("sealer", "receiver", "other"):
        key = folder / f"{name}.key"
        openssl("genpkey", "-algorithm", "ed25519", "-out", key)
        openssl("pkey", "-in", key, "-pubout", "-out", folder / f"{name}.pub")
    openssl("req", "-x509", "-key", folder / "sealer.key", "-out", folder / "sealer.crt",
            "-subj", "/CN=City Hospital", "-days", 30)  # fmt: skip
    return folder


class Authority:
    """A running TSA: its address, and the certificate to trust."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca, self.url = folder, folder / "ca.crt", ""
        (folder / "serial").write_text("01\n")
        (folder / "ts.cnf").write_text(CONF.format(folder=folder))
        (folder / "ext.cnf").write_text(EXTENSIONS)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "ca.key",
                "-out", self.ca, "-subj", "/CN=Time root", "-days", 30)  # fmt: skip
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "tsa.key",
                "-out", folder / "tsa.csr", "-subj", "/CN=Time")  # fmt: skip
        openssl("x509", "-req", "-in", folder / "tsa.csr", "-CA", self.ca, "-CAkey",
                folder / "ca.key", "-CAcreateserial", "-out", folder / "tsa.crt", "-days", 30,
                "-extfile", folder / "ext.cnf", "-extensions", "x")  # fmt: skip

    def reply(self, query: bytes) -> bytes:
        (self.folder / "q").write_bytes(query)
        openssl("ts", "-reply", "-queryfile", self.folder / "q", "-out", self.folder / "r",
                "-config", self.folder / "ts.cnf", "-section", "tsa")  # fmt: skip
        return (self.folder / "r").read_bytes()


@pytest.fixture(scope="session")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    authority = Authority(tmp_path_factory.mktemp("tsa"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = authority.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        authority.url = f"http://127.0.0.1:{server.server_port}/"
        yield authority
        server.shutdown()
        thread.join()
