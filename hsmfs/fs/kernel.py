"""Calls to the kernel that pyfuse3 does not make: mount(2), umount2(2), and limits in sysfs.

The mount is made here and not by libfuse because of one flag: with MS_POSIXACL the kernel leaves
the umask to us, and a default ACL must override it (Linux fs/fuse/inode.c, `dont_mask`).
All of it blocks, and is for threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import stat
from dataclasses import dataclass
from pathlib import Path

from .. import logs
from ..errors import Conflict, HsmError

TYPE = "fuse.hsmfs"
_SOURCE = "hsmfs"
_MS_NOSUID, _MS_NODEV, _MS_POSIXACL = 0x2, 0x4, 0x10000  # linux/mount.h
_MNT_DETACH = 0x2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MALLOC_BYTES = 64 * 1024 * 1024
_DESCRIPTORS = 1 << 18
"""For so many the kernel's table is made at once; it takes 2 MiB and never shrinks."""
_CAP_SYS_RESOURCE = 24  # linux/capability.h
_CAPABILITIES_V3 = 0x20080522
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ETIMEDOUT)
"""What a mount answers whose daemon was killed; ETIMEDOUT is its keeper's."""
_FUSECTL = Path("/sys/fs/fuse/connections")
_libc = ctypes.CDLL(None, use_errno=True)

log = logs.get(__name__)


class MountError(HsmError):
    """The filesystem cannot be mounted."""

    default_next = "load the kernel's fuse module, run as root, and check the mountpoint"


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of /proc/self/mountinfo."""

    device: str
    """major:minor"""
    type: str


@dataclass(frozen=True, slots=True)
class Dead:
    """A mount that a killed daemon left, taken away from its folder.

    Attributes:
        device: major:minor; as long as root is open no other mount gets this number.
        root: descriptor of its root (O_PATH, which asks no daemon).
    """

    device: str
    root: int

    def bury(self) -> None:
        """Break the connection if it is still there: whoever waits for an answer gets
        ECONNABORTED."""
        with contextlib.suppress(OSError):
            (_FUSECTL / self.device.partition(":")[2] / "abort").write_text("1")
        os.close(self.root)


def mount(mountpoint: Path, *, allow_other: bool) -> tuple[int, list[Dead]]:
    """Mount; return the descriptor of the connection, and the dead mounts taken away.

    Raises MountError or Conflict.
    """
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        raise MountError(f"/dev/fuse: {fault.strerror}") from fault
    try:
        mode, dead = _root_mode(mountpoint)
        options = f"fd={fd},rootmode={mode:o},user_id=0,group_id=0,default_permissions"
        options += ",allow_other" if allow_other else ""
        flags = _MS_NOSUID | _MS_NODEV | _MS_POSIXACL
        source, target = _SOURCE.encode(), os.fsencode(mountpoint)
        if _libc.mount(source, target, TYPE.encode(), ctypes.c_ulong(flags), options.encode()):
            number = ctypes.get_errno()
            raise MountError(f"mount on {mountpoint}: {os.strerror(number)}")
    except BaseException:
        os.close(fd)
        raise
    return fd, dead


def _root_mode(mountpoint: Path) -> tuple[int, list[Dead]]:
    """The mountpoint's file type, after what a killed daemon left mounted there was taken away."""
    dead: list[Dead] = []
    while True:
        try:
            os.statvfs(mountpoint)  # what stat says may be remembered
            mode = os.stat(mountpoint).st_mode
        except OSError as fault:
            if fault.errno not in _DEAD:
                raise MountError(f"mountpoint {mountpoint}: {fault.strerror}") from fault
            log.warning("unmounted what a killed daemon left", mountpoint=mountpoint)
            root, left = os.open(mountpoint, os.O_PATH | os.O_CLOEXEC), find(mountpoint)
            if left is None:
                os.close(root)
            else:
                dead.append(Dead(left.device, root))
            unmount(mountpoint, lazy=True)
            continue
        found = find(mountpoint)
        if found is not None and found.type == TYPE:
            raise Conflict(
                f"{mountpoint} is mounted already", next_step=f"unmount it: umount {mountpoint}"
            )
        if not stat.S_ISDIR(mode):
            raise MountError(f"mountpoint {mountpoint} is not a folder")
        return stat.S_IFMT(mode), dead


