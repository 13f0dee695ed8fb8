"""A client of NFS 3 that sends whatever it is told to: names and handles no kernel would send.

RFC 5531 (RPC, AUTH_SYS), RFC 1813 (NFS 3 and its MOUNT protocol).
"""

from __future__ import annotations

import itertools
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from .nfs import CLIENTS, sh

NFS, MOUNT, VERSION, PORT = 100003, 100005, 3, 2049
MNT = 1
GETATTR, LOOKUP, READLINK, READ = 1, 3, 5, 6
FOLDER, LINK = 2, 5
OK, GARBAGE = 0, -1
_PATIENCE_S = 20.0
_FILE_ID, _FS_ID, _ATTRIBUTES = 52, 44, 84
_XIDS = itertools.count(1)


@dataclass(frozen=True)
class Found:
    """What a handle stands for: kind (ftype3), filesystem and inode number."""

    handle: bytes
    kind: int
    fsid: int
    ino: int


class Refused(Exception):
    """The server's status (nfsstat3), or GARBAGE if it could not even read the request."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class RawNfs:
    """A connection to the server of this host, as root of a client, as a context manager."""

    def __init__(self) -> None:
        self._socket = _connected(PORT)

    def __enter__(self) -> RawNfs:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def root(self, path: Path) -> Found:
        """The handle of an exported folder."""
        lines = [line.split() for line in sh("rpcinfo", "-p").splitlines()]
        port = next(int(words[3]) for words in lines
                    if words[:3] == [str(MOUNT), str(VERSION), "tcp"])  # fmt: skip
        with _connected(port) as mountd:
            answer = _call(mountd, MOUNT, MNT, _opaque(bytes(path)))
        return self.look(_taken(answer)[0])

    def look(self, handle: bytes) -> Found:
        """GETATTR. Raises Refused."""
        return _found(handle, self._call(GETATTR, _opaque(handle)))

    def lookup(self, folder: bytes, name: bytes) -> Found:
        """LOOKUP of one name. Raises Refused."""
        handle, _ = _taken(self._call(LOOKUP, _opaque(folder) + _opaque(name)))
        return self.look(handle)

    def readlink(self, handle: bytes) -> bytes:
        """Where a link leads. Raises Refused."""
        answer = self._call(READLINK, _opaque(handle))
        return _taken(answer[4 + _ATTRIBUTES * int.from_bytes(answer[:4], "big") :])[0]

    def read(self, handle: bytes) -> None:
        """READ of some bytes. Raises Refused."""
        self._call(READ, _opaque(handle) + struct.pack(">QI", 0, 4096))

    def _call(self, procedure: int, body: bytes) -> bytes:
        return _call(self._socket, NFS, procedure, body)


def _connected(port: int) -> socket.socket:
    """From a port that only root may use, as servers ask for."""
    for own in range(1000, 600, -1):
        client = socket.socket()
        client.settimeout(_PATIENCE_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            client.bind((CLIENTS, own))
            client.connect((CLIENTS, port))
        except OSError:
            client.close()
        else:
            return client
    raise OSError(f"no connection to port {port}")


def _call(server: socket.socket, program: int, procedure: int, body: bytes) -> bytes:
    """The results after their status. Raises Refused."""
    credential = struct.pack(">I", 0) + _opaque(b"lab") + struct.pack(">III", 0, 0, 0)
    call = struct.pack(">6I", next(_XIDS), 0, 2, program, VERSION, procedure)
    call += struct.pack(">I", 1) + _opaque(credential) + bytes(8) + body
    server.sendall(struct.pack(">I", 1 << 31 | len(call)) + call)
    size = int.from_bytes(_exactly(server, 4), "big") & ~(1 << 31)
    answer = _exactly(server, size)
    _, _, denied, _, verifier = struct.unpack_from(">5I", answer)
    if denied:
        raise Refused(GARBAGE)
    (accepted,) = struct.unpack_from(">I", answer, 20 + verifier)
    if accepted:
        raise Refused(GARBAGE)
    results = answer[24 + verifier :]
    if status := int.from_bytes(results[:4], "big"):
        raise Refused(status)
    return results[4:]


def _exactly(server: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = server.recv(count - len(got))
        if not more:
            raise OSError("the server hung up")
        got += more
    return got


def _found(handle: bytes, attributes: bytes) -> Found:
    (kind,) = struct.unpack_from(">I", attributes)
    (fsid,) = struct.unpack_from(">Q", attributes, _FS_ID)
    (ino,) = struct.unpack_from(">Q", attributes, _FILE_ID)
    return Found(handle, kind, fsid, ino)


def _opaque(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def _taken(data: bytes) -> tuple[bytes, bytes]:
    """A counted run of bytes, and what follows."""
    size = int.from_bytes(data[:4], "big")
    return data[4 : 4 + size], data[4 + size + -size % 4 :]
