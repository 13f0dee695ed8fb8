"""hsmctl export smb: what Samba is told, refused, taken back, and that it serves it."""

import re
import subprocess
from pathlib import Path

import pytest

from hsmfs.cli.main import main
from hsmfs.errors import Conflict, NotFound
from hsmfs.shares import nfs, smb
from hsmfs.shares.share import Share, ShareError
from tools.lib.smbd import USER, Samba

MOUNT = Path("/srv/archive")
STAYS = """
from samba import NTSTATUSError, ntstatus
ENDED = ntstatus.NT_STATUS_CONNECTION_DISCONNECTED, ntstatus.NT_STATUS_CONNECTION_RESET
c = connect()
c.list("")
print("let in", flush=True)
input()
while True:                         # also of a mount that is no more, until smbd has ended
    try: c.list("")
    except NTSTATUSError as fault:
        if fault.args[0] in ENDED: break
print("ended")
"""


@pytest.fixture
def samba(tmp_path, monkeypatch):
    """Not started: testparm alone is asked."""
    server = Samba(tmp_path / "smb")
    server.config.write_text(server.config.read_text() + "[own]\npath = /srv/own\n")
    monkeypatch.setattr(smb, "CONFIG", server.config)
    monkeypatch.setattr(smb, "FILE", server.shares)
    monkeypatch.setattr(nfs, "FILE", tmp_path / "hsmfs.exports")
    yield server
    server.remove()


