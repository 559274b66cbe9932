"""Warning about certificates that expire soon. Pure: times are in seconds since 1970."""

from typing import Final

SHARE_LEFT: Final = 0.1
"""Fraction of a certificate's lifetime. Agents renew theirs long before."""

MOST_LEFT: Final = 14 * 86_400.0
"""Seconds; long enough for people to renew a certificate."""


def expires_soon(not_before: float, not_after: float, now: float) -> bool:
    """True in the last tenth of a certificate's lifetime, or in its last fortnight if that is shorter.

    Args:
        not_before: Start of its validity.
        not_after: End of its validity.
        now: Current time.
    """
    return not_after - now < min(MOST_LEFT, (not_after - not_before) * SHARE_LEFT)
