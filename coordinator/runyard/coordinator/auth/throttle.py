"""Holds back those who call too often, by the clock of this machine."""

import ipaddress
import time
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from runyard.coordinator.auth.rates import Limit, Rate, Rates, RateSettings


class TooOften(Exception):
    """The caller has to wait; the message says for how long, and which setting says so.

    Attributes:
        seconds: For how long.
    """

    def __init__(self, told: str, seconds: float) -> None:
        super().__init__(told)
        self.seconds = seconds


class Throttle:
    """One for all services.

    Args:
        rates: Of every limit; by default those of the settings' defaults.
        monotonic: Gives the time in seconds.
    """

    def __init__(
        self,
        rates: Mapping[Limit, Rate] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = Rates(RateSettings().by_limit() if rates is None else rates)
        self._monotonic = monotonic

    def require(self, limit: Limit, key: str) -> None:
        """Counts one more.

        Args:
            limit: What is to be done.
            key: Who is to do it: an identity or an address.

        Raises:
            TooOften: It is one too many for now.
        """
        seconds = self._rates.take(limit, key, self._monotonic())
        if seconds is not None:
            raise TooOften(self._rates.refusal(limit, seconds), seconds)


def network_of(peer: str) -> str:
    """Where a peer calls from, for counting: an IPv4 address, or the /64 network of an IPv6 one.

    Every connection has another port, and whoever has one IPv6 address mostly has all of its network.

    Args:
        peer: As gRPC writes it: `ipv4:192.0.2.1:4711`, `ipv6:%5B2001:db8::1%5D:4711`, `unix:`.
    """
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return peer
    host = rest.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address.packed[:8] + bytes(8), 64)))
