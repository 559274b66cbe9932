"""Rate limits: one token bucket for each limit and caller. Pure: callers pass the time."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import Field

from runyard.common.service.settings import Settings

KEYS_KEPT: Final = 10_000
"""Maximum number of buckets of a limit. Beyond it the longest idle are dropped, which are full again."""

_ROUNDING: Final = 1e-9


class Limit(StrEnum):
    """Limits, by their names in the settings."""

    LAUNCH = "launch"
    """Launches of one identity."""
    JOIN = "join"
    """Attempts of one address to join with a token."""
    FAILED_AUTHENTICATION = "failed_authentication"
    """Unauthenticated calls of one address, and denied calls of one identity."""


class Rate(Settings):
    """A rate with a burst."""

    per_second: float = Field(gt=0, le=1_000_000)
    """Sustained rate per second."""

    burst: int = Field(ge=1, le=1_000_000)
    """Number allowed at once after a pause."""


class RateSettings(Settings):
    """The `rates` section of the coordinator's settings."""

    launch: Rate = Rate(per_second=50.0, burst=200)
    """Rate of launches, for each identity."""

    join: Rate = Rate(per_second=5 / 60, burst=5)
    """Rate of attempts to join with a token, for each address."""

    failed_authentication: Rate = Rate(per_second=10 / 60, burst=10)
    """Rate of calls without a valid identity, for each address."""

    def by_limit(self) -> dict[Limit, Rate]:
        """Return the rate of every limit."""
        return {
            Limit.LAUNCH: self.launch,
            Limit.JOIN: self.join,
            Limit.FAILED_AUTHENTICATION: self.failed_authentication,
        }


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """Token buckets.

    Args:
        rates: Rate of every limit.
        keys: Number of buckets to keep for each limit.
    """

    def __init__(self, rates: Mapping[Limit, Rate], keys: int = KEYS_KEPT) -> None:
        self._rates = rates
        self._keys = keys
        self._buckets: dict[Limit, OrderedDict[str, _Bucket]] = {limit: OrderedDict() for limit in rates}

    def take(self, limit: Limit, key: str, now: float) -> float | None:
        """Take one token, if there is one.

        Args:
            limit: Limit that applies to the action.
            key: Identity or address of the caller.
            now: Seconds of a monotonic clock.

        Returns:
            None if a token was taken; otherwise the seconds to wait for one. A refusal costs no token.
        """
        rate = self._rates[limit]
        bucket = self._bucket(limit, key, now)
        bucket.tokens = min(rate.burst, bucket.tokens + max(0.0, now - bucket.at) * rate.per_second)
        bucket.at = max(bucket.at, now)
        if bucket.tokens >= 1 - _ROUNDING:
            bucket.tokens -= 1
            return None
        return (1 - bucket.tokens) / rate.per_second

    def refusal(self, limit: Limit, seconds: float) -> str:
        """Return the message for a caller that has to wait.

        Args:
            limit: Limit that was exceeded.
            seconds: Seconds to wait, as `take` returned them.
        """
        rate = self._rates[limit]
        allowed = f"{rate.per_second:.3g} per second and {rate.burst} at once"
        return f"too many calls: rates.{limit} allows {allowed}; try again in {_rounded_up(seconds)} s"

    def _bucket(self, limit: Limit, key: str, now: float) -> _Bucket:
        buckets = self._buckets[limit]
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = _Bucket(float(self._rates[limit].burst), now)
            if len(buckets) > self._keys:
                buckets.popitem(last=False)
        else:
            buckets.move_to_end(key)
        return bucket


def _rounded_up(seconds: float) -> str:
    """Seconds rounded up, so that a caller that waits so long need not wait again."""
    return f"{math.ceil(seconds * 10) / 10:g}"
