"""Delivery state of one session: send times, and resources that the coordinator has not received."""

from collections import OrderedDict

import structlog

from runyard.agent.node.capacity import NodeResources
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.contact import ContactFile

HELLO = 0
"""Sequence number of Hello; heartbeats begin with 1."""

TIMES_KEPT = 1_000
"""Number of messages whose send time is kept. The coordinator refers only to recent ones."""

log = structlog.get_logger("runyard.agent.session.session")


class DeliveryTimes:
    """Send times of Hello and heartbeats, in seconds of CLOCK_BOOTTIME.

    Args:
        contact: File with the time of the last contact, which supervisors read.
    """

    def __init__(self, contact: ContactFile) -> None:
        self._contact = contact
        self._times: OrderedDict[int, float] = OrderedDict()
        self._last_contact = 0.0

    def sent(self, sequence: int) -> None:
        """Record that a heartbeat or Hello is about to be sent."""
        self._times[sequence] = procfs.boottime()
        if len(self._times) > TIMES_KEPT:
            self._times.popitem(last=False)

    def acknowledged(self, sequence: int) -> None:
        """Record that the coordinator received the message. Blocks on the disk."""
        at = self._times.get(sequence, 0.0)
        if at <= self._last_contact:
            return
        self._last_contact = at
        try:
            self._contact.write(at)
        except OSError as error:
            log.error("cannot_note_contact", error=str(error), risk="runs with stop_after will be stopped")

    def deadline(self, sequence: int, seconds: float) -> float:
        """Return the end of a period that begins when a message was sent; 0 if its time is no longer kept."""
        at = self._times.get(sequence)
        return 0.0 if at is None else at + seconds


class ResourcesDelivery:
    """Delivery of the node's resources. A change is repeated until the coordinator acknowledges it.

    Args:
        resources: Those in Hello.
    """

    def __init__(self, resources: NodeResources) -> None:
        self._resources = resources
        self._since = HELLO
        self._acknowledged = HELLO

    def update_for(self, sequence: int, resources: NodeResources) -> NodeResources | None:
        """Return the resources for a heartbeat, or None if the coordinator has them."""
        if resources != self._resources:
            self._resources, self._since = resources, sequence
        return resources if self._since > self._acknowledged else None

    def acknowledged(self, sequence: int) -> None:
        """Record that the coordinator received the heartbeat."""
        self._acknowledged = max(self._acknowledged, sequence)