def unmount(mountpoint: Path, *, lazy: bool) -> None:
    """umount2(2). Raises OSError, EBUSY for instance unless lazy."""
    if _libc.umount2(os.fsencode(mountpoint), _MNT_DETACH if lazy else 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(mountpoint))


def find(mountpoint: Path) -> Mounted | None:
    """The newest mount on a folder; asks no filesystem. See proc_pid_mountinfo(5)."""
    wanted = os.fsencode(Path(os.path.realpath(mountpoint.parent), mountpoint.name))
    found = None
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            head, _, tail = line.partition(b" - ")
            fields = head.split()
            if _unescaped(fields[4]) == wanted:
                found = Mounted(fields[2].decode(), tail.split()[0].decode())
    return found


def is_mounted(device: str) -> bool:
    """Whether a filesystem is mounted anywhere in this namespace."""
    with open("/proc/self/mountinfo", "rb") as lines:
        return any(line.split(b" ", 3)[2] == device.encode() for line in lines)


def _unescaped(path: bytes) -> bytes:
    for code in (b"\\040", b"\\011", b"\\012", b"\\134"):
        path = path.replace(code, bytes([int(code[1:], 8)]))
    return path


def tune(device: str, *, read_ahead: int, background: int) -> None:
    """Raise the kernel's limits for the mount; what cannot be raised is logged, not fatal.

    read_ahead is bytes; background is how many reads ahead may be outstanding, and with 12, the
    kernel's default, twelve readers that wait for discs stop everybody else.
    """
    _write(Path(f"/sys/class/bdi/{device}/read_ahead_kb"), read_ahead // 1024)
    minor = device.partition(":")[2]
    connection = _FUSECTL / minor
    if not connection.exists():
        _libc.mount(b"fusectl", os.fsencode(_FUSECTL), b"fusectl", ctypes.c_ulong(0), None)
    _write(connection / "max_background", background)
    _write(connection / "congestion_threshold", background * 3 // 4)


class _Process(ctypes.Structure):
    """struct __user_cap_header_struct; pid 0 is the calling thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    """struct __user_cap_data_struct, of capabilities 0 to 31."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def _write(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as fault:
        log.warning("a limit of the kernel could not be set", path=path, value=value, error=fault)


def tune_process() -> None:
    """Limits of this process: descriptors for files in use, and memory that is kept.

    To be called before there are threads: with them, whoever opens the file for which the table of
    descriptors has to grow waits for all processors (synchronize_rcu in Linux fs/file.c; 20 ms were
    seen). Each write of 1 MiB is a new bytes object; glibc would map and unmap memory for each.
    libfuse fetches requests through a pipe if it may make one longer than users may (pipe(7)); that
    costs a call more, since pyfuse3 wants all in memory. So CAP_SYS_RESOURCE is given up; a service
    has none.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        last = min(hard, _DESCRIPTORS) - 1
        with open(os.devnull, "rb") as some:
            os.close(fcntl.fcntl(some, fcntl.F_DUPFD_CLOEXEC, last))
    _libc.mallopt(_M_MMAP_THRESHOLD, _MALLOC_BYTES)
    _libc.mallopt(_M_TRIM_THRESHOLD, 2 * _MALLOC_BYTES)
    _give_up(_CAP_SYS_RESOURCE)


def _give_up(capability: int) -> None:
    """Go on without a capability, if there was one: this thread and those that it starts."""
    process, held = _Process(_CAPABILITIES_V3, 0), (_Capabilities * 2)()
    if _libc.capget(ctypes.byref(process), held):
        number = ctypes.get_errno()
        log.warning("capabilities could not be read", error=os.strerror(number))
        return
    held[0].effective &= ~(1 << capability)
    held[0].permitted &= ~(1 << capability)
    _libc.capset(ctypes.byref(process), held)
