"""Which devices a run gets: whole ones, and never one that another attempt has.

Nothing is kept here. What is taken is read from the attempts that are held, and these from their run
directories, so a device is free exactly when nobody is left who could use it.
"""

from collections.abc import Iterable, Sequence

from runyard.agent.core.model import Finished, HeldAttempt


def taken(held: Iterable[HeldAttempt]) -> set[str]:
    """The devices of all attempts that are not over."""
    return {
        device for attempt in held if not isinstance(attempt.phase, Finished) for device in attempt.devices
    }


def allot(devices: Sequence[str], held: Iterable[HeldAttempt], count: int) -> tuple[str, ...] | None:
    """Devices for one more attempt, the first ones that are free; None if there are not so many.

    Args:
        devices: All that the node has, in order.
        held: All attempts of the node.
        count: How many the attempt asks for.
    """
    in_use = taken(held)
    free = [device for device in devices if device not in in_use]
    return tuple(free[:count]) if count <= len(free) else None
