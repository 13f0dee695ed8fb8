"""How often one client may ask, and how often one place may fail to log in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

import trio

from ...errors import TooMany
from ...limits import RATES_REMEMBERED


class Rates:
    """Token buckets by name: `rate` a second, and `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._most = rate, max(1.0, burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """One request more. Raises TooMany."""
        left = self._left(name)
        if left < 1:
            raise TooMany(f"{name}: more than {self._rate:g} requests a second")
        self._put(name, left - 1)

    def empty(self, name: str) -> bool:
        """True if the next `take` would be refused."""
        return self._left(name) < 1

    def _left(self, name: str) -> float:
        at, left = self._buckets.get(name, (0.0, self._most))
        return min(self._most, left + (trio.current_time() - at) * self._rate)

    def _put(self, name: str, left: float) -> None:
        self._buckets[name] = trio.current_time(), left
        self._buckets.move_to_end(name)
        while len(self._buckets) > RATES_REMEMBERED:
            self._buckets.popitem(last=False)


def origin(address: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 that one IPv6 host has to itself."""
    host = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address):
        if host.ipv4_mapped is not None:
            return str(host.ipv4_mapped)
        return str(ipaddress.ip_network((host, 64), strict=False))
    return str(host)
