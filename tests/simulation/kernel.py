"""Virtual time, one seed, and a history of what happened."""

import heapq
import itertools
import random
from collections.abc import Callable


class Kernel:
    """Runs events in the order of virtual time; the same seed gives the same history."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.history: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Has `event` happen later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def soon(self, event: Callable[[], None], longest: float = 0.05) -> None:
        """Has `event` happen after a short random while."""
        self.after(self.rng.uniform(0.0, longest), event)

    def chance(self, probability: float) -> bool:
        """True in that share of all cases."""
        return self.rng.random() < probability

    def note(self, who: str, what: str) -> None:
        """Writes a line of the history."""
        self.history.append(f"{self.now:9.3f}  {who:12} {what}")

    def run(self, until: float, after_each: Callable[[], None]) -> None:
        """Lets events happen until the given time."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
            after_each()
        self.now = until
