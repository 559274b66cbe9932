"""Who waits and who holds what: shares of the fleet, and within each the runs of one priority."""

import bisect

from runyard.common.quantities import show_quantity
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.scheduling.equivalence_classes import Lane, State, Ticket
from runyard.coordinator.core.scheduling.policy import Quota

UNBOUNDED = Quota()


class Share:
    """Runs that share the fleet with those of other shares.

    Attributes:
        quota: What it is promised, and what it may have at most.
        passed: How much it was given, counted in parts of the fleet; who was given least comes next.
        last_cost: How much of that its last placement was.
        held: What its live runs have, and `part_held`, which part of the fleet that was when it last changed.
        waiting: How many of its runs wait.
        capped: Lanes that wait for the share to hold less.
    """

    def __init__(self, name: str, quota: Quota) -> None:
        self.name = name
        self.quota = quota
        self.passed = 0.0
        self.last_cost = 0.0
        self.held: dict[str, int] = {}
        self.part_held = 0.0
        self.live = 0
        self.waiting = 0
        self.bands: dict[int, Band] = {}
        self.capped: dict[Lane, None] = {}

    @property
    def is_needy(self) -> bool:
        """True while it holds less than it is promised."""
        promised = self.quota.least
        return bool(promised) and any(self.held.get(name, 0) < least for name, least in promised)

    def over_quota(self, more: Resources) -> str | None:
        """Why it may not have so much more, or None if it may."""
        for name, most in self.quota.most:
            held, asked = self.held.get(name, 0), more[name]
            bound = f"{show_quantity(name, most)} {name}"
            if asked > most:
                return f"quota of {self.name}: at most {bound}, less than the run takes"
            if asked and held + asked > most:
                return f"quota of {self.name}: {show_quantity(name, held)} of {bound}"
        return None

    def change(self, taken: Resources, sign: int) -> None:
        """Counts what a run got, or gave back."""
        self.live += sign
        for name, amount in taken:
            self.held[name] = self.held.get(name, 0) + sign * amount


class Band:
    """The lanes of a share that have the same priority, the one with the oldest run first.

    Attributes:
        served: When a run of the band last got a node, in monotonic seconds.
        untried: Those of its lanes that have to look at all nodes.
    """

    def __init__(self, share: Share, priority: int) -> None:
        self.share = share
        self.priority = priority
        self.served = float("-inf")
        self.untried: dict[Lane, None] = {}
        self._tickets: list[Ticket] = []
        self._lanes: list[Lane] = []

    def __len__(self) -> int:
        return len(self._lanes)

    def __getitem__(self, position: int) -> Lane:
        return self._lanes[position]

    def file(self, lane: Lane) -> None:
        """Puts a lane where the age of its first run wants it."""
        if lane.filed is not None:
            self.unfile(lane)
        lane.filed = lane.head
        position = bisect.bisect_left(self._tickets, lane.head)
        self._tickets.insert(position, lane.head)
        self._lanes.insert(position, lane)

    def unfile(self, lane: Lane) -> None:
        """Takes a lane out."""
        assert lane.filed is not None
        position = bisect.bisect_left(self._tickets, lane.filed)
        del self._tickets[position]
        del self._lanes[position]
        lane.filed = None

    def first_untried(self) -> int:
        """Position of the first lane that has to look at all nodes; that of no lane if there is none."""
        if not self.untried:
            return len(self._lanes)
        return bisect.bisect_left(self._tickets, min(lane.head for lane in self.untried))

    def set_state(self, lane: Lane, state: State) -> None:
        """Notes what is known of a lane of the band."""
        lane.state = state
        if state is State.UNTRIED:
            self.untried[lane] = None
        else:
            self.untried.pop(lane, None)
        if state is State.CAPPED:
            self.share.capped[lane] = None
        else:
            self.share.capped.pop(lane, None)

    def priority_now(self, now: float, age_step: float | None) -> int:
        """The priority, raised by one for each `age_step` seconds without service.

        Waiting counts from when a run of the band last got a node. So what nobody serves rises until it is
        served, and a long queue that is served does not rise above those who came later.
        """
        if age_step is None or not self._lanes:
            return self.priority
        waits_since = max(self._tickets[0].queued_since, self.served)
        return self.priority + max(0, int((now - waits_since) // age_step))
