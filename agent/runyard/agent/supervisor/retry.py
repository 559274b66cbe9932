"""Retries of the supervisor's processes: pauses that double, and each complaint only once.

The supervisor imports the standard library only, so it cannot use `runyard.common.backoff`. Its retries need
no jitter: each process retries on its own disk.
"""

import contextlib
import sys

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds between two tries."""


def complain(process: str, error: Exception, then: str = "trying again") -> None:
    """Report a problem and the consequence on stderr; silently if the disk of stderr is full."""
    with contextlib.suppress(OSError):
        print(f"{process}: {error}; {then}", file=sys.stderr, flush=True)


class Retry:
    """The state of one operation that is retried until it succeeds.

    Args:
        process: Name of this process, for complaints.
    """

    def __init__(self, process: str) -> None:
        self._process = process
        self._pause = FIRST_PAUSE
        self._complaint = ""

    def failed(self, error: Exception) -> float:
        """Note a failure, and complain if it differs from the one before.

        Returns:
            Seconds to wait before the next try.
        """
        if str(error) != self._complaint:
            self._complaint = str(error)
            complain(self._process, error)
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause
