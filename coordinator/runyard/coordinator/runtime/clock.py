"""The one place where the coordinator reads the clocks."""

import time

from runyard.coordinator.core.model import Instant


def now() -> Instant:
    """Both clocks at this moment. CLOCK_BOOTTIME goes on while the machine sleeps, as the world does."""
    return Instant(monotonic=time.clock_gettime(time.CLOCK_BOOTTIME), wall=time.time())
