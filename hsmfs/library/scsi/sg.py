"""Commands to a SCSI device by the SG_IO ioctl of Linux (include/uapi/scsi/sg.h, version 3).

Blocking: everything here runs in threads. A device that vanished, a command that did not end in
its time and a check condition are three errors, for callers to turn into ours.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hsmfs.library.scsi.sense import Key, Sense, parse

SG_IO = 0x2285
TO_DEVICE, FROM_DEVICE, NO_DATA = -2, -3, -1
SENSE_BYTES = 64
ATTENTIONS = 16
"""Unit attentions that may lie in wait, one a command (SAM-5 section 5.14)."""
BUSY_WAITS_S = (0.1, 0.5, 1.0, 2.0, 5.0)

_GOOD, _CHECK, _BUSY, _CONFLICT, _FULL = 0x00, 0x02, 0x08, 0x18, 0x28
_GONE = {errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.ESHUTDOWN}
_HOST_GONE = {0x01, 0x04, 0x0E, 0x0F}
"""DID_NO_CONNECT, DID_BAD_TARGET, DID_TRANSPORT_DISRUPTED, DID_TRANSPORT_FAILFAST."""
_HOST_TIMEOUT = 0x03
_DRIVER_TIMEOUT = 0x06


class ScsiError(Exception):
    """A command did not do what it should; the text is for people."""


class CheckCondition(ScsiError):
    """The device reports a fault by sense data."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(str(sense))
        self.sense = sense


class DeviceGone(ScsiError):
    """The device is not there any more, or not under this name."""


class NoAnswer(ScsiError):
    """The command did not end in its time, or was lost on the way."""


class Device(Protocol):
    """What takes commands: a `Generic`, or in tests one that plays a device."""

    def run(
        self,
        command: bytes,
        *,
        data_in: int | bytearray | memoryview = 0,
        timeout_s: float = 30.0,
        retry: Callable[[Sense], bool] = lambda sense: True,
    ) -> bytes:
        """Send the command block and return what came, at most data_in bytes.

        Bytes go straight into data_in if it is a buffer, and b'' is returned. Unit attentions for
        which `retry` is true only tell news, so the command is sent again. Raises CheckCondition,
        DeviceGone, NoAnswer.
        """
        ...

    def close(self) -> None: ...


class _Header(ctypes.Structure):
    """struct sg_io_hdr."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class Generic:
    """A `Device` behind /dev/sgN (or /dev/srN, which takes the same ioctl)."""

    def __init__(self, path: Path) -> None:
        """Open it; raises DeviceGone, NoAnswer, and PermissionError as it is."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _GONE:
                raise DeviceGone(f"{path}: {error.strerror}") from error
            if error.errno == errno.EBUSY:
                raise NoAnswer(f"{path} is held by another program") from error
            raise

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def run(
        self,
        command: bytes,
        *,
        data_in: int | bytearray | memoryview = 0,
        timeout_s: float = 30.0,
        retry: Callable[[Sense], bool] = lambda sense: True,
    ) -> bytes:
        """Send the command block; see Device."""
        waits = iter(BUSY_WAITS_S)
        attentions = 0
        while True:
            try:
                return self._once(command, data_in, timeout_s)
            except CheckCondition as error:
                attentions += 1
                news = error.sense.key is Key.UNIT_ATTENTION and retry(error.sense)
                if not news or attentions > ATTENTIONS:
                    raise
            except _Busy as error:
                wait = next(waits, None)
                if wait is None:
                    raise NoAnswer(f"{self.path} is busy for too long") from error
                time.sleep(wait)

    def _once(
        self, command: bytes, data_in: int | bytearray | memoryview, timeout_s: float
    ) -> bytes:
        buffer = bytearray(data_in) if isinstance(data_in, int) else data_in
        length = len(buffer)
        cdb = ctypes.create_string_buffer(command, len(command))
        sense = ctypes.create_string_buffer(SENSE_BYTES)
        data = (ctypes.c_ubyte * length).from_buffer(buffer) if length else None
        header = _Header(
            interface_id=ord("S"),
            dxfer_direction=FROM_DEVICE if length else NO_DATA,
            cmd_len=len(command),
            mx_sb_len=SENSE_BYTES,
            dxfer_len=length,
            dxferp=ctypes.addressof(data) if data is not None else None,
            cmdp=ctypes.addressof(cdb),
            sbp=ctypes.addressof(sense),
            timeout=int(timeout_s * 1000),
        )
        try:
            fcntl.ioctl(self._fd, SG_IO, header)
        except OSError as error:
            kind = DeviceGone if error.errno in _GONE else NoAnswer
            raise kind(f"{self.path}: {error.strerror}") from error
        self._check(header, sense.raw)
        if isinstance(data_in, int):
            return bytes(buffer[: length - max(0, header.resid)])
        if header.resid > 0:
            raise NoAnswer(f"{self.path} sent {length - header.resid} of {length} bytes")
        return b""

    def _check(self, header: _Header, raw: bytes) -> None:
        """Raise what the three statuses say (SAM-5 section 5.3, sg.h)."""
        sense = parse(raw[: header.sb_len_wr])
        if sense is not None and header.status in (_GOOD, _CHECK):
            if sense.key not in (Key.NO_SENSE, Key.RECOVERED_ERROR, Key.COMPLETED):
                raise CheckCondition(sense)
            return
        if header.host_status in _HOST_GONE:
            raise DeviceGone(f"{self.path} does not answer any more")
        if header.host_status == _HOST_TIMEOUT or header.driver_status & 0xF == _DRIVER_TIMEOUT:
            raise NoAnswer(f"{self.path} did not answer in its time")
        if header.host_status:
            raise NoAnswer(f"{self.path}: the host adapter failed ({header.host_status:#x})")
        if header.status in (_BUSY, _FULL):
            raise _Busy
        if header.status == _CONFLICT:
            raise NoAnswer(f"{self.path} is reserved by another host")
        if header.status != _GOOD:
            raise NoAnswer(f"{self.path} answered with status {header.status:#x}")


class _Busy(ScsiError):
    """Try again a little later."""
