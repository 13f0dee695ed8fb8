"""A device that is found again: the same drive or robot, whatever name the kernel gives it today.

A cable pulled, a reset or a power cycle gives a device a new /dev/sgN. The link then looks for its
serial number, and sends the command again if nothing was done by the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeVar

from hsmfs.library.scsi.sg import Device, DeviceGone, Generic

T = TypeVar("T")
Opener = Callable[[Path], Device]


class Link:
    """Opens the device when it is first needed. One command at a time passes.

    Attributes:
        name: for messages
    """

    def __init__(
        self, name: str, find: Callable[[], Path | None], opener: Opener = Generic
    ) -> None:
        self.name = name
        self._find = find
        self._open = opener
        self._device: Device | None = None
        self._one = Lock()

    def call(self, act: Callable[[Device], T], *, again: bool = True) -> T:
        """act on the device; blocking. again: may be repeated after the device was found anew.

        Raises what act raises, DeviceGone if it is nowhere.
        """
        with self._one:
            known = self._device is not None
            try:
                return act(self._opened())
            except DeviceGone:
                self._forget()
                if not (known and again):
                    raise
            return act(self._opened())

    def close(self) -> None:
        """Let go of it; the next call opens it again."""
        with self._one:
            self._forget()

    def _opened(self) -> Device:
        if self._device is None:
            path = self._find()
            if path is None:
                raise DeviceGone(f"{self.name} is not connected to this host")
            self._device = self._open(path)
        return self._device

    def _forget(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()
