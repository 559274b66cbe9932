"""Certificates that callers show and that expire soon: said once a day, before launches fail. Pure."""

import math
from collections import OrderedDict
from typing import Final

from runyard.common.security.expiry import expires_soon
from runyard.coordinator.auth.callers import Caller

AGAIN_AFTER: Final = 86_400.0
"""Seconds between two words about the same certificate."""

REMEMBERED: Final = 10_000
"""Certificates at most, so that memory stays bounded."""


class ExpiringCertificates:
    """Which were told of."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, float] = OrderedDict()

    def is_to_be_told(self, caller: Caller, now: float) -> bool:
        """Whether somebody should hear now that the caller's certificate expires soon.

        Args:
            caller: Who shows it; local callers show none.
            now: Seconds since 1970.
        """
        if not expires_soon(caller.not_before, caller.not_after, now):
            return False
        if now - self._told.get(caller.serial, -math.inf) < AGAIN_AFTER:
            return False
        self._told[caller.serial] = now
        self._told.move_to_end(caller.serial)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return True
