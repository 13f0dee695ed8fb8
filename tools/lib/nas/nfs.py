"""The kernel's NFS server and its clients, started as Debian starts them, in the lab's kernel.

/etc and /var/lib/nfs are the host's, so what is written there lies in memory. The root that clients
of NFS 4 see is /run, as the host's filesystem behind / cannot be exported.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

MODULES = "sunrpc nfsd nfsv3 nfsv4"
THREADS = 8
CLIENTS = "127.0.0.1"
GRACE_S = 20
"""How long a restarted server waits for its clients; the kernel's default is 90. Within 10 a client
of NFS 3 on a busy machine, that hears of the restart by other programs, may not have asked."""
NLM_TIMEOUT_S = 3
"""When lockd asks again, whose answer the server dropped while it looked an export up: with its
10 s it would take a lock again after so short a grace period (lockd's nlm_timeout, 3 to 20)."""
VERSIONS = {"v3": "vers=3", "v4.1": "vers=4.1", "v4.2": "vers=4.2"}
_STATE = Path("/var/lib/nfs")
_NFSD = Path("/proc/fs/nfsd")
_NLM_TIMEOUT = Path("/proc/sys/fs/nfs/nlm_timeout")
_PIPES = Path("/run/rpc_pipefs")
"""Where Debian's nfs.conf has it."""


def sh(*words: str | Path, check: bool = True) -> str:
    """Run a tool and return what it prints; raises RuntimeError with its message."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done.stdout


def serve(threads: int = THREADS) -> None:
    """Start the server; it exports nothing yet, and runs until the kernel is switched off."""
    for folder in (Path("/etc/exports.d"), _STATE):
        folder.mkdir(exist_ok=True)
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "lab", folder)
    for name in ("v4recovery", "rpc_pipefs", "sm", "sm.bak", "nfsdcld", "nfsdcltrack"):
        (_STATE / name).mkdir()
    for name in ("etab", "rmtab", "state"):
        (_STATE / name).touch()
    # Without a name server: there is none, and statd would wait for it.
    files = {"exports": "", "hosts": "127.0.0.1 localhost lab\n", "resolv.conf": ""}
    for file, text in files.items():
        Path("/run", file).write_text(text)
        Path("/etc", file).touch()
        sh("mount", "--bind", Path("/run", file), Path("/etc", file))
    Path("/run/rpcbind").mkdir(exist_ok=True)
    sh("rpcbind", "-w")
    _PIPES.mkdir(exist_ok=True)
    sh("mount", "-t", "rpc_pipefs", "rpc", _PIPES)
    sh("mount", "-t", "nfsd", "nfsd", _NFSD)
    for file in ("nfsv4gracetime", "nfsv4leasetime"):
        (_NFSD / file).write_text(str(GRACE_S))
    _NLM_TIMEOUT.write_text(str(NLM_TIMEOUT_S))
    Path("/etc/exports.d/root.exports").write_text(f"/run {CLIENTS}(ro,fsid=0,no_subtree_check)\n")
    sh("nfsdcld")
    sh("rpc.statd", "--no-notify")
    sh("exportfs", "-r")
    sh("rpc.mountd")
    sh("rpc.nfsd", str(threads))


def mount(path: Path, version: str, options: str = "") -> Path:
    """Mount an export of this host with a version of the protocol; where it is."""
    folder = Path(tempfile.mkdtemp(prefix=f"nfs-{version}-", dir="/run"))
    words = ",".join(filter(None, (VERSIONS[version], options)))
    shown = path if version == "v3" else Path("/", path.relative_to("/run"))
    sh("mount", "-t", "nfs", "-o", words, f"{CLIENTS}:{shown}", folder)
    return folder


def umount(folder: Path) -> None:
    """Take a client's mount away, and the place where it was: another program may take it."""
    sh("umount", folder)
    folder.rmdir()


def drop_caches() -> None:
    """Make clients and server forget pages, names and inodes."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def until(holds, what: str, patience_s: float = 60.0) -> float:
    """Wait until something holds; the seconds it took. Raises TimeoutError."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > patience_s:
            raise TimeoutError(f"{what}: not within {patience_s:g} s")
        time.sleep(0.02)
    return time.monotonic() - began