def effective(samba, name, *keys):
    """What Samba makes of parameters of a share."""
    return [
        subprocess.run(
            ["testparm", "-s", f"--section-name={name}", f"--parameter-name={key}",
             str(samba.config)],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for key in keys
    ]  # fmt: skip


def test_what_is_written_is_what_samba_reads(samba):
    odd = MOUNT / "CT 2024 #1" / "患者; x"
    smb.add("Röntgen", odd, MOUNT, users=["anna", "@ward 7"], read_only=True)
    smb.add("archive", MOUNT, MOUNT)
    smb.add("ARCHIVE", MOUNT / "a", MOUNT)
    assert smb.shares() == [
        Share("smb", "Röntgen", odd, 'anna, "@ward 7"', "ro,locks=smb"),
        Share("smb", "ARCHIVE", MOUNT / "a", "", "rw,locks=smb"),
    ]
    assert effective(samba, "Röntgen", "path", "read only", "valid users") == [
        str(odd), "Yes", 'anna "@ward 7"'
    ]  # fmt: skip
    assert effective(samba, "ARCHIVE", "read only", "vfs objects", "root preexec close") == [
        "No", "acl_xattr streams_xattr", "Yes"
    ]  # fmt: skip


def test_reads_wait_in_threads_and_handles_are_durable(samba):
    smb.add("archive", MOUNT, MOUNT)
    assert effective(samba, "global", "aio max threads") == ["1000"]
    threads = ("aio read size", "use sendfile")
    assert effective(samba, "archive", *threads) == ["1", "No"]
    durable = ("durable handles", "kernel oplocks", "kernel share modes", "posix locking")
    assert effective(samba, "archive", *durable) == ["Yes", "No", "No", "No"]


def test_a_folder_that_nfs_exports_shares_its_locks(samba, monkeypatch):
    monkeypatch.setattr(nfs, "exports", lambda: [Share("nfs", "", MOUNT / "ct")])
    assert smb.add("a", MOUNT, MOUNT).options == "rw,locks=posix"
    assert smb.add("b", MOUNT / "ct/7", MOUNT).options == "rw,locks=posix"
    assert smb.add("c", MOUNT / "mr", MOUNT).options == "rw,locks=smb"
    assert smb.add("d", MOUNT, MOUNT, posix_locks=False).options == "rw,locks=smb"
    keys = ("posix locking", "durable handles", "oplocks")
    assert effective(samba, "a", *keys) == ["Yes", "No", "No"]
    assert effective(samba, "c", *keys) == ["No", "Yes", "Yes"]


@pytest.mark.parametrize(
    ("name", "path", "user"),
    [("", "a", "u"), ("a]b", "a", "u"), ("global", "a", "u"), ("x" * 81, "a", "u"),
     ("a", "a%Ub", "u"), ("a", "new\nline", "u"), ("a", "end ", "u"), ("a", "end\\", "u"),
     ("a", "bad\udcff", "u"), ("a", "a", ""), ("a", "a", "u\nguest ok = yes"), ("a", "a", "@")],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(samba, name, path, user):
    with pytest.raises(ShareError):
        smb.add(name, MOUNT / path, MOUNT, users=[user])
    assert not smb.FILE.read_text()


def test_a_name_of_the_admin_s_own_is_not_taken(samba):
    with pytest.raises(Conflict):
        smb.add("Own", MOUNT, MOUNT)
    with pytest.raises(NotFound):
        smb.remove("own")


def test_smb_conf_is_made_to_include_the_file_once(samba):
    text = re.sub(r"include = .*\n", "", samba.config.read_text())
    samba.config.write_text(text)
    smb.add("a", MOUNT, MOUNT)
    smb.add("b", MOUNT, MOUNT)
    assert samba.config.read_text().count("include = ") == 1
    assert effective(samba, "b", "path") == [str(MOUNT)]


def test_what_samba_cannot_read_changes_nothing(samba):
    smb.add("a", MOUNT, MOUNT)
    before = smb.FILE.read_text()
    samba.config.write_text("[global]\nserver role = clown\n")
    kept = samba.config.read_bytes()
    with pytest.raises(ShareError, match="testparm"):
        smb.add("b", MOUNT, MOUNT)
    assert smb.FILE.read_text() == before
    assert samba.config.read_bytes() == kept


def test_a_line_by_another_hand_is_never_overwritten(samba):
    smb.FILE.write_text("nonsense\n")
    with pytest.raises(ShareError, match="line 1"):
        smb.add("a", MOUNT, MOUNT)
    assert smb.FILE.read_text() == "nonsense\n"


def test_without_samba_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(smb, "CONFIG", tmp_path / "none/smb.conf")
    monkeypatch.setattr(smb, "FILE", tmp_path / "none/hsmfs.conf")
    with pytest.raises(ShareError) as caught:
        smb.add("a", MOUNT, MOUNT)
    assert "apt-get install samba" in caught.value.next_step
    assert not smb.FILE.exists()


@pytest.mark.mount
@pytest.mark.slow
def test_hsmctl_shares_at_once_and_takes_back(nas, capfd):
    def hsmctl(*words):
        code = main(["--config", str(nas.fs.config), "export", *words])
        return code, capfd.readouterr().out

    (nas.fs.mountpoint / "ct").mkdir()
    (nas.fs.mountpoint / "ct").chmod(0o777)
    words = ["smb", "ct", str(nas.fs.mountpoint / "ct"), "--to", USER]
    assert hsmctl(*words)[0] == 0
    assert "NT_STATUS_ACCESS_DENIED" in nas.samba.client("ct", "ls", user=None, check=False)
    session = subprocess.Popen(
        nas.samba.client_command("ct"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert "mkdir" in nas.samba.client("ct", "mkdir a", "help")
    assert (nas.fs.mountpoint / "ct/a").is_dir()
    assert hsmctl(*words, "--read-only")[0] == 0
    code, out = hsmctl("ls")
    assert code == 0
    assert re.search(r"smb +ct +\S+/ct +games +ro,locks=smb", out)
    assert "ACCESS_DENIED" in nas.samba.client("ct", "mkdir b", check=False)
    assert hsmctl("rm", "smb", "ct")[0] == 0
    assert "NT_STATUS_" in session.communicate("ls\nls\n")[0]
    assert "BAD_NETWORK_NAME" in nas.samba.client("ct", "ls", check=False)
    assert hsmctl("smb", "x", str(nas.fs.mountpoint / "none"))[0] != 0


@pytest.mark.mount
@pytest.mark.slow
def test_clients_are_refused_without_the_mount_and_connect_anew_after_it(nas):
    session = subprocess.Popen(
        nas.samba.session_command("archive", STAYS), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert session.stdout.readline() == "let in\n"
    nas.fs.stop()
    assert "ACCESS_DENIED" in nas.samba.client("archive", "ls", check=False)
    nas.fs.start()
    smb.reconnect(nas.fs.mountpoint)
    assert "blocks available" in nas.client("ls")
    assert session.communicate("go on\n", timeout=60)[0] == "ended\n"
