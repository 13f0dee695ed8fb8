"""A mount with a library that is slow on demand, and a Samba that shares it as hsmctl says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmfs.shares import nfs, smb
from tools.lib import smbd
from tools.lib.tempfs import TempFs

SHARE = "archive"
HEAD = 64 * 1024


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = smbd.missing()
    for item in items:
        if reason and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason=reason))


class Nas:
    """An archive on the network.

    Attributes:
        top: the shared folder, under the mountpoint.
    """

    def __init__(self, fs: TempFs, server: smbd.Samba, top: Path) -> None:
        self.fs = fs
        self.samba = server
        self.top = top

    def client(self, *commands: str, user: str | None = smbd.USER) -> str:
        """What smbclient says."""
        return self.samba.client(SHARE, *commands, user=user)

    def session(self, script: str, *words: str) -> str:
        """What a script says that uses Samba's library."""
        return self.samba.session(SHARE, script, *words)

    def archive(self, *names: str) -> None:
        """On disc, and not on disk any more."""
        paths = [self.top / name for name in names]
        self.fs.control("archive", "--now", "--wait", "--release", *paths)
        for path in paths:
            assert self.state(path.name) == "migrated"

    def state(self, name: str) -> str:
        return os.getxattr(self.top / name, "user.hsm.state").decode()


@pytest.fixture(scope="module")
def nas(request: pytest.FixtureRequest) -> Iterator[Nas]:
    """A module may say TABLES for another configuration."""
    tables = getattr(request.module, "TABLES", {})
    with (
        tempfile.TemporaryDirectory(prefix="hsmfs-smb-") as folder,
        pytest.MonkeyPatch.context() as patch,
        TempFs(tables, folder=Path(folder) / "fs") as fs,
        smbd.Samba(Path(folder) / "smb") as server,
    ):
        Path(folder).chmod(0o755)
        patch.setattr(smb, "CONFIG", server.config)
        patch.setattr(smb, "FILE", server.shares)
        patch.setattr(nfs, "FILE", Path(folder) / "no-exports")
        top = fs.mountpoint / "top"
        top.mkdir()
        top.chmod(0o777)
        smb.add(SHARE, top, fs.mountpoint, snapshots=".snapshots")
        yield Nas(fs, server, top)
