"""The clocks of the coordinator. Only the runtime reads them for decisions."""

import time

from runyard.coordinator.core.model import Instant


def now() -> Instant:
    """Return both clocks. CLOCK_BOOTTIME includes the time that the machine is suspended."""
    return Instant(monotonic=time.clock_gettime(time.CLOCK_BOOTTIME), wall=time.time())
