"""Previous Versions: what a file was is listed and read by clients, also from discs."""

import os
import random
import re

import pytest

from tools.lib.ages import age

pytestmark = [pytest.mark.mount, pytest.mark.slow]
SIZE = 300_000


@pytest.fixture(scope="module")
def kept(nas):
    """A file that was archived and overwritten, and one that was deleted, three hours later; and
    one that no disc had when it was overwritten.
    """
    names = ("changed", "deleted", "young")
    data = {name: random.Random(name).randbytes(SIZE) for name in names}
    (nas.top / "folder").mkdir()
    (nas.top / "folder").chmod(0o777)
    for name, content in data.items():
        local = nas.fs.folder / name
        local.write_bytes(content)
        nas.client(f"put {local} folder\\{name}")
    paths = [nas.top / "folder" / name for name in names[:2]]
    nas.fs.control("archive", "--now", "--wait", "--release", *paths)
    age(nas.fs, 3 * 3600)
    nas.client("del folder\\deleted")
    other = nas.fs.folder / "other"
    other.write_bytes(b"encrypted")
    nas.client(f"put {other} folder\\changed")
    nas.client(f"put {other} folder\\young")
    return data


def versions(nas, path):
    return re.findall(r"^@GMT-\S+", nas.client(f"allinfo {path}"), re.MULTILINE)


def get(nas, token, name):
    local = nas.fs.folder / "got"
    local.unlink(missing_ok=True)
    nas.client(f"get {token}\\folder\\{name} {local}")
    return local.read_bytes()


def test_versions_are_listed_and_read(nas, kept):
    found = versions(nas, "folder\\changed")
    assert len(found) in (2, 3)
    assert all(re.fullmatch(r"@GMT-\d{4}(\.\d\d){2}-\d\d\.00\.00", token) for token in found)
    assert get(nas, found[1], "changed") == kept["changed"]
    assert (nas.top / "folder/changed").read_bytes() == b"encrypted"


def test_what_no_disc_had_was_set_aside(nas, kept):
    found = versions(nas, "folder\\young")
    assert get(nas, found[1], "young") == kept["young"]
    assert (nas.top / "folder/young").read_bytes() == b"encrypted"
    then = nas.fs.ask("versions", nas.top / "folder/young")[1]
    assert (then["where"], then["size"]) == ("disk", SIZE)


def test_a_deleted_file_is_found_in_its_folder(nas, kept):
    hour = versions(nas, "folder")[1]
    names = nas.client(f"ls {hour}\\folder\\*")
    assert re.search(r"\bdeleted\b", names)
    assert re.search(r"\bdeleted\b", nas.client("ls folder\\*")) is None
    assert get(nas, hour, "deleted") == kept["deleted"]


def test_they_cannot_be_written(nas, kept):
    hour = versions(nas, "folder")[1]
    local = nas.fs.folder / "other"
    for command in (
        f"put {local} {hour}\\folder\\changed", f"put {local} {hour}\\folder\\new",
        f"del {hour}\\folder\\changed", f"mkdir {hour}\\folder\\new",
        f"rename {hour}\\folder\\changed {hour}\\folder\\moved",
    ):  # fmt: skip
        assert "NT_STATUS" in nas.samba.client("archive", command, check=False), command
    assert get(nas, hour, "changed") == kept["changed"]


def test_what_is_on_disc_alone_is_offline(nas, kept):
    hour = versions(nas, "folder")[1]
    kept_then = nas.fs.mountpoint / ".snapshots" / hour / "top/folder/changed"
    state = os.getxattr(kept_then, "user.hsm.state").decode()
    assert state in ("migrated", "premigrated", "partial")
