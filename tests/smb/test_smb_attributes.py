"""The attribute that says "on disc", and everything a look at a folder asks, recalls nothing."""

import os
import random
import re

import pytest

pytestmark = [pytest.mark.mount, pytest.mark.slow]
BIG = 300_000


def put(nas, name, size=BIG):
    data = random.Random(name).randbytes(size)
    local = nas.fs.folder / name
    local.write_bytes(data)
    nas.client(f"put {local} {name}")
    return data


def attributes(nas, name):
    return re.search(r"attributes: (\w*) ", nas.client(f"allinfo {name}"))[1]


def listed(nas, name):
    [line] = [x for x in nas.client("ls").splitlines() if x.split()[:1] == [name]]
    return line.split()[1]


def created(nas, name):
    return re.search(r"create_time: *(.*)", nas.client(f"allinfo {name}"))[1]


def test_offline_while_on_disc_and_what_the_client_stored_stays(nas):
    data = put(nas, "a")
    nas.client("utimes a 2001:02:03-04:05:06 -1 -1 -1", "setmode a +hr")
    assert (attributes(nas, "a"), listed(nas, "a")) == ("RHA", "AHR")
    nas.archive("a")
    assert (attributes(nas, "a"), listed(nas, "a")) == ("ORHA", "AHRo")
    nas.client("setmode a -r")
    assert attributes(nas, "a") == "OHA"
    assert nas.state("a") == "migrated"
    local = nas.fs.folder / "back"
    nas.client(f"get a {local}")
    assert local.read_bytes() == data
    assert (attributes(nas, "a"), listed(nas, "a")) == ("HA", "AH")
    assert created(nas, "a") == "Sat Feb  3 04:05:06 2001 UTC"
    stored = os.getxattr(nas.top / "a", "user.DOSATTRIB")
    assert stored[12:16] == b"\x22\0\0\0"


def test_files_that_samba_never_touched_are_offline_too(nas):
    (nas.top / "plain").write_bytes(os.urandom(BIG))
    (nas.top / "plain").chmod(0o644)
    before = created(nas, "plain")
    assert attributes(nas, "plain") == ""
    nas.archive("plain")
    assert listed(nas, "plain") == "o"
    assert created(nas, "plain") == before
    assert "user.DOSATTRIB" not in os.listxattr(nas.top / "plain")
