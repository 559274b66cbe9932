"""Reminders of certificates that expire soon: at most once a day for each. Pure."""

import math
from collections import OrderedDict
from typing import Final

from runyard.common.security.expiry import expires_soon
from runyard.coordinator.auth.callers import Caller

AGAIN_AFTER: Final = 86_400.0
"""Seconds between two reminders of the same certificate."""

REMEMBERED: Final = 10_000
"""Maximum number of certificates to remember, so that memory stays bounded."""


class ExpiringCertificates:
    """Times of the last reminders, by serial number."""

    def __init__(self) -> None:
        self._reminded: OrderedDict[str, float] = OrderedDict()

    def is_due(self, caller: Caller, now: float) -> bool:
        """True if it is time to log that the caller's certificate expires soon; counts as a reminder.

        Args:
            caller: The caller that presents the certificate; local callers present none.
            now: Seconds since 1970.
        """
        if not expires_soon(caller.not_before, caller.not_after, now):
            return False
        if now - self._reminded.get(caller.serial, -math.inf) < AGAIN_AFTER:
            return False
        self._reminded[caller.serial] = now
        self._reminded.move_to_end(caller.serial)
        if len(self._reminded) > REMEMBERED:
            self._reminded.popitem(last=False)
        return True
