"""Allotment of GPUs to attempts: whole devices, each to one attempt at a time.

There is no state here. Devices in use are derived from the held attempts, and those from their run
directories, so a device is free exactly when no live attempt can use it.
"""

from collections.abc import Iterable, Sequence

from runyard.agent.core.model import Finished, HeldAttempt


def taken(held: Iterable[HeldAttempt]) -> set[str]:
    """Return the devices of all attempts that have not ended."""
    return {
        device for attempt in held if not isinstance(attempt.phase, Finished) for device in attempt.devices
    }


def allot(devices: Sequence[str], held: Iterable[HeldAttempt], count: int) -> tuple[str, ...] | None:
    """Return devices for another attempt, the first free ones; None if too few are free.

    Args:
        devices: All devices of the node, in order.
        held: All attempts of the node.
        count: Number of devices that the attempt requires.
    """
    in_use = taken(held)
    free = [device for device in devices if device not in in_use]
    return tuple(free[:count]) if count <= len(free) else None
