"""What was sent in one session: each message's time, from which assignments and contacts count; the offer."""

from collections import OrderedDict

import structlog

from runyard.agent.node.capacity import Offer
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.contact import ContactFile

HELLO = 0
"""Stands for Hello where heartbeats have their sequence."""

REMEMBERED = 1_000
"""Messages whose time is kept; the coordinator speaks of the last ones only."""

log = structlog.get_logger("runyard.agent.session.session")


class SentMessages:
    """Times are readings of CLOCK_BOOTTIME, in seconds.

    Args:
        contact: Where it is noted that a message was heard.
    """

    def __init__(self, contact: ContactFile) -> None:
        self._contact = contact
        self._times: OrderedDict[int, float] = OrderedDict()
        self._last_contact = 0.0

    def note(self, sequence: int) -> None:
        """A heartbeat, or Hello, is about to be sent."""
        self._times[sequence] = procfs.boottime()
        if len(self._times) > REMEMBERED:
            self._times.popitem(last=False)

    def was_heard(self, sequence: int) -> None:
        """The coordinator has heard the message. Blocks on the disk."""
        at = self._times.get(sequence, 0.0)
        if at <= self._last_contact:
            return
        self._last_contact = at
        try:
            self._contact.write(at)
        except OSError as error:
            log.error("cannot_note_contact", error=str(error), risk="runs with stop_after will be stopped")

    def deadline(self, sequence: int, seconds: float) -> float:
        """When an offer ends that holds for so long from the sending of a message; 0 if that is forgotten."""
        at = self._times.get(sequence)
        return 0.0 if at is None else at + seconds


class SentOffer:
    """What the node offers, as far as the coordinator was told. A change is repeated until it was heard.

    Args:
        offer: As Hello has it.
    """

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._since = HELLO
        self._heard = HELLO

    def to_tell(self, sequence: int, offer: Offer) -> Offer | None:
        """The offer for the heartbeat with that sequence, or None if the coordinator has it."""
        if offer != self._offer:
            self._offer, self._since = offer, sequence
        return offer if self._since > self._heard else None

    def was_heard(self, sequence: int) -> None:
        """The coordinator has taken the heartbeat."""
        self._heard = max(self._heard, sequence)
