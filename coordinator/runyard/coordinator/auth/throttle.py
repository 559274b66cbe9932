"""Rate limits on calls, by the clock of this machine."""

import ipaddress
import time
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from runyard.coordinator.auth.rates import Limit, Rate, Rates, RateSettings


class TooOften(Exception):
    """The caller has to wait; the message names the pause and the setting that limits the rate.

    Attributes:
        seconds: Seconds to wait.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Throttle:
    """Rate limits of one coordinator, shared by all its services.

    Args:
        rates: Rate of every limit; by default the defaults of `RateSettings`.
        monotonic: Returns the time in seconds.
    """

    def __init__(
        self,
        rates: Mapping[Limit, Rate] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = Rates(RateSettings().by_limit() if rates is None else rates)
        self._monotonic = monotonic

    def require(self, limit: Limit, key: str) -> None:
        """Count one action.

        Args:
            limit: Limit that applies to the action.
            key: Identity or address of the caller.

        Raises:
            TooOften: The caller has exceeded the limit for now.
        """
        seconds = self._rates.take(limit, key, self._monotonic())
        if seconds is not None:
            raise TooOften(self._rates.refusal(limit, seconds), seconds)


def network_of(peer: str) -> str:
    """Return the key by which calls of a peer are counted: its IPv4 address or its IPv6 /64 network.

    Each connection has another port, and a host with one IPv6 address usually has its whole /64 network.

    Args:
        peer: The peer as gRPC writes it: `ipv4:192.0.2.1:4711`, `ipv6:%5B2001:db8::1%5D:4711`, `unix:`.
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
