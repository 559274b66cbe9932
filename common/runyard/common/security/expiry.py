"""When it is time to say that a certificate expires soon. Pure: times are in seconds since 1970."""

from typing import Final

SHARE_LEFT: Final = 0.1
"""Of a certificate's life. Whoever renews by himself, as agents do, has renewed long before."""

MOST_LEFT: Final = 14 * 86_400.0
"""Seconds; people need so long at most."""


def expires_soon(not_before: float, not_after: float, now: float) -> bool:
    """Whether somebody should see to it: in the last tenth of its life, or its last fortnight if less.

    Args:
        not_before: From when it holds.
        not_after: When it expires.
        now: This moment.
    """
    return not_after - now < min(MOST_LEFT, (not_after - not_before) * SHARE_LEFT)
