"""Who waits and who holds what: shares of the fleet, and within each the runs of one priority."""

import bisect

from runyard.common.quantities import show_quantity
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.scheduling.config import Quota
from runyard.coordinator.core.scheduling.equivalence_classes import ClassState, EquivalenceClass, QueueEntry

UNBOUNDED = Quota()


class FairShare:
    """Runs that share the fleet with those of other shares.

    Attributes:
        quota: What it is promised, and what it may have at most.
        passed: How much it was given, counted in parts of the fleet; who was given least comes next.
        last_cost: How much of that its last placement was.
        held: What its live runs have, and `part_held`, which part of the fleet that was when it last changed.
        waiting: How many of its runs wait.
        over_quota: Classes that wait for the share to hold less.
    """

    def __init__(self, name: str, quota: Quota) -> None:
        self.name = name
        self.quota = quota
        self.usage = 0.0
        self.last_cost = 0.0
        self.held: dict[str, int] = {}
        self.dominant_share = 0.0
        self.live = 0
        self.waiting = 0
        self.levels: dict[int, PriorityLevel] = {}
        self.over_quota: dict[EquivalenceClass, None] = {}

    @property
    def is_below_guarantee(self) -> bool:
        """True while it holds less than it is promised."""
        promised = self.quota.guaranteed
        return bool(promised) and any(self.held.get(name, 0) < least for name, least in promised)

    def over_quota_reason(self, more: Resources) -> str | None:
        """Why it may not have so much more, or None if it may."""
        for name, most in self.quota.limit:
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


class PriorityLevel:
    """The lanes of a share that have the same priority, the one with the oldest run first.

    Attributes:
        served: When a run of the band last got a node, in monotonic seconds.
        untried: Those of its lanes that have to look at all nodes.
    """

    def __init__(self, share: FairShare, priority: int) -> None:
        self.share = share
        self.priority = priority
        self.served = float("-inf")
        self.untried: dict[EquivalenceClass, None] = {}
        self._entries: list[QueueEntry] = []
        self._classes: list[EquivalenceClass] = []

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, position: int) -> EquivalenceClass:
        return self._classes[position]

    def insert(self, run_class: EquivalenceClass) -> None:
        """Puts a lane where the age of its first run wants it."""
        if run_class.sorted_by is not None:
            self.remove_class(run_class)
        run_class.sorted_by = run_class.head
        position = bisect.bisect_left(self._entries, run_class.head)
        self._entries.insert(position, run_class.head)
        self._classes.insert(position, run_class)

    def remove_class(self, run_class: EquivalenceClass) -> None:
        """Takes a lane out."""
        assert run_class.sorted_by is not None
        position = bisect.bisect_left(self._entries, run_class.sorted_by)
        del self._entries[position]
        del self._classes[position]
        run_class.sorted_by = None

    def first_untried(self) -> int:
        """Position of the first lane that has to look at all nodes; that of no lane if there is none."""
        if not self.untried:
            return len(self._classes)
        return bisect.bisect_left(self._entries, min(run_class.head for run_class in self.untried))

    def set_state(self, run_class: EquivalenceClass, state: ClassState) -> None:
        """Notes what is known of a lane of the band."""
        run_class.state = state
        if state is ClassState.UNTRIED:
            self.untried[run_class] = None
        else:
            self.untried.pop(run_class, None)
        if state is ClassState.OVER_QUOTA:
            self.share.over_quota[run_class] = None
        else:
            self.share.over_quota.pop(run_class, None)

    def priority_now(self, now: float, age_step: float | None) -> int:
        """The priority, raised by one for each `age_step` seconds without service.

        Waiting counts from when a run of the band last got a node. So what nobody serves rises until it is
        served, and a long queue that is served does not rise above those who came later.
        """
        if age_step is None or not self._classes:
            return self.priority
        waits_since = max(self._entries[0].queued_since, self.served)
        return self.priority + max(0, int((now - waits_since) // age_step))
