"""Fair shares of the fleet (dominant resource fairness), and the priority levels within each."""

import bisect

from runyard.common.quantities import show_quantity
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.scheduling.config import Quota
from runyard.coordinator.core.scheduling.equivalence_classes import ClassState, EquivalenceClass, QueueEntry

UNBOUNDED = Quota()


class FairShare:
    """Usage, quota and waiting runs of one share: a code location, or a value of the configured tag.

    Attributes:
        quota: Its guaranteed resources and its limit.
        usage: Sum of the dominant shares of all its placements; the share with the least is served next.
        last_cost: Dominant share of its last placement.
        held: Resources that its live runs hold.
        dominant_share: Largest fraction of the fleet's resources that it holds, as of the last change.
        waiting: Number of its waiting runs.
        over_quota: Classes that wait until the share holds less.
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
        """True while it holds less than it is guaranteed."""
        promised = self.quota.guaranteed
        return bool(promised) and any(self.held.get(name, 0) < least for name, least in promised)

    def over_quota_reason(self, more: Resources) -> str | None:
        """Return why it may not hold so much more, or None if it may."""
        for name, most in self.quota.limit:
            held, asked = self.held.get(name, 0), more[name]
            bound = f"{show_quantity(name, most)} {name}"
            if asked > most:
                return f"quota of {self.name}: at most {bound}, less than the run takes"
            if asked and held + asked > most:
                return f"quota of {self.name}: {show_quantity(name, held)} of {bound}"
        return None

    def change(self, taken: Resources, sign: int) -> None:
        """Add (1) or subtract (-1) what a run holds."""
        self.live += sign
        for name, amount in taken:
            self.held[name] = self.held.get(name, 0) + sign * amount


class PriorityLevel:
    """Classes of a share with the same priority, the one with the oldest run first.

    Attributes:
        served: Monotonic time of its last placement.
        untried: Classes that need a search over all nodes.
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
        """Insert a class by the age of its first run, or move it there."""
        if run_class.sorted_by is not None:
            self.remove_class(run_class)
        run_class.sorted_by = run_class.head
        position = bisect.bisect_left(self._entries, run_class.head)
        self._entries.insert(position, run_class.head)
        self._classes.insert(position, run_class)

    def remove_class(self, run_class: EquivalenceClass) -> None:
        """Remove a class."""
        assert run_class.sorted_by is not None
        position = bisect.bisect_left(self._entries, run_class.sorted_by)
        del self._entries[position]
        del self._classes[position]
        run_class.sorted_by = None

    def first_untried(self) -> int:
        """Return the position of the first untried class; the length if there is none."""
        if not self.untried:
            return len(self._classes)
        return bisect.bisect_left(self._entries, min(run_class.head for run_class in self.untried))

    def set_state(self, run_class: EquivalenceClass, state: ClassState) -> None:
        """Set the state of a class of this level."""
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
        """Return the priority, raised by one for each `age_step` seconds without a placement.

        Waiting counts from the last placement at this level. So a level that is not served rises until it is,
        and a long queue that is served does not rise above later runs.
        """
        if age_step is None or not self._classes:
            return self.priority
        waits_since = max(self._entries[0].queued_since, self.served)
        return self.priority + max(0, int((now - waits_since) // age_step))
