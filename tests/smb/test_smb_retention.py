"""Retention through Samba: the read-only attribute commits, and no client changes a record."""

import json
import os
import random

import pytest

pytestmark = [pytest.mark.mount, pytest.mark.slow]
ATTEMPTS = {
    "delete": ["del record"],
    "overwrite": ["put {other} record"],
    "rename": ["rename record moved"],
    "write permission": ["setmode record -r"],
    "hide": ["setmode record +h"],
    "time of change": ["utimes record -1 -1 2001:02:03-04:05:06 -1"],
    "link": ["hardlink record linked"],
}


@pytest.fixture(scope="module")
def record(nas):
    """The name of a record, with its bytes."""
    nas.fs.control("retention", "set", nas.top, "--mode", "compliance", "--default", "1 y")
    data = random.Random(1).randbytes(50_000)
    local, other = nas.fs.folder / "local", nas.fs.folder / "other"
    local.write_bytes(data)
    other.write_bytes(b"changed")
    nas.client(f"put {local} record")
    nas.client("setmode record +r")
    return data


def seen(nas, name="record"):
    return json.loads(os.getxattr(nas.top / name, "user.hsm.retention"))


def test_the_read_only_attribute_commits(nas, record):
    found = seen(nas)
    assert (found["state"], found["mode"]) == ("retained", "compliance")
    assert os.stat(nas.top / "record").st_mode & 0o222 == 0


@pytest.mark.parametrize("what", ATTEMPTS)
def test_no_client_changes_it(nas, record, what):
    before, dos = seen(nas), os.getxattr(nas.top / "record", "user.DOSATTRIB")
    for command in ATTEMPTS[what]:
        command = command.format(other=nas.fs.folder / "other")
        said = nas.samba.client("archive", command, check=False)
        assert "NT_STATUS" in said or command.startswith("setmode")  # which tells nobody
    assert (nas.top / "record").read_bytes() == record
    assert (seen(nas), os.getxattr(nas.top / "record", "user.DOSATTRIB")) == (before, dos)
    assert os.stat(nas.top / "record").st_mode & 0o222 == 0
    assert not (nas.top / "moved").exists()


def test_the_time_of_access_extends(nas, record):
    before = seen(nas)["until_ns"]
    nas.client("utimes record -1 2030:01:02-00:00:00 -1 -1")
    assert seen(nas)["until_ns"] > before
