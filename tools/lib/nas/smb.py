"""Samba and the kernel's CIFS client in the lab's kernel.

/etc is the host's, so /etc/samba lies in memory: what hsmctl writes there is gone with the kernel,
and smbd reads it as it would at home.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..smbd import PASSWORD, USER, Samba
from .nfs import sh

MODULES = (
    "cmac hmac md5 sha256_generic sha512_generic aes_generic ccm gcm ctr ghash_generic"
    " nls_utf8 cifs"
)
"""What the client asks of the kernel by name, which finds no modules in the lab by itself."""
_ETC = Path("/etc/samba")


@contextmanager
def serve(folder: Path) -> Iterator[Samba]:
    """smbd, of which hsmctl finds the configuration where it looks for it."""
    samba = Samba(folder)
    _ETC.mkdir(exist_ok=True)
    sh("mount", "-t", "tmpfs", "-o", "mode=755", "lab", _ETC)
    samba.config = Path(shutil.move(samba.config, _ETC / "smb.conf"))
    with samba:
        yield samba


def mount(samba: Samba, share: str, *, user: str | None = USER, options: str = "") -> Path:
    """Mount a share with the kernel's client; where it is. user None is a guest."""
    folder = Path("/run/cifs", str(abs(hash((share, user, options)))))
    folder.mkdir(parents=True)
    # Samba makes a guest of a user whom it does not know.
    who = f"username={user or 'stranger'},password={PASSWORD}"
    words = ",".join(filter(None, (who, "vers=3.1.1", options)))
    sh("mount", "-t", "cifs", "-o", words, f"//{samba.address}/{share}", folder)
    return folder


def umount(folder: Path) -> None:
    """Take a client's mount away."""
    sh("umount", folder)
