"""What clients do without wanting a file's bytes recalls nothing; streams and ACLs go to disc."""

import os
import random
import subprocess

import pytest

from tools.lib.smbd import PASSWORD, USER

pytestmark = [pytest.mark.mount, pytest.mark.slow]
BIG = 300_000
HEAD = 64 * 1024
LOOK = f"""
import time
from samba.dcerpc import security
c = connect()
[entry] = [e for e in c.list("") if e["name"] == "looked"]
assert entry["attrib"] & 0x1000
fnum = c.create("looked", DesiredAccess=security.SEC_RIGHTS_FILE_READ)
c.get_sd(fnum, 7)
print(c.read(fnum, 0, {HEAD}).hex())
c.close(fnum)
"""
STREAM = b"a stream, as browsers and Word leave them"


def put(nas, name, size=BIG):
    data = random.Random(name).randbytes(size)
    (nas.top / name).write_bytes(data)
    (nas.top / name).chmod(0o666)
    return data


def local(nas, data):
    path = nas.fs.folder / f"local{len(data)}"
    path.write_bytes(data)
    return path


def sddl(nas, name):
    words = [
        "smbcacls", f"--configfile={nas.samba.config}", "--sddl", f"-U{USER}%{PASSWORD}",
        f"//{nas.samba.address}/archive", name,
    ]  # fmt: skip
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_looking_recalls_nothing(nas):
    data = put(nas, "looked")
    nas.client(f"put {local(nas, STREAM)} looked:note", "setea looked colour green")
    nas.archive("looked")
    absent = nas.fs.ask("info", nas.top / "looked")["absent"]
    assert absent == [[HEAD, BIG]]
    said = nas.client(
        "ls", "allinfo looked", "stat looked", "geteas looked", "altname looked", "du",
        f"get looked:note {nas.fs.folder}/note",
    )  # fmt: skip
    assert "[:note:$DATA]" in said
    assert "COLOUR" in said.upper()
    assert (nas.fs.folder / "note").read_bytes() == STREAM
    assert bytes.fromhex(nas.session(LOOK)) == data[:HEAD]
    assert sddl(nas, "looked").startswith("O:")
    nas.client(f"put {local(nas, b'other')} looked:other", "rename looked seen", "setmode seen +s")
    assert nas.fs.ask("info", nas.top / "seen")["absent"] == absent
    assert nas.fs.ask("queue")["recalls"] == []


ACL = """
from samba.dcerpc import security
c = connect()
rights = security.SEC_STD_READ_CONTROL | security.SEC_STD_WRITE_DAC
fnum = c.create("acl", DesiredAccess=rights)
sd = c.get_sd(fnum, 7)
everybody = security.dom_sid("S-1-1-0")
ace = security.ace()
ace.type, ace.trustee, ace.access_mask = 1, everybody, security.SEC_FILE_EXECUTE
sd.dacl_add(ace)
c.set_sd(fnum, sd, 4)
print(c.get_sd(fnum, 7).as_sddl())
c.close(fnum)
"""
GET_ACL = """
from samba.dcerpc import security
c = connect()
print(c.get_sd(c.create("acl", DesiredAccess=security.SEC_STD_READ_CONTROL), 7).as_sddl())
"""


def test_acls_and_streams_go_to_disc_and_come_back_without_the_catalog(nas):
    nas.client(f"put {local(nas, os.urandom(BIG))} acl", f"put {local(nas, STREAM)} acl:note")
    nas.client("setmode acl +h", "setea acl ward 7")
    acl = nas.session(ACL)
    assert "(D;;" in acl
    stored = {name: os.getxattr(nas.top / "acl", name) for name in os.listxattr(nas.top / "acl")}
    assert {"security.NTACL", "user.DOSATTRIB", "user.DosStream.note:$DATA"} <= stored.keys()
    nas.archive("acl")
    nas.fs.stop()
    (nas.fs.folder / "state").rename(nas.fs.folder / "lost")
    (nas.fs.folder / "state").mkdir()
    nas.fs.control("rebuild")
    nas.fs.start()
    back = {name: os.getxattr(nas.top / "acl", name) for name in os.listxattr(nas.top / "acl")}
    offline = stored["user.DOSATTRIB"][:13] + b"\x10" + stored["user.DOSATTRIB"][14:]
    assert back == stored | {"user.DOSATTRIB": offline}
    assert nas.session(GET_ACL) == acl
    nas.client(f"get acl:note {nas.fs.folder}/note")
    assert (nas.fs.folder / "note").read_bytes() == STREAM
    assert "ward" in nas.client("geteas acl").lower()
