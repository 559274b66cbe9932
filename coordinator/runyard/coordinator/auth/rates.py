"""How often somebody may do something: a token bucket for each of those who ask. Pure: the time is given."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import Field

from runyard.common.service.settings import Settings

KEYS_KEPT: Final = 10_000
"""Buckets of a limit at most. Of more, those idle for longest are forgotten: they are full again."""

_ROUNDING: Final = 1e-9


class Limit(StrEnum):
    """What is limited, by the name that it has in the settings."""

    LAUNCH = "launch"
    """Launches of one identity."""
    JOIN = "join"
    """Tries of one address to join with a token."""
    FAILED_AUTHENTICATION = "failed_authentication"
    """Calls of one address that no identity could be made out for."""


class Rate(Settings):
    """How often something may be done."""

    per_second: float = Field(gt=0, le=1_000_000)
    """In the long run."""

    burst: int = Field(ge=1, le=1_000_000)
    """So often at once, after a pause."""


class RateSettings(Settings):
    """The `rates` section of the coordinator's settings."""

    launch: Rate = Rate(per_second=50.0, burst=200)
    """Launches, for each identity."""

    join: Rate = Rate(per_second=5 / 60, burst=5)
    """Joins by token, for each address."""

    failed_authentication: Rate = Rate(per_second=10 / 60, burst=10)
    """Calls without a valid identity, for each address."""

    def by_limit(self) -> dict[Limit, Rate]:
        """The rate of every limit."""
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
    """Tells who has to wait.

    Args:
        rates: Of every limit.
        keys: Buckets to keep for each limit.
    """

    def __init__(self, rates: Mapping[Limit, Rate], keys: int = KEYS_KEPT) -> None:
        self._rates = rates
        self._keys = keys
        self._buckets: dict[Limit, OrderedDict[str, _Bucket]] = {limit: OrderedDict() for limit in rates}

    def take(self, limit: Limit, key: str, now: float) -> float | None:
        """Takes one token, if there is one.

        Args:
            limit: What is to be done.
            key: Who is to do it: an identity or an address.
            now: Seconds of a monotonic clock.

        Returns:
            None if it may be done; otherwise the seconds after which it may. Asking costs nothing.
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
        """What to tell somebody who has to wait, in one sentence.

        Args:
            limit: What was to be done.
            seconds: As `take` gave them.
        """
        rate = self._rates[limit]
        return (
            f"too many calls: rates.{limit} allows {rate.per_second:.3g} a second and {rate.burst} at once; "
            f"try again in {_for_people(seconds)} s"
        )

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


def _for_people(seconds: float) -> str:
    """Never less than it is, so that whoever waits so long need not wait again."""
    return f"{math.ceil(seconds * 10) / 10:g}"
